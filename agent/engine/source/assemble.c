/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resources into the model: the store comes in, a delta with only what changed since the last one leaves to
 * the workers. Called by source.c.
 */
#include "assemble_private.h"
#include "engine/base/cleanup.h"
#include "override.h"
#include "published.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
	struct workload *workload;
	const char *created;
};

/* Who comes first keeps an address that another claims, too: the living before those that are being deleted and those
 * that have ended, the older, the one whose name is first. */
static int compare(const void *x, const void *y)
{
	const struct candidate *a = x, *b = y;
	int r = a->workload->terminated - b->workload->terminated;

	r = r ? r : a->workload->deleting - b->workload->deleting;
	r = r ? r : strcmp(a->created, b->created);
	return r ? r : strcmp(a->workload->uid, b->workload->uid);
}

static int list_workloads(struct assembly *a, const struct store *s, struct candidate *list, size_t *n)
{
	struct table_iter it = {0};
	struct resource *r;

	while ((r = table_next(&s->resources, &it))) {
		struct workload *w;

		if (r->kind != KIND_POD || !r->tree)
			continue;
		w = assemble_workload(a, s, r);
		if (!w)
			return -ENOMEM;
		list[*n].workload = w;
		/* RFC 3339 in UTC, as the API server writes it, sorts as text. Undated: after all dates. */
		list[(*n)++].created = decode_string(get(r->tree, "metadata"), "creationTimestamp", "~");
		if (w->local && policies_set_of(&a->policies, w->namespace_, decode_labels(r->tree), &w->policy) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* Takes over w. */
static int put_workload(struct assembly *a, struct workload *w)
{
	int r = claim_check(&a->claims, w);

	if (r < 0) {
		workload_unref(w);
		return r;
	}
	w = published_put_workload(&a->workloads, w);
	return w ? claim_enter(&a->claims, w) : -ENOMEM;
}

static int put_workloads(struct assembly *a, const struct store *s)
{
	_cleanup_free_ struct candidate *list = calloc(s->resources.n + 1, sizeof(*list));
	struct table seen = {0};
	size_t n = 0;
	int e;

	if (!list)
		return -ENOMEM;
	e = list_workloads(a, s, list, &n);
	qsort(list, n, sizeof(*list), compare);
	for (size_t i = 0; e == 0 && i < n; i++)
		e = claim_mark_disputed(&seen, list[i].workload);
	table_done(&seen);
	for (size_t i = 0; i < n; i++) {
		if (e == 0)
			e = put_workload(a, list[i].workload);
		else
			workload_unref(list[i].workload);
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
	int e = d ? policies_update(&a->policies, &a->cfg.policies, a->cfg.trust_domain, s) : -ENOMEM;

	if (e == 0)
		e = put_workloads(a, s);
	if (e == 0)
		e = put_services(a, s);
	if (e == 0)
		e = published_collect(&a->workloads, d, true);
	if (e == 0)
		e = published_collect(&a->services, d, false);
	claim_end(&a->claims, e == 0);
	published_end(&a->services, e == 0, false);
	published_end(&a->workloads, e == 0, true);
	policies_end(&a->policies, e == 0);
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
	claim_done(&a->claims);
	policies_done(&a->policies);
}
