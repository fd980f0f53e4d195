/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One worker's replica of an enrolled pod: its listeners, and the end of everything that hangs on it. Called by
 * engine.c through messages.
 */
#include "worker.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void accept_on(struct pod *p);

struct pod *worker_pod(struct worker *w, uint32_t number)
{
	list_foreach(n, &w->pods) {
		struct pod *p = list_entry(n, struct pod, node);

		if (p->number == number && !p->draining)
			return p;
	}
	return NULL;
}

static void accept_off(struct pod *p)
{
	for (int i = 0; i < LISTENERS; i++)
		loop_watch_del(p->w->loop, &p->listeners[i].watch);
}

static void accept_retry(struct timer *t)
{
	struct pod *p = container_of(t, struct pod, accept_retry);

	if (p->accepting)
		accept_on(p);
}

/* Out of descriptors or memory: a ready listener would spin, so it rests a moment while others free some. */
static void back_off(struct pod *p, int error)
{
	reason_count(WR_REASON_LIMIT_FDS);
	if (!timer_armed(&p->accept_retry))
		log_warn("proxy", "%s/%s: cannot accept: %s; trying again in %d ms", p->workload->namespace_,
			 p->workload->name, strerror(error), LIMIT_ACCEPT_BACKOFF_MS);
	accept_off(p);
	loop_timer_set(p->w->loop, &p->accept_retry, LIMIT_ACCEPT_BACKOFF_MS);
}

static void hand_over(struct listener *l, int fd, const struct ip_port *client)
{
	struct ip_port dst;

	if (sock_local_addr(fd, &dst) < 0)
		sock_close_reset(fd);
	else if (l->kind == LISTEN_OUTBOUND)
		outbound_accept(l->pod, fd, client, &dst);
	else if (l->kind == LISTEN_INBOUND)
		inbound_accept_plain(l->pod, fd, client, &dst);
	else
		tunnel_accept(l->pod, fd, client, &dst);
}

/* Asked before each further accept: one that finds nothing makes and unmakes a whole socket, ten times as dear. */
static bool more_waiting(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static void accept_ready(struct watch *w, uint32_t events)
{
	struct listener *l = container_of(w, struct listener, watch);

	(void)events;
	for (int i = 0; i < LIMIT_ACCEPT_BATCH && l->pod->accepting; i++) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);
		struct ip_port client;
		int fd = accept4(w->fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
				back_off(l->pod, errno);
			/* Others are about one connection that went before it was taken (accept(2)). */
			if (errno == ECONNABORTED || errno == EINTR || errno == EPROTO)
				continue;
			return;
		}
		if (ip_port_from_sockaddr(&ss, &client) < 0)
			sock_close_reset(fd);
		else
			hand_over(l, fd, &client);
		if (l->pod->accepting && !more_waiting(w->fd))
			return;
	}
}

static void accept_on(struct pod *p)
{
	for (int i = 0; i < LISTENERS; i++) {
		struct listener *l = &p->listeners[i];

		if (l->watch.added)
			continue;
		l->pod = p;
		l->kind = (enum listener_kind)i;
		l->watch.fn = accept_ready;
		if (loop_watch_add(p->w->loop, &l->watch, p->shared->listeners[i], EPOLLIN | EPOLLEXCLUSIVE) < 0)
			loop_timer_set(p->w->loop, &p->accept_retry, LIMIT_ACCEPT_BACKOFF_MS);
	}
}

static void close_listeners(struct pod_shared *s)
{
	for (int i = 0; i < LISTENERS; i++) {
		if (s->listeners[i] >= 0)
			close(s->listeners[i]);
		s->listeners[i] = -1;
	}
}

struct pod_shared *pod_shared_unref(struct pod_shared *s)
{
	if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
		return NULL;
	close_listeners(s);
	if (s->netns_fd >= 0)
		close(s->netns_fd);
	atomic_fetch_sub_explicit(&s->e->fds, POD_DESCRIPTORS, memory_order_relaxed);
	if (s->done)
		loop_post(s->e->cfg.control, &s->done_msg);
	else
		free(s);
	return NULL;
}

void pod_set_workload(struct pod *p, struct workload *w)
{
	bool recheck = p->workload && p->workload->policy != w->policy;
	char baggage[HBONE_BAGGAGE_MAX];

	workload_unref(p->workload);
	p->workload = w;
	free(p->baggage);
	hbone_baggage(w, baggage);
	p->baggage = strdup(baggage);
	if (recheck)
		inbound_recheck(p);
}

static void pod_free(struct pod *p)
{
	struct worker *w = p->w;

	accept_off(p);
	loop_timer_cancel(w->loop, &p->accept_retry);
	loop_timer_cancel(w->loop, &p->drain);
	sock_cache_done(&p->sockets4);
	sock_cache_done(&p->sockets6);
	table_done(&p->pool);
	list_remove(&p->node);
	workload_unref(p->workload);
	tls_identity_unref(p->identity);
	pod_shared_unref(p->shared);
	free(p->baggage);
	free(p);
}

/* The end of the drain: everything that is left is reset, some at a time, so that other pods are served. */
static void drain_over(struct timer *timer)
{
	struct pod *p = container_of(timer, struct pod, drain);
	enum wr_reason reason = p->w->ending ? WR_REASON_SHUTDOWN : WR_REASON_POD_REMOVED;

	for (unsigned n = 0; !list_empty(&p->conns); n++) {
		if (n == LIMIT_ENDS_A_ROUND) {
			loop_timer_set(p->w->loop, &p->drain, 1);
			return;
		}
		conn_end(list_entry(p->conns.next, struct conn, node), reason, true);
	}
	while (!list_empty(&p->tunnels)) {
		struct tunnel *t = list_entry(p->tunnels.next, struct tunnel, node);

		tunnel_goaway(t);
		session_flush(t);
		tunnel_fail(t, reason);
	}
	pod_free(p);
}

int pod_open(struct worker *w, struct pod_shared *shared, struct workload *wl, struct tls_identity *id)
{
	struct pod *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->w = w;
	p->shared = shared;
	p->number = shared->number;
	p->identity = id;
	pod_set_workload(p, wl);
	p->sockets4.netns_fd = p->sockets6.netns_fd = shared->netns_fd;
	p->accept_retry.fn = accept_retry;
	p->drain.fn = drain_over;
	list_init(&p->tunnels);
	list_init(&p->conns);
	list_append(&w->pods, &p->node);
	p->accepting = true;
	accept_on(p);
	return 0;
}

void pod_stop_accepting(struct pod *p)
{
	if (!p->accepting)
		return;
	/* Who has been accepted by the kernel is served: a closed listener would reset them. */
	for (int i = 0; i < LISTENERS; i++)
		if (p->listeners[i].watch.added)
			accept_ready(&p->listeners[i].watch, EPOLLIN);
	p->accepting = false;
	accept_off(p);
	loop_timer_cancel(p->w->loop, &p->accept_retry);
	if (atomic_fetch_sub(&p->shared->acceptors, 1) == 1)
		close_listeners(p->shared);
}

void pod_hand_over(struct pod *p)
{
	pod_stop_accepting(p);
	/* Callers' next streams are the successor's; what our own pod has open runs on here. */
	list_foreach_safe(n, tmp, &p->tunnels) {
		struct tunnel *t = list_entry(n, struct tunnel, node);

		if (t->server)
			tunnel_retire(t);
	}
}

void pod_drain(struct pod *p, unsigned drain_ms)
{
	p->draining = true;
	p->vanishes = !drain_ms;
	pod_stop_accepting(p);
	list_foreach_safe(n, tmp, &p->tunnels) {
		struct tunnel *t = list_entry(n, struct tunnel, node);

		if (drain_ms > 2 * LIMIT_GOAWAY_NOTICE_MS)
			tunnel_retire(t);
		else
			tunnel_goaway(t);
	}
	/* Even at once means one round later: the GOAWAY is to leave first. */
	loop_timer_set(p->w->loop, &p->drain, drain_ms ? drain_ms : 1);
	pod_check_drained(p);
}

/* Tunnels count, too: one whose callers have had notice still owes them the streams that are on their way. */
void pod_check_drained(struct pod *p)
{
	if (p->draining && list_empty(&p->conns) && list_empty(&p->tunnels) && timer_armed(&p->drain))
		loop_timer_set(p->w->loop, &p->drain, 1);
}
