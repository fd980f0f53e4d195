/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outbound: an app's connection was accepted on 15001, its local address is where the app wanted to go. The model says
 * which endpoint that is and how it is reached; the connection then rides a tunnel or plain TCP. Called by pod.c
 * (accept) and session.c (stream ready), tunnel.c (lost).
 */
#include "worker.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/model/route.h"

#include <errno.h>

/* What survives from one try to the next. */
struct attempt {
	int fd; /* the app's, owned */
	struct ip_port client, dst;
	uint64_t start_us, deadline_ms;
	uint16_t retry_ms;
};

static void try_route(struct pod *p, struct attempt *a);

/* What a connection was waiting for when its deadline came. */
static enum wr_reason late_reason(const struct conn *c)
{
	switch (c->tunnel ? c->tunnel->state : TUNNEL_DIALING) {
	case TUNNEL_DIALING:
		return WR_REASON_DIAL_TIMEOUT;
	case TUNNEL_HANDSHAKE:
		return WR_REASON_TLS_TIMEOUT;
	case TUNNEL_SETTINGS:
		return WR_REASON_H2_TIMEOUT;
	default:
		return !c->stream_open || h2_waits(c->tunnel->h2, c->stream_id) ? WR_REASON_LIMIT_STREAMS
										: WR_REASON_CONNECT_TIMEOUT;
	}
}

static void retry_due(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, timer);
	struct pod *p = c->pod;
	struct attempt a = {.client = c->client,
			    .dst = c->dst,
			    .start_us = c->start_us,
			    .deadline_ms = c->deadline_ms,
			    .retry_ms = c->retry_ms};

	if (!c->retrying || worker_now_ms(p->w) >= c->deadline_ms) {
		conn_end(c, c->reason ? c->reason : late_reason(c), true);
		return;
	}
	a.fd = conn_take_fd(c);
	try_route(p, &a);
}

void outbound_retry(struct conn *c, enum wr_reason reason)
{
	uint64_t now = worker_now_ms(c->pod->w), left = c->deadline_ms > now ? c->deadline_ms - now : 0;

	tunnel_detach(c);
	c->reason = (uint8_t)reason;
	c->retrying = true;
	c->retry_ms = c->retry_ms ? c->retry_ms * 2 : LIMIT_RETRY_FIRST_MS;
	if (c->retry_ms > LIMIT_RETRY_MAX_MS)
		c->retry_ms = LIMIT_RETRY_MAX_MS;
	loop_timer_set(c->pod->w->loop, &c->timer, c->retry_ms < left ? c->retry_ms : left);
}

/* Before the tunnel is up only a reset is of interest: bytes wait in the kernel. */
static void setup_event(struct watch *w, uint32_t events)
{
	struct conn *c = container_of(w, struct conn, app.watch);

	if (local_event(&c->app, events) < 0 || (events & (EPOLLHUP | EPOLLERR)))
		conn_end(c, WR_REASON_CLIENT_RESET, true);
}

void outbound_opened(struct conn *c)
{
	char authority[IP_PORT_STRLEN], forwarded[HBONE_FORWARDED_MAX], trace[HBONE_TRACEPARENT_LEN + 1];
	uint64_t random[3];
	int32_t id;

	for (int i = 0; i < 3; i++)
		random[i] = worker_random(c->pod->w);
	ip_port_format(&c->target, authority, sizeof(authority));
	hbone_forwarded(&c->client, c->service ? c->service->hostname : NULL, forwarded);
	hbone_traceparent((const uint8_t *)random, trace);
	id = h2_connect(c->tunnel->h2, authority, c->pod->baggage, forwarded, trace, c);
	if (id < 0) {
		struct tunnel *t = c->tunnel;

		/* Stream ids are used up: this tunnel ends when its streams have, a new one takes over. */
		outbound_retry(c, WR_REASON_TUNNEL_LOST);
		tunnel_goaway(t);
		return;
	}
	c->stream_id = id;
	c->stream_open = true;
	session_flush_soon(c->tunnel);
}

static int open_tcp(struct pod *p, const struct ip_addr *client, const struct ip_port *target)
{
	bool v6 = !ip_addr_is_v4(&target->ip);
	_cleanup_close_ int fd = pod_socket(p, v6, SOCKET_TUNNEL);
	int r;

	if (fd < 0)
		return fd;
	sock_nodelay(fd);
	sock_keepalive(fd);
	sock_reset_on_close(fd);
	sock_urgent_inline(fd);
	/* The endpoint is to see the address this client used, also in a pod with several, if it is the pod's. */
	if (ip_addr_is_v4(client) != v6)
		(void)sock_bind_address(fd, v6, client);
	r = sock_connect(fd, v6, target);
	return r < 0 ? r : take_fd(fd);
}

enum wr_reason outbound_dial_reason(int error)
{
	return error == -ECONNREFUSED ? WR_REASON_DIAL_REFUSED
	       : error == -ETIMEDOUT  ? WR_REASON_DIAL_TIMEOUT
				      : WR_REASON_DIAL_FAILED;
}

static struct conn *new_conn(struct pod *p, struct attempt *a, const struct route *r)
{
	bool hbone = r->kind == ROUTE_HBONE;
	struct conn *c;
	int e = conn_new(p, hbone ? CONN_OUT_HBONE : CONN_OUT_TCP, &c);

	if (e < 0) {
		conn_log_refused(ACCESS_OUTBOUND, &a->client, &a->dst,
				 e == -EMFILE ? WR_REASON_LIMIT_CONNS : WR_REASON_INTERNAL);
		sock_close_reset(a->fd);
		return NULL;
	}
	c->client = a->client;
	c->dst = a->dst;
	c->target = r->target;
	c->next_hop = r->next_hop;
	c->start_us = a->start_us;
	c->deadline_ms = a->deadline_ms;
	c->retry_ms = a->retry_ms;
	conn_set_route(c, r->workload, r->service);
	e = local_init(&c->app, p->w->loop, a->fd, hbone ? setup_event : relay_app_event);
	if (e < 0) {
		sock_close_reset(a->fd);
		conn_end(c, WR_REASON_INTERNAL, true);
		return NULL;
	}
	return c;
}

static void go_tcp(struct conn *c, const struct route *r)
{
	int fd = open_tcp(c->pod, &c->client.ip, &r->target), e;

	if (fd < 0) {
		conn_end(c, fd == -EMFILE || fd == -ENFILE ? WR_REASON_LIMIT_FDS : WR_REASON_DIAL_FAILED, true);
		return;
	}
	e = relay_start(c, fd);
	if (e < 0) {
		close(fd);
		conn_end(c, WR_REASON_INTERNAL, true);
	}
}

static void go_hbone(struct conn *c, const struct route *r)
{
	uint64_t now = worker_now_ms(c->pod->w);
	struct tunnel *t;
	int e;

	c->timer.fn = retry_due;
	if (!c->pod->identity || c->pod->identity->not_after <= time(NULL)) {
		conn_end(c, WR_REASON_NO_IDENTITY, true);
		return;
	}
	e = pool_get(c->pod, r->workload, &r->next_hop, &c->client, &t);
	if (e == -EMFILE || e == -ENFILE || e == -ENOMEM) {
		conn_end(c, e == -ENOMEM ? WR_REASON_INTERNAL : WR_REASON_LIMIT_FDS, true);
		return;
	}
	if (e < 0) {
		outbound_retry(c, WR_REASON_DIAL_FAILED);
		return;
	}
	tunnel_attach(t, c);
	loop_timer_set(c->pod->w->loop, &c->timer, c->deadline_ms > now ? c->deadline_ms - now : 0);
	if (t->state == TUNNEL_SETTINGS || (t->state == TUNNEL_READY && h2_max_streams(t->h2)))
		outbound_opened(c);
}

/* --- moving to the worker that owns the tunnel --- */

struct move {
	struct loop_msg msg;
	struct worker *to;
	uint32_t number;
	struct attempt a;
};

static void arrive(struct loop_msg *m)
{
	struct move *mv = container_of(m, struct move, msg);
	struct pod *p = worker_pod(mv->to, mv->number);

	if (p) {
		try_route(p, &mv->a);
	} else {
		/* The pod went while it was on its way. */
		conn_log_refused(ACCESS_OUTBOUND, &mv->a.client, &mv->a.dst, WR_REASON_POD_REMOVED);
		sock_close_reset(mv->a.fd);
	}
	free(mv);
}

static bool moved(struct pod *p, struct attempt *a, const struct route *r)
{
	unsigned owner = pool_worker(p, r->workload, &r->next_hop, &a->client);
	struct move *m;

	/* A pod that drains may be gone from the owner already: what is left of it stays where it is. */
	if (owner == p->w->index || p->draining)
		return false;
	m = malloc(sizeof(*m));
	if (!m)
		return false;
	*m = (struct move){.msg.fn = arrive, .to = &p->w->e->workers[owner], .number = p->number, .a = *a};
	loop_post(m->to->loop, &m->msg);
	return true;
}

static void try_route(struct pod *p, struct attempt *a)
{
	struct route r;
	struct conn *c;

	route_decide(p->w->model, p->workload, &a->dst, worker_random(p->w), &r);
	if (r.kind == ROUTE_DENY) {
		conn_log_refused(ACCESS_OUTBOUND, &a->client, &a->dst, r.reason);
		sock_close_reset(a->fd);
		return;
	}
	if (r.kind == ROUTE_HBONE && moved(p, a, &r))
		return;
	c = new_conn(p, a, &r);
	if (!c)
		return;
	if (r.kind == ROUTE_HBONE)
		go_hbone(c, &r);
	else
		go_tcp(c, &r);
}

void outbound_accept(struct pod *p, int fd, const struct ip_port *client, const struct ip_port *dst)
{
	struct attempt a = {.fd = fd,
			    .client = *client,
			    .dst = *dst,
			    .start_us = clock_now_us(),
			    .deadline_ms = worker_now_ms(p->w) + p->w->e->cfg.dial_timeout_ms};

	try_route(p, &a);
}
