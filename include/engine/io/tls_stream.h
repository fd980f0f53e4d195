/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS over a non-blocking socket. Records of one round are gathered into one send(2); what the socket does not take
 * waits in `pending` and nothing more is written until it is gone. One recv(2) brings many records; what nobody has
 * asked for yet waits in `ahead`. The buffers for both are shared by all streams of a thread.
 */
#pragma once
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tls_stream {
	SSL *ssl;
	int fd;
	uint8_t *pending; /* ciphertext that the socket did not take */
	size_t pending_len, pending_off;
	uint8_t *ahead; /* ciphertext that the last read left */
	size_t ahead_len, ahead_off;
	int error;		      /* first socket error, negative errno */
	bool eof;		      /* peer's FIN seen without or with close_notify */
	bool drained;		      /* the last recv was short: the socket is empty until epoll says otherwise */
	bool dry;		      /* and nothing was received ahead: the next read would only say so */
	unsigned messages_in;	      /* handshake messages, those after the handshake included */
	uint64_t bytes_in, bytes_out; /* ciphertext */
};

/* Takes over `ssl`, borrows `fd` (connected, non-blocking). 0 or -ENOMEM (ssl is freed then). */
int tls_stream_init(struct tls_stream *t, SSL *ssl, int fd);
void tls_stream_done(struct tls_stream *t);
/* One step of the handshake: 1 finished, 0 waiting for the peer, -EPROTO failed (see tls_verify_reason), -EKEYREJECTED
 * the peer did not accept our certificate, -errno. */
int tls_stream_handshake(struct tls_stream *t);
/* The descriptor became readable: the next read asks the socket again. */
static inline void tls_stream_readable(struct tls_stream *t)
{
	t->drained = t->dry = false;
}
/* Fills `buf` with as much plaintext as is there now. >0 bytes, 0 nothing now, -EPIPE end of stream, -errno, -EPROTO,
 * -EKEYREJECTED the peer did not accept our certificate: in TLS 1.3 a client learns it after its handshake only. */
ssize_t tls_stream_read(struct tls_stream *t, uint8_t *buf, size_t size);
/* Between begin and end, bytes are encrypted and gathered; end sends. Small pieces are joined into one record.
 * write: 0 or -errno. end: 0 all sent, -EAGAIN some wait in pending (watch for EPOLLOUT, then tls_stream_flush),
 * -errno. */
void tls_stream_begin(struct tls_stream *t);
int tls_stream_write(struct tls_stream *t, const uint8_t *data, size_t len);
int tls_stream_end(struct tls_stream *t);
/* Sends pending bytes: 0 none left, -EAGAIN, -errno. */
int tls_stream_flush(struct tls_stream *t);
static inline bool tls_stream_blocked(const struct tls_stream *t)
{
	return t->pending_len > t->pending_off;
}
/* Queues close_notify and sends what the socket takes; errors are ignored. */
void tls_stream_close_notify(struct tls_stream *t);
/* Frees this thread's shared buffers. */
void tls_stream_thread_done(void);
