/* SPDX-License-Identifier: Apache-2.0 */
/* The index over workloads and services: applies deltas, answers look-ups. One per thread; called by source, proxy,
 * agent. */
#include "engine/model/model.h"
#include "target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct model *model_new(void)
{
	return calloc(1, sizeof(struct model));
}

struct model *model_free(struct model *m)
{
	struct table_iter it = {0};
	void *v;

	if (!m)
		return NULL;
	while ((v = table_next(&m->workloads_by_uid, &it)))
		workload_unref(v);
	it = (struct table_iter){0};
	while ((v = table_next(&m->services_by_hostname, &it)))
		service_unref(v);
	table_done(&m->workloads_by_uid);
	table_done(&m->workload_by_addr);
	table_done(&m->services_by_hostname);
	table_done(&m->service_by_vip);
	target_done(&m->targets);
	free(m);
	return NULL;
}

/* Removes an object's addresses from an index, but only those that still lead to it. */
static void unindex(struct table *t, const struct ip_addr *addrs, size_t n, const void *object)
{
	for (size_t i = 0; i < n; i++)
		if (table_get(t, &addrs[i], sizeof(addrs[i])) == object)
			table_del(t, &addrs[i], sizeof(addrs[i]));
}

static void drop_workload(struct model *m, struct workload *w)
{
	unindex(&m->workload_by_addr, w->addrs, w->n_addrs, w);
	workload_unref(w);
}

static void drop_service(struct model *m, struct service *s)
{
	unindex(&m->service_by_vip, s->vips, s->n_vips, s);
	target_remove(&m->targets, s);
	service_unref(s);
}

static int put_workload(struct model *m, struct workload *w)
{
	void *old;
	int r = table_put(&m->workloads_by_uid, w->uid, strlen(w->uid), w, &old);

	if (r < 0)
		return r;
	workload_ref(w);
	if (old)
		drop_workload(m, old);
	for (size_t i = 0; i < w->n_addrs && !w->host_network && !w->terminated && r == 0; i++)
		r = table_put(&m->workload_by_addr, &w->addrs[i], sizeof(w->addrs[i]), w, NULL);
	return r;
}

static int put_service(struct model *m, struct service *s)
{
	void *old;
	int r = table_put(&m->services_by_hostname, s->hostname, strlen(s->hostname), s, &old);

	if (r < 0)
		return r;
	service_ref(s);
	if (old)
		drop_service(m, old);
	for (size_t i = 0; i < s->n_vips && r == 0; i++)
		r = table_put(&m->service_by_vip, &s->vips[i], sizeof(s->vips[i]), s, NULL);
	return r < 0 ? r : target_add(&m->targets, s);
}

int model_apply(struct model *m, const struct model_delta *d)
{
	void *old;
	int r = 0, e;

	/* Removals first: an address may have moved from a removed pod to a new one within one delta. */
	for (size_t i = 0; i < d->n_removed_workloads; i++) {
		old = table_del(&m->workloads_by_uid, d->removed_workloads[i], strlen(d->removed_workloads[i]));
		if (old)
			drop_workload(m, old);
	}
	for (size_t i = 0; i < d->n_removed_services; i++) {
		old = table_del(&m->services_by_hostname, d->removed_services[i], strlen(d->removed_services[i]));
		if (old)
			drop_service(m, old);
	}
	for (size_t i = 0; i < d->n_workloads; i++)
		if ((e = put_workload(m, d->workloads[i])))
			r = e;
	for (size_t i = 0; i < d->n_services; i++)
		if ((e = put_service(m, d->services[i])))
			r = e;
	m->generation = d->generation;
	return r;
}

struct workload *model_workload_by_addr(const struct model *m, const struct ip_addr *a)
{
	return table_get(&m->workload_by_addr, a, sizeof(*a));
}

struct workload *model_workload_by_uid(const struct model *m, const char *uid)
{
	return table_get_str(&m->workloads_by_uid, uid);
}

struct service *model_service_by_vip(const struct model *m, const struct ip_addr *vip)
{
	return table_get(&m->service_by_vip, vip, sizeof(*vip));
}

struct service *model_service_by_target(const struct model *m, const struct ip_port *target)
{
	return target_find(&m->targets, &target->ip, target->port);
}

struct service *model_service_by_hostname(const struct model *m, const char *hostname)
{
	return table_get_str(&m->services_by_hostname, hostname);
}
