/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 sessions on nghttp2. Wire bytes and stream calls come in, events leave; called by proxy/session.c. */
#include "engine/proto/h2.h"
#include "h2_guard.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_HEADER 9

struct h2 {
	nghttp2_session *session;
	const struct h2_events *events;
	void *owner;
	bool server, goaway_sent;
	bool bomb;   /* a header block too large to be meant */
	bool broken; /* the peer has been told that it broke the protocol */
	int emit_error;
	int32_t unsent; /* the request that nghttp2 has just given up before sending it */
	/* Header blocks arrive one at a time (RFC 9113 4.3), so one place to collect them serves all streams. */
	struct h2_headers *headers;
	size_t block; /* bytes of the present one, unpacked */
	struct h2_guard guard;
};

/* The body being sent: pulled and emitted within one nghttp2 step, so one buffer serves the thread. */
static __thread uint8_t *scratch;
static nghttp2_session_callbacks *callbacks;
static nghttp2_option *options;
static pthread_once_t callbacks_once = PTHREAD_ONCE_INIT;

static int begin_headers(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
	struct h2 *h = user;

	(void)s;
	(void)f;
	if (!h->headers)
		h->headers = malloc(sizeof(*h->headers));
	if (!h->headers)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	h->block = 0;
	h->headers->status = 0;
	h->headers->is_connect = h->headers->has_protocol = h->headers->too_large = false;
	h->headers->authority_len = 0;
	h->headers->method[0] = h->headers->authority[0] = h->headers->baggage[0] = h->headers->forwarded[0] = 0;
	return 0;
}

static bool keep_value(char *to, size_t size, const uint8_t *value, size_t len)
{
	if (len >= size)
		return false;
	memcpy(to, value, len);
	to[len] = 0;
	return true;
}

static bool is_name(const uint8_t *name, size_t len, const char *want)
{
	return len == strlen(want) && !memcmp(name, want, len);
}

static int header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t name_len,
		  const uint8_t *value, size_t len, uint8_t flags, void *user)
{
	struct h2 *h = user;
	struct h2_headers *hd = h->headers;
	bool fits = true;

	(void)flags;
	/* A few bytes on the wire can name the same large field over and over (RFC 7541 7.3). */
	h->block += name_len + len;
	if (h->block > LIMIT_HEADER_BLOCK) {
		h->bomb = true;
		(void)nghttp2_session_terminate_session(s, NGHTTP2_ENHANCE_YOUR_CALM);
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	if (f->hd.type != NGHTTP2_HEADERS || !hd)
		return 0;
	if (is_name(name, name_len, ":method")) {
		fits = keep_value(hd->method, sizeof(hd->method), value, len);
		hd->is_connect = fits && !strcmp(hd->method, "CONNECT");
	} else if (is_name(name, name_len, ":authority")) {
		fits = keep_value(hd->authority, sizeof(hd->authority), value, len);
		hd->authority_len = fits ? len : 0;
	} else if (is_name(name, name_len, ":protocol")) {
		hd->has_protocol = true;
	} else if (is_name(name, name_len, ":status")) {
		hd->status = len == 3 ? (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0') : 0;
	} else if (is_name(name, name_len, "baggage")) {
		/* Telemetry only: one that does not fit is as good as none. Several are one list (RFC 9110 5.3). */
		size_t n = strlen(hd->baggage);

		if (n && n + 1 < sizeof(hd->baggage) &&
		    keep_value(hd->baggage + n + 1, sizeof(hd->baggage) - n - 1, value, len))
			hd->baggage[n] = ',';
		else if (!n)
			(void)keep_value(hd->baggage, sizeof(hd->baggage), value, len);
	} else if (is_name(name, name_len, "forwarded")) {
		(void)keep_value(hd->forwarded, sizeof(hd->forwarded), value, len);
	}
	hd->too_large |= !fits;
	return 0;
}

static void response(struct h2 *h, int32_t id, void *stream)
{
	if (h->headers->status == 200)
		h2_budget_credit(&h->guard.budget, LIMIT_CONTROL_PER_STREAM, 0);
	h->events->response(h->owner, id, stream, h->headers);
}

static int frame_recv(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
	struct h2 *h = user;
	int32_t id = f->hd.stream_id;
	void *stream = id ? nghttp2_session_get_stream_user_data(s, id) : NULL;
	bool end = (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

	switch (f->hd.type) {
	case NGHTTP2_HEADERS:
		(void)h2_budget_take(&h->guard.budget, 0, h->block);
		if (f->headers.cat == NGHTTP2_HCAT_REQUEST)
			h->events->request(h->owner, id, h->headers, end);
		else if (!h->server && stream && h->headers->status >= 200)
			response(h, id, stream);
		stream = nghttp2_session_get_stream_user_data(s, id);
		/* fall through */
	case NGHTTP2_DATA:
		if (end && stream)
			h->events->end(h->owner, id, stream);
		break;
	case NGHTTP2_SETTINGS:
		if (f->hd.flags & NGHTTP2_FLAG_ACK)
			h->events->settings_ack(h->owner);
		else
			h->events->settings(h->owner);
		break;
	case NGHTTP2_PING:
		if (f->hd.flags & NGHTTP2_FLAG_ACK)
			h->events->ping_ack(h->owner);
		break;
	case NGHTTP2_GOAWAY:
		h->events->goaway(h->owner, f->goaway.error_code);
		break;
	default:
		break;
	}
	return 0;
}

static int data_chunk(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *user)
{
	struct h2 *h = user;
	void *stream = nghttp2_session_get_stream_user_data(s, id);

	(void)flags;
	nghttp2_session_consume_connection(s, len);
	if (stream)
		h->events->data(h->owner, id, stream, data, len);
	return 0;
}

/* A refusal ends our side only; RST_STREAM NO_ERROR behind it frees the stream (RFC 9113 8.1). Queued with it, nghttp2
 * would drop the refusal itself. */
static int frame_sent(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
	struct h2 *h = user;
	int32_t id = f->hd.stream_id;

	if (h->server && f->hd.type == NGHTTP2_HEADERS && (f->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
	    nghttp2_session_get_stream_remote_close(s, id) == 0)
		nghttp2_submit_rst_stream(s, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
	if (f->hd.type == NGHTTP2_GOAWAY && f->goaway.error_code != NGHTTP2_NO_ERROR)
		h->broken = true;
	return 0;
}

/* A request that waited while a GOAWAY came in: nghttp2 closes its stream as INTERNAL_ERROR, but the peer never saw it.
 */
static int frame_not_sent(nghttp2_session *s, const nghttp2_frame *f, int error, void *user)
{
	struct h2 *h = user;

	(void)s;
	(void)error;
	if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST)
		h->unsent = f->hd.stream_id;
	return 0;
}

static int stream_close(nghttp2_session *s, int32_t id, uint32_t error, void *user)
{
	struct h2 *h = user;

	if (id == h->unsent)
		error = NGHTTP2_REFUSED_STREAM;
	h->events->closed(h->owner, id, nghttp2_session_get_stream_user_data(s, id), error);
	return 0;
}

static ssize_t body_read(nghttp2_session *s, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
			 nghttp2_data_source *source, void *user)
{
	struct h2 *h = user;
	void *stream = nghttp2_session_get_stream_user_data(s, id);
	bool eof = false;
	ssize_t n;

	(void)buf;
	(void)source;
	if (len > LIMIT_FRAME_PAYLOAD)
		len = LIMIT_FRAME_PAYLOAD;
	n = stream ? h->events->pull(h->owner, id, stream, scratch + FRAME_HEADER, len, &eof) : H2_PULL_RESET;
	if (n == H2_PULL_LATER)
		return NGHTTP2_ERR_DEFERRED;
	if (n == H2_PULL_PAUSE)
		return NGHTTP2_ERR_PAUSE;
	if (n < 0) {
		/* TEMPORAL_CALLBACK_FAILURE would say INTERNAL_ERROR; a broken TCP side is CONNECT_ERROR (RFC
		 * 9113 8.5). */
		nghttp2_submit_rst_stream(s, NGHTTP2_FLAG_NONE, id, NGHTTP2_CONNECT_ERROR);
		return NGHTTP2_ERR_DEFERRED;
	}
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (eof)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return n;
}

static int send_data(nghttp2_session *s, nghttp2_frame *f, const uint8_t *head, size_t len, nghttp2_data_source *source,
		     void *user)
{
	struct h2 *h = user;

	(void)s;
	(void)f;
	(void)source;
	h2_budget_credit(&h->guard.budget, LIMIT_CONTROL_PER_DATA_SENT, len);
	memcpy(scratch, head, FRAME_HEADER);
	h->emit_error = h->events->emit(h->owner, scratch, FRAME_HEADER + len);
	return h->emit_error ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static ssize_t body_length(nghttp2_session *s, uint8_t type, int32_t id, int32_t session_window, int32_t stream_window,
			   uint32_t max_frame, void *user)
{
	int32_t n = LIMIT_FRAME_PAYLOAD;

	(void)s;
	(void)type;
	(void)id;
	(void)user;
	n = n < session_window ? n : session_window;
	n = n < stream_window ? n : stream_window;
	return (uint32_t)n < max_frame ? n : (ssize_t)max_frame;
}

static void callbacks_make(void)
{
	if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&options))
		return;
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, data_chunk);
	nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, frame_not_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, stream_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, frame_sent);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
	nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, body_length);
	nghttp2_option_set_no_auto_window_update(options, 1);
	nghttp2_option_set_max_send_header_block_length(options, LIMIT_HEADER_LIST);
	nghttp2_option_set_max_outbound_ack(options, LIMIT_ACKS_QUEUED);
	/* What is to be remembered of closed streams h2_ids.c keeps in less memory, and resets are part of the budget:
	 * nghttp2's own limit of them is below what apps that end by RST cause. */
	nghttp2_option_set_no_closed_streams(options, 1);
	nghttp2_option_set_stream_reset_rate_limit(options, UINT64_MAX, 0);
}

int h2_new(bool server, const struct h2_events *events, void *owner, uint64_t now_ms, struct h2 **ret)
{
	nghttp2_settings_entry iv[] = {
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, LIMIT_STREAM_WINDOW_START},
		{NGHTTP2_SETTINGS_MAX_FRAME_SIZE, LIMIT_MAX_FRAME_SIZE},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, server ? LIMIT_HEADER_BLOCK : LIMIT_HEADER_LIST},
		{server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
		 server ? LIMIT_STREAMS_PER_TUNNEL : 0},
	};
	struct h2 *h = calloc(1, sizeof(*h));
	int r;

	pthread_once(&callbacks_once, callbacks_make);
	if (!scratch)
		scratch = malloc(FRAME_HEADER + LIMIT_FRAME_PAYLOAD);
	if (!h || !scratch || !callbacks || !options) {
		free(h);
		return -ENOMEM;
	}
	h->server = server;
	h->events = events;
	h->owner = owner;
	h2_guard_init(&h->guard, server, now_ms);
	r = server ? nghttp2_session_server_new2(&h->session, callbacks, h, options)
		   : nghttp2_session_client_new2(&h->session, callbacks, h, options);
	if (!r)
		r = nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, iv, sizeof(iv) / sizeof(iv[0]));
	if (!r)
		r = nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, LIMIT_CONNECTION_WINDOW);
	if (r) {
		h2_free(h);
		return -ENOMEM;
	}
	*ret = h;
	return 0;
}

struct h2 *h2_free(struct h2 *h)
{
	if (!h)
		return NULL;
	nghttp2_session_del(h->session);
	free(h->headers);
	free(h);
	return NULL;
}

void h2_thread_done(void)
{
	free(scratch);
	scratch = NULL;
}

/* What nghttp2 let pass: it bounds the answers it owes to PING and SETTINGS, not those to streams it refuses. NULL, or
 * the limit. */
static const char *session_exceeds(const struct h2 *h, ssize_t received)
{
	if (received == NGHTTP2_ERR_FLOODED)
		return "LIMIT_ACKS_QUEUED";
	if (h->bomb)
		return "LIMIT_HEADER_BLOCK";
	return nghttp2_session_get_outbound_queue_size(h->session) > LIMIT_FRAMES_QUEUED ? "LIMIT_FRAMES_QUEUED" : NULL;
}

const char *h2_limit(const struct h2 *h)
{
	return h->guard.limit;
}

ssize_t h2_recv(struct h2 *h, const uint8_t *data, size_t len, uint64_t now_ms, unsigned *turns)
{
	uint32_t error = NGHTTP2_NO_ERROR;
	size_t pass = h2_guard_pass(&h->guard, data, len, now_ms, turns, &error);
	ssize_t n = nghttp2_session_mem_recv(h->session, data, pass);

	if (n == NGHTTP2_ERR_NOMEM)
		return -ENOMEM;
	if (!h->guard.limit)
		h->guard.limit = session_exceeds(h, n);
	if (h->guard.limit)
		error = NGHTTP2_ENHANCE_YOUR_CALM;
	if (!error)
		return n < 0 ? -EPROTO : n;
	(void)nghttp2_session_terminate_session(h->session, error);
	return error == NGHTTP2_ENHANCE_YOUR_CALM ? -EDQUOT : -EPROTO;
}

int h2_send(struct h2 *h)
{
	for (;;) {
		const uint8_t *data;
		ssize_t n = nghttp2_session_mem_send(h->session, &data);

		if (n == 0)
			return 0;
		if (n < 0)
			return h->emit_error ? h->emit_error : n == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
		int r = h->events->emit(h->owner, data, (size_t)n);

		if (r < 0)
			return r;
	}
}

bool h2_want_write(struct h2 *h)
{
	return nghttp2_session_want_write(h->session) != 0;
}

bool h2_broken(const struct h2 *h)
{
	return h->broken;
}

bool h2_finished(struct h2 *h)
{
	return !nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session);
}

static nghttp2_nv nv(const char *name, const char *value)
{
	return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
			    .value = (uint8_t *)(uintptr_t)value,
			    .namelen = strlen(name),
			    .valuelen = strlen(value),
			    .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

int32_t h2_connect(struct h2 *h, const char *authority, const char *baggage, const char *forwarded,
		   const char *traceparent, void *stream)
{
	nghttp2_data_provider body = {.read_callback = body_read};
	nghttp2_nv list[5];
	size_t n = 0;
	int32_t id;

	list[n++] = nv(":method", "CONNECT");
	list[n++] = nv(":authority", authority);
	if (baggage && *baggage)
		list[n++] = nv("baggage", baggage);
	/* What is new in every request (the caller's port, a random value) is kept out of the compression table (RFC
	 * 7541 6.2.2), where it would only push out what repeats. */
	if (forwarded && *forwarded) {
		list[n] = nv("forwarded", forwarded);
		list[n++].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
	}
	if (traceparent && *traceparent) {
		list[n] = nv("traceparent", traceparent);
		list[n++].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
	}
	id = nghttp2_submit_request(h->session, NULL, list, n, &body, stream);
	return id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE ? -EMFILE : id < 0 ? -ENOMEM : id;
}

int h2_respond(struct h2 *h, int32_t id, int status, const char *baggage)
{
	nghttp2_data_provider body = {.read_callback = body_read};
	char text[16];
	nghttp2_nv list[2];
	size_t n = 0;

	snprintf(text, sizeof(text), "%d", status);
	if (status == 200)
		h2_budget_credit(&h->guard.budget, LIMIT_CONTROL_PER_STREAM, 0);
	list[n++] = nv(":status", text);
	if (baggage && *baggage)
		list[n++] = nv("baggage", baggage);
	return nghttp2_submit_response(h->session, id, list, n, status == 200 ? &body : NULL) ? -ENOMEM : 0;
}

void h2_set_stream(struct h2 *h, int32_t id, void *stream)
{
	(void)nghttp2_session_set_stream_user_data(h->session, id, stream);
}

void h2_resume(struct h2 *h, int32_t id)
{
	(void)nghttp2_session_resume_data(h->session, id);
}

void h2_reset(struct h2 *h, int32_t id, uint32_t error)
{
	(void)nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, id, error);
}

void h2_consume(struct h2 *h, int32_t id, size_t len)
{
	(void)nghttp2_session_consume_stream(h->session, id, len);
}

void h2_set_window(struct h2 *h, int32_t id, int32_t window)
{
	(void)nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, id, window);
}

void h2_set_initial_window(struct h2 *h, uint32_t window)
{
	nghttp2_settings_entry iv = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window};

	(void)nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, &iv, 1);
}

uint32_t h2_max_streams(struct h2 *h)
{
	return nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

bool h2_waits(struct h2 *h, int32_t id)
{
	return !nghttp2_session_find_stream(h->session, id);
}

void h2_ping(struct h2 *h)
{
	(void)nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL);
}

void h2_shutdown_notice(struct h2 *h)
{
	(void)nghttp2_submit_shutdown_notice(h->session);
}

void h2_goaway(struct h2 *h, uint32_t error)
{
	if (h->goaway_sent)
		return;
	h->goaway_sent = true;
	(void)nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
				    h->server ? nghttp2_session_get_last_proc_stream_id(h->session) : 0, error, NULL,
				    0);
}
