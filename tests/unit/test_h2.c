/* SPDX-License-Identifier: Apache-2.0 */
/* Two HTTP/2 sessions joined by memory: CONNECT, bodies both ways, half-close, reset, refusal, protocol errors. */
#include "engine/base/cleanup.h"
#include "engine/proto/h2.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

struct side {
	struct h2 *h2;
	uint8_t wire[1 << 20];
	size_t len;
	const char *body;
	size_t body_len, body_off;
	bool body_end, ended, closed;
	int32_t id;
	uint32_t close_error;
	int status;
	char authority[LIMIT_HEADER_VALUE];
	char got[1 << 18];
	size_t got_len;
	int answer;
};

static struct side client, server;

static void request(void *owner, int32_t id, const struct h2_headers *h, bool end)
{
	struct side *s = owner;

	(void)end;
	s->id = id;
	assert_true(h->is_connect);
	snprintf(s->authority, sizeof(s->authority), "%s", h->authority);
	h2_set_stream(s->h2, id, s);
	h2_respond(s->h2, id, s->answer, "k8s.namespace.name=x");
}

static void response(void *owner, int32_t id, void *stream, const struct h2_headers *h)
{
	(void)id;
	assert_ptr_equal(owner, stream);
	((struct side *)owner)->status = h->status;
}

static void data(void *owner, int32_t id, void *stream, const uint8_t *bytes, size_t len)
{
	struct side *s = owner;

	(void)stream;
	assert_true(s->got_len + len <= sizeof(s->got));
	memcpy(s->got + s->got_len, bytes, len);
	s->got_len += len;
	h2_consume(s->h2, id, len);
}

static void end(void *owner, int32_t id, void *stream)
{
	(void)id;
	(void)stream;
	((struct side *)owner)->ended = true;
}

static void closed(void *owner, int32_t id, void *stream, uint32_t error)
{
	(void)id;
	(void)stream;
	((struct side *)owner)->closed = true;
	((struct side *)owner)->close_error = error;
}

static ssize_t pull(void *owner, int32_t id, void *stream, uint8_t *buf, size_t max, bool *ret_eof)
{
	struct side *s = owner;
	size_t n = s->body_len - s->body_off;

	(void)id;
	(void)stream;
	if (!n && !s->body_end)
		return H2_PULL_LATER;
	n = n < max ? n : max;
	memcpy(buf, s->body + s->body_off, n);
	s->body_off += n;
	*ret_eof = s->body_end && s->body_off == s->body_len;
	return (ssize_t)n;
}

static int emit(void *owner, const uint8_t *bytes, size_t len)
{
	struct side *s = owner;

	assert_true(s->len + len <= sizeof(s->wire));
	memcpy(s->wire + s->len, bytes, len);
	s->len += len;
	return 0;
}

static void nothing(void *owner)
{
	(void)owner;
}

static void goaway(void *owner, uint32_t error)
{
	(void)owner;
	(void)error;
}

static void settings_ack(void *owner)
{
	struct side *s = owner;

	if (s->id)
		h2_consume(s->h2, s->id, 0);
}

static const struct h2_events events = {request, response, data,   end,	    closed,	 pull,
					emit,	 nothing,  goaway, nothing, settings_ack};

/* As much as comes, whatever it costs. */
static int take(struct h2 *h2, const uint8_t *bytes, size_t len)
{
	unsigned turns = UINT_MAX;
	ssize_t r = h2_recv(h2, bytes, len, 0, &turns);

	assert_true(r < 0 || (size_t)r == len);
	return r < 0 ? (int)r : 0;
}

static int exchange(void)
{
	int r = 0;

	do {
		h2_send(client.h2);
		h2_send(server.h2);
		size_t c = client.len, s = server.len;
		client.len = server.len = 0;
		if (!c && !s)
			return r;
		static uint8_t copy[2][1 << 20];
		memcpy(copy[0], client.wire, c);
		memcpy(copy[1], server.wire, s);
		r = take(server.h2, copy[0], c);
		if (!r)
			r = take(client.h2, copy[1], s);
	} while (!r);
	return r;
}

static int set_up(void **state)
{
	(void)state;
	memset(&client, 0, sizeof(client));
	memset(&server, 0, sizeof(server));
	server.answer = 200;
	assert_int_equal(h2_new(false, &events, &client, 0, &client.h2), 0);
	assert_int_equal(h2_new(true, &events, &server, 0, &server.h2), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	h2_free(client.h2);
	h2_free(server.h2);
	h2_thread_done();
	return 0;
}

static void connect_carries_both_ways(void **state)
{
	static char big[200000];

	(void)state;
	memset(big, 'b', sizeof(big));
	client.body = big;
	client.body_len = sizeof(big);
	server.body = "answer";
	server.body_len = 6;
	client.id = h2_connect(client.h2, "10.0.0.1:80", "a=b", "for=x", "", &client);
	assert_true(client.id > 0);
	assert_int_equal(exchange(), 0);
	assert_string_equal(server.authority, "10.0.0.1:80");
	assert_int_equal(client.status, 200);
	assert_int_equal(server.got_len, sizeof(big));
	assert_memory_equal(client.got, "answer", 6);
	assert_int_equal(h2_max_streams(client.h2), LIMIT_STREAMS_PER_TUNNEL);
	/* Half-close: the other direction goes on. */
	client.body_end = true;
	h2_resume(client.h2, client.id);
	assert_int_equal(exchange(), 0);
	assert_true(server.ended);
	assert_false(server.closed);
	server.body = "answer and more";
	server.body_len = 15;
	server.body_end = true;
	h2_resume(server.h2, server.id);
	assert_int_equal(exchange(), 0);
	assert_memory_equal(client.got, "answer and more", 15);
	assert_true(client.ended && client.closed && server.closed);
	assert_int_equal(client.close_error, 0);
}

static void refusal_has_a_status(void **state)
{
	(void)state;
	server.answer = 503;
	client.id = h2_connect(client.h2, "10.0.0.1:80", NULL, NULL, NULL, &client);
	assert_int_equal(exchange(), 0);
	assert_int_equal(client.status, 503);
	assert_true(client.ended);
}

static void reset_arrives_with_its_code(void **state)
{
	(void)state;
	client.id = h2_connect(client.h2, "10.0.0.1:80", NULL, NULL, NULL, &client);
	assert_int_equal(exchange(), 0);
	h2_reset(server.h2, server.id, H2_CONNECT_ERROR);
	assert_int_equal(exchange(), 0);
	assert_true(client.closed);
	assert_int_equal(client.close_error, H2_CONNECT_ERROR);
}

static void goaway_refuses_new_streams(void **state)
{
	(void)state;
	client.id = h2_connect(client.h2, "10.0.0.1:80", NULL, NULL, NULL, &client);
	assert_int_equal(exchange(), 0);
	h2_goaway(server.h2, H2_NO_ERROR);
	assert_int_equal(exchange(), 0);
	assert_false(client.closed);
	client.body = "x";
	client.body_len = 1;
	h2_resume(client.h2, client.id);
	assert_int_equal(exchange(), 0);
	assert_int_equal(server.got_len, 1);
}

/* A request that was queued when the GOAWAY came in has not been seen by the peer: it may be tried elsewhere. */
static void request_overtaken_by_goaway_is_refused(void **state)
{
	static uint8_t wire[1 << 16];
	size_t len;

	(void)state;
	assert_int_equal(exchange(), 0);
	h2_goaway(server.h2, H2_NO_ERROR);
	h2_send(server.h2);
	len = server.len;
	memcpy(wire, server.wire, len);
	server.len = 0;
	client.id = h2_connect(client.h2, "10.0.0.1:80", NULL, NULL, NULL, &client);
	assert_int_equal(take(client.h2, wire, len), 0);
	assert_int_equal(exchange(), 0);
	assert_true(client.closed);
	assert_int_equal(client.close_error, H2_REFUSED_STREAM);
	assert_string_equal(server.authority, "");
}

static void notice_refuses_nothing(void **state)
{
	(void)state;
	assert_int_equal(exchange(), 0);
	client.id = h2_connect(client.h2, "10.0.0.1:80", NULL, NULL, NULL, &client);
	h2_send(client.h2);
	h2_shutdown_notice(server.h2);
	assert_int_equal(exchange(), 0);
	assert_int_equal(client.status, 200);
	h2_goaway(server.h2, H2_NO_ERROR);
	assert_int_equal(exchange(), 0);
	assert_false(client.closed);
}

/* Less than half a window has been taken, so no credit was announced; then windows shrink and the sender's is negative.
 */
static void a_smaller_window_stalls_nobody(void **state)
{
	static char big[100000];

	(void)state;
	memset(big, 'b', sizeof(big));
	client.body = big;
	client.body_len = sizeof(big);
	client.id = h2_connect(client.h2, "10.0.0.1:80", NULL, NULL, NULL, &client);
	assert_int_equal(exchange(), 0);
	assert_int_equal(server.got_len, sizeof(big));
	h2_set_initial_window(server.h2, 16384);
	assert_int_equal(exchange(), 0);
	client.body_off = sizeof(big) - 5000;
	h2_resume(client.h2, client.id);
	assert_int_equal(exchange(), 0);
	assert_int_equal(server.got_len, sizeof(big) + 5000);
}

/* SETTINGS with MAX_CONCURRENT_STREAMS, as a server's first frame or later. */
static void allow(uint8_t streams)
{
	uint8_t frame[15] = {0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, streams};

	assert_int_equal(take(client.h2, frame, sizeof(frame)), 0);
	assert_int_equal(h2_max_streams(client.h2), streams);
	assert_int_equal(h2_send(client.h2), 0);
}

static void a_request_waits_for_room(void **state)
{
	(void)state;
	allow(0);
	client.id = h2_connect(client.h2, "10.0.0.1:80", NULL, NULL, NULL, &client);
	assert_int_equal(h2_send(client.h2), 0);
	assert_true(h2_waits(client.h2, client.id));
	allow(1);
	assert_false(h2_waits(client.h2, client.id));
}

static void garbage_is_a_protocol_error(void **state)
{
	uint8_t junk[64];

	(void)state;
	memset(junk, 'x', sizeof(junk));
	assert_int_equal(take(server.h2, junk, sizeof(junk)), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(connect_carries_both_ways, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refusal_has_a_status, set_up, tear_down),
		cmocka_unit_test_setup_teardown(reset_arrives_with_its_code, set_up, tear_down),
		cmocka_unit_test_setup_teardown(goaway_refuses_new_streams, set_up, tear_down),
		cmocka_unit_test_setup_teardown(request_overtaken_by_goaway_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(notice_refuses_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_smaller_window_stalls_nobody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_request_waits_for_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(garbage_is_a_protocol_error, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
