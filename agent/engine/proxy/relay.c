/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain TCP to plain TCP: outbound connections to endpoints outside the mesh, and inbound plaintext to the app. Each
 * direction reads only while the other side has no backlog, so one scratch of bytes is all that ever waits.
 * Called by outbound.c and inbound.c.
 */
#include "worker.h"
#include "engine/base/cleanup.h"

#include <errno.h>

/* Which party a failed socket belongs to: `app` is the caller's, whether that is the pod's own app or calls it. */
static enum wr_reason reset_reason(const struct conn *c, const struct local *l)
{
	return l == &c->app ? WR_REASON_CLIENT_RESET : WR_REASON_SERVER_RESET;
}

/* move comes to the end of what it said. */
static void fail(struct conn *c, struct local *l)
{
	const struct local *other = l == &c->app ? &relay_of(c)->far : &c->app;

	if (conn_side_failed(c, l, reset_reason(c, l), !other->error && c->state == CONN_OPEN))
		loop_defer(c->pod->w->loop, &relay_of(c)->more);
}

/* Moves bytes one way until the source is empty, the target is full, or the round is over. False: the connection ended.
 */
static bool move(struct conn *c, struct local *from, struct local *to, uint64_t *count)
{
	struct worker *w = c->pod->w;
	size_t moved = 0;

	while (from->readable && !from->read_done && !to->backlog && !to->error) {
		/* When room is scarce a slow reader gets little ahead: what lies here the tunnels would pay for, and
		 * the sender's kernel keeps the rest. */
		size_t most = w->window_level ? LIMIT_RELAY_SCARCE_BYTES : LIMIT_PLAINTEXT_BYTES;
		struct iovec iov = {.iov_base = w->plaintext};
		ssize_t n = local_read(from, w->plaintext, most);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			fail(c, from);
			return false;
		}
		if (n == 0) {
			if (local_shutdown(to) < 0) {
				fail(c, to);
				return false;
			}
			break;
		}
		loop_came(w->loop, (size_t)n);
		iov.iov_len = (size_t)n;
		if (local_write(to, &iov, 1) < 0) {
			fail(c, to);
			return false;
		}
		if (to->backlog)
			worker_check_budget(w);
		*count += (uint64_t)n;
		moved += (size_t)n;
		if (moved >= LIMIT_RELAY_ROUND_BYTES) {
			loop_defer(w->loop, &relay_of(c)->more);
			break;
		}
	}
	return true;
}

static void pump(struct conn *c)
{
	struct relay *r = relay_of(c);
	bool out = c->kind == CONN_OUT_TCP;
	uint64_t *request = out ? &c->bytes_sent : &c->bytes_recv, *answer = out ? &c->bytes_recv : &c->bytes_sent;

	if (!move(c, &c->app, &r->far, request) || !move(c, &r->far, &c->app, answer))
		return;
	if (c->app.shut_done && r->far.shut_done && c->app.read_done && r->far.read_done)
		conn_end(c, WR_REASON_NONE, false);
}

static void more(struct task *t)
{
	pump(&container_of(t, struct relay, more)->conn);
}

static void event(struct conn *c, struct local *l, uint32_t events)
{
	struct relay *r = relay_of(c);
	int e = local_event(l, events);

	if (c->state == CONN_SETUP && l == &r->far) {
		if (e < 0 && !local_was_accepted(e)) {
			conn_end(c, c->kind == CONN_IN_PLAIN ? inbound_dial_reason(e) : outbound_dial_reason(e), true);
			return;
		}
		if (e < 0 || events & EPOLLOUT)
			conn_opened(c);
	}
	if (e < 0) {
		fail(c, l);
		return;
	}
	if (c->state == CONN_SETUP)
		return;
	if (events & EPOLLOUT && (l->backlog || l->shut_wanted)) {
		if (local_flush(l) < 0) {
			fail(c, l);
			return;
		}
		worker_check_budget(c->pod->w);
	}
	pump(c);
}

void relay_app_event(struct watch *w, uint32_t events)
{
	struct conn *c = container_of(w, struct conn, app.watch);

	event(c, &c->app, events);
}

static void far_event(struct watch *w, uint32_t events)
{
	struct relay *r = container_of(w, struct relay, far.watch);

	event(&r->conn, &r->far, events);
}

static void late(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, timer);

	conn_end(c, c->kind == CONN_IN_PLAIN ? WR_REASON_APP_TIMEOUT : WR_REASON_DIAL_TIMEOUT, true);
}

/* An outbound connection may have spent a part of its time on tunnels. */
static uint64_t dial_ms(const struct conn *c)
{
	uint64_t now = worker_now_ms(c->pod->w);

	if (c->kind == CONN_IN_PLAIN)
		return LIMIT_APP_CONNECT_MS;
	return c->deadline_ms > now ? c->deadline_ms - now : 0;
}

int relay_start(struct conn *c, int far_fd)
{
	struct relay *r = relay_of(c);
	struct worker *w = c->pod->w;

	task_init(&r->more, more);
	c->timer.fn = late;
	loop_timer_set(w->loop, &c->timer, dial_ms(c));
	return local_init(&r->far, w->loop, far_fd, far_event);
}

void relay_stop(struct conn *c)
{
	struct relay *r = relay_of(c);

	if (r->more.fn)
		task_cancel(&r->more);
	local_stop(&r->far, c->pod->w->loop);
}

void relay_close(struct conn *c, bool reset)
{
	local_close(&relay_of(c)->far, reset);
}
