/* SPDX-License-Identifier: Apache-2.0 */
/* All policies in force, and which of them are a workload's. Private to source/. */
#pragma once
#include "mesh_settings.h"

struct policies_config {
	struct mesh_options mesh;
	bool bad_mesh_policy_deny;
	enum l7_deny l7_deny;
};

/* A resource of either kind as an object of the model, the same one as long as the document is. */
struct policy_entry {
	char *key; /* of the resource */
	struct policy *policy;
	struct peer_auth *peer_auth; /* one of the two */
	uint64_t version, mesh_version;
	bool seen;
};

/* All zeroes is a valid, empty one. */
struct policies {
	const struct policies_config *cfg;
	struct table entries; /* key -> struct policy_entry */
	struct table sets;    /* the list of policies -> struct shared_set */
	struct policy **list; /* those that decide something, by namespace and name; borrowed, of this round */
	struct peer_auth **auths;
	size_t n_list, n_auths;
	struct mesh_settings mesh;
};

/* A round: the store's policies first, then the set of each workload, then the end. 0 or -ENOMEM. */
int policies_update(struct policies *p, const struct policies_config *cfg, const char *trust_domain,
		    const struct store *s);
/* A counted set, shared by all workloads with the same policies; NULL when none is for this one. 0 or -ENOMEM. */
int policies_set_of(struct policies *p, const char *namespace_, const cJSON *labels, struct policy_set **ret);
void policies_end(struct policies *p, bool commit);
void policies_done(struct policies *p);

/* Borrowed; NULL: no such policy. */
const struct policy_entry *policies_find(const struct policies *p, const char *key);
/* Whether it decides anything here: not what is bound to a waypoint, nor what only records, nor a selector of the root
 * namespace in a PeerAuthentication, which Istio's ambient mode does not use. */
bool policies_decides(const struct policies *p, const struct policy_entry *e);
/* Whether it is for a workload with these labels, by its scope alone. */
bool policies_covers(const struct policy_entry *e, const char *namespace_, const cJSON *labels);
/* Never valid, and for the whole mesh: closes only workloads that have a policy, unless the option says otherwise. */
bool policies_is_bad_mesh(const struct policy_entry *e);
