/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one proxied connection whatever its kind: made at accept or CONNECT, ended in exactly one place, which
 * closes, logs, counts and frees. Called by outbound, inbound, stream, relay and tunnel.
 */
#include "worker.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>

static bool is_outbound(const struct conn *c)
{
	return c->kind == CONN_OUT_HBONE || c->kind == CONN_OUT_TCP;
}

static unsigned descriptors(const struct conn *c)
{
	return c->relay ? 2 : 1;
}

/* Counts the connection's descriptors against the node's table and its pod's share of it: a pod may hold twice what is
 * still free. One alone gets two thirds of the table, and however many pods want all of it, the next one finds room. */
static bool admit(struct engine *e, struct pod_shared *s, unsigned n)
{
	uint64_t used = atomic_fetch_add_explicit(&e->fds, n, memory_order_relaxed) +
			atomic_load_explicit(&e->tunnels, memory_order_relaxed);
	uint64_t held = atomic_fetch_add_explicit(&s->fds, n, memory_order_relaxed);

	if (used < e->max_fds && held < 2 * (e->max_fds - used))
		return true;
	atomic_fetch_sub_explicit(&e->fds, n, memory_order_relaxed);
	atomic_fetch_sub_explicit(&s->fds, n, memory_order_relaxed);
	return false;
}

int conn_new(struct pod *p, enum conn_kind kind, struct conn **ret)
{
	bool relay = kind == CONN_OUT_TCP || kind == CONN_IN_PLAIN;
	struct conn *c = calloc(1, relay ? sizeof(struct relay) : sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->relay = relay;
	if (!admit(p->w->e, p->shared, descriptors(c))) {
		free(c);
		return -EMFILE;
	}
	atomic_fetch_add_explicit(&p->w->e->conns, 1, memory_order_relaxed);
	c->pod = p;
	c->kind = (uint8_t)kind;
	c->app.watch.fd = -1;
	if (relay)
		relay_of(c)->far.watch.fd = -1;
	c->window = LIMIT_STREAM_WINDOW_START;
	c->start_us = clock_now_us();
	list_init(&c->tunnel_node);
	list_append(&p->conns, &c->node);
	*ret = c;
	return 0;
}

void conn_set_route(struct conn *c, struct workload *peer, struct service *service)
{
	workload_unref(c->peer);
	service_unref(c->service);
	c->peer = peer ? workload_ref(peer) : NULL;
	c->service = service ? service_ref(service) : NULL;
}

static void write_log(struct conn *c, bool opened)
{
	char authority[IP_PORT_STRLEN], detail[32];
	bool out = is_outbound(c), hbone = c->kind == CONN_OUT_HBONE || c->kind == CONN_IN_HBONE;
	const char *peer_identity = hbone && c->tunnel ? c->tunnel->verify.peer : NULL;
	const char *own_identity = hbone && c->pod->identity ? c->pod->identity->spiffe : NULL;
	struct accesslog_record r = {
		.src_addr = c->client,
		.src = out ? c->pod->workload : c->peer,
		.src_identity = out ? own_identity : peer_identity,
		.dst = out ? c->peer : c->pod->workload,
		.dst_identity = out ? peer_identity : own_identity,
		.dst_service = c->service,
		.dst_addr = c->dst,
		.direction = out ? ACCESS_OUTBOUND : ACCESS_INBOUND,
		.bytes_sent = c->bytes_sent,
		.bytes_recv = c->bytes_recv,
		.duration_us = clock_now_us() - c->start_us,
		.reason = c->reason,
		.early = c->early,
		.opened = opened,
		.verdict = c->verdict,
	};

	if (hbone && c->target.port)
		r.hbone_addr = c->authority ? c->authority : ip_port_format(&c->target, authority, sizeof(authority));
	if (out && c->next_hop.port)
		r.dst_addr = c->next_hop;
	else if (hbone && c->tunnel)
		r.dst_addr = c->tunnel->local;
	if (c->status && c->status != 200) {
		snprintf(detail, sizeof(detail), "http status: %d", c->status);
		r.detail = detail;
	}
	accesslog_write(&r);
}

void conn_opened(struct conn *c)
{
	c->state = CONN_OPEN;
	c->established = true;
	loop_timer_cancel(c->pod->w->loop, &c->timer);
	if (log_enabled(LOG_DEBUG_LEVEL))
		write_log(c, true);
}

static void last_words_late(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, timer);

	conn_end(c, c->reason, true);
}

bool conn_side_failed(struct conn *c, const struct local *side, enum wr_reason reason, bool heard)
{
	if (side->error == -ENOMEM || !side->readable || !heard) {
		conn_end(c, side->error == -ENOMEM ? WR_REASON_INTERNAL : reason, true);
		return false;
	}
	if (timer_armed(&c->timer))
		return false;
	c->reason = (uint8_t)reason;
	c->timer.fn = last_words_late;
	loop_timer_set(c->pod->w->loop, &c->timer, LIMIT_LAST_WORDS_MS);
	return true;
}

void conn_log_refused(enum accesslog_direction direction, const struct ip_port *src, const struct ip_port *dst,
		      enum wr_reason reason)
{
	struct accesslog_record r = {
		.src_addr = *src, .dst_addr = *dst, .direction = direction, .reason = reason, .early = true};

	reason_count(reason);
	accesslog_write(&r);
}

void conn_owner_known(struct conn *c)
{
	if (!c->awaiting_owner)
		return;
	c->awaiting_owner = false;
	c->pod->w->awaiting_owner--;
}

static void uncount(struct pod_shared *s, const struct conn *c)
{
	atomic_fetch_sub_explicit(&s->e->fds, descriptors(c), memory_order_relaxed);
	atomic_fetch_sub_explicit(&s->fds, descriptors(c), memory_order_relaxed);
}

static void close_all(struct conn *c, bool reset)
{
	local_close(&c->app, reset);
	if (c->relay)
		relay_close(c, reset);
}

/* Resets come in thousands, when a policy forbids or a peer is lost, and the close of a socket is most of what the end
 * of a connection costs: the reaper does some a round. The pod is not gone before the last. */
static void close_later(struct conn *c)
{
	c->closing = c->pod->shared;
	atomic_fetch_add(&c->closing->refs, 1);
}

/* Unhooks from loop, stream and pod; the memory goes at the end of the round. */
static void release(struct conn *c)
{
	struct pod *p = c->pod;
	struct worker *w = p->w;

	c->state = CONN_DEAD;
	c->ended_ms = worker_now_ms(w);
	conn_owner_known(c);
	loop_timer_cancel(w->loop, &c->timer);
	if (c->stream_open && c->tunnel->h2) {
		h2_set_stream(c->tunnel->h2, c->stream_id, NULL);
		if (!(c->end_sent && c->end_received))
			h2_reset(c->tunnel->h2, c->stream_id, H2_CONNECT_ERROR);
		session_flush_soon(c->tunnel);
	}
	tunnel_detach(c);
	w->window_grown -= c->window - LIMIT_STREAM_WINDOW_START;
	workload_unref(c->peer);
	service_unref(c->service);
	free(c->authority);
	c->peer = NULL;
	c->service = NULL;
	c->authority = NULL;
	list_remove(&c->node);
	list_append(&w->conns_doomed, &c->node);
	loop_defer(w->loop, &w->reap);
	atomic_fetch_sub_explicit(&w->e->conns, 1, memory_order_relaxed);
}

void conn_end(struct conn *c, enum wr_reason reason, bool reset)
{
	struct pod *p = c->pod;

	if (c->state == CONN_DEAD)
		return;
	c->reason = (uint8_t)reason;
	if (reason)
		reason_count(reason);
	write_log(c, false);
	local_stop(&c->app, p->w->loop);
	if (c->relay)
		relay_stop(c);
	if (reset) {
		close_later(c);
	} else {
		close_all(c, false);
		uncount(p->shared, c);
	}
	release(c);
	worker_check_budget(p->w);
	worker_trim_soon(p->w);
	pod_check_drained(p);
}

int conn_take_fd(struct conn *c)
{
	int fd = c->app.watch.fd;

	loop_watch_del(c->pod->w->loop, &c->app.watch);
	c->app.watch.fd = -1;
	uncount(c->pod->shared, c);
	release(c);
	return fd;
}

unsigned conn_free(struct conn *c)
{
	unsigned n = 0;

	if (c->closing) {
		n = descriptors(c);
		close_all(c, true);
		uncount(c->closing, c);
		pod_shared_unref(c->closing);
	}
	free(c);
	return n;
}
