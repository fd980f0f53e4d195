/* SPDX-License-Identifier: Apache-2.0 */
/* Who has which address in a round of assembly, and who else says so. Private to source/. */
#pragma once
#include "engine/model/model.h"

struct claims {
	struct table by_addr;	    /* address -> struct workload; empty between rounds */
	struct table disputes, now; /* text -> itself: of the last complete round, and of the one under way */
};

/* Marks the workload, and the one that already said so, when an address of it is another live pod's as well. Before
 * either is published; `seen` holds address -> workload of the round, empty at its start. 0 or -ENOMEM. */
int claim_mark_disputed(struct table *seen, struct workload *w);
/* Takes the addresses that others have from a fresh workload: whoever comes first keeps them. 0 or
 * -ENOMEM. */
int claim_check(struct claims *c, struct workload *w);
/* These addresses have an owner from here on; the workload stays borrowed until the round ends. 0 or
 * -ENOMEM. */
int claim_enter(struct claims *c, struct workload *w);
/* Borrowed; NULL: none. hostNetwork workloads, which share the node's, and those that
 * have ended are never found. */
struct workload *claim_owner(const struct claims *c, const struct ip_addr *addr);
/* The round is over; a complete one warns of what is newly disputed. */
void claim_end(struct claims *c, bool complete);
void claim_done(struct claims *c);
