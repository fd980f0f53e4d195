/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses that the agent found in a pod's namespace stand in for those its status does not name. They come
 * in by uid from assemble.c, and leave to workload.c.
 */
#include "override.h"
#include "published.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void override_free(struct override *o)
{
	free(o->uid);
	free(o->addrs);
	free(o);
}

static struct override *override_new(const char *uid, const struct ip_addr *addrs, size_t n)
{
	struct override *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->uid = strdup(uid);
	o->addrs = malloc(n * sizeof(*addrs));
	o->n = n;
	if (!o->uid || !o->addrs) {
		override_free(o);
		return NULL;
	}
	memcpy(o->addrs, addrs, n * sizeof(*addrs));
	return o;
}

static bool same(const struct override *o, const struct ip_addr *addrs, size_t n)
{
	return (o ? o->n : 0) == n && (!n || !memcmp(o->addrs, addrs, n * sizeof(*addrs)));
}

int override_set(struct table *t, const char *uid, const struct ip_addr *addrs, size_t n)
{
	struct override *o = table_get_str(t, uid), *fresh;
	void *old;

	if (same(o, addrs, n))
		return 0;
	if (!n) {
		table_del(t, uid, strlen(uid));
		override_free(o);
		return 1;
	}
	fresh = override_new(uid, addrs, n);
	if (!fresh || table_put(t, fresh->uid, strlen(fresh->uid), fresh, &old)) {
		if (fresh)
			override_free(fresh);
		return -ENOMEM;
	}
	if (old)
		override_free(old);
	return 1;
}

const struct override *override_get(const struct table *t, const char *uid)
{
	return table_get_str(t, uid);
}

bool override_applies(const struct workload *w)
{
	return w->local && !w->addrs_in_status && w->protocol == TUNNEL_HBONE;
}

void override_prune(struct table *t, const struct table *workloads)
{
	struct table_iter it = {0};
	struct override *o;

	while ((o = table_next(t, &it))) {
		const struct workload *w = published_by_uid(workloads, o->uid);

		if (w && override_applies(w))
			continue;
		table_del(t, o->uid, strlen(o->uid));
		override_free(o);
	}
}

void override_done(struct table *t)
{
	struct table_iter it = {0};
	struct override *o;

	while ((o = table_next(t, &it))) {
		table_del(t, o->uid, strlen(o->uid));
		override_free(o);
	}
	table_done(t);
}
