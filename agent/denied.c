/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that the kernel refused in the agent's stead. In: capture's reports. Out: the engine logs, counts and
 * traces them as its own. Called by node.c.
 */
#include "node_private.h"

#include <string.h>

static void denied(void *arg, const struct capture_denial *d)
{
	const struct node *n = arg;

	engine_pod_denied_early(n->engine, d->number, &d->src, &d->dst, d->suppressed + 1);
}

int node_watch_denials(struct node *n)
{
	int r = capture_watch_denials(n->capture, n->loop, denied, n);

	return r < 0 ? node_fail(r, "cannot follow the kernel's refusals: %s", strerror(-r)) : 0;
}
