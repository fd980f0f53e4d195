/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pod's enrolment: pending -> enrolled -> draining -> gone, or refused. Its manifest, its namespace and
 * the engine's completions come in; attachments, engine pods and certificate references leave. Called by
 * pods.c; pods_dump.c tells its state.
 */
#include "private.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RETRY_FIRST_MS 100
#define RETRY_MAX_MS 2000
/* A listener's port that is still taken at the attempt after this interval is a foreign socket's. */
#define FOREIGN_AFTER_MS 400
/* Between "new connections bypass" and closing the listeners: handshakes under way are finished first. */
#define SETTLE_MS 100
#define ADDRESSES_MAX 64

const char *const enrolment_states[] = {"pending", "enrolled", "draining", "refused"};

static void set_state(struct enrolment *e, enum pod_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Listeners of a predecessor that nobody will serve: while they are open callers believe that somebody does. */
static void close_offered(struct enrolment *e)
{
	for (int i = 0; i < 3; i++) {
		if (e->offered[i] >= 0)
			close(e->offered[i]);
		e->offered[i] = -1;
	}
}

static void set_state(struct enrolment *e, enum pod_state state, const char *fmt, ...)
{
	const struct workload *w = e->workload;
	char text[512];
	va_list ap;
	bool news;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	news = e->state != state || strcmp(e->reason ? e->reason : "", text);
	e->state = state;
	free(e->reason);
	e->reason = strdup(text);
	if (state == POD_REFUSED)
		close_offered(e);
	if (!news)
		return;
	if (state == POD_PENDING || state == POD_REFUSED)
		log_warn("enroll", "%s/%s: %s: %s", w->namespace_, w->name, enrolment_states[state], text);
	else
		log_info("enroll", "%s/%s: %s%s%s", w->namespace_, w->name, enrolment_states[state], *text ? ": " : "",
			 text);
	e->all->cfg.changed(e->all->cfg.arg);
}

/* --- joining --- */

static void retry_later(struct enrolment *e)
{
	e->retry_ms = e->retry_ms ? e->retry_ms * 2 : RETRY_FIRST_MS;
	if (e->retry_ms > RETRY_MAX_MS)
		e->retry_ms = RETRY_MAX_MS;
	loop_timer_set(e->all->cfg.loop, &e->timer, e->retry_ms);
}

static void close_netns(struct enrolment *e)
{
	if (e->netns_fd >= 0)
		close(e->netns_fd);
	e->netns_fd = -1;
	free(e->netns_path);
	e->netns_path = NULL;
}

static void drop_number(struct enrolment *e)
{
	e->all->by_number[e->number] = NULL;
	e->number = 0;
	close_netns(e);
}

static void drop_identity(struct enrolment *e)
{
	if (e->spiffe)
		cert_store_put(e->all->cfg.certs, e->spiffe);
	free(e->spiffe);
	e->spiffe = NULL;
}

/* The manifest's, or what its namespace has when that names none; buf may hold them. -errno: not to be told now. */
static int own_addresses(const struct enrolment *e, struct ip_addr buf[ADDRESSES_MAX], const struct ip_addr **ret)
{
	const struct workload *w = e->workload;

	*ret = w->addrs_in_status ? w->addrs : buf;
	return w->addrs_in_status ? (int)w->n_addrs : netns_addresses(e->netns_fd, buf, ADDRESSES_MAX);
}

/* To capture, which lets the pod send from them alone, and to the model when it has them from nowhere else. */
static void report_addresses(struct enrolment *e)
{
	struct ip_addr buf[ADDRESSES_MAX];
	const struct ip_addr *own;
	int n = own_addresses(e, buf, &own), r;

	if (n < 0)
		return;
	r = e->all->retired ? 0 : capture_pod_set_addresses(e->all->cfg.capture, e->number, own, (size_t)n);
	if (r < 0)
		log_error("enroll", "%s/%s: not all of its %d addresses are taken as its own: %s",
			  e->workload->namespace_, e->workload->name, n, strerror(-r));
	if (!e->workload->addrs_in_status)
		e->all->cfg.found_addresses(e->all->cfg.arg, e->uid, own, (size_t)n);
}

/* What capture cannot undo it forgets all the same: there is nothing to ask for again. */
static void leave_capture(struct enrolment *e)
{
	int r = e->all->retired ? 0 : capture_pod_detach(e->all->cfg.capture, e->number, e->netns_fd);

	if (r < 0)
		log_error("enroll", "%s/%s: capture could not be removed completely: %s", e->workload->namespace_,
			  e->workload->name, strerror(-r));
}

/* Attach, listen, hand to the engine; undone in reverse on failure. */
static int attach(struct enrolment *e, struct tls_identity *id, char **ret_error)
{
	struct pods *p = e->all;
	struct capture_modes modes = kernel_modes(e->workload);
	struct capture_pod cp = {.number = e->number,
				 .uid = e->uid,
				 .namespace_ = e->workload->namespace_,
				 .name = e->workload->name,
				 .netns_fd = e->netns_fd,
				 .modes = &modes};
	struct engine_pod_config ep = {.number = e->number, .workload = e->workload, .identity = id};
	struct ip_addr buf[ADDRESSES_MAX];
	int fds[3], r = own_addresses(e, buf, &cp.addrs);

	cp.n_addrs = r > 0 ? (size_t)r : 0;
	r = capture_pod_attach(p->cfg.capture, &cp, e->offered, fds, ret_error);
	if (r < 0)
		return r;
	e->offered[0] = e->offered[1] = e->offered[2] = -1;
	leftover_forget(p, e->number);
	ep.listen_outbound = fds[0];
	ep.listen_inbound = fds[1];
	ep.listen_hbone = fds[2];
	ep.netns_fd = fcntl(e->netns_fd, F_DUPFD_CLOEXEC, 3);
	r = ep.netns_fd < 0 ? -errno : engine_pod_add(p->cfg.engine, &ep);
	if (r < 0) {
		for (int i = 0; i < 3; i++)
			close(fds[i]);
		if (ep.netns_fd >= 0)
			close(ep.netns_fd);
		/* Draining connections still need the programs; a pod that has none does not. */
		if (!e->removals)
			leave_capture(e);
		return r;
	}
	e->in_engine = true;
	return 0;
}

static int open_namespace(struct enrolment *e)
{
	char buf[300];
	const char *why;
	struct stat st;
	int fd = netns_open(e->workload->netns_path, &st);

	if (fd < 0) {
		set_state(e, POD_PENDING, "%s: %s", e->workload->netns_path,
			  fd == -EINVAL ? "not a network namespace" : strerror(-fd));
		return fd;
	}
	why = objection_namespace(e, &st, buf, sizeof(buf));
	if (why) {
		close(fd);
		set_state(e, POD_REFUSED, "%s", why);
		return -EPERM;
	}
	e->netns_path = strdup(e->workload->netns_path);
	if (!e->netns_path) {
		close(fd);
		return -ENOMEM;
	}
	e->netns_fd = fd;
	e->netns = st;
	e->gone = false;
	return 0;
}

/* A pod that drains comes back at once only into the namespace that it drains in; else after the drain. */
static bool ready_to_return(const struct enrolment *e)
{
	return e->netns_fd < 0 || (e->netns_path && !strcmp(e->netns_path, e->workload->netns_path) &&
				   netns_same(e->netns_path, &e->netns));
}

static bool claim_number(struct enrolment *e)
{
	if (!e->number) {
		e->number = leftover_number(e);
		if (e->number)
			e->all->by_number[e->number] = e;
	}
	return e->number;
}

static void attempt_failed(struct enrolment *e, int r, const char *error)
{
	/* A killed predecessor's sockets may outlive its lock for a moment: foreign is what stays. */
	bool foreign = r == -EADDRINUSE && !e->removals && e->retry_ms >= FOREIGN_AFTER_MS;
	/* Somebody took its certificates back: for an alarm, and no reason to hold readiness up. */
	bool revoked = r == -EKEYREVOKED;

	set_state(e, foreign || revoked ? POD_REFUSED : POD_PENDING, "%s", error ? error : strerror(-r));
	if (!e->removals)
		drop_number(e);
	retry_later(e);
}

static void try_enrol(struct enrolment *e)
{
	struct pods *p = e->all;
	const char *why = objection_manifest(e->workload);
	struct tls_identity *id = NULL;
	char *error = NULL;
	int r;

	if (!e->wanted || e->released || e->state == POD_ENROLLED || p->retired)
		return;
	if (why) {
		set_state(e, POD_REFUSED, "%s", why);
		return;
	}
	if (!ready_to_return(e))
		return;
	if (e->netns_fd < 0 && open_namespace(e) < 0) {
		retry_later(e);
		return;
	}
	if (!claim_number(e)) {
		set_state(e, POD_REFUSED, "more than %d pods on this node", CAPTURE_MAX_PODS - 1);
		close_netns(e);
		retry_later(e);
		return;
	}
	r = cert_store_get(p->cfg.certs, e->workload->identity, &id, &error);
	if (r == 0) {
		drop_identity(e);
		e->spiffe = strdup(e->workload->identity);
		r = attach(e, id, &error);
		tls_identity_unref(id);
	}
	if (r < 0) {
		attempt_failed(e, r, error);
		free(error);
		return;
	}
	e->retry_ms = 0;
	loop_timer_cancel(p->cfg.loop, &e->timer);
	kernel_follow(e);
	set_state(e, POD_ENROLLED, "%s", "");
	unmanaged_warn(e);
	report_addresses(e);
}

/* --- leaving --- */

void enrolment_free(struct enrolment *e)
{
	table_del(&e->all->by_uid, e->uid, strlen(e->uid));
	if (e->number)
		e->all->by_number[e->number] = NULL;
	loop_timer_cancel(e->all->cfg.loop, &e->timer);
	close_netns(e);
	close_offered(e);
	drop_identity(e);
	workload_unref(e->workload);
	free(e->reason);
	free(e->uid);
	free(e);
}

/* Nothing of the pod is left in the engine: capture goes, too, unless the pod has come back meanwhile. */
static void left_engine(void *arg, uint32_t number)
{
	struct pods *p = arg;
	struct enrolment *e = number < CAPTURE_MAX_PODS ? p->by_number[number] : NULL;

	if (!e || --e->removals || e->in_engine)
		return;
	leave_capture(e);
	drop_number(e);
	drop_identity(e);
	log_info("enroll", "%s/%s: out of the mesh", e->workload->namespace_, e->workload->name);
	p->cfg.changed(p->cfg.arg);
	if (!e->wanted) {
		enrolment_free(e);
		return;
	}
	set_state(e, e->released ? POD_REFUSED : POD_PENDING, "%s", e->released ? "released by hand" : "starting anew");
	if (!e->released)
		try_enrol(e);
}

static void leave_engine(struct enrolment *e, unsigned drain_ms)
{
	if (!e->in_engine)
		return;
	e->in_engine = false;
	e->removals++;
	engine_pod_remove(e->all->cfg.engine, e->number, drain_ms, left_engine, e->all);
}

static void start_drain(struct enrolment *e, const char *why)
{
	int r = e->all->retired ? 0 : capture_pod_drain(e->all->cfg.capture, e->number);

	if (r < 0)
		log_error("enroll", "%s/%s: %s", e->workload->namespace_, e->workload->name, strerror(-r));
	set_state(e, POD_DRAINING, "%s", why);
	loop_timer_set(e->all->cfg.loop, &e->timer, SETTLE_MS);
}

void enrolment_unwant(struct enrolment *e, const char *why)
{
	e->wanted = false;
	if (e->state == POD_ENROLLED)
		start_drain(e, why);
	else if (e->state != POD_DRAINING && !e->removals)
		enrolment_free(e);
}

/* Every socket and descriptor of the pod goes at once, with GOAWAY; one that is still wanted then starts
 * anew. */
static void remove_now(struct enrolment *e, const char *why)
{
	set_state(e, POD_DRAINING, "%s", why);
	leave_engine(e, 0);
}

static void timer_due(struct timer *t)
{
	struct enrolment *e = container_of(t, struct enrolment, timer);

	if (e->state == POD_DRAINING && e->in_engine)
		leave_engine(e, e->all->cfg.drain_ms);
	else if (e->wanted)
		try_enrol(e);
}

/* --- what manifest, namespace and people say --- */

struct enrolment *enrolment_new(struct pods *p, const char *uid)
{
	struct enrolment *e = calloc(1, sizeof(*e));

	if (e)
		e->uid = strdup(uid);
	if (!e || !e->uid || table_put(&p->by_uid, e->uid, strlen(e->uid), e, NULL))
		abort();
	e->all = p;
	e->netns_fd = e->offered[0] = e->offered[1] = e->offered[2] = -1;
	e->timer.fn = timer_due;
	return e;
}

/* Its manifest names another namespace or identity than those that it is enrolled with. */
static bool moved(const struct enrolment *e)
{
	return strcmp(e->netns_path, e->workload->netns_path) || !e->spiffe || strcmp(e->spiffe, e->workload->identity);
}

/* Enrolled, or wanted again before its drain has got beyond capture: it never leaves the engine. */
static void stay(struct enrolment *e)
{
	int r = 0;

	if (e->state == POD_DRAINING) {
		r = capture_pod_resume(e->all->cfg.capture, e->number);
		loop_timer_cancel(e->all->cfg.loop, &e->timer);
	}
	if (r < 0) {
		log_error("enroll", "%s/%s: %s", e->workload->namespace_, e->workload->name, strerror(-r));
		remove_now(e, "starting anew");
		return;
	}
	kernel_follow(e);
	if (e->workload->addrs_in_status)
		report_addresses(e);
	set_state(e, POD_ENROLLED, "%s", "");
}

void enrolment_judge(struct enrolment *e, struct workload *w)
{
	workload_unref(e->workload);
	e->workload = workload_ref(w);
	if (e->in_engine || e->removals)
		engine_pod_set_workload(e->all->cfg.engine, e->number, w);
}

void enrolment_follow(struct enrolment *e, struct workload *w)
{
	const char *why = objection_manifest(w);

	enrolment_judge(e, w);
	e->wanted = true;
	if (why && e->state == POD_ENROLLED)
		start_drain(e, why);
	else if (why && e->state != POD_DRAINING)
		set_state(e, POD_REFUSED, "%s", why);
	else if (!why && e->in_engine && moved(e))
		remove_now(e, "namespace or service account changed");
	else if (!why && e->in_engine)
		stay(e);
	else if (!why)
		loop_timer_set(e->all->cfg.loop, &e->timer, 0);
}

/* The path is gone or names another namespace: the old one must not be held open. */
static void namespace_gone(struct enrolment *e)
{
	char why[320];

	if (e->gone || (!e->in_engine && !e->removals))
		return;
	e->gone = true;
	snprintf(why, sizeof(why), "%.256s is gone or another namespace", e->netns_path);
	if (e->in_engine)
		remove_now(e, why);
	engine_pod_expire(e->all->cfg.engine, e->number);
}

void enrolment_look(struct enrolment *e, bool slow)
{
	struct pods *p = e->all;

	if (!e->netns_path)
		return;
	if (!netns_same(e->netns_path, &e->netns)) {
		namespace_gone(e);
	} else if (e->state == POD_ENROLLED && slow && !p->retired) {
		(void)capture_pod_refresh(p->cfg.capture, e->number, e->netns_fd);
		report_addresses(e);
	}
}

void enrolment_offer(struct enrolment *e, const int fds[3])
{
	close_offered(e);
	memcpy(e->offered, fds, sizeof(e->offered));
	if (e->in_engine || e->state == POD_REFUSED)
		close_offered(e);
}

void enrolment_release(struct enrolment *e)
{
	e->released = true;
	if (!e->in_engine) {
		set_state(e, POD_REFUSED, "released by hand");
		leftover_settle(e->all);
		return;
	}
	set_state(e, POD_DRAINING, "released by hand");
	(void)capture_pod_drain(e->all->cfg.capture, e->number);
	leave_engine(e, 0);
}

void enrolment_readmit(struct enrolment *e)
{
	e->released = false;
	loop_timer_set(e->all->cfg.loop, &e->timer, 0);
}
