/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel must know of an enrolled pod beside the pod itself: the ports of its probes. A workload comes in,
 * capture's maps change. Called by pods.c and enrolment.c.
 */
#include "private.h"
#include "engine/base/log.h"

#include <string.h>

void kernel_follow(struct enrolment *e)
{
	const struct workload *w = e->workload;
	int r = capture_pod_set_probes(e->all->cfg.capture, e->number, w->addrs, w->n_addrs, w->probe_ports,
				       w->n_probe_ports);

	if (r < 0)
		log_error("enroll", "%s/%s: not all of its probes are exempt from policy: %s", w->namespace_, w->name,
			  strerror(-r));
}
