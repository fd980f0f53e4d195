/* SPDX-License-Identifier: Apache-2.0 */
/* Raw frames at a server session: what a peer may send as often as it likes, what ends its tunnel, and which streams it
 * may still speak on. */
#include "engine/base/cleanup.h"
#include "engine/proto/h2.h"

#include <limits.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING = 6, GOAWAY, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 0xbe };
enum { END_STREAM = 1, END_HEADERS = 4, PADDED = 8 };
#define STREAM_CLOSED 5
#define ENHANCE_YOUR_CALM 11

static struct {
	struct h2 *h2;
	uint64_t now_ms;
	bool by_the_byte; /* each frame is received in single bytes */
	bool reset;	  /* requests are answered by RST_STREAM */
	int status;	  /* otherwise by this, 0 not yet */
	size_t requests, got;
	bool deaf;	/* the peer reads nothing */
	int64_t goaway; /* the code, -1 before */
} s;

static void request(void *owner, int32_t id, const struct h2_headers *h, bool end)
{
	(void)owner;
	(void)h;
	(void)end;
	s.requests++;
	h2_set_stream(s.h2, id, &s);
	if (s.reset)
		h2_reset(s.h2, id, H2_CONNECT_ERROR);
	else if (s.status)
		h2_respond(s.h2, id, s.status, NULL);
}

static void response(void *owner, int32_t id, void *stream, const struct h2_headers *h)
{
	(void)owner;
	(void)id;
	(void)stream;
	(void)h;
}

static void data(void *owner, int32_t id, void *stream, const uint8_t *bytes, size_t len)
{
	(void)owner;
	(void)stream;
	(void)bytes;
	s.got += len;
	h2_consume(s.h2, id, len);
}

/* The app has nothing to say until it has heard all, then it ends, too. */
static void end(void *owner, int32_t id, void *stream)
{
	(void)owner;
	(void)stream;
	h2_resume(s.h2, id);
}

static void closed(void *owner, int32_t id, void *stream, uint32_t error)
{
	(void)owner;
	(void)id;
	(void)stream;
	(void)error;
}

static ssize_t pull(void *owner, int32_t id, void *stream, uint8_t *buf, size_t max, bool *ret_eof)
{
	(void)owner;
	(void)id;
	(void)stream;
	(void)buf;
	(void)max;
	*ret_eof = true;
	return 0;
}

/* Nothing to send on streams that stay open. */
static ssize_t pull_later(void *owner, int32_t id, void *stream, uint8_t *buf, size_t max, bool *ret_eof)
{
	(void)pull(owner, id, stream, buf, max, ret_eof);
	*ret_eof = false;
	return H2_PULL_LATER;
}

static int emit(void *owner, const uint8_t *bytes, size_t len)
{
	(void)owner;
	if (len >= 17 && bytes[3] == GOAWAY)
		s.goaway = (int64_t)bytes[13] << 24 | bytes[14] << 16 | bytes[15] << 8 | bytes[16];
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

static const struct h2_events ending = {request, response, data,   end,	    closed, pull,
					emit,	 nothing,  goaway, nothing, nothing};
static const struct h2_events lasting = {request, response, data,   end,     closed, pull_later,
					 emit,	  nothing,  goaway, nothing, nothing};

/* Receives bytes, whatever they cost. */
static int take(const uint8_t *bytes, size_t len)
{
	unsigned turns = UINT_MAX;
	ssize_t r = h2_recv(s.h2, bytes, len, s.now_ms, &turns);

	assert_true(r < 0 || (size_t)r == len);
	return r < 0 ? (int)r : 0;
}

/* The same, and sends what is due. */
static int receive(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	size_t step = s.by_the_byte ? 1 : len;
	int r = 0;

	for (size_t i = 0; i < len && !r; i += step)
		r = take(at + i, step);
	if (!s.deaf)
		assert_int_equal(h2_send(s.h2), 0);
	return r;
}

static int frame(uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len)
{
	static uint8_t b[1 << 17];

	assert_true(len + 9 <= sizeof(b));
	b[0] = (uint8_t)(len >> 16), b[1] = (uint8_t)(len >> 8), b[2] = (uint8_t)len;
	b[3] = type, b[4] = flags;
	b[5] = (uint8_t)(id >> 24), b[6] = (uint8_t)(id >> 16), b[7] = (uint8_t)(id >> 8), b[8] = (uint8_t)id;
	if (len)
		memcpy(b + 9, payload, len);
	return receive(b, len + 9);
}

/* CONNECT 10.0.0.1:80, nothing of it in the compression table. */
static const char block[] = "\x02\x07"
			    "CONNECT"
			    "\x01\x0b"
			    "10.0.0.1:80";
#define BLOCK_LEN (sizeof(block) - 1)

static int connect_frame(uint32_t id, uint8_t flags)
{
	return frame(HEADERS, END_HEADERS | flags, id, block, BLOCK_LEN);
}

static int rst(uint32_t id)
{
	return frame(RST_STREAM, 0, id, "\0\0\0\x08", 4);
}

static void begin(const struct h2_events *events)
{
	memset(&s, 0, sizeof(s));
	s.goaway = -1;
	s.status = 200;
	s.now_ms = 1000;
	assert_int_equal(h2_new(true, events, &s, s.now_ms, &s.h2), 0);
	assert_int_equal(receive("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), 0);
	assert_int_equal(frame(SETTINGS, 0, 0, NULL, 0), 0);
}

static int set_up(void **state)
{
	(void)state;
	begin(&ending);
	return 0;
}

static int set_up_lasting(void **state)
{
	(void)state;
	begin(&lasting);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	h2_free(s.h2);
	h2_thread_done();
	return 0;
}

/* The tunnel ends with a GOAWAY that says why, and the log can name the limit. */
static void check_ended(const char *limit)
{
	assert_int_equal(s.goaway, ENHANCE_YOUR_CALM);
	assert_string_equal(h2_limit(s.h2), limit);
}

/* --- floods: the n-th turn of each; stream 1 is open --- */

static int rapid_reset(uint32_t n)
{
	int r;

	s.status = 0;
	r = connect_frame(3 + 2 * n, 0);
	return r ? r : rst(3 + 2 * n);
}

static int refused_requests(uint32_t n)
{
	s.status = 400;
	return connect_frame(3 + 2 * n, END_STREAM);
}

static int settings(uint32_t n)
{
	uint8_t window[6] = {0, 4, 0, 1, 0, (uint8_t)n};

	return frame(SETTINGS, 0, 0, window, sizeof(window));
}

static int pings(uint32_t n)
{
	(void)n;
	return frame(PING, 0, 0, "12345678", 8);
}

static int priorities(uint32_t n)
{
	return frame(PRIORITY, 0, 3 + 2 * n, "\0\0\0\0\x10", 5);
}

static int window_updates(uint32_t n)
{
	return frame(WINDOW_UPDATE, 0, n % 2, "\0\0\0\1", 4);
}

static int empty_data(uint32_t n)
{
	(void)n;
	return frame(DATA, 0, 1, NULL, 0);
}

static int padding_alone(uint32_t n)
{
	(void)n;
	return frame(DATA, PADDED, 1, "\3\0\0\0", 4);
}

static int unknown_frames(uint32_t n)
{
	return frame(UNKNOWN, 0, n, "x", 1);
}

static int (*const floods[])(uint32_t) = {rapid_reset,	  refused_requests, settings,	   pings,	  priorities,
					  window_updates, empty_data,	    padding_alone, unknown_frames};

/* Turns until the tunnel ends. */
static uint32_t turns(int (*flood)(uint32_t), uint32_t most, int *ret)
{
	int r = 0;
	uint32_t n = 0;

	assert_int_equal(connect_frame(1, 0), 0);
	while (n < most && !r)
		r = flood(n++);
	*ret = r;
	return n;
}

static void a_flood_ends_the_tunnel(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(floods); i++) {
		uint32_t whole, bytes;
		int r;

		begin(&lasting);
		whole = turns(floods[i], LIMIT_CONTROL_BURST + 100, &r);
		assert_int_equal(r, -EDQUOT);
		check_ended("LIMIT_CONTROL_BURST");
		/* A few hundred at once are nobody's fault. */
		assert_true(whole > 400);
		h2_free(s.h2);
		begin(&lasting);
		s.by_the_byte = true;
		bytes = turns(floods[i], LIMIT_CONTROL_BURST + 100, &r);
		assert_int_equal(r, -EDQUOT);
		assert_int_equal(whole, bytes);
		h2_free(s.h2);
	}
	h2_thread_done();
}

static int slowly(int (*turn)(uint32_t), uint32_t n)
{
	s.now_ms += 2;
	return turn(n);
}

static void the_same_at_a_calm_pace_does_not(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(floods); i++) {
		begin(&lasting);
		assert_int_equal(connect_frame(1, 0), 0);
		for (uint32_t n = 0; n < 3 * LIMIT_CONTROL_BURST; n++)
			assert_int_equal(slowly(floods[i], n), 0);
		assert_int_equal(s.goaway, -1);
		h2_free(s.h2);
	}
	h2_thread_done();
}

static void answers_that_are_not_read(void **state)
{
	int r = 0;

	(void)state;
	for (uint32_t n = 0; n < 2 * LIMIT_ACKS_QUEUED && !r; n++)
		r = take((const uint8_t *)"\0\0\x08\6\0\0\0\0\0"
					  "12345678",
			 17);
	assert_int_equal(r, -EDQUOT);
	assert_int_equal(h2_send(s.h2), 0);
	check_ended("LIMIT_ACKS_QUEUED");
}

static void refusals_that_are_not_read(void **state)
{
	int r = 0;

	(void)state;
	s.status = 400;
	s.deaf = true;
	for (uint32_t n = 0; n <= LIMIT_FRAMES_QUEUED && !r; n++)
		r = connect_frame(1 + 2 * n, END_STREAM);
	assert_int_equal(r, -EDQUOT);
	assert_int_equal(h2_send(s.h2), 0);
	check_ended("LIMIT_FRAMES_QUEUED");
}

static void continuations(void **state)
{
	(void)state;
	assert_int_equal(frame(HEADERS, 0, 1, block, BLOCK_LEN), 0);
	for (int i = 1; i < LIMIT_CONTINUATIONS; i++)
		assert_int_equal(frame(CONTINUATION, 0, 1, NULL, 0), 0);
	assert_int_equal(frame(CONTINUATION, END_HEADERS, 1, NULL, 0), 0);
	assert_int_equal(s.requests, 1);
	assert_int_equal(frame(HEADERS, 0, 3, block, BLOCK_LEN), 0);
	for (int i = 0; i < LIMIT_CONTINUATIONS; i++)
		assert_int_equal(frame(CONTINUATION, 0, 3, NULL, 0), 0);
	assert_int_equal(frame(CONTINUATION, END_HEADERS, 3, NULL, 0), -EDQUOT);
	check_ended("LIMIT_CONTINUATIONS");
	assert_int_equal(s.requests, 1);
}

static void a_large_header_block(void **state)
{
	static char zeros[LIMIT_HEADER_BLOCK];

	(void)state;
	assert_int_equal(frame(HEADERS, 0, 1, block, BLOCK_LEN), 0);
	assert_int_equal(frame(CONTINUATION, 0, 1, zeros, sizeof(zeros)), -EDQUOT);
	check_ended("LIMIT_HEADER_BLOCK");
	assert_int_equal(s.requests, 0);
}

/* One field of 3,000 bytes for the table, then one byte each to have it again (RFC 7541 6.2.1, 6.1). */
static int bomb(uint32_t id, size_t times)
{
	static uint8_t b[1 << 14];
	size_t n = BLOCK_LEN;

	memcpy(b, block, n);
	memcpy(b + n, "\x40\x01x\x7f\xb9\x16", 6);
	memset(b + n + 6, 'v', 3000);
	memset(b + n + 3006, 0xbe, times);
	return frame(HEADERS, END_HEADERS, id, b, n + 3006 + times);
}

static void a_header_bomb(void **state)
{
	(void)state;
	assert_int_equal(bomb(1, 4), 0);
	assert_int_equal(s.requests, 1);
	assert_int_equal(bomb(3, 1000), -EDQUOT);
	check_ended("LIMIT_HEADER_BLOCK");
	assert_int_equal(s.requests, 1);
}

/* --- never an offence --- */

static void bytes_are_welcome(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(connect_frame(1 + 2 * i, 0), 0);
	for (uint32_t n = 0; n < 1000000; n++)
		assert_int_equal(frame(DATA, 0, 1 + 2 * (n % 100), "x", 1), 0);
	assert_int_equal(s.got, 1000000);
	for (uint32_t n = 0; n < 100000; n++)
		assert_int_equal(frame(DATA, PADDED, 1 + 2 * (n % 100), "\2x\0\0", 4), 0);
	assert_int_equal(s.got, 1100000);
	assert_int_equal(s.goaway, -1);
}

static void aborts_of_callers_are_welcome(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 500 * 60; n++)
		assert_int_equal(slowly(rapid_reset, n), 0);
	assert_int_equal(s.requests, 500 * 60);
	assert_int_equal(s.goaway, -1);
}

/* As fast as a worker can: what was accepted is paid for, however it ends. */
static void short_connections_are_welcome(void **state)
{
	(void)state;
	begin(&ending);
	for (uint32_t n = 0; n < 10 * LIMIT_CONTROL_BURST; n++) {
		assert_int_equal(connect_frame(1 + 2 * n, 0), 0);
		assert_int_equal(frame(DATA, END_STREAM, 1 + 2 * n, NULL, 0), 0);
	}
	assert_int_equal(s.requests, 10 * LIMIT_CONTROL_BURST);
	h2_free(s.h2);
	begin(&lasting);
	for (uint32_t n = 0; n < 10 * LIMIT_CONTROL_BURST; n++) {
		assert_int_equal(connect_frame(1 + 2 * n, 0), 0);
		assert_int_equal(rst(1 + 2 * n), 0);
	}
	assert_int_equal(s.requests, 10 * LIMIT_CONTROL_BURST);
	h2_free(s.h2);
	h2_thread_done();
}

/* --- turns --- */

/* Bytes and PINGs are free; what begins or ends a stream is parsed to its end, and then the rest is left. */
static void stream_frames_take_turns(void **state)
{
	static const uint8_t wire[] = "\0\0\1\0\0\0\0\0\1x"	    /* DATA */
				      "\0\0\4\3\0\0\0\0\1\0\0\0\x8" /* RST_STREAM */
				      "\0\0\x8\6\0\0\0\0\0"
				      "12345678"	      /* PING */
				      "\0\0\2\0\1\0\0\0\3xx"  /* DATA with END_STREAM */
				      "\0\0\4\0\0\0\0\0\5xxx" /* DATA, its last byte after it */
				      "x"
				      "\0\0\0\0\1\0\0\0\5"; /* an empty end */
	static const size_t first = 10 + 13, second = first + 17 + 11, all = sizeof(wire) - 1;
	unsigned turns = 1;

	(void)state;
	for (uint32_t id = 1; id <= 5; id += 2)
		assert_int_equal(connect_frame(id, 0), 0);
	assert_int_equal(h2_recv(s.h2, wire, all, s.now_ms, &turns), first);
	assert_int_equal(turns, 0);
	assert_int_equal(s.got, 1);
	turns = 1;
	assert_int_equal(h2_recv(s.h2, wire + first, all - first, s.now_ms, &turns), second - first);
	assert_int_equal(s.got, 3);
	turns = 3;
	assert_int_equal(h2_recv(s.h2, wire + second, all - second, s.now_ms, &turns), all - second);
	assert_int_equal(turns, 2);
	assert_int_equal(s.got, 7);
	assert_int_equal(s.goaway, -1);
}

/* One that comes in pieces costs once, and never leaves a piece of itself. */
static void a_frame_in_pieces_takes_one_turn(void **state)
{
	static const uint8_t wire[] = "\0\0\4\3\0\0\0\0\1\0\0\0\x8"
				      "\0\0\4\3\0\0\0\0\3\0\0\0\x8";
	unsigned turns = 1;

	(void)state;
	for (uint32_t id = 1; id <= 3; id += 2)
		assert_int_equal(connect_frame(id, 0), 0);
	assert_int_equal(h2_recv(s.h2, wire, 5, s.now_ms, &turns), 5);
	assert_int_equal(turns, 1);
	assert_int_equal(h2_recv(s.h2, wire + 5, 6, s.now_ms, &turns), 6);
	assert_int_equal(turns, 0);
	turns = 1;
	assert_int_equal(h2_recv(s.h2, wire + 11, 15, s.now_ms, &turns), 15);
	assert_int_equal(turns, 0);
	assert_int_equal(s.goaway, -1);
}

/* --- closed streams (RFC 9113 5.1) --- */

static void expect_closed(int r, uint32_t code)
{
	assert_int_equal(r, -EPROTO);
	assert_int_equal(s.goaway, code);
}

static void data_after_the_end(void **state)
{
	(void)state;
	assert_int_equal(connect_frame(1, END_STREAM), 0);
	assert_int_equal(rst(1), 0);
	assert_int_equal(frame(WINDOW_UPDATE, 0, 1, "\0\0\0\1", 4), 0);
	assert_int_equal(frame(PRIORITY, 0, 1, "\0\0\0\0\x10", 5), 0);
	expect_closed(frame(DATA, 0, 1, "x", 1), STREAM_CLOSED);
}

static void headers_after_the_end(void **state)
{
	(void)state;
	assert_int_equal(connect_frame(1, 0), 0);
	assert_int_equal(frame(DATA, END_STREAM, 1, "x", 1), 0);
	expect_closed(connect_frame(1, END_STREAM), STREAM_CLOSED);
}

static void data_after_the_peers_reset(void **state)
{
	(void)state;
	assert_int_equal(connect_frame(1, 0), 0);
	assert_int_equal(rst(1), 0);
	expect_closed(frame(DATA, 0, 1, "x", 1), STREAM_CLOSED);
}

static void a_skipped_stream(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < 600; n++)
		assert_int_equal(connect_frame(1 + 2 * n, 0), 0);
	assert_int_equal(connect_frame(1 + 2 * 700, 0), 0);
	expect_closed(connect_frame(1 + 2 * 699, 0), 1);
	assert_int_equal(s.requests, 601);
}

/* What a peer sent before it could know of our reset is nobody's. */
static void after_our_own_reset(void **state)
{
	(void)state;
	s.reset = true;
	assert_int_equal(connect_frame(1, 0), 0);
	assert_int_equal(frame(DATA, 0, 1, "late", 4), 0);
	assert_int_equal(frame(HEADERS, END_HEADERS | END_STREAM, 1, "\x40\x01t\x01v", 5), 0);
	s.reset = false;
	assert_int_equal(connect_frame(3, 0), 0);
	/* The table knows the trailer's field. */
	assert_int_equal(s.requests, 2);
	assert_int_equal(s.got, 0);
	assert_int_equal(s.goaway, -1);
}

static void streams_of_long_ago(void **state)
{
	(void)state;
	assert_int_equal(connect_frame(1, 0), 0);
	s.reset = true;
	for (uint32_t n = 1; n <= 600; n++)
		assert_int_equal(connect_frame(1 + 2 * n, n > 1 ? END_STREAM : 0), 0);
	assert_int_equal(frame(DATA, 0, 3, "late", 4), 0);
	assert_int_equal(frame(HEADERS, END_HEADERS | END_STREAM, 3, "\x40\x01t\x01v", 5), 0);
	assert_int_equal(s.got, 0);
	assert_int_equal(frame(DATA, 0, 1, "open", 4), 0);
	assert_int_equal(s.got, 4);
	assert_int_equal(s.goaway, -1);
}

static void closed_streams_leave_nothing(void **state)
{
	size_t before;

	(void)state;
	assert_int_equal(connect_frame(1, END_STREAM), 0);
	before = mallinfo2().uordblks;
	for (uint32_t n = 1; n <= LIMIT_STREAMS_PER_TUNNEL; n++)
		assert_int_equal(connect_frame(1 + 2 * n, END_STREAM), 0);
	assert_true(mallinfo2().uordblks < before + 16 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flood_ends_the_tunnel),
		cmocka_unit_test(the_same_at_a_calm_pace_does_not),
		cmocka_unit_test_setup_teardown(answers_that_are_not_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refusals_that_are_not_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(continuations, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(a_large_header_block, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_header_bomb, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(bytes_are_welcome, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(aborts_of_callers_are_welcome, set_up_lasting, tear_down),
		cmocka_unit_test(short_connections_are_welcome),
		cmocka_unit_test_setup_teardown(stream_frames_take_turns, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(a_frame_in_pieces_takes_one_turn, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(data_after_the_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(headers_after_the_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(data_after_the_peers_reset, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(a_skipped_stream, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(after_our_own_reset, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(streams_of_long_ago, set_up_lasting, tear_down),
		cmocka_unit_test_setup_teardown(closed_streams_leave_nothing, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
