/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration sources: something that turns resources into model deltas. `dir:PATH` watches a folder of Kubernetes
 * manifests (YAML multi-document or JSON). A change costs a look at each file, and the parsing of those that changed.
 * Control thread only.
 */
#pragma once
#include "engine/model/model.h"
#include "engine/model/policy.h"

struct source;
struct loop;
struct cJSON;

struct source_config {
	const char *spec; /* "dir:/path" */
	const char *node; /* this node's name: marks workloads local */
	const char *cluster_id, *network, *cluster_domain, *trust_domain;
	/* What options say of policies. NULL, false: not given, and the mesh's ConfigMap `istio` may say it. */
	const char *trust_domain_aliases; /* names with commas between them */
	const char *root_namespace;
	bool trust_domain_given;
	bool bad_mesh_policy_deny; /* a policy of the mesh that never was valid closes every workload */
	enum l7_deny l7_deny;
	const char *state_dir; /* last good resources are kept here across restarts */
	/* Called on each change, and once after the first complete read even if it is empty. The delta is borrowed. */
	void (*changed)(void *arg, const struct model_delta *d);
	/* What other names of the trust domain certificates may carry from now on, borrowed: when the ConfigMap changes
	 * them, before `changed` with what is gone (widen false: nothing new is to be believed yet) and after it with
	 * all, so that policies know a name whenever it is believed. May be NULL. */
	void (*aliases)(void *arg, char *const *aliases, size_t n, bool widen);
	void *arg;
};

/* The trust domain that the mesh's ConfigMap names, malloc'd; NULL: it names none. Before source_open(), because
 * certificates rest on it, too. 0 or -ENOMEM. */
int source_read_trust_domain(const struct source_config *cfg, char **ret);
/* 0, or -errno with *ret_error (malloc'd). The first `changed` call may come from inside. */
int source_open(const struct source_config *cfg, struct loop *loop, struct source **ret, char **ret_error);
struct source *source_free(struct source *s);
/* A successor keeps the last good resources of this state directory from now on. */
void source_retire(struct source *s);
/* State for `warrenctl status` and `config dump`:
 * {"spec","healthy",alarm?,"resources":[{kind,namespace,name,file,line,
 * state:"applied"|"refused"|"warned"|"ignored"|"not enforced", reason?, warnings?:[{line,reason}],
 * last_good_in_force?, may_be_policy?: it cannot be read, and names a policy}]}, in the order of the manifests.
 * Kind, namespace and name are "" where a document has none, or could not be read. */
struct cJSON *source_dump(struct source *s);

/* Addresses found in the namespace of a local pod whose status names none; may call `changed`. 0 or -ENOMEM. */
int source_set_pod_addresses(struct source *s, const char *uid, const struct ip_addr *addrs, size_t n);
/* Trust domain, its aliases and root namespace as they are in force: {"trust_domain","trust_domain_aliases" (with
 * commas between them),"root_namespace"}, each {"value","from", overridden?: what the ConfigMap says in vain}. Empty
 * before the first read. */
struct cJSON *source_mesh_dump(const struct source *s);
/* Adds to a list of texts all that an operator must put right: why the source cannot be trusted to be current, a trust
 * domain that needs a restart, policies that never were valid or whose last update was refused, files that cannot be
 * read. */
void source_alarms(const struct source *s, struct cJSON *alarms);
/* Every AuthorizationPolicy and PeerAuthentication, in the order of the manifests, and among them each file in which
 * something that names one of the two (or security.istio.io), or a text that cannot be looked at, cannot be read and
 * never was: it counts as a policy of the whole mesh that never was valid. Its kind, namespace and name are "".
 * [{kind,namespace,name,file,line,
 *   state:"enforced here"|"dry-run"|"waits for a waypoint"|"not used here"|"refused", reason?, last_good_in_force?,
 *   warnings:[{line,reason}], action and rules, or mode and ports?, scope:"mesh"|"namespace"|"workload", selector?,
 *   created?, closed: it never was valid and denies,
 *   pods, of this node: [{uid,namespace,name, not_enforced?: why, loses_to?: the PeerAuthentication that counts}]}] */
struct cJSON *source_policy_dump(const struct source *s);
