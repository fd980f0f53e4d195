/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pump of a tunnelled connection: bytes between the app's socket and its HTTP/2 stream. Towards the wire the tunnel
 * pulls; towards the app DATA is written where it lies, and credit goes back as the app takes it. Half-close is
 * END_STREAM (RFC 9113 8.5), reset is RST_STREAM, both ways. Called by session.c and inbound.c.
 */
#include "worker.h"
#include "engine/base/cleanup.h"

#include <errno.h>

static enum wr_reason app_reason(const struct conn *c)
{
	return c->kind == CONN_OUT_HBONE ? WR_REASON_CLIENT_RESET : WR_REASON_SERVER_RESET;
}

/* Ends the connection when both directions are finished and the app has been given everything. */
static void check_finished(struct conn *c)
{
	if (c->end_sent && c->end_received && !c->app.backlog && c->app.shut_done)
		conn_end(c, WR_REASON_NONE, false);
}

/* stream_pull comes to the end of what it said. */
static void app_failed(struct conn *c)
{
	/* Before, its own event says so, and knows the answer. */
	if (!c->established || !conn_side_failed(c, &c->app, app_reason(c), c->stream_open))
		return;
	h2_resume(c->tunnel->h2, c->stream_id);
	session_flush_soon(c->tunnel);
}

void stream_open(struct conn *c)
{
	conn_opened(c);
	c->app.watch.fn = stream_app_event;
	if (c->app.readable) {
		h2_resume(c->tunnel->h2, c->stream_id);
		session_flush_soon(c->tunnel);
	}
}

ssize_t stream_pull(struct conn *c, uint8_t *buf, size_t max, bool *ret_eof)
{
	ssize_t n;

	if (c->state != CONN_OPEN || !c->app.readable)
		return H2_PULL_LATER;
	n = local_read(&c->app, buf, max);
	if (n == -EAGAIN)
		return H2_PULL_LATER;
	if (n < 0) {
		conn_end(c, app_reason(c), true);
		return H2_PULL_LATER;
	}
	loop_came(c->pod->w->loop, (size_t)n);
	c->bytes_sent += (uint64_t)n;
	if (n == 0) {
		*ret_eof = true;
		c->end_sent = true;
		check_finished(c);
	}
	return n;
}

/* A stream that empties whole windows gets a larger one, as long as the promises fit the budget. */
static void grow_window(struct conn *c, size_t taken)
{
	struct worker *w = c->pod->w;

	c->window_run += (uint32_t)taken;
	if (c->window_run < c->window || c->window >= LIMIT_STREAM_WINDOW_MAX || w->window_level ||
	    w->window_grown + c->window > w->budget / 2)
		return;
	w->window_grown += c->window;
	c->window *= 2;
	c->window_run = 0;
	h2_set_window(c->tunnel->h2, c->stream_id, (int32_t)c->window);
}

static void credit(struct conn *c, size_t taken)
{
	c->bytes_recv += taken;
	if (!c->stream_open || !taken)
		return;
	c->uncredited += (uint32_t)taken;
	/* Small portions are collected: nobody waits for a window that is mostly open. */
	if (c->uncredited < worker_stream_window(c->pod->w) / 16)
		return;
	h2_consume(c->tunnel->h2, c->stream_id, c->uncredited);
	c->uncredited = 0;
	session_flush_soon(c->tunnel);
}

void stream_credit_due(struct conn *c)
{
	if (!c->stream_open)
		return;
	h2_consume(c->tunnel->h2, c->stream_id, c->uncredited);
	c->uncredited = 0;
}

void stream_data(struct conn *c, struct iovec *iov, int n)
{
	size_t len = 0;
	ssize_t wrote;

	if (c->state == CONN_DEAD || c->app.error)
		return;
	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	wrote = local_write(&c->app, iov, n);
	if (wrote < 0) {
		app_failed(c);
		return;
	}
	if (c->app.backlog) {
		c->window_run = 0;
		worker_enforce_budget(c->pod->w);
		worker_check_budget(c->pod->w);
		if (c->state == CONN_DEAD)
			return;
	} else {
		grow_window(c, len);
	}
	credit(c, (size_t)wrote);
}

void stream_end(struct conn *c)
{
	if (c->state == CONN_DEAD)
		return;
	c->end_received = true;
	/* shutdown(2) would undo a connect that is still under way; inbound_app_event comes back to it. */
	if (!c->established) {
		c->app.shut_wanted = true;
		return;
	}
	/* The last word of both sides: closing says FIN by itself. */
	if (c->end_sent && !c->app.backlog) {
		conn_end(c, WR_REASON_NONE, false);
		return;
	}
	if (local_shutdown(&c->app) < 0) {
		app_failed(c);
		return;
	}
	check_finished(c);
}

void stream_closed(struct conn *c, uint32_t error)
{
	if (c->state == CONN_DEAD)
		return;
	c->stream_open = false;
	/* A peer that has said everything may want no more of ours (RFC 9113 8.1): what it said still reaches the app.
	 */
	if (c->established && c->end_received && (error == H2_NO_ERROR || error == H2_CANCEL))
		c->end_sent = true;
	if (c->end_received && c->end_sent)
		check_finished(c);
	else if (c->kind == CONN_OUT_HBONE && !c->established && error == H2_REFUSED_STREAM)
		outbound_retry(c, WR_REASON_H2_GOAWAY);
	else
		conn_end(c, WR_REASON_PEER_RESET, true);
}

void stream_app_event(struct watch *w, uint32_t events)
{
	struct conn *c = container_of(w, struct conn, app.watch);
	int r = local_event(&c->app, events);

	if (r < 0) {
		app_failed(c);
		return;
	}
	if (events & EPOLLOUT && (c->app.backlog || c->app.shut_wanted)) {
		ssize_t n = local_flush(&c->app);

		if (n < 0) {
			app_failed(c);
			return;
		}
		credit(c, (size_t)n);
		/* What was held back while the app was slow is due once it has caught up. */
		if (!c->app.backlog && c->uncredited && c->stream_open) {
			h2_consume(c->tunnel->h2, c->stream_id, c->uncredited);
			c->uncredited = 0;
			session_flush_soon(c->tunnel);
		}
		worker_check_budget(c->pod->w);
		check_finished(c);
		if (c->state == CONN_DEAD)
			return;
	}
	if (c->app.readable && !c->app.read_done && c->stream_open) {
		h2_resume(c->tunnel->h2, c->stream_id);
		session_flush_soon(c->tunnel);
	}
}
