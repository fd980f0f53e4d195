/* SPDX-License-Identifier: Apache-2.0 */
/* From resources to the model: workloads and services. Private to source/. */
#pragma once
#include "claim.h"
#include "policies.h"
#include "store.h"

struct assemble_config {
	const char *node, *cluster_id, *network, *cluster_domain, *trust_domain;
	struct policies_config policies;
};

struct assembly {
	struct assemble_config cfg;
	struct table workloads; /* uid -> struct published */
	struct table services;	/* hostname -> struct published */
	struct claims claims;
	struct policies policies;
	struct table overrides; /* uid -> struct override: addresses found in the pod's namespace */
	uint64_t generation;
};

/* Builds everything from the store and fills *ret with what differs from the last call. -ENOMEM leaves the last state.
 */
int assemble(struct assembly *a, const struct store *s, struct model_delta **ret);
/* Addresses for a local pod whose status names none. 1 when that changes something, 0, or -ENOMEM. */
int assemble_set_addresses(struct assembly *a, const char *uid, const struct ip_addr *addrs, size_t n);
/* Every policy with what becomes of it here (source_policy_dump). */
cJSON *assemble_policy_dump(const struct assembly *a, const struct store *s);
/* Adds a line for what the mesh's settings ask for and a restart must give, for each policy that never was valid, and
 * each file that may hold one and cannot be read. */
void assemble_policy_alarms(const struct assembly *a, const struct store *s, cJSON *alarms);
void assemble_done(struct assembly *a);
