/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of this node's pods. Model changes, ticks and what people ask come in; each pod's enrolment is told
 * what concerns it. Called by agent/node.c and agent/commands.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* How often namespaces are compared with their paths: teardown is promised within a second. */
#define TICK_MS 250
#define SLOW_TICKS 4

/* --- what the model says --- */

static bool wants(const struct workload *w)
{
	return w->local && w->labelled && !w->terminated;
}

static void refresh(struct pods *p, struct workload *w)
{
	struct enrolment *e = table_get_str(&p->by_uid, w->uid);

	if (!wants(w)) {
		if (e)
			enrolment_unwant(e, "its label, namespace or phase says so");
		return;
	}
	enrolment_follow(e ? e : enrolment_new(p, w->uid), w);
}

void pods_relax(struct pods *p, const struct model_delta *d)
{
	for (size_t i = 0; i < d->n_workloads; i++) {
		struct enrolment *e = table_get_str(&p->by_uid, d->workloads[i]->uid);

		if (e && e->in_engine)
			kernel_relax(e, d->workloads[i]);
	}
}

/* After a hand-over: the successor has the pods, their connections of before are still ours. */
static void judge(struct pods *p, const struct model_delta *d)
{
	for (size_t i = 0; i < d->n_workloads; i++) {
		struct enrolment *e = table_get_str(&p->by_uid, d->workloads[i]->uid);

		if (e && wants(d->workloads[i]))
			enrolment_judge(e, d->workloads[i]);
	}
}

void pods_apply(struct pods *p, const struct model_delta *d)
{
	if (p->retired) {
		judge(p, d);
		return;
	}
	for (size_t i = 0; i < d->n_removed_workloads; i++) {
		struct enrolment *e = table_get_str(&p->by_uid, d->removed_workloads[i]);

		if (e)
			enrolment_unwant(e, "its manifest is gone");
	}
	for (size_t i = 0; i < d->n_workloads; i++)
		refresh(p, d->workloads[i]);
	leftover_settle(p);
}

/* --- life --- */

static void tick(struct timer *t)
{
	struct pods *p = container_of(t, struct pods, tick);
	bool slow = ++p->ticks % SLOW_TICKS == 0;

	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++) {
		struct enrolment *e = p->by_number[n];

		if (e)
			enrolment_look(e, slow);
	}
	loop_timer_set(p->cfg.loop, &p->tick, TICK_MS);
}

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
	struct enrolment *e;

	if (!p)
		return NULL;
	loop_timer_cancel(p->cfg.loop, &p->tick);
	while ((e = table_next(&p->by_uid, &it)))
		enrolment_free(e);
	table_done(&p->by_uid);
	free(p->left);
	free(p);
	return NULL;
}

void pods_retire(struct pods *p)
{
	p->retired = true;
}

/* --- what others hand in --- */

void pods_offer_listeners(struct pods *p, const char *uid, const int fds[3])
{
	struct enrolment *e = table_get_str(&p->by_uid, uid);

	if (e)
		enrolment_offer(e, fds);
	for (int i = 0; i < 3 && !e; i++)
		close(fds[i]);
}

void pods_set_identity(struct pods *p, struct tls_identity *id)
{
	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++) {
		struct enrolment *e = p->by_number[n];

		if (e && e->in_engine && e->spiffe && !strcmp(e->spiffe, id->spiffe))
			engine_pod_set_identity(p->cfg.engine, n, id);
	}
}

static bool named(const struct enrolment *e, const char *name)
{
	char full[600];

	snprintf(full, sizeof(full), "%s/%s", e->workload->namespace_, e->workload->name);
	return !name || !strcmp(name, full) || !strcmp(name, e->workload->name) || !strcmp(name, e->uid);
}

int pods_release(struct pods *p, const char *name)
{
	struct table_iter it = {0};
	struct enrolment *e;
	int n = 0;

	while (!p->retired && (e = table_next(&p->by_uid, &it))) {
		if (!named(e, name))
			continue;
		n++;
		enrolment_release(e);
	}
	return n;
}

int pods_readmit(struct pods *p, const char *name)
{
	struct table_iter it = {0};
	struct enrolment *e;
	int n = 0;

	while ((e = table_next(&p->by_uid, &it))) {
		if (!named(e, name) || !e->released)
			continue;
		n++;
		enrolment_readmit(e);
	}
	return n;
}

void pods_each(struct pods *p, void (*fn)(void *arg, uint32_t number, const char *uid), void *arg)
{
	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++)
		if (p->by_number[n] && p->by_number[n]->in_engine)
			fn(arg, n, p->by_number[n]->uid);
}
