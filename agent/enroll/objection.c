/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refusals. A manifest, or the namespace it names, comes in; the words for status that say why the pod stays
 * out leave. Called by enrolment.c.
 */
#include "private.h"
#include "netns.h"

#include <stdio.h>

static bool shares_namespace(const struct enrolment *e, const struct stat *st, const char **ret_name)
{
	struct table_iter it = {0};
	struct enrolment *o;

	while ((o = table_next(&e->all->by_uid, &it))) {
		if (o == e || o->netns_fd < 0 || o->netns.st_ino != st->st_ino || o->netns.st_dev != st->st_dev)
			continue;
		*ret_name = o->workload->name;
		return true;
	}
	return false;
}

const char *objection_manifest(const struct workload *w)
{
	if (w->host_network)
		return "hostNetwork: it has no network namespace of its own";
	if (w->has_sidecar)
		return "it has an injected sidecar: annotation sidecar.istio.io/status";
	if (!w->netns_path)
		return "annotation warren.dev/netns is missing: where is its network namespace?";
	return NULL;
}

bool objection_by_design(const struct workload *w)
{
	return w->host_network || w->has_sidecar;
}

const char *objection_namespace(const struct enrolment *e, const struct stat *st, char *buf, size_t size)
{
	const char *other;

	if (netns_is_node(st))
		return "its network namespace is the node's own";
	if (shares_namespace(e, st, &other)) {
		snprintf(buf, size, "shares its network namespace with pod %s", other);
		return buf;
	}
	return NULL;
}
