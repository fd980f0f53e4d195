/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/2 session for CONNECT streams, over nghttp2 (RFC 9113). Sans-IO: bytes come in by h2_recv, go out by the
 * `emit` event during h2_send. Body bytes are never copied here: DATA that arrives is handed over where it lies, DATA
 * to send is pulled by the owner into a buffer that already has room for the frame header.
 */
#pragma once
#include "engine/base/limits.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct h2;

/* The headers of a CONNECT request or its response, NUL-terminated; "" when absent. */
struct h2_headers {
	int status; /* responses */
	bool is_connect, has_protocol, too_large;
	size_t authority_len;
	char method[16], authority[LIMIT_HEADER_VALUE];
	char baggage[LIMIT_HEADER_VALUE], forwarded[LIMIT_HEADER_VALUE];
};

/* What pull may return instead of a number of bytes. */
#define H2_PULL_LATER (-1) /* nothing now: h2_resume when there is */
#define H2_PULL_PAUSE (-2) /* stop h2_send for now, this stream stays ready */
#define H2_PULL_RESET (-3) /* reset the stream with CONNECT_ERROR */

/* `owner` is what h2_new was given, `stream` what h2_set_stream or h2_connect was. No event may free the session. */
struct h2_events {
	/* Server: a complete request head on a new stream. Answer with h2_respond or h2_reset, now or later. */
	void (*request)(void *owner, int32_t id, const struct h2_headers *h, bool end_stream);
	/* Client: the final response head. */
	void (*response)(void *owner, int32_t id, void *stream, const struct h2_headers *h);
	void (*data)(void *owner, int32_t id, void *stream, const uint8_t *data, size_t len);
	void (*end)(void *owner, int32_t id, void *stream);
	/* The stream is gone; error is the HTTP/2 code, 0 after a clean end of both sides. `stream` may be NULL. */
	void (*closed)(void *owner, int32_t id, void *stream, uint32_t error);
	/* Fill buf with up to max bytes of the stream's body; *ret_eof ends it with these bytes. */
	ssize_t (*pull)(void *owner, int32_t id, void *stream, uint8_t *buf, size_t max, bool *ret_eof);
	/* Serialized bytes for the wire; valid during the call. 0 or -errno (the session is then broken). */
	int (*emit)(void *owner, const uint8_t *data, size_t len);
	void (*settings)(void *owner);
	void (*goaway)(void *owner, uint32_t error);
	void (*ping_ack)(void *owner);
	/* Settings that were sent are in force: windows may be smaller now, and credit that waited for more may be due.
	 */
	void (*settings_ack)(void *owner);
};

/* A session of either role with its preface and SETTINGS queued. 0 or -ENOMEM. */
int h2_new(bool server, const struct h2_events *events, void *owner, uint64_t now_ms, struct h2 **ret);
struct h2 *h2_free(struct h2 *h);
/* Parses received bytes, calling events, up to the end of the frame that uses up *turns (1 at least): how many frames
 * may begin or end a stream. The number of bytes parsed, the rest is to be given again; -EPROTO when the peer broke the
 * protocol; -EDQUOT when it sends more control frames than a tunnel needs, or does not read what it causes us to
 * answer. Then a GOAWAY is queued. */
ssize_t h2_recv(struct h2 *h, const uint8_t *data, size_t len, uint64_t now_ms, unsigned *turns);
/* After -EDQUOT: the name of the limit in limits.h that the peer went over. */
const char *h2_limit(const struct h2 *h);
/* Emits queued frames and pulls bodies until nothing is ready or a pull pauses. 0 or -EPROTO, -errno of emit. */
int h2_send(struct h2 *h);
/* True when neither side has anything left to do: the connection can be closed. */
bool h2_finished(struct h2 *h);
/* Finished because the peer broke the protocol: it has been told so (RFC 9113 5.4.1). */
bool h2_broken(const struct h2 *h);
bool h2_want_write(struct h2 *h);

/* Client: queues CONNECT with the three headers (NULL or "" are left out). The stream id, or -ENOMEM, -EMFILE when ids
 * are used up. */
int32_t h2_connect(struct h2 *h, const char *authority, const char *baggage, const char *forwarded,
		   const char *traceparent, void *stream);
/* Server: 200 opens the tunnel (body pulled), any other status ends the stream. */
int h2_respond(struct h2 *h, int32_t id, int status, const char *baggage);
void h2_set_stream(struct h2 *h, int32_t id, void *stream);
/* The stream has bytes again. */
void h2_resume(struct h2 *h, int32_t id);
/* RST_STREAM with an HTTP/2 error code. */
void h2_reset(struct h2 *h, int32_t id, uint32_t error);
/* Stream credit for bytes the app took. (Connection credit is returned on receipt.) */
void h2_consume(struct h2 *h, int32_t id, size_t len);
/* The receive window of one stream; only a larger one is announced, a smaller one is reached by withholding credit. */
void h2_set_window(struct h2 *h, int32_t id, int32_t window);
/* The initial window of streams to come and, by the difference, of all open ones. */
void h2_set_initial_window(struct h2 *h, uint32_t window);
/* Streams the peer allows us at once; LIMIT_STREAMS_BEFORE_SETTINGS until it said so. */
uint32_t h2_max_streams(struct h2 *h);
/* Client: the request has not been sent, as the peer does not allow one more stream. */
bool h2_waits(struct h2 *h, int32_t id);
void h2_ping(struct h2 *h);
/* Server: a GOAWAY that refuses nothing yet, so that the peer opens its next streams elsewhere (RFC 9113 6.8). */
void h2_shutdown_notice(struct h2 *h);
/* No new streams from the peer; open ones go on. */
void h2_goaway(struct h2 *h, uint32_t error);

/* Frees the buffer that this thread's sessions share. */
void h2_thread_done(void);

#define H2_NO_ERROR 0x0
#define H2_REFUSED_STREAM 0x7
#define H2_CANCEL 0x8
#define H2_CONNECT_ERROR 0xa
