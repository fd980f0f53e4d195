/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an outbound connection goes: ztunnel's decision table (ARCHITECTURE of ambient: service VIP, workload,
 * unknown), as a pure function of the model, the source and the original destination.
 */
#pragma once
#include "abi/reasons.h"
#include "engine/model/model.h"

enum route_kind {
	ROUTE_DENY,	   /* refuse; see reason */
	ROUTE_PASSTHROUGH, /* plain TCP to the original destination: unknown to the mesh */
	ROUTE_TCP,	   /* plain TCP to `target`: an endpoint outside the mesh */
	ROUTE_HBONE	   /* tunnel to next_hop (pod:15008), authority = target */
};

struct route {
	enum route_kind kind;
	enum wr_reason reason;
	struct ip_port target;	   /* chosen pod ip : target port */
	struct ip_port next_hop;   /* HBONE: pod ip : 15008; else equals target */
	struct workload *workload; /* borrowed; NULL when unknown */
	struct service *service;   /* borrowed; NULL when not addressed through one */
};

/* Decides for a connection of `source` (may be NULL) to `dst`. `random` is a uniformly random number that picks among
 * healthy endpoints by weight (an address family equal to the destination's is preferred). Always fills *ret. */
void route_decide(const struct model *m, const struct workload *source, const struct ip_port *dst, uint64_t random,
		  struct route *ret);
/* True for the mesh's own ports 15001, 15006, 15008. */
bool route_port_is_illegal(uint16_t port);
