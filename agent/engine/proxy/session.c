/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What passes over a tunnel: its socket's events and its HTTP/2 session's. Handshake and SETTINGS first, then DATA to
 * and from streams; all frames of one event round leave in one write. Called by the loop and as h2.c's events;
 * by tunnel.c, stream.c and the two proxies to send.
 */
#include "worker.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define READ_ROUNDS 8

static const struct h2_events h2_handlers;

static void lose(struct tunnel *t);

/* --- writing --- */

void session_flush_soon(struct tunnel *t)
{
	if (t->state == TUNNEL_SETTINGS || t->state == TUNNEL_READY)
		loop_defer(t->pod->w->loop, &t->flush);
}

static void watch_for(struct tunnel *t)
{
	(void)loop_watch_mod(t->pod->w->loop, &t->watch, EPOLLIN | (tls_stream_blocked(&t->tls) ? EPOLLOUT : 0));
}

static int emit(void *owner, const uint8_t *data, size_t len)
{
	struct tunnel *t = owner;

	t->flushed += len;
	return tls_stream_write(&t->tls, data, len);
}

static ssize_t pull(void *owner, int32_t id, void *stream, uint8_t *buf, size_t max, bool *ret_eof)
{
	struct tunnel *t = owner;

	(void)id;
	if (t->flushed >= LIMIT_FLUSH_BYTES || tls_stream_blocked(&t->tls)) {
		t->paused = true;
		return H2_PULL_PAUSE;
	}
	return stream_pull(stream, buf, max, ret_eof);
}

static void send_frames(struct tunnel *t)
{
	int r, e;

	t->flushed = 0;
	t->paused = false;
	tls_stream_begin(&t->tls);
	r = h2_send(t->h2);
	e = tls_stream_end(&t->tls);
	if (e < 0 && e != -EAGAIN) {
		lose(t);
		return;
	}
	if (r < 0) {
		tunnel_fail(t, WR_REASON_H2_PROTOCOL);
		return;
	}
	watch_for(t);
	if (t->paused && !tls_stream_blocked(&t->tls))
		loop_defer(t->pod->w->loop, &t->flush);
	/* What is kept may be a request from before the peer knew. */
	if (h2_finished(t->h2) ||
	    (t->goaway && !t->n_conns && !t->rest && !tls_stream_blocked(&t->tls) && !h2_want_write(t->h2)))
		tunnel_fail(t, h2_broken(t->h2) ? WR_REASON_H2_PROTOCOL : WR_REASON_NONE);
}

/* --- reading --- */

static void gather_flush(struct tunnel *t)
{
	struct conn *c = t->gather_conn;
	int n = t->n_gather;

	t->gather_conn = NULL;
	t->n_gather = 0;
	if (c)
		stream_data(c, t->gather, n);
}

/* A server's bytes or FIN before its final answer are nobody's: the app must not see what another try, elsewhere, may
 * follow. */
static bool premature(struct tunnel *t, struct conn *c)
{
	if (t->server || c->established)
		return false;
	conn_end(c, WR_REASON_H2_PROTOCOL, true);
	return true;
}

static void on_data(void *owner, int32_t id, void *stream, const uint8_t *data, size_t len)
{
	struct tunnel *t = owner;

	(void)id;
	if (premature(t, stream))
		return;
	if (t->gather_conn != stream || t->n_gather == (int)ARRAY_SIZE(t->gather))
		gather_flush(t);
	t->gather_conn = stream;
	t->gather[t->n_gather++] = (struct iovec){(void *)(uintptr_t)data, len};
}

/* nghttp2 has queued a GOAWAY with the error. It would be lost if the socket were closed with bytes unread: that
 * resets. */
static void say_why(struct tunnel *t)
{
	tls_stream_begin(&t->tls);
	(void)h2_send(t->h2);
	(void)tls_stream_end(&t->tls);
	(void)shutdown(t->watch.fd, SHUT_WR);
	for (int i = 0; i < READ_ROUNDS; i++)
		if (recv(t->watch.fd, t->pod->w->plaintext, LIMIT_PLAINTEXT_BYTES, MSG_DONTWAIT) <= 0)
			break;
}

/* This tunnel's share of the frames that begin or end streams in this round. */
static unsigned turns_of_round(struct worker *w)
{
	if (w->turns_round != loop_round(w->loop)) {
		w->turns_round = loop_round(w->loop);
		w->turns = LIMIT_TURNS_A_ROUND;
	}
	return 1 + w->turns / 2;
}

/* As many of the bytes as this round allows: their number, or negative, and the tunnel has ended. */
static ssize_t parse(struct tunnel *t, const uint8_t *data, size_t len)
{
	struct worker *w = t->pod->w;
	unsigned share = turns_of_round(w), left = share;
	ssize_t n = h2_recv(t->h2, data, len, worker_now_ms(w), &left);

	w->turns -= share - left < w->turns ? share - left : w->turns;
	gather_flush(t);
	if (n < 0) {
		say_why(t);
		tunnel_fail(t, n == -EDQUOT ? WR_REASON_H2_FLOOD : WR_REASON_H2_PROTOCOL);
		return n;
	}
	session_flush_soon(t);
	return n;
}

/* What was read and is too much for this round: the tunnel reads nothing else before. True: it is parsed. */
static bool parse_rest(struct tunnel *t)
{
	ssize_t n = parse(t, t->rest + t->rest_off, t->rest_len - t->rest_off);

	if (n < 0)
		return false;
	t->rest_off += (size_t)n;
	t->read_more = t->rest_off < t->rest_len;
	if (t->read_more)
		return false;
	free(t->rest);
	t->rest = NULL;
	return true;
}

static void keep_rest(struct tunnel *t, const uint8_t *data, size_t len)
{
	t->rest = malloc(len);
	if (!t->rest) {
		tunnel_fail(t, WR_REASON_INTERNAL);
		return;
	}
	memcpy(t->rest, data, len);
	t->rest_len = len;
	t->rest_off = 0;
	t->read_more = true;
}

/* True: there may be more to read in this round. */
static bool read_some(struct tunnel *t)
{
	struct worker *w = t->pod->w;
	ssize_t n = tls_stream_read(&t->tls, w->plaintext, LIMIT_PLAINTEXT_BYTES), parsed;

	if (n == 0)
		return false;
	if (n < 0) {
		tunnel_fail(t, n == -EPROTO	    ? WR_REASON_TLS_PROTOCOL
			       : n == -EKEYREJECTED ? WR_REASON_TLS_REFUSED
						    : WR_REASON_TUNNEL_LOST);
		return false;
	}
	loop_came(w->loop, (size_t)n);
	t->heard_ms = worker_now_ms(w);
	t->ping_sent = false;
	parsed = parse(t, w->plaintext, (size_t)n);
	if (parsed < 0)
		return false;
	if (parsed < n)
		keep_rest(t, w->plaintext + parsed, (size_t)(n - parsed));
	return parsed == n;
}

static void read_frames(struct tunnel *t)
{
	t->read_more = false;
	for (int i = 0; i < READ_ROUNDS; i++)
		if (t->rest ? !parse_rest(t) : !read_some(t))
			return;
	/* The socket may be empty while records that came ahead wait: epoll would not say so. */
	t->read_more = true;
	session_flush_soon(t);
}

/* Goes on with a lost tunnel, and ends it once nothing is left. */
static void hear_out(struct tunnel *t)
{
	read_frames(t);
	if (!t->read_more)
		tunnel_fail(t, WR_REASON_TUNNEL_LOST);
}

/* The peer hears nothing any more. Its last words, which came before, still count: megabytes may lie in the kernel, and
 * others are served between. */
static void lose(struct tunnel *t)
{
	t->lost = true;
	tls_stream_readable(&t->tls);
	tunnel_close_to_new(t);
	hear_out(t);
}

void session_flush(struct tunnel *t)
{
	if (t->lost)
		return;
	task_cancel(&t->flush);
	if ((t->state == TUNNEL_SETTINGS || t->state == TUNNEL_READY) && !tls_stream_blocked(&t->tls))
		send_frames(t);
}

void session_flush_due(struct task *task)
{
	struct tunnel *t = container_of(task, struct tunnel, flush);

	if (t->lost) {
		hear_out(t);
		return;
	}
	if (t->read_more)
		read_frames(t);
	if (t->state == TUNNEL_CLOSED || tls_stream_blocked(&t->tls))
		return;
	send_frames(t);
}

/* --- set-up --- */

static void open_streams(struct tunnel *t)
{
	list_foreach_safe(n, tmp, &t->conns) {
		struct conn *c = list_entry(n, struct conn, tunnel_node);

		if (!c->stream_open && !c->established && c->kind == CONN_OUT_HBONE)
			outbound_opened(c);
		/* Stream ids are used up: all that have no stream are on their way elsewhere. */
		if (t->state == TUNNEL_READY && t->goaway)
			return;
	}
}

static void handshake(struct tunnel *t)
{
	int r = tls_stream_handshake(&t->tls);

	if (r < 0) {
		enum wr_reason reason = r == -EPROTO	     ? tls_verify_reason(t->tls.ssl, &t->verify)
					: r == -EKEYREJECTED ? WR_REASON_TLS_REFUSED
							     : WR_REASON_TUNNEL_LOST;

		tunnel_fail(t, reason);
		return;
	}
	if (r == 0) {
		watch_for(t);
		return;
	}
	if (h2_new(t->server, &h2_handlers, t, worker_now_ms(t->pod->w), &t->h2) < 0) {
		tunnel_fail(t, WR_REASON_INTERNAL);
		return;
	}
	t->state = TUNNEL_SETTINGS;
	if (!t->server)
		(void)sock_local_addr(t->watch.fd, &t->local);
	tunnel_life_begin(t);
	if (t->state == TUNNEL_CLOSED)
		return;
	open_streams(t);
	session_flush_soon(t);
	watch_for(t);
	/* The peer's first frames may have come with the last of the handshake. */
	read_frames(t);
}

static void on_settings(void *owner)
{
	struct tunnel *t = owner;

	tunnel_settled(t);
	/* Connections may have waited for a server that allowed none. */
	if (!t->server && !t->goaway && h2_max_streams(t->h2))
		open_streams(t);
}

void session_event(struct watch *w, uint32_t events)
{
	struct tunnel *t = container_of(w, struct tunnel, watch);
	int r;

	/* The flush task is at it. */
	if (t->lost)
		return;
	if (t->state == TUNNEL_DIALING) {
		r = sock_error(w->fd);
		if (r < 0) {
			tunnel_fail(t, outbound_dial_reason(r));
			return;
		}
		if (!(events & EPOLLOUT))
			return;
		(void)loop_watch_mod(t->pod->w->loop, w, EPOLLIN);
		if (tunnel_start_tls(t) < 0) {
			tunnel_fail(t, WR_REASON_INTERNAL);
			return;
		}
	}
	tls_stream_readable(&t->tls);
	if (t->state == TUNNEL_HANDSHAKE) {
		handshake(t);
		return;
	}
	if (events & EPOLLOUT) {
		r = tls_stream_flush(&t->tls);
		if (r < 0 && r != -EAGAIN) {
			lose(t);
			return;
		}
		watch_for(t);
		if (r == 0)
			session_flush_soon(t);
	}
	/* What was kept from the last round is the flush task's to go on with. */
	if (events & ~(uint32_t)EPOLLOUT && !t->rest)
		read_frames(t);
}

/* --- events of the session --- */

static void on_request(void *owner, int32_t id, const struct h2_headers *h, bool end_stream)
{
	/* Nobody would hear the answer. */
	if (!((struct tunnel *)owner)->lost)
		inbound_request(owner, id, h, end_stream);
}

static void on_response(void *owner, int32_t id, void *stream, const struct h2_headers *h)
{
	struct conn *c = stream;

	(void)owner;
	(void)id;
	c->status = (int16_t)h->status;
	if (c->established)
		return;
	if (h->status == 200)
		stream_open(c);
	else
		conn_end(c, WR_REASON_CONNECT_STATUS, true);
}

static void on_end(void *owner, int32_t id, void *stream)
{
	struct tunnel *t = owner;

	(void)id;
	if (premature(t, stream))
		return;
	gather_flush(t);
	stream_end(stream);
}

static void on_closed(void *owner, int32_t id, void *stream, uint32_t error)
{
	struct tunnel *t = owner;

	(void)id;
	if (!stream)
		return;
	if (t->gather_conn == stream)
		gather_flush(t);
	stream_closed(stream, error);
}

static void on_goaway(void *owner, uint32_t error)
{
	struct tunnel *t = owner;

	(void)error;
	tunnel_close_to_new(t);
	session_flush_soon(t);
}

/* nghttp2 announces credit once half a window is due, and smaller windows make it due without another byte: a sender
 * whose window has become negative would wait for ever. */
static void on_settings_ack(void *owner)
{
	struct tunnel *t = owner;

	list_foreach(n, &t->conns)
		stream_credit_due(list_entry(n, struct conn, tunnel_node));
	session_flush_soon(t);
}

static void on_ping_ack(void *owner)
{
	((struct tunnel *)owner)->ping_sent = false;
}

static const struct h2_events h2_handlers = {
	.request = on_request,
	.response = on_response,
	.data = on_data,
	.end = on_end,
	.closed = on_closed,
	.pull = pull,
	.emit = emit,
	.settings = on_settings,
	.goaway = on_goaway,
	.ping_ack = on_ping_ack,
	.settings_ack = on_settings_ack,
};
