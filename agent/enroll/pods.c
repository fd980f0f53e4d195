/* SPDX-License-Identifier: Apache-2.0 */
/* Enrolment of this node's pods. Model changes and namespace changes come in; capture, engine and
 * certificates follow. */
#include "pods.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/base/table.h"
#include "engine/io/loop.h"
#include "netns.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How often namespaces are compared with their paths: teardown is promised within a second. */
#define TICK_MS 250
#define REFRESH_TICKS 4
#define RETRY_FIRST_MS 100
#define RETRY_MAX_MS 2000
/* Between "new connections bypass" and closing the listeners: handshakes under way are finished first. */
#define SETTLE_MS 100
#define ADDRESSES_MAX 16

enum pod_state { POD_PENDING, POD_ENROLLED, POD_DRAINING, POD_REFUSED };
static const char *const state_names[] = {"pending", "enrolled", "draining", "refused"};

struct pod_entry {
	struct pods *all;
	char *uid;
	struct workload *workload;
	enum pod_state state;
	char *reason;
	uint32_t number;
	int netns_fd;
	char *netns_path; /* as enrolled */
	struct stat netns;
	char *spiffe; /* reference held in the certificate store */
	bool wanted, released, attached, in_engine, gone;
	unsigned removals; /* engine removals under way */
	struct timer timer;
	unsigned retry_ms;
	int offered[3];
};

struct pods {
	struct pods_config cfg;
	struct table by_uid;
	struct pod_entry *by_number[CAPTURE_MAX_PODS];
	struct capture_leftover *left;
	size_t n_left;
	bool settled;
	bool retired; /* a successor has taken over: capture is its own, only our descriptors are ours */
	struct timer tick;
	unsigned ticks;
};

static void try_enrol(struct pod_entry *e);

static void set_state(struct pod_entry *e, enum pod_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void set_state(struct pod_entry *e, enum pod_state state, const char *fmt, ...)
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
	if (!news)
		return;
	if (state == POD_PENDING || state == POD_REFUSED)
		log_warn("enroll", "%s/%s: %s: %s", w->namespace_, w->name, state_names[state], text);
	else
		log_info("enroll", "%s/%s: %s%s%s", w->namespace_, w->name, state_names[state],
			 *text ? ": " : "", text);
	e->all->cfg.changed(e->all->cfg.arg);
}

static bool wants(const struct workload *w)
{
	return w->local && w->labelled && !w->terminated;
}

/* --- numbers --- */

static uint32_t number_for(struct pods *p, struct pod_entry *e)
{
	bool taken[CAPTURE_MAX_PODS] = {true};

	for (size_t i = 0; i < p->n_left; i++) {
		const struct capture_leftover *l = &p->left[i];

		if (!strcmp(l->uid, e->uid) && l->netns_ino == e->netns.st_ino &&
		    l->number < CAPTURE_MAX_PODS && !p->by_number[l->number])
			return l->number;
		if (l->number < CAPTURE_MAX_PODS)
			taken[l->number] = true;
	}
	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++)
		if (!p->by_number[n] && !taken[n])
			return n;
	return 0;
}

static void forget_leftover(struct pods *p, uint32_t number)
{
	for (size_t i = 0; i < p->n_left; i++)
		if (p->left[i].number == number)
			p->left[i--] = p->left[--p->n_left];
}

/* --- enrolling --- */

static void retry_later(struct pod_entry *e)
{
	e->retry_ms = e->retry_ms ? e->retry_ms * 2 : RETRY_FIRST_MS;
	if (e->retry_ms > RETRY_MAX_MS)
		e->retry_ms = RETRY_MAX_MS;
	loop_timer_set(e->all->cfg.loop, &e->timer, e->retry_ms);
}

static bool shares_namespace(struct pods *p, const struct pod_entry *e, const struct stat *st,
			     const char **ret_name)
{
	struct table_iter it = {0};
	struct pod_entry *o;

	while ((o = table_next(&p->by_uid, &it))) {
		if (o == e || o->netns_fd < 0 || o->netns.st_ino != st->st_ino ||
		    o->netns.st_dev != st->st_dev)
			continue;
		*ret_name = o->workload->name;
		return true;
	}
	return false;
}

/* What in its manifest keeps a pod out. NULL: nothing. */
static const char *manifest_objection(const struct workload *w)
{
	if (w->host_network)
		return "hostNetwork: it has no network namespace of its own";
	if (w->has_sidecar)
		return "it has an injected sidecar";
	if (!w->netns_path)
		return "annotation warren.dev/netns is missing: where is its network namespace?";
	return NULL;
}

/* What in its namespace keeps a pod out, until that or its manifest changes. NULL: nothing. */
static const char *objection(struct pod_entry *e, const struct stat *st, char *buf, size_t size)
{
	const char *other;

	if (netns_is_node(st))
		return "its network namespace is the node's own";
	if (shares_namespace(e->all, e, st, &other)) {
		snprintf(buf, size, "shares its network namespace with pod %s", other);
		return buf;
	}
	return NULL;
}

static void close_netns(struct pod_entry *e)
{
	if (e->netns_fd >= 0)
		close(e->netns_fd);
	e->netns_fd = -1;
	free(e->netns_path);
	e->netns_path = NULL;
}

static void drop_identity(struct pod_entry *e)
{
	if (e->spiffe)
		cert_store_put(e->all->cfg.certs, e->spiffe);
	free(e->spiffe);
	e->spiffe = NULL;
}

static void report_addresses(struct pod_entry *e)
{
	struct ip_addr found[ADDRESSES_MAX];
	int n;

	if (e->workload->n_addrs)
		return;
	n = netns_addresses(e->netns_fd, found, ADDRESSES_MAX);
	if (n > 0)
		e->all->cfg.found_addresses(e->all->cfg.arg, e->uid, found, (size_t)n);
}

/* Attach, listen, hand to the engine; undone in reverse by the caller on failure. */
static int attach(struct pod_entry *e, struct tls_identity *id, char **ret_error)
{
	struct pods *p = e->all;
	struct capture_pod cp = {.number = e->number,
				 .uid = e->uid,
				 .namespace_ = e->workload->namespace_,
				 .name = e->workload->name,
				 .netns_fd = e->netns_fd};
	struct engine_pod_config ep = {.number = e->number, .workload = e->workload, .identity = id};
	int fds[3], r;

	r = capture_pod_attach(p->cfg.capture, &cp, e->offered, fds, ret_error);
	if (r < 0)
		return r;
	e->attached = true;
	e->offered[0] = e->offered[1] = e->offered[2] = -1;
	forget_leftover(p, e->number);
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
		return r;
	}
	e->in_engine = true;
	return 0;
}

static int open_namespace(struct pod_entry *e)
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
	why = objection(e, &st, buf, sizeof(buf));
	if (why) {
		close(fd);
		set_state(e, POD_REFUSED, "%s", why);
		return -EPERM;
	}
	e->netns_fd = fd;
	e->netns = st;
	e->gone = false;
	e->netns_path = strdup(e->workload->netns_path);
	return e->netns_path ? 0 : -ENOMEM;
}

/* A pod that drains comes back at once only into the namespace that it drains in; else after the drain. */
static bool ready_to_return(const struct pod_entry *e)
{
	return e->netns_fd < 0 || (e->netns_path && !strcmp(e->netns_path, e->workload->netns_path) &&
				   netns_same(e->netns_path, &e->netns));
}

static void try_enrol(struct pod_entry *e)
{
	struct pods *p = e->all;
	const char *why = manifest_objection(e->workload);
	struct tls_identity *id = NULL;
	char *error = NULL;
	int r;

	if (!e->wanted || e->released || e->state == POD_ENROLLED || p->retired)
		return;
	if (why) {
		set_state(e, POD_REFUSED, "%s", why);
		return;
	}
	if (!ready_to_return(e)) {
		if (e->removals)
			return;
		/* A failed attempt's: nothing of it is attached. */
		close_netns(e);
	}
	if (e->netns_fd < 0 && open_namespace(e) < 0) {
		retry_later(e);
		return;
	}
	if (!e->number) {
		e->number = number_for(p, e);
		if (e->number)
			p->by_number[e->number] = e;
	}
	if (!e->number) {
		set_state(e, POD_REFUSED, "more than %d pods on this node", CAPTURE_MAX_PODS - 1);
		close_netns(e);
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
		/* Draining connections still need the programs; a pod that has none does not. */
		if (e->attached && !e->removals)
			e->attached = capture_pod_detach(p->cfg.capture, e->number, e->netns_fd) < 0;
		set_state(e, r == -EADDRINUSE && !e->removals ? POD_REFUSED : POD_PENDING, "%s",
			  error ? error : strerror(-r));
		free(error);
		if (!e->removals && !e->attached) {
			p->by_number[e->number] = NULL;
			e->number = 0;
			close_netns(e);
		}
		retry_later(e);
		return;
	}
	e->retry_ms = 0;
	loop_timer_cancel(p->cfg.loop, &e->timer);
	set_state(e, POD_ENROLLED, "%s", "");
	report_addresses(e);
}

/* --- leaving --- */

static void entry_free(struct pod_entry *e)
{
	table_del(&e->all->by_uid, e->uid, strlen(e->uid));
	if (e->number)
		e->all->by_number[e->number] = NULL;
	loop_timer_cancel(e->all->cfg.loop, &e->timer);
	close_netns(e);
	for (int i = 0; i < 3; i++)
		if (e->offered[i] >= 0)
			close(e->offered[i]);
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
	struct pod_entry *e = number < CAPTURE_MAX_PODS ? p->by_number[number] : NULL;
	int r;

	if (!e || --e->removals || e->in_engine)
		return;
	r = p->retired ? 0 : capture_pod_detach(p->cfg.capture, number, e->netns_fd);
	if (r < 0)
		log_error("enroll", "%s/%s: capture could not be removed completely: %s",
			  e->workload->namespace_, e->workload->name, strerror(-r));
	e->attached = false;
	p->by_number[number] = NULL;
	e->number = 0;
	close_netns(e);
	drop_identity(e);
	log_info("enroll", "%s/%s: out of the mesh", e->workload->namespace_, e->workload->name);
	p->cfg.changed(p->cfg.arg);
	if (!e->wanted) {
		entry_free(e);
		return;
	}
	set_state(e, e->released ? POD_REFUSED : POD_PENDING, "%s",
		  e->released ? "released by hand" : "starting anew");
	if (!e->released)
		try_enrol(e);
}

static void leave_engine(struct pod_entry *e, unsigned drain_ms)
{
	if (!e->in_engine)
		return;
	e->in_engine = false;
	e->removals++;
	engine_pod_remove(e->all->cfg.engine, e->number, drain_ms, left_engine, e->all);
}

static void timer_due(struct timer *t)
{
	struct pod_entry *e = container_of(t, struct pod_entry, timer);

	if (e->state == POD_DRAINING && e->in_engine)
		leave_engine(e, e->all->cfg.drain_ms);
	else if (e->wanted)
		try_enrol(e);
}

static void start_drain(struct pod_entry *e, const char *why)
{
	int r = e->all->retired ? 0 : capture_pod_drain(e->all->cfg.capture, e->number);

	if (r < 0)
		log_error("enroll", "%s/%s: %s", e->workload->namespace_, e->workload->name, strerror(-r));
	set_state(e, POD_DRAINING, "%s", why);
	loop_timer_set(e->all->cfg.loop, &e->timer, SETTLE_MS);
}

static void unwant(struct pod_entry *e, const char *why)
{
	e->wanted = false;
	if (e->state == POD_ENROLLED)
		start_drain(e, why);
	else if (e->state != POD_DRAINING && !e->removals && !e->attached)
		entry_free(e);
}

/* Every socket and descriptor of the pod goes at once, with GOAWAY; one that is still wanted then starts
 * anew. */
static void remove_now(struct pod_entry *e, const char *why)
{
	set_state(e, POD_DRAINING, "%s", why);
	leave_engine(e, 0);
}

/* --- what the model says --- */

static void refresh(struct pods *p, struct workload *w)
{
	struct pod_entry *e = table_get_str(&p->by_uid, w->uid);
	const char *why;
	bool moved;

	if (!wants(w)) {
		if (e)
			unwant(e, "its label, namespace or phase says so");
		return;
	}
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (e)
			e->uid = strdup(w->uid);
		if (!e || !e->uid || table_put(&p->by_uid, e->uid, strlen(e->uid), e, NULL))
			abort();
		e->all = p;
		e->netns_fd = e->offered[0] = e->offered[1] = e->offered[2] = -1;
		e->timer.fn = timer_due;
	}
	moved = e->workload && (strcmp(e->workload->netns_path ? e->workload->netns_path : "",
				       w->netns_path ? w->netns_path : "") ||
				strcmp(e->workload->identity, w->identity));
	why = manifest_objection(w);
	workload_unref(e->workload);
	e->workload = workload_ref(w);
	e->wanted = true;
	if (why && e->state == POD_ENROLLED)
		start_drain(e, why);
	else if (why && e->state != POD_DRAINING)
		set_state(e, POD_REFUSED, "%s", why);
	else if (e->state == POD_ENROLLED && moved)
		remove_now(e, "namespace or service account changed");
	else if (e->state == POD_ENROLLED)
		engine_pod_set_workload(p->cfg.engine, e->number, w);
	else if (!why)
		loop_timer_set(p->cfg.loop, &e->timer, 0);
}

/* Pods an earlier agent enrolled that the model does not want any more, or whose namespace went: out of
 * capture. */
static void settle_leftovers(struct pods *p)
{
	if (p->settled)
		return;
	p->settled = true;
	for (size_t i = 0; i < p->n_left; i++) {
		struct capture_leftover *l = &p->left[i];
		struct pod_entry *e = table_get_str(&p->by_uid, l->uid);
		struct stat st;
		int fd;

		if (e && e->wanted && e->workload->netns_path && !stat(e->workload->netns_path, &st) &&
		    st.st_ino == l->netns_ino)
			continue;
		fd = *l->netns_path ? netns_open(l->netns_path, &st) : -1;
		if (fd >= 0 && st.st_ino != l->netns_ino) {
			close(fd);
			fd = -1;
		}
		log_info("enroll", "%s: %s", l->uid,
			 fd >= 0 ? "no longer in the mesh, capture removed" : "went while no agent ran");
		(void)capture_pod_detach(p->cfg.capture, l->number, fd);
		if (fd >= 0)
			close(fd);
		*l = p->left[--p->n_left];
		i--;
	}
}

void pods_apply(struct pods *p, const struct model_delta *d)
{
	for (size_t i = 0; i < d->n_removed_workloads; i++) {
		struct pod_entry *e = table_get_str(&p->by_uid, d->removed_workloads[i]);

		if (e)
			unwant(e, "its manifest is gone");
	}
	for (size_t i = 0; i < d->n_workloads; i++)
		refresh(p, d->workloads[i]);
	settle_leftovers(p);
}

/* The path is gone or names another namespace: the old one must not be held open. */
static void check_gone(struct pod_entry *e)
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

static void tick(struct timer *t)
{
	struct pods *p = container_of(t, struct pods, tick);
	bool attachments = ++p->ticks % REFRESH_TICKS == 0;

	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++) {
		struct pod_entry *e = p->by_number[n];

		if (!e || !e->netns_path)
			continue;
		if (!netns_same(e->netns_path, &e->netns)) {
			check_gone(e);
		} else if (e->state == POD_ENROLLED && attachments && !p->retired) {
			(void)capture_pod_refresh(p->cfg.capture, n, e->netns_fd);
		}
	}
	loop_timer_set(p->cfg.loop, &p->tick, TICK_MS);
}

/* --- life and views --- */

int pods_new(const struct pods_config *cfg, struct pods **ret)
{
	struct pods *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->cfg = *cfg;
	p->tick.fn = tick;
	r = capture_leftovers(cfg->capture, &p->left, &p->n_left);
	if (r < 0) {
		free(p);
		return r;
	}
	loop_timer_set(cfg->loop, &p->tick, TICK_MS);
	*ret = p;
	return 0;
}

struct pods *pods_free(struct pods *p)
{
	struct table_iter it = {0};
	struct pod_entry *e;

	if (!p)
		return NULL;
	loop_timer_cancel(p->cfg.loop, &p->tick);
	while ((e = table_next(&p->by_uid, &it)))
		entry_free(e);
	table_done(&p->by_uid);
	free(p->left);
	free(p);
	return NULL;
}

void pods_retire(struct pods *p)
{
	p->retired = true;
}

void pods_offer_listeners(struct pods *p, const char *uid, const int fds[3])
{
	struct pod_entry *e = table_get_str(&p->by_uid, uid);

	for (int i = 0; i < 3; i++) {
		if (!e || e->in_engine) {
			close(fds[i]);
			continue;
		}
		if (e->offered[i] >= 0)
			close(e->offered[i]);
		e->offered[i] = fds[i];
	}
}

void pods_set_identity(struct pods *p, struct tls_identity *id)
{
	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++) {
		struct pod_entry *e = p->by_number[n];

		if (e && e->in_engine && e->spiffe && !strcmp(e->spiffe, id->spiffe))
			engine_pod_set_identity(p->cfg.engine, n, id);
	}
}

struct pods_counts pods_count(const struct pods *p)
{
	struct pods_counts c = {0};
	struct table_iter it = {0};
	struct pod_entry *e;

	while ((e = table_next(&p->by_uid, &it))) {
		c.enrolled += e->state == POD_ENROLLED;
		c.pending += e->state == POD_PENDING;
		c.draining += e->state == POD_DRAINING;
		c.refused += e->state == POD_REFUSED;
	}
	return c;
}

const char *pods_pending(const struct pods *p)
{
	static char text[400];
	struct table_iter it = {0};
	struct pod_entry *e;
	size_t n = 0;

	text[0] = 0;
	while ((e = table_next(&p->by_uid, &it)) && n + 100 < sizeof(text))
		if (e->state == POD_PENDING || (e->state == POD_DRAINING && e->wanted))
			n += (size_t)snprintf(text + n, 100, "%s%.60s", n ? ", " : "", e->workload->name);
	return text;
}

struct cJSON *pods_dump(const struct pods *p)
{
	cJSON *array = cJSON_CreateArray(), *addrs;
	struct table_iter it = {0};
	struct pod_entry *e;
	char ip[64];

	while ((e = table_next(&p->by_uid, &it))) {
		const struct workload *w = e->workload;
		cJSON *o = cJSON_CreateObject();

		cJSON_AddNumberToObject(o, "number", e->number);
		cJSON_AddStringToObject(o, "uid", e->uid);
		cJSON_AddStringToObject(o, "namespace", w->namespace_);
		cJSON_AddStringToObject(o, "name", w->name);
		addrs = cJSON_AddArrayToObject(o, "addresses");
		for (size_t i = 0; i < w->n_addrs; i++)
			cJSON_AddItemToArray(
				addrs, cJSON_CreateString(ip_addr_format(&w->addrs[i], ip, sizeof(ip))));
		cJSON_AddStringToObject(o, "netns", w->netns_path ? w->netns_path : "");
		cJSON_AddStringToObject(o, "state", state_names[e->state]);
		if (e->reason && *e->reason)
			cJSON_AddStringToObject(o, "reason", e->reason);
		cJSON_AddStringToObject(o, "identity", w->identity);
		cJSON_AddItemToArray(array, o);
	}
	return array;
}

static bool named(const struct pod_entry *e, const char *name)
{
	char full[600];

	snprintf(full, sizeof(full), "%s/%s", e->workload->namespace_, e->workload->name);
	return !name || !strcmp(name, full) || !strcmp(name, e->workload->name) || !strcmp(name, e->uid);
}

int pods_release(struct pods *p, const char *name)
{
	struct table_iter it = {0};
	struct pod_entry *e;
	int n = 0;

	while (!p->retired && (e = table_next(&p->by_uid, &it))) {
		if (!named(e, name))
			continue;
		n++;
		e->released = true;
		if (e->in_engine) {
			set_state(e, POD_DRAINING, "released by hand");
			(void)capture_pod_drain(p->cfg.capture, e->number);
			leave_engine(e, 0);
		} else {
			set_state(e, POD_REFUSED, "released by hand");
		}
	}
	return n;
}

int pods_readmit(struct pods *p, const char *name)
{
	struct table_iter it = {0};
	struct pod_entry *e;
	int n = 0;

	while ((e = table_next(&p->by_uid, &it))) {
		if (!named(e, name) || !e->released)
			continue;
		n++;
		e->released = false;
		loop_timer_set(p->cfg.loop, &e->timer, 0);
	}
	return n;
}

void pods_each(struct pods *p, void (*fn)(void *arg, uint32_t number, const char *uid), void *arg)
{
	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++)
		if (p->by_number[n] && p->by_number[n]->in_engine)
			fn(arg, n, p->by_number[n]->uid);
}
