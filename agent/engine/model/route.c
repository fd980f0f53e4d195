/* SPDX-License-Identifier: Apache-2.0 */
/* Where an outbound connection goes. A pure function of model, source and destination; called by proxy/outbound.c. */
#include "engine/model/route.h"

#define PORT_OUTBOUND 15001
#define PORT_INBOUND 15006
#define PORT_HBONE 15008

bool route_port_is_illegal(uint16_t port)
{
	return port == PORT_OUTBOUND || port == PORT_INBOUND || port == PORT_HBONE;
}

static bool usable(const struct service *s, const struct service_endpoint *e, size_t port, bool same_family, bool v4)
{
	return (e->healthy || s->publish_not_ready) && e->weight && e->target_ports[port] &&
	       (!same_family || ip_addr_is_v4(&e->addr) == v4);
}

/* Weighted random choice in two passes over the endpoints: no allocation, and the order does not matter. */
static const struct service_endpoint *choose(const struct service *s, size_t port, bool same_family, bool v4,
					     uint64_t random)
{
	uint64_t total = 0;

	for (size_t i = 0; i < s->n_endpoints; i++)
		if (usable(s, &s->endpoints[i], port, same_family, v4))
			total += s->endpoints[i].weight;
	if (!total)
		return NULL;
	random %= total;
	for (size_t i = 0; i < s->n_endpoints; i++) {
		const struct service_endpoint *e = &s->endpoints[i];

		if (!usable(s, e, port, same_family, v4))
			continue;
		if (random < e->weight)
			return e;
		random -= e->weight;
	}
	return NULL;
}

static void to_service(struct service *s, const struct ip_port *dst, uint64_t random, struct route *r)
{
	bool v4 = ip_addr_is_v4(&dst->ip);
	const struct service_endpoint *e = NULL;

	r->service = s;
	r->reason = WR_REASON_NO_ENDPOINT;
	for (size_t i = 0; i < s->n_ports; i++) {
		if (s->ports[i].port != dst->port)
			continue;
		e = choose(s, i, true, v4, random);
		if (!e)
			e = choose(s, i, false, v4, random);
		if (e)
			r->target = (struct ip_port){e->addr, e->target_ports[i]};
		break;
	}
	if (!e)
		return;
	r->workload = e->workload;
	r->kind = ROUTE_TCP;
}

void route_decide(const struct model *m, const struct workload *source, const struct ip_port *dst, uint64_t random,
		  struct route *ret)
{
	struct route r = {.kind = ROUTE_DENY, .target = *dst, .next_hop = *dst};
	struct service *s;

	(void)source; /* part of the contract: networks and waypoints ask who calls */
	if (ip_addr_is_loopback(&dst->ip) && route_port_is_illegal(dst->port)) {
		r.reason = WR_REASON_LOOP;
		*ret = r;
		return;
	}
	s = model_service_by_vip(m, &dst->ip);
	if (s) {
		to_service(s, dst, random, &r);
	} else {
		r.workload = model_workload_by_addr(m, &dst->ip);
		r.kind = r.workload ? ROUTE_TCP : ROUTE_PASSTHROUGH;
	}
	if (r.kind != ROUTE_DENY && r.workload && r.workload->protocol == TUNNEL_HBONE)
		r.kind = ROUTE_HBONE;
	/* An unknown address may be the pod's own, one that no manifest names: there the agent would call itself. */
	if ((r.kind == ROUTE_HBONE || r.kind == ROUTE_PASSTHROUGH) && route_port_is_illegal(r.target.port)) {
		r.kind = ROUTE_DENY;
		r.reason = WR_REASON_ILLEGAL_PORT;
	}
	if (r.kind != ROUTE_DENY)
		r.reason = WR_REASON_NONE;
	r.next_hop = r.target;
	if (r.kind == ROUTE_HBONE)
		r.next_hop.port = PORT_HBONE;
	*ret = r;
}
