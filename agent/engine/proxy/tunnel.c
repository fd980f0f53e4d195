/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one mutual-TLS HTTP/2 connection, either role: dial or accept, deadlines, keepalive, GOAWAY, end. What
 * passes over it is session.c's. Called by pool.c, pod.c, outbound.c and session.c.
 */
#include "worker.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* --- deadlines, keepalive, idle --- */

static void setup_late(struct tunnel *t)
{
	tunnel_fail(t, t->state == TUNNEL_DIALING     ? WR_REASON_DIAL_TIMEOUT
		       : t->state == TUNNEL_HANDSHAKE ? WR_REASON_TLS_TIMEOUT
						      : WR_REASON_H2_TIMEOUT);
}

/* A socket on its way to the next hop, or -errno. */
static int dial(struct pod *p, const struct ip_addr *client, const struct ip_port *next_hop)
{
	bool v6 = !ip_addr_is_v4(&next_hop->ip);
	_cleanup_close_ int fd = pod_socket(p, v6, SOCKET_TUNNEL);
	int r;

	if (fd < 0)
		return fd;
	sock_nodelay(fd);
	sock_notsent_lowat(fd, LIMIT_NOTSENT_BYTES);
	congestion_begin(&p->shared->congestion, fd);
	/* The peer's app is to see the address this client used, also in a pod with several. */
	if (ip_addr_is_v4(client) != v6) {
		r = sock_bind_address(fd, v6, client);
		if (r < 0)
			return r;
	}
	r = sock_connect(fd, v6, next_hop);
	if (r < 0)
		return r;
	return take_fd(fd);
}

/* One more SYN, in place of the one that was not answered; if there cannot be another socket, that one goes on. */
static void knock_again(struct tunnel *t)
{
	int fd = dial(t->pod, &t->local.ip, &t->remote), old = t->watch.fd;

	if (fd < 0)
		return;
	loop_watch_del(t->pod->w->loop, &t->watch);
	close(old);
	t->watch.fd = fd;
	if (loop_watch_add(t->pod->w->loop, &t->watch, fd, EPOLLOUT) < 0)
		tunnel_fail(t, WR_REASON_INTERNAL);
}

/* Until the next SYN or the deadline, whichever comes first. */
static void wait_for_setup(struct tunnel *t, unsigned left_ms)
{
	unsigned pause_ms = LIMIT_KNOCK_MS << t->knocks;
	bool knock = t->state == TUNNEL_DIALING && t->knocks < LIMIT_KNOCKS && pause_ms < left_ms;

	loop_timer_set(t->pod->w->loop, &t->timer, knock ? pause_ms : left_ms);
}

static void setup_due(struct tunnel *t)
{
	uint64_t age = worker_now_ms(t->pod->w) - t->created_ms, deadline = t->pod->w->e->cfg.dial_timeout_ms;

	if (t->server || age >= deadline) {
		setup_late(t);
		return;
	}
	if (t->state == TUNNEL_DIALING && t->knocks < LIMIT_KNOCKS) {
		t->knocks++;
		knock_again(t);
	}
	if (t->state != TUNNEL_CLOSED)
		wait_for_setup(t, (unsigned)(deadline - age));
}

static void timer_due(struct timer *timer)
{
	struct tunnel *t = container_of(timer, struct tunnel, timer);
	uint64_t now = worker_now_ms(t->pod->w), silent = now - t->heard_ms;

	if (t->state != TUNNEL_READY) {
		setup_due(t);
		return;
	}
	if (t->retiring && !t->goaway)
		tunnel_goaway(t);
	if (!t->server && !t->n_conns &&
	    now - t->idle_since_ms >= (h2_max_streams(t->h2) ? LIMIT_POOL_IDLE_MS : LIMIT_POOL_FULL_IDLE_MS)) {
		tunnel_goaway(t);
		return;
	}
	if (silent >= LIMIT_PING_MS + LIMIT_PING_TIMEOUT_MS) {
		/* A caller that was only stopped for a while is to know that it was given up on purpose. */
		if (t->server) {
			tunnel_goaway(t);
			session_flush(t);
		}
		tunnel_fail(t, WR_REASON_H2_PING_TIMEOUT);
		return;
	}
	/* Any byte heard is as good as an answer: a tunnel in use is never pinged. */
	if (silent >= LIMIT_PING_MS && !t->ping_sent) {
		t->ping_sent = true;
		h2_ping(t->h2);
		session_flush_soon(t);
	}
	loop_timer_set(t->pod->w->loop, &t->timer, silent < LIMIT_PING_MS ? LIMIT_PING_MS - silent + 1 : LIMIT_PING_MS);
}

/* --- from dial or accept to the end --- */

static struct tunnel *tunnel_new(struct pod *p, bool server)
{
	struct tunnel *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->pod = p;
	t->server = server;
	t->tls.fd = -1;
	t->watch.fd = -1;
	t->watch.fn = session_event;
	t->timer.fn = timer_due;
	task_init(&t->flush, session_flush_due);
	list_init(&t->conns);
	list_init(&t->pool_node);
	t->identity = tls_identity_ref(p->identity);
	t->created_ms = t->heard_ms = t->idle_since_ms = worker_now_ms(p->w);
	list_append(&p->tunnels, &t->node);
	atomic_fetch_add_explicit(&p->w->e->tunnels, 1, memory_order_relaxed);
	return t;
}

int tunnel_start_tls(struct tunnel *t)
{
	SSL *ssl;

	tunnel_life_prepare(t);
	congestion_connected(&t->pod->shared->congestion, t->watch.fd);
	ssl = t->server ? tls_identity_server_ssl(t->identity, &t->verify)
			: tls_identity_client_ssl(t->identity, &t->verify);
	t->state = TUNNEL_HANDSHAKE;
	return ssl ? tls_stream_init(&t->tls, ssl, t->watch.fd) : -ENOMEM;
}

static void doom(struct tunnel *t)
{
	list_append(&t->pod->w->tunnels_doomed, &t->node);
	loop_defer(t->pod->w->loop, &t->pod->w->reap);
}

/* Frees what a tunnel holds, itself once no connection names it; for one that never had connections, or from
 * tunnel_fail. */
static void tunnel_release(struct tunnel *t)
{
	struct worker *w = t->pod->w;
	int fd = t->watch.fd;

	t->state = TUNNEL_CLOSED;
	pool_remove(t);
	task_cancel(&t->flush);
	loop_timer_cancel(w->loop, &t->timer);
	loop_timer_cancel(w->loop, &t->life);
	loop_watch_del(w->loop, &t->watch);
	t->watch.fd = -1;
	/* A peer that does not answer would keep a closed socket, and with it the namespace, for minutes. */
	if (t->pod->vanishes)
		sock_give_up_after(fd, LIMIT_LAST_BYTES_MS);
	if (fd >= 0)
		close(fd);
	atomic_fetch_sub_explicit(&w->e->tunnels, 1, memory_order_relaxed);
	list_remove(&t->node);
	t->left = t->n_conns;
	if (t->left)
		list_append(&w->tunnels_left, &t->node);
	else
		doom(t);
}

void tunnel_free(struct tunnel *t)
{
	h2_free(t->h2);
	free(t->rest);
	if (t->tls.ssl)
		tls_stream_done(&t->tls);
	tunnel_life_free(t);
	tls_identity_unref(t->identity);
	free(t->expected);
	free(t);
}

int tunnel_dial(struct pod *p, const struct ip_port *client, const struct ip_port *next_hop, const char *expected,
		struct tunnel **ret)
{
	_cleanup_close_ int fd = dial(p, &client->ip, next_hop);
	struct tunnel *t;
	int r;

	if (fd < 0)
		return fd;
	t = tunnel_new(p, false);
	if (!t)
		return -ENOMEM;
	t->local = *client;
	t->remote = *next_hop;
	t->expected = strdup(expected);
	r = t->expected ? loop_watch_add(p->w->loop, &t->watch, fd, EPOLLOUT) : -ENOMEM;
	if (r < 0) {
		tunnel_release(t);
		return r;
	}
	fd = -1;
	wait_for_setup(t, p->w->e->cfg.dial_timeout_ms);
	*ret = t;
	return 0;
}

static void handshake_over(struct tunnel *t)
{
	if (t->server && t->state <= TUNNEL_SETTINGS && t->pod->handshakes)
		t->pod->handshakes--;
}

static void give_notice(struct tunnel *t)
{
	h2_shutdown_notice(t->h2);
	loop_timer_set(t->pod->w->loop, &t->timer, LIMIT_GOAWAY_NOTICE_MS);
	session_flush_soon(t);
}

void tunnel_settled(struct tunnel *t)
{
	if (t->state != TUNNEL_SETTINGS)
		return;
	handshake_over(t);
	t->state = TUNNEL_READY;
	loop_timer_set(t->pod->w->loop, &t->timer, LIMIT_PING_MS);
	if (t->retiring)
		give_notice(t);
}

/* Why one more tunnel from this address is too much. A peer may keep its tunnels for ever: not all there can be. */
static enum wr_reason too_many(struct pod *p, const struct ip_addr *peer)
{
	struct engine *e = p->w->e;
	unsigned n = 0;

	if (p->handshakes >= LIMIT_HANDSHAKES)
		return WR_REASON_LIMIT_HANDSHAKES;
	if (atomic_load_explicit(&e->fds, memory_order_relaxed) +
		    atomic_load_explicit(&e->tunnels, memory_order_relaxed) >=
	    e->max_fds)
		return WR_REASON_LIMIT_CONNS;
	list_foreach(i, &p->tunnels) {
		const struct tunnel *t = list_entry(i, struct tunnel, node);

		n += t->server && ip_addr_equal(&t->remote.ip, peer);
	}
	return n >= LIMIT_TUNNELS_PER_PEER ? WR_REASON_LIMIT_TUNNELS : WR_REASON_NONE;
}

void tunnel_accept(struct pod *p, int fd, const struct ip_port *client, const struct ip_port *dst)
{
	bool expired = p->identity->not_after <= time(NULL);
	enum wr_reason reason = expired ? WR_REASON_NO_IDENTITY : too_many(p, &client->ip);
	struct tunnel *t;

	if (reason) {
		conn_log_refused(ACCESS_INBOUND, client, dst, reason);
		sock_close_reset(fd);
		return;
	}
	t = tunnel_new(p, true);
	if (!t) {
		sock_close_reset(fd);
		return;
	}
	t->remote = *client;
	t->local = *dst;
	sock_notsent_lowat(fd, LIMIT_NOTSENT_BYTES);
	p->handshakes++;
	loop_timer_set(p->w->loop, &t->timer, LIMIT_HANDSHAKE_MS);
	if (loop_watch_add(p->w->loop, &t->watch, fd, EPOLLIN) < 0) {
		close(fd);
		tunnel_fail(t, WR_REASON_INTERNAL);
	} else if (tunnel_start_tls(t) < 0) {
		tunnel_fail(t, WR_REASON_INTERNAL);
	}
}

/* Whether another try may help a connection whose CONNECT has not been answered. */
static bool may_retry(enum wr_reason r)
{
	return r == WR_REASON_DIAL_REFUSED || r == WR_REASON_DIAL_FAILED || r == WR_REASON_TUNNEL_LOST ||
	       r == WR_REASON_H2_GOAWAY || r == WR_REASON_DIAL_TIMEOUT || r == WR_REASON_H2_PING_TIMEOUT;
}

/* A caller that never got as far as a stream: what is wrong with it, and who it claims to be. It has not shown yet that
 * the certificate's key is its own, so it is no src.identity. */
static void log_refused(const struct tunnel *t, enum wr_reason reason)
{
	const char *detail = t->verify.detail, *peer = t->verify.peer;
	char text[LIMIT_HEADER_VALUE];
	struct accesslog_record r = {.src_addr = t->remote,
				     .dst_addr = t->local,
				     .direction = ACCESS_INBOUND,
				     .reason = reason,
				     .detail = detail || peer ? text : NULL,
				     .early = true};

	snprintf(text, sizeof(text), "%s%s%s%s", detail ? detail : "", detail && peer ? ", " : "",
		 peer ? "claims to be " : "", peer ? peer : "");
	reason_count(reason);
	accesslog_write(&r);
}

/* Who broke the protocol of a tunnel that was ready, or sent too much of what costs the other side only: which limit
 * that was. */
static void log_offence(const struct tunnel *t, enum wr_reason reason)
{
	struct accesslog_record r = {.src_addr = t->server ? t->remote : t->local,
				     .dst_addr = t->server ? t->local : t->remote,
				     .direction = t->server ? ACCESS_INBOUND : ACCESS_OUTBOUND,
				     .reason = reason,
				     .detail = h2_limit(t->h2),
				     .early = true};

	reason_count(reason);
	accesslog_write(&r);
}

void tunnel_fail(struct tunnel *t, enum wr_reason reason)
{
	bool unfinished = t->state <= TUNNEL_SETTINGS;
	struct pod *p = t->pod;

	if (t->state == TUNNEL_CLOSED)
		return;
	if (reason == WR_REASON_H2_FLOOD || (reason == WR_REASON_H2_PROTOCOL && !unfinished))
		log_offence(t, reason);
	else if (t->server && unfinished && reason)
		log_refused(t, reason);
	handshake_over(t);
	/* Nothing may be queued on a session that is going: from here on streams are only forgotten. */
	t->state = TUNNEL_CLOSED;
	pool_remove(t);
	list_foreach_safe(n, tmp, &t->conns) {
		struct conn *c = list_entry(n, struct conn, tunnel_node);

		/* Both sides have finished and only the app is slow to read: that needs no tunnel any more. */
		if (!c->stream_open && c->end_sent && c->end_received)
			continue;
		if (c->stream_open)
			h2_set_stream(t->h2, c->stream_id, NULL);
		c->stream_open = false;
		if (c->kind == CONN_OUT_HBONE && !c->established && may_retry(reason))
			outbound_retry(c, reason);
		else
			conn_end(c, reason ? reason : WR_REASON_TUNNEL_LOST, true);
	}
	if (t->h2 && t->tls.ssl)
		tls_stream_close_notify(&t->tls);
	tunnel_release(t);
	pod_check_drained(p);
}

void tunnel_close_to_new(struct tunnel *t)
{
	t->goaway = true;
	pool_remove(t);
	if (t->server || t->state != TUNNEL_READY)
		return;
	list_foreach_safe(n, tmp, &t->conns) {
		struct conn *c = list_entry(n, struct conn, tunnel_node);

		if (!c->stream_open && !c->established)
			outbound_retry(c, WR_REASON_H2_GOAWAY);
	}
}

void tunnel_goaway(struct tunnel *t)
{
	tunnel_close_to_new(t);
	if (!t->h2)
		return;
	h2_goaway(t->h2, H2_NO_ERROR);
	session_flush_soon(t);
}

void tunnel_retire(struct tunnel *t)
{
	if (!t->server) {
		tunnel_goaway(t);
		return;
	}
	if (t->retiring || t->goaway)
		return;
	t->retiring = true;
	/* One that is still being set up is told at its end: closed before, its caller's request would be lost. */
	if (t->state == TUNNEL_READY)
		give_notice(t);
}

void tunnel_attach(struct tunnel *t, struct conn *c)
{
	c->tunnel = t;
	list_append(&t->conns, &c->tunnel_node);
	t->n_conns++;
}

void tunnel_detach(struct conn *c)
{
	struct tunnel *t = c->tunnel;

	if (!t)
		return;
	if (t->gather_conn == c) {
		t->gather_conn = NULL;
		t->n_gather = 0;
	}
	list_remove(&c->tunnel_node);
	c->tunnel = NULL;
	c->stream_open = false;
	if (--t->n_conns)
		return;
	t->idle_since_ms = worker_now_ms(t->pod->w);
	if (t->left) {
		list_remove(&t->node);
		doom(t);
	}
	/* It was only waiting for its last stream, which may have been over already: nothing else looks again. */
	if (t->goaway)
		session_flush_soon(t);
	if (!t->server && t->state == TUNNEL_READY && !h2_max_streams(t->h2))
		loop_timer_set(t->pod->w->loop, &t->timer, LIMIT_POOL_FULL_IDLE_MS);
}
