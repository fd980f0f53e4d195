/* SPDX-License-Identifier: Apache-2.0 */
/* TLS over a socket, in pieces as the network likes to bring them: every byte arrives, once and in order, and what was
 * received ahead is not forgotten. The peer is OpenSSL in memory. */
#include "certs.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "engine/io/tls_stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define ALL_BYTES (3 << 20)
/* On the wire, with what records add when they are as small as here. */
#define WIRE_BYTES (2 * ALL_BYTES)
#define ROOM (128 * 1024)

static SSL_CTX *server_ctx, *client_ctx;
static struct tls_stream stream;
static SSL *peer;
static int wire[2]; /* the stream's end, the network's */
static uint8_t sent[ALL_BYTES], got[ALL_BYTES], cipher[WIRE_BYTES];

static int group_set_up(void **state)
{
	struct zoo_cert c = zoo_make(&(struct zoo_spec){.name = "peer", .san = "URI:" TEST_ID});

	(void)state;
	server_ctx = SSL_CTX_new(TLS_server_method());
	client_ctx = SSL_CTX_new(TLS_client_method());
	assert_int_equal(SSL_CTX_use_certificate(server_ctx, c.x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(server_ctx, c.key), 1);
	/* As tls_identity.c makes them. */
	SSL_CTX_set_num_tickets(server_ctx, 0);
	SSL_CTX_set_mode(client_ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	X509_free(c.x);
	EVP_PKEY_free(c.key);
	srand(15008);
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)rand();
	return 0;
}

static int group_tear_down(void **state)
{
	(void)state;
	SSL_CTX_free(server_ctx);
	SSL_CTX_free(client_ctx);
	tls_stream_thread_done();
	return 0;
}

/* From the wire to the peer. */
static void peer_hears(void)
{
	ssize_t n;

	while ((n = recv(wire[1], cipher, sizeof(cipher), MSG_DONTWAIT)) > 0)
		assert_int_equal(BIO_write(SSL_get_rbio(peer), cipher, (int)n), n);
}

/* What the peer has to say and is not on the wire yet. */
static size_t peer_says(void)
{
	int n = BIO_read(SSL_get_wbio(peer), cipher, sizeof(cipher));

	return n > 0 ? (size_t)n : 0;
}

static void wire_brings(const uint8_t *data, size_t len)
{
	assert_int_equal(send(wire[1], data, len, 0), len);
	tls_stream_readable(&stream);
}

static int set_up(void **state)
{
	int r = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, wire), 0);
	assert_int_equal(tls_stream_init(&stream, SSL_new(client_ctx), wire[0]), 0);
	SSL_set_connect_state(stream.ssl);
	peer = SSL_new(server_ctx);
	SSL_set_accept_state(peer);
	SSL_set_bio(peer, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	for (int i = 0; i < 10 && r != 1; i++) {
		r = tls_stream_handshake(&stream);
		assert_true(r >= 0);
		peer_hears();
		(void)SSL_do_handshake(peer);
		size_t n = peer_says();

		if (n)
			wire_brings(cipher, n);
	}
	assert_int_equal(r, 1);
	assert_true(SSL_is_init_finished(peer));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	tls_stream_done(&stream);
	SSL_free(peer);
	close(wire[0]);
	if (wire[1] >= 0)
		close(wire[1]);
	return 0;
}

/* One record for each piece. */
static size_t encrypted(size_t from, size_t len, size_t piece)
{
	for (size_t n; len; from += n, len -= n) {
		n = len < piece ? len : piece;
		assert_int_equal(SSL_write(peer, sent + from, (int)n), n);
	}
	return peer_says();
}

/* All that is there, `room` at a time; their number. */
static size_t read_all(size_t at, size_t room)
{
	size_t from = at;
	ssize_t n;

	while ((n = tls_stream_read(&stream, got + at, room < sizeof(got) - at ? room : sizeof(got) - at)) > 0) {
		assert_true((size_t)n <= room);
		at += (size_t)n;
		if (at == sizeof(got))
			break;
	}
	assert_true(n >= 0);
	return at - from;
}

static void every_byte_once_and_in_order(void **state)
{
	static const size_t records[] = {16384, 1, 700, 16383, 5}, rooms[] = {ROOM, 1000, 1, 16384, 50000};

	(void)state;
	for (size_t at = 0, round = 0; at < sizeof(sent); round++) {
		size_t piece = records[round % ARRAY_SIZE(records)], len = piece * (1 + (size_t)rand() % 64), n;

		len = len < sizeof(sent) - at ? len : sizeof(sent) - at;
		n = encrypted(at, len, piece);
		for (size_t off = 0, part, have = 0; off < n || have < len; off += part) {
			part = 1 + (size_t)rand() % 100000;
			part = part < n - off ? part : n - off;
			if (part)
				wire_brings(cipher + off, part);
			have += read_all(at + have, rooms[(round + off) % ARRAY_SIZE(rooms)]);
			assert_true(off < n || have == len);
		}
		at += len;
	}
	assert_memory_equal(got, sent, sizeof(sent));
}

static void what_was_received_ahead_needs_no_socket(void **state)
{
	size_t n = encrypted(0, 10000, 1000), have;

	(void)state;
	wire_brings(cipher, n);
	/* One read takes all from the socket, and leaves most of it for later. */
	assert_int_equal(tls_stream_read(&stream, got, 1500), 1500);
	assert_int_equal(recv(wire[0], cipher, 1, MSG_DONTWAIT), -1);
	assert_false(stream.dry);
	have = 1500 + read_all(1500, ROOM);
	assert_int_equal(have, 10000);
	assert_memory_equal(got, sent, have);
	assert_true(stream.dry);
	assert_null(stream.ahead);
}

static void dry_is_not_asked_again(void **state)
{
	size_t n = encrypted(0, 10, 10);

	(void)state;
	wire_brings(cipher, n);
	assert_int_equal(tls_stream_read(&stream, got, ROOM), 10);
	assert_true(stream.dry);
	n = encrypted(10, 10, 10);
	assert_int_equal(send(wire[1], cipher, n, 0), n);
	assert_int_equal(tls_stream_read(&stream, got, ROOM), 0);
	tls_stream_readable(&stream);
	assert_int_equal(tls_stream_read(&stream, got, ROOM), 10);
	assert_memory_equal(got, sent + 10, 10);
}

static void tiny_records_end_a_read_early(void **state)
{
	size_t n = encrypted(0, 5000, 1), have;

	(void)state;
	wire_brings(cipher, n);
	assert_int_equal(tls_stream_read(&stream, got, ROOM), LIMIT_RECORDS);
	assert_false(stream.dry);
	have = LIMIT_RECORDS + read_all(LIMIT_RECORDS, ROOM);
	assert_int_equal(have, 5000);
	assert_memory_equal(got, sent, have);
}

static void the_handshake_may_bring_more_than_itself(void **state)
{
	size_t n = encrypted(0, 5000, 1000), have;

	(void)state;
	/* Asked once more, as when its last message and the first bytes come in one packet. */
	wire_brings(cipher, n);
	assert_int_equal(tls_stream_handshake(&stream), 1);
	have = read_all(0, ROOM);
	assert_int_equal(have, 5000);
	assert_memory_equal(got, sent, have);
}

static void the_end_comes_after_the_last_byte(void **state)
{
	size_t n = encrypted(0, 30000, 1000);

	(void)state;
	wire_brings(cipher, n);
	close(wire[1]);
	wire[1] = -1;
	assert_int_equal(tls_stream_read(&stream, got, 1500), 1500);
	for (size_t have = 1500; have < 30000;) {
		ssize_t r = tls_stream_read(&stream, got + have, ROOM);

		assert_true(r > 0);
		have += (size_t)r;
	}
	tls_stream_readable(&stream);
	assert_int_equal(tls_stream_read(&stream, got, ROOM), -EPIPE);
	assert_memory_equal(got, sent, 30000);
}

static void a_changed_byte_ends_the_stream(void **state)
{
	size_t n = encrypted(0, 1000, 1000);

	(void)state;
	cipher[500] ^= 1;
	wire_brings(cipher, n);
	assert_int_equal(tls_stream_read(&stream, got, ROOM), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_byte_once_and_in_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_was_received_ahead_needs_no_socket, set_up, tear_down),
		cmocka_unit_test_setup_teardown(dry_is_not_asked_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(tiny_records_end_a_read_early, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_handshake_may_bring_more_than_itself, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_end_comes_after_the_last_byte, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_changed_byte_ends_the_stream, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
