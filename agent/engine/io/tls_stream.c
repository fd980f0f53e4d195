/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS over a socket through a BIO of our own: one recv scatters into many records, one send gathers many. Plaintext
 * enters and leaves by proxy/session.c; ciphertext by recv and send here.
 */
#include "engine/io/tls_stream.h"
#include "engine/base/limits.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Pieces from this size on are encrypted where they lie; smaller ones are joined first. */
#define STAGE_PIECE_MAX 4096

/* RFC 8446 5.1 and 5.2: a record's header, its content, and both with the content's type and the tag. */
#define HEADER_BYTES SSL3_RT_HEADER_LENGTH
#define CONTENT_BYTES SSL3_RT_MAX_PLAIN_LENGTH
#define RECORD_BYTES (HEADER_BYTES + CONTENT_BYTES + 1 + EVP_GCM_TLS_TAG_LEN)

/* One per thread: only one stream is between begin and end at a time. */
struct gather {
	struct tls_stream *owner;
	size_t len, stage_len;
	uint8_t stage[CONTENT_BYTES];
	uint8_t bytes[LIMIT_GATHER_BYTES];
};

/* One per thread: only one stream reads at a time. OpenSSL could read ahead itself, but moves all that it has so for
 * each record that it gives out: every byte three or four times. */
struct scatter {
	struct tls_stream *owner;
	size_t len, off;
	size_t room; /* plaintext its owner still has room for */
	uint8_t bytes[LIMIT_PLAINTEXT_BYTES / CONTENT_BYTES * RECORD_BYTES];
};

static __thread struct gather *gather;
static __thread struct scatter *scatter;
static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

/* send until all is gone or the socket is full; returns bytes sent, errors go to t->error. */
static size_t send_some(struct tls_stream *t, const uint8_t *data, size_t len)
{
	size_t done = 0;

	while (done < len && !t->error) {
		ssize_t n = send(t->fd, data + done, len - done, MSG_NOSIGNAL);

		if (n >= 0)
			done += (size_t)n;
		else if (errno == EAGAIN)
			break;
		else if (errno != EINTR)
			t->error = -errno;
	}
	t->bytes_out += done;
	return done;
}

static int pending_append(struct tls_stream *t, const uint8_t *data, size_t len)
{
	size_t keep = t->pending_len - t->pending_off;
	uint8_t *p;

	if (!len)
		return 0;
	if (t->pending_off && keep)
		memmove(t->pending, t->pending + t->pending_off, keep);
	t->pending_off = 0;
	t->pending_len = keep;
	p = realloc(t->pending, keep + len);
	if (!p) {
		t->error = -ENOMEM;
		return -ENOMEM;
	}
	memcpy(p + keep, data, len);
	t->pending = p;
	t->pending_len = keep + len;
	return 0;
}

static void gather_send(struct tls_stream *t)
{
	size_t sent = tls_stream_blocked(t) ? 0 : send_some(t, gather->bytes, gather->len);

	if (!t->error)
		pending_append(t, gather->bytes + sent, gather->len - sent);
	gather->len = 0;
}

static int bio_write(BIO *bio, const char *data, int len)
{
	struct tls_stream *t = BIO_get_data(bio);

	if (t->error)
		return -1;
	if (gather && gather->owner == t) {
		if (gather->len + (size_t)len > sizeof(gather->bytes))
			gather_send(t);
		memcpy(gather->bytes + gather->len, data, (size_t)len);
		gather->len += (size_t)len;
		return len;
	}
	/* Handshake, alerts and key updates come outside a round. */
	return pending_append(t, (const uint8_t *)data, (size_t)len) ? -1 : len;
}

static size_t copy_from(const uint8_t *bytes, size_t len, size_t *off, char *buf, size_t size)
{
	size_t n = len - *off < size ? len - *off : size;

	memcpy(buf, bytes + *off, n);
	*off += n;
	return n;
}

/* Of what was received before; 0: nothing was. */
static size_t take(struct tls_stream *t, char *buf, size_t size)
{
	size_t n;

	if (!t->ahead)
		return copy_from(scatter->bytes, scatter->len, &scatter->off, buf, size);
	n = copy_from(t->ahead, t->ahead_len, &t->ahead_off, buf, size);
	if (t->ahead_off == t->ahead_len) {
		free(t->ahead);
		t->ahead = NULL;
	}
	return n;
}

/* What to ask the socket for when OpenSSL wants `len`, a header or what is behind it or the rest of either: as much as
 * there is room for once it is decrypted. Of a steady stream each read so ends with a record. */
static size_t wanted(size_t len)
{
	size_t first = len > HEADER_BYTES ? len : RECORD_BYTES - HEADER_BYTES + len;
	size_t records = scatter->room / CONTENT_BYTES;
	size_t all = first + (records ? records - 1 : 0) * RECORD_BYTES;

	return all < sizeof(scatter->bytes) ? all : sizeof(scatter->bytes);
}

static int bio_read(BIO *bio, char *buf, int len)
{
	struct tls_stream *t = BIO_get_data(bio);
	size_t want, got;
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (!scatter || scatter->owner != t || t->error == -ENOMEM)
		return -1;
	got = take(t, buf, (size_t)len);
	if (got)
		return (int)got;
	if (t->drained) {
		BIO_set_retry_read(bio);
		return -1;
	}
	want = wanted((size_t)len);
	do
		n = recv(t->fd, scatter->bytes, want, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		t->bytes_in += (uint64_t)n;
		t->drained = (size_t)n < want;
		scatter->len = (size_t)n;
		scatter->off = 0;
		return (int)take(t, buf, (size_t)len);
	}
	if (!n) {
		t->eof = true;
		return 0;
	}
	if (errno == EAGAIN) {
		t->drained = true;
		BIO_set_retry_read(bio);
	} else {
		t->error = -errno;
	}
	return -1;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)num;
	(void)ptr;
	if (cmd == BIO_CTRL_EOF)
		return ((struct tls_stream *)BIO_get_data(bio))->eof;
	return cmd == BIO_CTRL_FLUSH;
}

static void bio_method_make(void)
{
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gathering socket");
	if (!bio_method)
		return;
	BIO_meth_set_write(bio_method, bio_write);
	BIO_meth_set_read(bio_method, bio_read);
	BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

/* --- receiving: between read_begin and read_end the thread's buffer is this stream's --- */

static int read_begin(struct tls_stream *t)
{
	if (!scatter)
		scatter = malloc(sizeof(*scatter));
	if (!scatter) {
		t->error = -ENOMEM;
		return t->error;
	}
	scatter->owner = t;
	scatter->len = scatter->off = 0;
	scatter->room = LIMIT_PLAINTEXT_BYTES;
	return 0;
}

/* What was received and not asked for waits for the next time. */
static void read_end(struct tls_stream *t)
{
	size_t left = scatter->len - scatter->off;

	scatter->owner = NULL;
	if (!left)
		return;
	t->ahead = malloc(left);
	if (!t->ahead) {
		t->error = -ENOMEM;
		return;
	}
	memcpy(t->ahead, scatter->bytes + scatter->off, left);
	t->ahead_len = left;
	t->ahead_off = 0;
}

/* SSL_read works through handshake messages without coming back: a peer that sends KeyUpdates (RFC 8446 4.6.3) and
 * nothing else would have the thread to itself. An honest one sends a few tickets, and a KeyUpdate in some hundred GiB.
 */
static void watch_message(int write_p, int version, int content_type, const void *buf, size_t len, SSL *ssl, void *arg)
{
	struct tls_stream *t = arg;

	(void)version;
	(void)buf;
	(void)len;
	if (write_p || content_type != SSL3_RT_HANDSHAKE || ++t->messages_in <= LIMIT_TLS_MESSAGES)
		return;
	t->error = -EPROTO;
	/* The one thing that ends SSL_read between two messages. */
	SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

int tls_stream_init(struct tls_stream *t, SSL *ssl, int fd)
{
	BIO *bio;

	*t = (struct tls_stream){.ssl = ssl, .fd = fd};
	pthread_once(&bio_once, bio_method_make);
	bio = bio_method ? BIO_new(bio_method) : NULL;
	if (!bio) {
		SSL_free(ssl);
		t->ssl = NULL;
		return -ENOMEM;
	}
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	SSL_clear_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_set_msg_callback(ssl, watch_message);
	SSL_set_msg_callback_arg(ssl, t);
	return 0;
}

void tls_stream_done(struct tls_stream *t)
{
	if (gather && gather->owner == t)
		gather->owner = NULL;
	SSL_free(t->ssl);
	free(t->pending);
	free(t->ahead);
	*t = (struct tls_stream){.fd = -1};
}

void tls_stream_thread_done(void)
{
	free(gather);
	gather = NULL;
	free(scatter);
	scatter = NULL;
}

int tls_stream_flush(struct tls_stream *t)
{
	if (tls_stream_blocked(t))
		t->pending_off += send_some(t, t->pending + t->pending_off, t->pending_len - t->pending_off);
	if (t->error)
		return t->error;
	if (tls_stream_blocked(t))
		return -EAGAIN;
	free(t->pending);
	t->pending = NULL;
	t->pending_len = t->pending_off = 0;
	return 0;
}

/* Of the error that is queued: an alert about the certificate that we presented (RFC 8446 6.2). */
static bool is_certificate_alert(void)
{
	switch (ERR_GET_REASON(ERR_peek_error())) {
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

/* What a failure of OpenSSL's comes to: its queue is cleared if nobody is to look at it. */
static int failure(void)
{
	if (!is_certificate_alert())
		return -EPROTO;
	ERR_clear_error();
	return -EKEYREJECTED;
}

int tls_stream_handshake(struct tls_stream *t)
{
	int r;

	ERR_clear_error();
	if (read_begin(t) < 0)
		return t->error;
	r = SSL_do_handshake(t->ssl);
	int err = r == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, r);
	read_end(t);
	/* The reason is for the caller to read; an alert may wait to be sent. */
	int f = tls_stream_flush(t);

	if (r == 1)
		return f == -EAGAIN ? 1 : (f ? f : 1);
	if (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE)
		return f == -EAGAIN ? 0 : f;
	if (err == SSL_ERROR_SSL)
		return failure();
	return t->error ? t->error : -ECONNRESET;
}

static int read_failure(const struct tls_stream *t)
{
	int r = failure();

	ERR_clear_error();
	return t->eof ? -EPIPE : r;
}

/* Nothing was received that OpenSSL has not given out. */
static bool is_dry(const struct tls_stream *t)
{
	return t->drained && !t->ahead && scatter->off == scatter->len && !SSL_has_pending(t->ssl);
}

static ssize_t read_records(struct tls_stream *t, uint8_t *buf, size_t size)
{
	size_t got = 0;
	int n = 1;

	for (unsigned i = 0; i < LIMIT_RECORDS && got < size && !t->dry; i++) {
		scatter->room = size - got;
		n = SSL_read(t->ssl, buf + got, (int)(size - got));
		if (n <= 0)
			break;
		got += (size_t)n;
		t->dry = is_dry(t);
	}
	/* What was read first is handed over; the error comes back at the next call. */
	if (got || n > 0)
		return (ssize_t)got;
	switch (SSL_get_error(t->ssl, n)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		t->eof = true;
		return t->error ? t->error : -EPIPE;
	case SSL_ERROR_SSL:
		return read_failure(t);
	default:
		ERR_clear_error();
		return t->error ? t->error : -EPIPE;
	}
}

ssize_t tls_stream_read(struct tls_stream *t, uint8_t *buf, size_t size)
{
	ssize_t n;

	if (t->dry)
		return 0;
	if (read_begin(t) < 0)
		return t->error;
	/* SSL_get_error reads the thread's queue: what another stream left there would be taken for a failure of this
	 * one. */
	if (ERR_peek_error())
		ERR_clear_error();
	n = read_records(t, buf, size);
	read_end(t);
	return n;
}

void tls_stream_begin(struct tls_stream *t)
{
	if (!gather) {
		gather = malloc(sizeof(*gather));
		if (!gather) {
			t->error = -ENOMEM;
			return;
		}
	}
	gather->owner = t;
	gather->len = gather->stage_len = 0;
}

static int encrypt(struct tls_stream *t, const uint8_t *data, size_t len)
{
	while (len) {
		int n = SSL_write(t->ssl, data, (int)len);

		if (n <= 0) {
			ERR_clear_error();
			return t->error ? t->error : -EPROTO;
		}
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int stage_flush(struct tls_stream *t)
{
	size_t len = gather->stage_len;

	gather->stage_len = 0;
	return encrypt(t, gather->stage, len);
}

int tls_stream_write(struct tls_stream *t, const uint8_t *data, size_t len)
{
	int r;

	if (t->error)
		return t->error;
	if (len >= STAGE_PIECE_MAX || gather->stage_len + len > CONTENT_BYTES) {
		r = stage_flush(t);
		if (r < 0)
			return r;
	}
	if (len >= STAGE_PIECE_MAX)
		return encrypt(t, data, len);
	memcpy(gather->stage + gather->stage_len, data, len);
	gather->stage_len += len;
	return 0;
}

int tls_stream_end(struct tls_stream *t)
{
	int r;

	if (t->error)
		return t->error;
	r = stage_flush(t);
	if (r == 0)
		gather_send(t);
	gather->owner = NULL;
	if (r < 0)
		return r;
	return t->error ? t->error : tls_stream_blocked(t) ? -EAGAIN : 0;
}

void tls_stream_close_notify(struct tls_stream *t)
{
	if (t->error || !SSL_is_init_finished(t->ssl))
		return;
	(void)SSL_shutdown(t->ssl);
	ERR_clear_error();
	(void)tls_stream_flush(t);
}
