/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the model's shared objects: workloads, services and deltas. Immutable once published, counted atomically. */
#include "engine/model/model.h"
#include "engine/base/array.h"
#include "engine/model/policy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct workload *workload_new(void)
{
	struct workload *w = calloc(1, sizeof(*w));

	if (w)
		w->refs = 1;
	return w;
}

struct workload *workload_ref(struct workload *w)
{
	atomic_fetch_add_explicit(&w->refs, 1, memory_order_relaxed);
	return w;
}

struct workload *workload_unref(struct workload *w)
{
	if (!w || atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	free(w->uid);
	free(w->name);
	free(w->namespace_);
	free(w->service_account);
	free(w->node);
	free(w->network);
	free(w->cluster_id);
	free(w->trust_domain);
	free(w->identity);
	free(w->canonical_name);
	free(w->canonical_revision);
	free(w->workload_name);
	free(w->workload_type);
	free(w->region);
	free(w->zone);
	free(w->netns_path);
	free(w->addrs);
	policy_set_unref(w->policy);
	free(w->probe_ports);
	free(w);
	return NULL;
}

const char *workload_outside(const struct workload *w)
{
	return w->host_network	? "hostNetwork: it has no network namespace of its own"
	       : w->has_sidecar ? "it has a sidecar, which is in charge of it"
	       : !w->labelled	? "it is not labelled into the mesh"
				: NULL;
}

struct service *service_new(void)
{
	struct service *s = calloc(1, sizeof(*s));

	if (s)
		s->refs = 1;
	return s;
}

struct service *service_ref(struct service *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

struct service *service_unref(struct service *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (size_t i = 0; i < s->n_endpoints; i++) {
		workload_unref(s->endpoints[i].workload);
		free(s->endpoints[i].target_ports);
	}
	for (size_t i = 0; i < s->n_ports; i++)
		free(s->ports[i].name);
	free(s->name);
	free(s->namespace_);
	free(s->hostname);
	free(s->vips);
	free(s->ports);
	free(s->endpoints);
	free(s);
	return NULL;
}

struct model_delta *model_delta_new(void)
{
	return calloc(1, sizeof(struct model_delta));
}

struct model_delta *model_delta_free(struct model_delta *d)
{
	if (!d)
		return NULL;
	for (size_t i = 0; i < d->n_workloads; i++)
		workload_unref(d->workloads[i]);
	for (size_t i = 0; i < d->n_services; i++)
		service_unref(d->services[i]);
	for (size_t i = 0; i < d->n_removed_workloads; i++)
		free(d->removed_workloads[i]);
	for (size_t i = 0; i < d->n_removed_services; i++)
		free(d->removed_services[i]);
	free(d->workloads);
	free(d->services);
	free(d->removed_workloads);
	free(d->removed_services);
	free(d);
	return NULL;
}

static int append(void *array, size_t *n, void *item)
{
	void **slot = array_grow(array, n, sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	*slot = item;
	return 0;
}

int model_delta_add_workload(struct model_delta *d, struct workload *w)
{
	return append(&d->workloads, &d->n_workloads, w);
}

int model_delta_add_service(struct model_delta *d, struct service *s)
{
	return append(&d->services, &d->n_services, s);
}

static int append_copy(char ***array, size_t *n, const char *text)
{
	char *copy = strdup(text);
	int r = copy ? append(array, n, copy) : -ENOMEM;

	if (r < 0)
		free(copy);
	return r;
}

int model_delta_remove_workload(struct model_delta *d, const char *uid)
{
	return append_copy(&d->removed_workloads, &d->n_removed_workloads, uid);
}

int model_delta_remove_service(struct model_delta *d, const char *hostname)
{
	return append_copy(&d->removed_services, &d->n_removed_services, hostname);
}

struct model_delta *model_delta_clone(const struct model_delta *d)
{
	struct model_delta *c = model_delta_new();
	int r = 0;

	if (!c)
		return NULL;
	c->generation = d->generation;
	for (size_t i = 0; i < d->n_workloads && !r; i++) {
		r = model_delta_add_workload(c, workload_ref(d->workloads[i]));
		if (r)
			workload_unref(d->workloads[i]);
	}
	for (size_t i = 0; i < d->n_services && !r; i++) {
		r = model_delta_add_service(c, service_ref(d->services[i]));
		if (r)
			service_unref(d->services[i]);
	}
	for (size_t i = 0; i < d->n_removed_workloads && !r; i++)
		r = model_delta_remove_workload(c, d->removed_workloads[i]);
	for (size_t i = 0; i < d->n_removed_services && !r; i++)
		r = model_delta_remove_service(c, d->removed_services[i]);
	return r ? model_delta_free(c) : c;
}
