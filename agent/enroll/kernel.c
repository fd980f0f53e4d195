/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel must know of an enrolled pod beside the pod itself: to which ports plaintext is refused, whether
 * policy covers it, and the ports of its probes. A workload comes in, capture's maps change. Called by pods.c and
 * enrolment.c.
 */
#include "private.h"
#include "engine/base/log.h"

#include <string.h>

struct capture_modes kernel_modes(const struct workload *w)
{
	struct capture_modes m = {.restricted = policy_set_restricts(w->policy)};

	m.mode = policy_set_modes(w->policy, &m.ports, &m.n_ports);
	return m;
}

void kernel_follow(struct enrolment *e)
{
	const struct workload *w = e->workload;
	struct capture_modes m = kernel_modes(w);
	struct capture *c = e->all->cfg.capture;
	int r = capture_pod_set_modes(c, e->number, &m);

	if (r < 0)
		log_warn("enroll", "%s/%s: the kernel refuses no plaintext in the agent's stead: %s", w->namespace_,
			 w->name, strerror(-r));
	r = capture_pod_set_probes(c, e->number, w->addrs, w->n_addrs, w->probe_ports, w->n_probe_ports);
	if (r < 0)
		log_warn("enroll", "%s/%s: not all of its probes are exempt from policy: %s", w->namespace_, w->name,
			 strerror(-r));
}

void kernel_relax(const struct enrolment *e, const struct workload *next)
{
	struct capture_modes m = kernel_modes(next);

	/* A failure leaves the kernel refusing nothing: what is to be allowed is. kernel_follow says it. */
	(void)capture_pod_relax(e->all->cfg.capture, e->number, &m);
}
