/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses that the agent found in a pod's namespace stand in for those its status does not name. They come
 * in by uid from assemble.c, and leave to workload.c.
 */
#include "override.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int override_set(struct table *t, const char *uid, const struct ip_addr *addrs, size_t n)
{
	struct override *o = table_get_str(t, uid);
	struct ip_addr *copy = malloc(n * sizeof(*copy) + 1);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, addrs, n * sizeof(*copy));
	if (!o) {
		o = calloc(1, sizeof(*o));
		if (o)
			o->uid = strdup(uid);
		if (!o || !o->uid || table_put(t, o->uid, strlen(o->uid), o, NULL)) {
			free(copy);
			return -ENOMEM;
		}
	}
	free(o->addrs);
	o->addrs = copy;
	o->n = n;
	return 0;
}

const struct override *override_get(const struct table *t, const char *uid)
{
	return table_get_str(t, uid);
}

void override_done(struct table *t)
{
	struct table_iter it = {0};
	struct override *o;

	while ((o = table_next(t, &it))) {
		table_del(t, o->uid, strlen(o->uid));
		free(o->uid);
		free(o->addrs);
		free(o);
	}
	table_done(t);
}
