/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resources into the model: the store comes in, a delta with only what changed since the last one leaves to
 * the workers. Called by source.c.
 */
#include "assemble_private.h"
#include "override.h"
#include "published.h"

#include <errno.h>
#include <string.h>

/* hostNetwork workloads are never found by address. */
static int index_addresses(struct assembly *a, struct workload *w)
{
	for (size_t i = 0; !w->host_network && i < w->n_addrs; i++)
		if (table_put(&a->by_addr, &w->addrs[i], sizeof(w->addrs[i]), w, NULL))
			return -ENOMEM;
	return 0;
}

static int put_workloads(struct assembly *a, const struct store *s)
{
	struct table_iter it = {0};
	struct resource *r;
	int e = 0;

	while (e == 0 && (r = table_next(&s->resources, &it))) {
		struct workload *w;

		if (r->kind != KIND_POD || !r->tree)
			continue;
		w = assemble_workload(a, s, r);
		w = w ? published_put_workload(&a->workloads, w) : NULL;
		e = w ? index_addresses(a, w) : -ENOMEM;
	}
	return e;
}

static int put_services(struct assembly *a, const struct store *s)
{
	struct table_iter it = {0};
	struct resource *r;
	int e = 0;

	while (e == 0 && (r = table_next(&s->resources, &it))) {
		struct service *v;

		if (r->kind != KIND_SERVICE || !r->tree)
			continue;
		if (!strcmp(decode_string(get(r->tree, "spec"), "type", ""), "ExternalName"))
			continue;
		v = assemble_service(a, s, r);
		e = v ? published_put_service(&a->services, v) : -ENOMEM;
	}
	return e;
}

int assemble(struct assembly *a, const struct store *s, struct model_delta **ret)
{
	struct model_delta *d = model_delta_new();
	int e = d ? put_workloads(a, s) : -ENOMEM;

	if (e == 0)
		e = put_services(a, s);
	if (e == 0)
		e = published_collect(&a->workloads, d, true);
	if (e == 0)
		e = published_collect(&a->services, d, false);
	table_done(&a->by_addr);
	published_end(&a->services, e == 0, false);
	published_end(&a->workloads, e == 0, true);
	if (e < 0) {
		model_delta_free(d);
		return e;
	}
	override_prune(&a->overrides, &a->workloads);
	d->generation = ++a->generation;
	*ret = d;
	return 0;
}

int assemble_set_addresses(struct assembly *a, const char *uid, const struct ip_addr *addrs, size_t n)
{
	return override_set(&a->overrides, uid, addrs, n);
}

void assemble_done(struct assembly *a)
{
	published_done(&a->services, false);
	published_done(&a->workloads, true);
	override_done(&a->overrides);
}
