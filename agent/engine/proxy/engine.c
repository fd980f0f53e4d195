/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread's side of the L4 engine: starts the workers and sends them messages. Every message carries its own
 * references, so nothing is shared but what is atomic. Called by agent/.
 */
#include "worker.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/identity/trust.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

/* One message to one worker; `act` runs there. */
struct command {
	struct loop_msg msg;
	struct worker *w;
	void (*act)(struct command *c);
	uint32_t number;
	unsigned ms;
	struct pod_shared *shared;
	struct workload *workload;
	struct tls_identity *identity;
	struct model_delta *delta;
	struct ip_port src, dst;
	uint64_t times;
	struct trust *trust;
};

static void command_run(struct loop_msg *m)
{
	struct command *c = container_of(m, struct command, msg);

	c->act(c);
	workload_unref(c->workload);
	tls_identity_unref(c->identity);
	model_delta_free(c->delta);
	trust_unref(c->trust);
	pod_shared_unref(c->shared);
	free(c);
}

static struct pod_shared *shared_ref(struct pod_shared *s)
{
	atomic_fetch_add(&s->refs, 1);
	return s;
}

/* The same to every worker, each with references of its own to what `like` borrows. */
static void broadcast(struct engine *e, const struct command *like)
{
	for (unsigned i = 0; i < e->n_workers; i++) {
		struct command *c = malloc(sizeof(*c));

		/* A lost command would leave a worker with a stale policy or a pod that never ends. */
		if (!c)
			abort();
		*c = *like;
		c->msg.fn = command_run;
		c->w = &e->workers[i];
		c->shared = like->shared ? shared_ref(like->shared) : NULL;
		c->workload = like->workload ? workload_ref(like->workload) : NULL;
		c->identity = like->identity ? tls_identity_ref(like->identity) : NULL;
		c->delta = like->delta ? model_delta_clone(like->delta) : NULL;
		c->trust = like->trust ? trust_ref(like->trust) : NULL;
		if (like->delta && !c->delta)
			abort();
		loop_post(c->w->loop, &c->msg);
	}
}

static uint64_t descriptor_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur == RLIM_INFINITY)
		return 1u << 20;
	return rl.rlim_cur > 2 * LIMIT_RESERVED_FDS ? rl.rlim_cur - LIMIT_RESERVED_FDS : rl.rlim_cur / 2;
}

int engine_new(const struct engine_config *cfg, struct engine **ret)
{
	struct engine *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	list_init(&e->removing);
	list_init(&e->dumps);
	e->cfg = *cfg;
	e->n_workers = cfg->workers ? cfg->workers : 1;
	e->max_fds = descriptor_limit();
	/* Read buffers come and go with traffic: they are to stay in the heap until trim, not be mapped anew each time.
	 */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 4 << 20);
	mallopt(M_ARENA_MAX, (int)e->n_workers + 1);
	e->home_netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	e->workers = calloc(e->n_workers, sizeof(*e->workers));
	r = e->home_netns_fd < 0 ? -errno : e->workers ? 0 : -ENOMEM;
	for (unsigned i = 0; i < e->n_workers && r == 0; i++)
		r = worker_init(&e->workers[i], e, i);
	if (r < 0) {
		engine_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	char name[16];

	snprintf(name, sizeof(name), "worker-%u", w->index);
	pthread_setname_np(pthread_self(), name);
	(void)loop_run(w->loop);
	worker_close_all(w);
	return NULL;
}

int engine_start(struct engine *e)
{
	sigset_t all, old;
	int r = 0;

	/* Signals are the control thread's business. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	while (r == 0 && e->n_started < e->n_workers) {
		struct worker *w = &e->workers[e->n_started];

		r = -pthread_create(&w->thread, NULL, worker_main, w);
		e->n_started += r == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

struct dump {
	struct list node; /* engine->dumps */
	struct loop_msg msg;
	struct engine *e;
	unsigned next;
	char what[16];
	cJSON *array;
	void (*done)(void *arg, struct cJSON *array);
	void *arg;
};

static void dump_end(struct dump *d)
{
	list_remove(&d->node);
	d->done(d->arg, d->array);
	free(d);
}

static void act_stop(struct command *c)
{
	loop_stop(c->w->loop);
}

static void stop_workers(struct engine *e)
{
	if (e->n_started)
		broadcast(e, &(struct command){.act = act_stop});
	for (unsigned i = 0; i < e->n_started; i++)
		pthread_join(e->workers[i].thread, NULL);
	/* What was on its way to a worker that had ended, or never began, holds connections and references. */
	for (unsigned i = 0; e->workers && i < e->n_workers && e->workers[i].loop; i++) {
		loop_run_messages(e->workers[i].loop);
		worker_close_all(&e->workers[i]);
	}
}

struct engine *engine_free(struct engine *e)
{
	struct table_iter it = {0};
	struct pod_shared *s;

	if (!e)
		return NULL;
	stop_workers(e);
	while (!list_empty(&e->dumps))
		dump_end(list_entry(e->dumps.next, struct dump, node));
	while ((s = table_next(&e->pods, &it))) {
		s->done = NULL;
		table_del(&e->pods, &s->number, sizeof(s->number));
		pod_shared_unref(s);
	}
	table_done(&e->pods);
	/* The control loop has ended: who waited for these pods' end is going too. */
	while (!list_empty(&e->removing)) {
		s = list_entry(e->removing.next, struct pod_shared, removing);
		list_remove(&s->removing);
		free(s);
	}
	for (unsigned i = 0; e->workers && i < e->n_workers; i++)
		worker_done(&e->workers[i]);
	if (e->home_netns_fd >= 0)
		close(e->home_netns_fd);
	free(e->workers);
	free(e);
	return NULL;
}

/* --- pods --- */

static void act_pod_add(struct command *c)
{
	if (pod_open(c->w, c->shared, c->workload, c->identity) < 0)
		abort();
	c->shared = NULL;
	c->workload = NULL;
	c->identity = NULL;
}

int engine_pod_add(struct engine *e, const struct engine_pod_config *cfg)
{
	struct pod_shared *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->refs = 1;
	s->acceptors = e->n_workers;
	s->e = e;
	s->number = cfg->number;
	if (table_get(&e->pods, &s->number, sizeof(s->number)) ||
	    table_put(&e->pods, &s->number, sizeof(s->number), s, NULL)) {
		free(s);
		return -EEXIST;
	}
	atomic_fetch_add_explicit(&e->fds, POD_DESCRIPTORS, memory_order_relaxed);
	s->netns_fd = cfg->netns_fd;
	s->listeners[LISTEN_OUTBOUND] = cfg->listen_outbound;
	s->listeners[LISTEN_INBOUND] = cfg->listen_inbound;
	s->listeners[LISTEN_HBONE] = cfg->listen_hbone;
	for (int i = 0; i < LISTENERS; i++) {
		sock_nodelay(s->listeners[i]);
		/* Accepted ones inherit it all. */
		if (i == LISTEN_HBONE) {
			congestion_choose(&s->congestion, e->cfg.tunnel_congestion, s->listeners[i]);
			congestion_begin(&s->congestion, s->listeners[i]);
			continue;
		}
		sock_keepalive(s->listeners[i]);
		sock_reset_on_close(s->listeners[i]);
		sock_urgent_inline(s->listeners[i]);
	}
	broadcast(e, &(struct command){
			     .act = act_pod_add, .shared = s, .workload = cfg->workload, .identity = cfg->identity});
	return 0;
}

static void act_set_identity(struct command *c)
{
	struct pod *p = worker_pod(c->w, c->number);

	if (!p)
		return;
	tls_identity_unref(p->identity);
	p->identity = take_ptr(c->identity);
}

void engine_pod_set_identity(struct engine *e, uint32_t number, struct tls_identity *id)
{
	broadcast(e, &(struct command){.act = act_set_identity, .number = number, .identity = id});
}

/* To those of the number that drain, too: while the pod is in the mesh, its policies are for all its connections. */
static void act_set_workload(struct command *c)
{
	list_foreach(n, &c->w->pods) {
		struct pod *p = list_entry(n, struct pod, node);

		if (p->number == c->number)
			pod_set_workload(p, workload_ref(c->workload));
	}
}

void engine_pod_set_workload(struct engine *e, uint32_t number, struct workload *w)
{
	broadcast(e, &(struct command){.act = act_set_workload, .number = number, .workload = w});
}

static void act_denied_early(struct command *c)
{
	struct pod *p = c->w->index ? NULL : worker_pod(c->w, c->number);

	if (p)
		inbound_denied_early(p, &c->src, &c->dst, c->times);
}

void engine_pod_denied_early(struct engine *e, uint32_t number, const struct ip_port *src, const struct ip_port *dst,
			     uint64_t times)
{
	broadcast(e, &(struct command){
			     .act = act_denied_early, .number = number, .src = *src, .dst = *dst, .times = times});
}

static void removal_done(struct loop_msg *m)
{
	struct pod_shared *s = container_of(m, struct pod_shared, done_msg);

	list_remove(&s->removing);
	s->done(s->done_arg, s->number);
	free(s);
}

static void act_remove(struct command *c)
{
	struct pod *p = worker_pod(c->w, c->number);

	if (p)
		pod_drain(p, c->ms);
}

void engine_pod_remove(struct engine *e, uint32_t number, unsigned drain_ms, void (*done)(void *arg, uint32_t number),
		       void *arg)
{
	struct pod_shared *s = table_del(&e->pods, &number, sizeof(number));

	if (!s) {
		if (done)
			done(arg, number);
		return;
	}
	if (done)
		list_append(&e->removing, &s->removing);
	s->done = done;
	s->done_arg = arg;
	s->done_msg.fn = removal_done;
	broadcast(e, &(struct command){.act = act_remove, .number = number, .ms = drain_ms});
	pod_shared_unref(s);
}

static void act_expire(struct command *c)
{
	list_foreach(n, &c->w->pods) {
		struct pod *p = list_entry(n, struct pod, node);

		if (p->number != c->number || !p->draining)
			continue;
		p->vanishes = true;
		loop_timer_set(c->w->loop, &p->drain, 1);
	}
}

void engine_pod_expire(struct engine *e, uint32_t number)
{
	broadcast(e, &(struct command){.act = act_expire, .number = number});
}

int engine_pod_listeners(struct engine *e, uint32_t number, int ret_fds[3])
{
	struct pod_shared *s = table_get(&e->pods, &number, sizeof(number));
	int fds[LISTENERS];

	if (!s)
		return -ENOENT;
	for (int i = 0; i < LISTENERS; i++) {
		/* Still open: only removal and engine_hand_over close them, which this thread has not asked for. */
		fds[i] = fcntl(s->listeners[i], F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0) {
			int r = -errno;

			while (i--)
				close(fds[i]);
			return r;
		}
	}
	memcpy(ret_fds, fds, sizeof(fds));
	return 0;
}

static void act_hand_over(struct command *c)
{
	list_foreach(n, &c->w->pods)
		pod_hand_over(list_entry(n, struct pod, node));
}

void engine_hand_over(struct engine *e)
{
	broadcast(e, &(struct command){.act = act_hand_over});
}

/* --- trust --- */

static void act_set_trust(struct command *c)
{
	trust_unref(c->w->trust);
	c->w->trust = take_ptr(c->trust);
	tunnel_life_judge_all(c->w);
}

void engine_set_trust(struct engine *e, struct trust *t)
{
	broadcast(e, &(struct command){.act = act_set_trust, .trust = t});
}

/* --- model --- */

static void act_model(struct command *c)
{
	if (model_apply(c->w->model, c->delta) < 0)
		log_error("proxy", "worker %u: out of memory while applying configuration", c->w->index);
	inbound_model_changed(c->w);
	admission_drain_former_owners(c->w);
}

void engine_model_apply(struct engine *e, const struct model_delta *d)
{
	/* Only cloned. */
	broadcast(e, &(struct command){.act = act_model, .delta = (struct model_delta *)(uintptr_t)d});
}

uint64_t engine_open_connections(const struct engine *e)
{
	return atomic_load_explicit(&e->conns, memory_order_relaxed);
}

void engine_trace(struct engine *e, unsigned ms)
{
	atomic_store_explicit(&e->trace_until_ms, clock_now_ms() + ms, memory_order_relaxed);
}

/* --- inspection: each worker adds its part on its own thread, one after the other --- */

static void dump_done(struct loop_msg *m)
{
	dump_end(container_of(m, struct dump, msg));
}

static void dump_step(struct loop_msg *m)
{
	struct dump *d = container_of(m, struct dump, msg);
	cJSON *part = dump_worker(&d->e->workers[d->next], d->what), *item;

	while (part && (item = cJSON_DetachItemFromArray(part, 0)))
		cJSON_AddItemToArray(d->array, item);
	cJSON_Delete(part);
	if (++d->next < d->e->n_workers) {
		loop_post(d->e->workers[d->next].loop, m);
		return;
	}
	m->fn = dump_done;
	loop_post(d->e->cfg.control, m);
}

void engine_dump(struct engine *e, const char *what, void (*done)(void *arg, struct cJSON *array), void *arg)
{
	struct dump *d = calloc(1, sizeof(*d));
	cJSON *array = cJSON_CreateArray();

	if (!d || !array) {
		free(d);
		done(arg, array);
		return;
	}
	*d = (struct dump){.msg.fn = dump_step, .e = e, .array = array, .done = done, .arg = arg};
	snprintf(d->what, sizeof(d->what), "%s", what);
	list_append(&e->dumps, &d->node);
	loop_post(e->workers[0].loop, &d->msg);
}
