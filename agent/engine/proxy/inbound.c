/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inbound: a CONNECT on a tunnel of 15008, or a plaintext connection captured to 15006. What may be (admission.c) is
 * dialled on to the app with the caller's own address; 200 only once it has accepted (istio/ztunnel inbound). Called by
 * session.c and pod.c, and by engine.c when policies change.
 */
#include "worker.h"
#include "engine/base/cleanup.h"
#include "engine/model/route.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* --- dialling the app --- */

/* One try from one source port; 0 lets the kernel choose. A connecting socket, or -errno. */
static int dial_from(struct pod *p, const struct ip_port *client, const struct ip_port *dst, uint16_t port)
{
	bool v6 = !ip_addr_is_v4(&dst->ip);
	_cleanup_close_ int fd = pod_socket(p, v6, SOCKET_TO_APP);
	struct ip_port from = {.ip = client->ip, .port = port};
	int one = 1, r;

	if (fd < 0)
		return fd;
	sock_reset_on_close(fd);
	sock_urgent_inline(fd);
	if (!ip_addr_equal(&client->ip, &dst->ip)) {
		/* The same port serves many callers and ports: only the whole 4-tuple has to be free. */
		(void)setsockopt(fd, port ? SOL_SOCKET : IPPROTO_IP, port ? SO_REUSEADDR : IP_BIND_ADDRESS_NO_PORT,
				 &one, sizeof(one));
		r = sock_bind(fd, v6, &from);
		if (r < 0)
			return r;
	}
	r = sock_connect(fd, v6, dst);
	return r < 0 ? r : take_fd(fd);
}

int inbound_dial(struct pod *p, const struct ip_port *client, const struct ip_port *dst)
{
	struct worker *w = p->w;
	int fd = -EADDRNOTAVAIL;

	if (ip_addr_is_v4(&client->ip) != ip_addr_is_v4(&dst->ip))
		return -EAFNOSUPPORT;
	for (int i = 0; i < LIMIT_SOURCE_PORT_TRIES; i++) {
		if (w->source_port < LIMIT_SOURCE_PORT_FIRST)
			w->source_port = LIMIT_SOURCE_PORT_FIRST;
		fd = dial_from(p, client, dst, w->source_port++);
		if (fd != -EADDRNOTAVAIL && fd != -EADDRINUSE)
			return fd;
	}
	/* The range is crowded for this caller: any free port, which the caller itself may want one day. */
	reason_count(WR_REASON_SOURCE_PORT_CLASH);
	return dial_from(p, client, dst, 0);
}

enum wr_reason inbound_dial_reason(int error)
{
	switch (error) {
	case -ECONNREFUSED:
		return WR_REASON_APP_REFUSED;
	case -ETIMEDOUT:
		return WR_REASON_APP_TIMEOUT;
	case -EMFILE:
	case -ENFILE:
		return WR_REASON_LIMIT_FDS;
	default:
		return WR_REASON_APP_UNREACHABLE;
	}
}

/* --- HBONE --- */

static void refuse(struct tunnel *t, int32_t id, int status)
{
	(void)h2_respond(t->h2, id, status, NULL);
	session_flush_soon(t);
}

static void refuse_conn(struct conn *c, int status, enum wr_reason reason)
{
	struct tunnel *t = c->tunnel;
	int32_t id = c->stream_id;

	c->status = (int16_t)status;
	h2_set_stream(t->h2, id, NULL);
	c->stream_open = false;
	refuse(t, id, status);
	conn_end(c, reason, true);
}

static void app_late(struct timer *timer)
{
	refuse_conn(container_of(timer, struct conn, timer), 503, WR_REASON_APP_TIMEOUT);
}

/* By a status while the caller waits for one, by a reset of both sides later. */
static void deny(struct conn *c, const struct policy_verdict *v)
{
	c->verdict = v;
	if (c->kind == CONN_IN_HBONE && c->stream_open && !c->established)
		refuse_conn(c, 401, v->reason);
	else
		conn_end(c, v->reason, true);
	c->verdict = NULL;
}

void inbound_app_event(struct watch *w, uint32_t events)
{
	struct conn *c = container_of(w, struct conn, app.watch);
	int r = local_event(&c->app, events);

	if (r < 0 && !local_was_accepted(r)) {
		refuse_conn(c, 503, inbound_dial_reason(r));
		return;
	}
	if (!r && !(events & EPOLLOUT))
		return;
	c->status = 200;
	if (h2_respond(c->tunnel->h2, c->stream_id, 200, c->pod->baggage) < 0) {
		conn_end(c, WR_REASON_INTERNAL, true);
		return;
	}
	stream_open(c);
	session_flush_soon(c->tunnel);
	/* The caller may have sent, and even finished, before our 200; the app may have said something and reset. */
	if (c->app.backlog || c->app.shut_wanted || c->app.error)
		stream_app_event(w, EPOLLOUT);
}

/* The port at which this pod serves a host name of the model; 0 when it does not. */
static uint16_t port_of_host(struct pod *p, const struct hbone_authority *a)
{
	struct service *s = model_service_by_hostname(p->w->model, a->host);

	for (size_t i = 0; s && i < s->n_ports; i++) {
		if (s->ports[i].port != a->port)
			continue;
		for (size_t k = 0; k < s->n_endpoints; k++) {
			struct service_endpoint *e = &s->endpoints[k];

			/* Of several slices one may not have this port. */
			if (e->workload && e->target_ports[i] && !strcmp(e->workload->uid, p->workload->uid))
				return e->target_ports[i];
		}
	}
	return 0;
}

/* Where the stream is to go. 0, or the status to refuse it with and why. */
static int destination(struct tunnel *t, const struct h2_headers *h, struct ip_port *ret, enum wr_reason *ret_reason)
{
	struct hbone_authority a;

	*ret_reason = WR_REASON_BAD_METHOD;
	if (!h->is_connect || h->has_protocol)
		return 400;
	*ret_reason = WR_REASON_BAD_AUTHORITY;
	if (h->too_large || hbone_authority_parse(h->authority, h->authority_len, &a))
		return 400;
	ret->ip = t->local.ip;
	ret->port = a.port;
	if (a.is_host) {
		*ret_reason = WR_REASON_UNKNOWN_DESTINATION;
		ret->port = port_of_host(t->pod, &a);
		if (!ret->port)
			return 503;
	} else if (!ip_addr_equal(&a.addr.ip, &t->local.ip)) {
		return 400;
	}
	*ret_reason = WR_REASON_ILLEGAL_PORT;
	return route_port_is_illegal(ret->port) ? 503 : 0;
}

static bool serves(const struct service *s, const struct ip_addr *ip)
{
	for (size_t i = 0; i < s->n_endpoints; i++)
		if (ip_addr_equal(&s->endpoints[i].addr, ip))
			return true;
	return false;
}

/* The Service by whose name the caller came, if this pod is one of its endpoints: the caller says so, the log repeats
 * it. */
static struct service *forwarded_service(struct pod *p, const struct ip_addr *own, const char *forwarded)
{
	char host[256];
	struct service *s;
	const char *at;
	size_t n = hbone_forwarded_host(forwarded, strlen(forwarded), &at);

	if (!n || n >= sizeof(host))
		return NULL;
	memcpy(host, at, n);
	host[n] = 0;
	s = model_service_by_hostname(p->w->model, host);
	return s && serves(s, own) ? s : NULL;
}

/* For the log: by which Service the caller came. One that does not say, or says what cannot be, is taken for the caller
 * of the first Service that sends anybody here (istio/ztunnel guess_inbound_service). */
static struct service *service_used(const struct conn *c, const char *forwarded)
{
	struct service *s = forwarded_service(c->pod, &c->dst.ip, forwarded);

	return s ? s : model_service_by_target(c->pod->w->model, &c->dst);
}

/* For the log: who calls, by address, else in its own words; by which Service and authority. */
static void note_caller(struct conn *c, const struct tunnel *t, const struct h2_headers *h)
{
	struct model *m = c->pod->w->model;
	struct workload *peer = model_workload_by_addr(m, &t->remote.ip);
	struct workload *said = peer ? NULL : hbone_baggage_parse(h->baggage);
	struct hbone_authority a;

	conn_set_route(c, peer ? peer : said, service_used(c, h->forwarded));
	workload_unref(said);
	if (!hbone_authority_parse(h->authority, h->authority_len, &a) && a.is_host)
		c->authority = strdup(h->authority);
}

static void dial_app(struct conn *c)
{
	struct pod *p = c->pod;
	int r = inbound_dial(p, &c->client, &c->dst);

	if (r < 0) {
		refuse_conn(c, 503, inbound_dial_reason(r));
		return;
	}
	if (local_init(&c->app, p->w->loop, r, inbound_app_event) < 0) {
		close(r);
		refuse_conn(c, 503, WR_REASON_INTERNAL);
		return;
	}
	c->timer.fn = app_late;
	loop_timer_set(p->w->loop, &c->timer, LIMIT_APP_CONNECT_MS);
}

static void owner_late(struct timer *timer)
{
	struct conn *c = container_of(timer, struct conn, timer);
	struct policy_verdict v;

	admission_unbound(c, &v);
	deny(c, &v);
}

/* A pod may call before the configuration that names it has come: who seems to be another waits for it. */
static void admit(struct conn *c)
{
	struct policy_verdict v;

	if (!admission_bound(c)) {
		c->awaiting_owner = true;
		c->pod->w->awaiting_owner++;
		c->timer.fn = owner_late;
		loop_timer_set(c->pod->w->loop, &c->timer, LIMIT_OWNER_WAIT_MS);
	} else if (admission_check(c, true, &v)) {
		dial_app(c);
	} else {
		deny(c, &v);
	}
}

static void look_again(struct pod *p)
{
	list_foreach_safe(n, tmp, &p->conns) {
		struct conn *c = list_entry(n, struct conn, node);

		if (!c->awaiting_owner || !admission_bound(c))
			continue;
		conn_owner_known(c);
		admit(c);
	}
}

void inbound_model_changed(struct worker *w)
{
	if (!w->awaiting_owner)
		return;
	list_foreach(n, &w->pods)
		look_again(list_entry(n, struct pod, node));
}

/* The next connections of a list whose front has not been looked at: each goes to the end, where new ones come. One
 * that ends in between makes the count too large, and some are looked at twice. */
static void recheck_some(struct pod *p, unsigned n)
{
	for (p->unchecked -= n; n && !list_empty(&p->conns); n--) {
		struct conn *c = list_entry(p->conns.next, struct conn, node);
		struct policy_verdict v;

		list_remove(&c->node);
		list_append(&p->conns, &c->node);
		if ((c->kind == CONN_IN_HBONE || c->kind == CONN_IN_PLAIN) && !c->awaiting_owner &&
		    !admission_check(c, false, &v))
			deny(c, &v);
	}
}

void inbound_recheck_due(struct task *task)
{
	struct worker *w = container_of(task, struct worker, recheck);
	unsigned budget = LIMIT_RECHECKS_A_ROUND;

	list_foreach(pn, &w->pods) {
		struct pod *p = list_entry(pn, struct pod, node);
		unsigned n = p->unchecked;

		/* However busy the rounds are: what is forbidden must not live on for it. */
		if (n > budget && worker_now_ms(w) < p->recheck_by_ms)
			n = budget;
		recheck_some(p, n);
		budget -= n < budget ? n : budget;
		if (p->unchecked)
			loop_defer(w->loop, task);
	}
}

void inbound_recheck(struct pod *p)
{
	/* While some are left of an earlier change, they are no younger for this one. */
	if (!p->unchecked)
		p->recheck_by_ms = worker_now_ms(p->w) + LIMIT_RECHECK_MS;
	p->unchecked = 0;
	list_foreach(n, &p->conns)
		p->unchecked++;
	loop_defer(p->w->loop, &p->w->recheck);
}

void inbound_request(struct tunnel *t, int32_t id, const struct h2_headers *h, bool end_stream)
{
	struct pod *p = t->pod;
	enum wr_reason reason;
	struct ip_port dst;
	struct conn *c;
	int status = destination(t, h, &dst, &reason), r;

	(void)end_stream; /* a finished body is delivered as FIN by the end event */
	if (!status && tunnel_life_over(t)) {
		conn_log_refused(ACCESS_INBOUND, &t->remote, &t->local, WR_REASON_CERT_EXPIRED);
		tunnel_goaway(t);
	}
	if (!status && t->goaway) {
		h2_reset(t->h2, id, H2_REFUSED_STREAM);
		session_flush_soon(t);
		return;
	}
	if (!status && (r = conn_new(p, CONN_IN_HBONE, &c)) < 0) {
		status = 503;
		reason = r == -EMFILE ? WR_REASON_LIMIT_CONNS : WR_REASON_INTERNAL;
	}
	if (status) {
		conn_log_refused(ACCESS_INBOUND, &t->remote, &t->local, reason);
		refuse(t, id, status);
		return;
	}
	c->client = t->remote;
	c->dst = c->target = dst;
	c->stream_id = id;
	c->stream_open = true;
	note_caller(c, t, h);
	tunnel_attach(t, c);
	h2_set_stream(t->h2, id, c);
	admit(c);
}

/* --- plaintext --- */

void inbound_denied_early(struct pod *p, const struct ip_port *src, const struct ip_port *dst, uint64_t times)
{
	struct policy_verdict v;
	char more[48];
	struct accesslog_record r = {.src_addr = *src,
				     .src = model_workload_by_addr(p->w->model, &src->ip),
				     .dst_addr = *dst,
				     .dst = p->workload,
				     .dst_service = model_service_by_target(p->w->model, dst),
				     .direction = ACCESS_INBOUND,
				     .verdict = &v};

	admission_refused(p, src, dst, times, &v);
	r.reason = v.reason;
	reason_count_times(v.reason, times);
	if (times > 1) {
		snprintf(more, sizeof(more), "%" PRIu64 " more since the last line", times - 1);
		r.detail = more;
	}
	accesslog_write(&r);
}

void inbound_accept_plain(struct pod *p, int fd, const struct ip_port *client, const struct ip_port *dst)
{
	struct policy_verdict v;
	struct conn *c;
	int far, r;

	if (route_port_is_illegal(dst->port)) {
		conn_log_refused(ACCESS_INBOUND, client, dst, WR_REASON_ILLEGAL_PORT);
		sock_close_reset(fd);
		return;
	}
	r = conn_new(p, CONN_IN_PLAIN, &c);
	if (r < 0) {
		conn_log_refused(ACCESS_INBOUND, client, dst,
				 r == -EMFILE ? WR_REASON_LIMIT_CONNS : WR_REASON_INTERNAL);
		sock_close_reset(fd);
		return;
	}
	c->client = *client;
	c->dst = *dst;
	conn_set_route(c, model_workload_by_addr(p->w->model, &client->ip), service_used(c, ""));
	if (local_init(&c->app, p->w->loop, fd, relay_app_event) < 0) {
		sock_close_reset(fd);
		conn_end(c, WR_REASON_INTERNAL, true);
		return;
	}
	if (!admission_check(c, true, &v)) {
		deny(c, &v);
		return;
	}
	far = inbound_dial(p, client, dst);
	if (far < 0) {
		conn_end(c, inbound_dial_reason(far), true);
		return;
	}
	r = relay_start(c, far);
	if (r < 0) {
		close(far);
		conn_end(c, WR_REASON_INTERNAL, true);
	}
}
