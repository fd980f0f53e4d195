/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that the kernel refused in the agent's stead. In: capture's reports. Out: the line in the access log that
 * the agent would have written itself. Called by node.c and shutdown.c.
 */
#include "node_private.h"
#include "engine/telemetry/accesslog.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void denied(void *arg, const struct capture_denial *d)
{
	const struct node *n = arg;
	char detail[64];
	struct accesslog_record r = {.src_addr = d->src,
				     .src = model_workload_by_addr(n->model, &d->src.ip),
				     .dst_addr = d->dst,
				     .dst = model_workload_by_addr(n->model, &d->dst.ip),
				     .direction = ACCESS_INBOUND,
				     .reason = d->reason,
				     .early = true};

	if (d->suppressed) {
		snprintf(detail, sizeof(detail), "%" PRIu64 " more since the last line", d->suppressed);
		r.detail = detail;
	}
	accesslog_write(&r);
}

int node_watch_denials(struct node *n)
{
	int r = capture_watch_denials(n->capture, n->loop, denied, n);

	return r < 0 ? node_fail(r, "cannot follow the kernel's refusals: %s", strerror(-r)) : 0;
}
