/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may talk to whom: Istio's AuthorizationPolicy and PeerAuthentication at L4, decoded (struct policy, struct
 * peer_auth), and all that apply to one workload compiled into one set that answers quickly (struct policy_set).
 * All are immutable once made, counted atomically and shared between threads. Pure functions; made by source/, asked
 * by proxy/inbound. Semantics: the reference pages "Authorization Policy" and "PeerAuthentication" of Istio.
 */
#pragma once
#include "abi/reasons.h"
#include "engine/base/addr.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;

/* --- a policy as its document says it --- */

enum match_kind { MATCH_EXACT, MATCH_PREFIX, MATCH_SUFFIX, MATCH_PRESENCE };
struct string_match {
	enum match_kind kind;
	char *text; /* without the '*'; "" for presence */
};
struct ip_range {
	struct ip_addr net;
	unsigned bits; /* of the 128: an IPv4 /8 is 104; below 96 it is about IPv6 only, ::/0 too */
};

enum policy_attribute {
	ATTRIBUTE_PRINCIPAL,	    /* strings against <td>/ns/<ns>/sa/<sa>, aliases already expanded */
	ATTRIBUTE_NAMESPACE,	    /* strings */
	ATTRIBUTE_SERVICE_ACCOUNT,  /* strings <ns>/<sa>, exact */
	ATTRIBUTE_TRUST_DOMAIN,	    /* strings */
	ATTRIBUTE_SOURCE_IP,	    /* ranges */
	ATTRIBUTE_DESTINATION_IP,   /* ranges */
	ATTRIBUTE_DESTINATION_PORT, /* ports */
	ATTRIBUTE_L7,		    /* what only an HTTP proxy sees: the values are not kept */
};

/* One field with its values: any of them (negate: none of them) must match. */
struct policy_field {
	enum policy_attribute attribute;
	bool negate;
	char *path; /* for people, as in "rules[0].from[1].source.notPrincipals" */
	struct string_match *strings;
	size_t n_strings;
	struct ip_range *ranges;
	size_t n_ranges;
	uint16_t *ports;
	size_t n_ports;
};

/* All fields of a clause must match; one without fields matches everything. */
struct policy_clause {
	struct policy_field *fields;
	size_t n_fields;
};

/* Any clause of a group: the sources of `from`, the operations of `to`; each entry of `when` is a group of one. */
struct policy_group {
	struct policy_clause *clauses;
	size_t n_clauses;
};

/* All groups of a rule; one without groups matches everything. */
struct policy_rule {
	struct policy_group *groups;
	size_t n_groups;
};

enum policy_action { POLICY_ALLOW, POLICY_DENY, POLICY_AUDIT, POLICY_CUSTOM };
/* Root namespace without selector; a namespace without selector; a selector. A selector in the root namespace selects
 * in every namespace. */
enum policy_scope { SCOPE_MESH, SCOPE_NAMESPACE, SCOPE_WORKLOAD };

struct policy_label {
	char *key, *value;
};

struct policy {
	atomic_uint refs;
	char *namespace_, *name;
	char *created; /* RFC 3339; NULL: newest */
	enum policy_scope scope;
	bool every_namespace; /* it is in the root namespace */
	struct policy_label *labels;
	size_t n_labels;
	enum policy_action action;
	bool dry_run;	 /* annotation istio.io/dry-run */
	bool target_ref; /* bound to a waypoint by targetRefs: decides nothing here */
	bool closed;	 /* its document never was valid: denies new connections, has no rules */
	struct policy_rule *rules;
	size_t n_rules;
};

enum mtls_mode { MTLS_UNSET, MTLS_DISABLE, MTLS_PERMISSIVE, MTLS_STRICT };

struct mtls_port {
	uint16_t port; /* of the workload, not of a Service */
	enum mtls_mode mode;
};

struct peer_auth {
	atomic_uint refs;
	char *namespace_, *name;
	char *created;
	enum policy_scope scope;
	struct policy_label *labels;
	size_t n_labels;
	enum mtls_mode mode;
	struct mtls_port *ports;
	size_t n_ports;
	bool closed; /* as in struct policy */
};

struct policy *policy_new(void); /* zeroed, refs 1; NULL: out of memory */
struct policy *policy_ref(struct policy *p);
struct policy *policy_unref(struct policy *p); /* returns NULL; accepts NULL */
struct peer_auth *peer_auth_new(void);
struct peer_auth *peer_auth_ref(struct peer_auth *p);
struct peer_auth *peer_auth_unref(struct peer_auth *p);

/* Whether a workload of this namespace with these labels is in the scope. */
bool policy_covers(const struct policy *p, const char *namespace_, const struct policy_label *labels, size_t n_labels);
bool peer_auth_covers(const struct peer_auth *p, const char *namespace_, const struct policy_label *labels,
		      size_t n_labels);
/* Whether a counts in place of b when both are of one level: the older, then by namespace/name. */
bool peer_auth_wins(const struct peer_auth *a, const struct peer_auth *b);

/* --- all that applies to one workload --- */

/* How a clause with L7 fields in a DENY policy is taken: as though they matched (Istio's sidecar on TCP), or not at all
 * (ztunnel). In an ALLOW policy such a rule never matches. */
enum l7_deny { L7_DENY_MATCHES, L7_DENY_IGNORED };

struct policy_set;

/* The policies and peer authentications that cover the workload, in any order; the set takes references of its own. A
 * peer authentication competes by level (workload, namespace, mesh), then age, then namespace/name. Sets with the same
 * list are equal in all they answer. 0 or -ENOMEM. */
int policy_set_new(struct policy *const *policies, size_t n_policies, struct peer_auth *const *peer_auths,
		   size_t n_peer_auths, enum l7_deny l7_deny, struct policy_set **ret);
struct policy_set *policy_set_ref(struct policy_set *s);
struct policy_set *policy_set_unref(struct policy_set *s);

/* What mutual TLS means for a port: DISABLE does not switch HBONE off, and counts as PERMISSIVE; never UNSET. NULL as
 * the set: no policies at all. */
enum mtls_mode policy_set_mode(const struct policy_set *s, uint16_t port);
/* The mode of ports that are not listed, and the ports whose mode differs from it. Borrowed. */
enum mtls_mode policy_set_modes(const struct policy_set *s, const struct mtls_port **ret_ports, size_t *ret_n);
/* STRICT somewhere, or any policy that is enforced: --on-agent-loss=open is not for this workload. */
bool policy_set_restricts(const struct policy_set *s);

/* One connection to the workload. */
struct policy_subject {
	const char *identity; /* the peer's verified SPIFFE ID (spiffe://...); NULL: plaintext */
	struct ip_addr source;
	struct ip_port destination; /* address and port of the pod */
	bool established;	    /* it was let in before: a closed policy keeps out new ones only */
};

struct policy_verdict {
	bool allow;
	enum wr_reason reason; /* NONE, MTLS_REQUIRED, POLICY_INVALID, POLICY_DENY, POLICY_NO_ALLOW */
	/* Borrowed from the set. What decided: of POLICY_NO_ALLOW the rule that came nearest. */
	const struct policy *policy;
	const struct peer_auth *peer_auth;
	int rule;	   /* -1: none */
	const char *field; /* path in the document; NULL: none */
	/* What dry-run policies would have made of it; borrowed, NULL when they would have changed nothing. */
	const struct policy *would_deny, *would_allow;
};

/* The order: peer authentication, closed policies (for new connections), DENY (and CUSTOM, whose provider cannot be
 * asked here), ALLOW. Set NULL allows. */
void policy_evaluate(const struct policy_set *s, const struct policy_subject *subject, struct policy_verdict *ret);
/* What decided, as "AuthorizationPolicy/<namespace>/<name>" or "PeerAuthentication/..."; "" when nothing did. */
void policy_verdict_name(const struct policy_verdict *v, char *buf, size_t size);
/* The same by plain comparison, rule by rule, said aloud:
 * {"allow","reason","steps":[{"step","policy"?,"rule"?,"field"?, "value"?,"result"}]}, with no more than a few steps
 * for policies of one kind that do not match. For people; slow. NULL: out of memory. */
struct cJSON *policy_explain(const struct policy_set *s, const struct policy_subject *subject);

/* Verdicts seen before, of one worker; bounded, and safe to share between pods as each set has a number of its own. */
struct policy_cache;
struct policy_cache *policy_cache_new(size_t entries); /* at least as many, 256 bytes each; NULL: out of memory */
struct policy_cache *policy_cache_free(struct policy_cache *c);
/* As policy_evaluate. */
void policy_cache_evaluate(struct policy_cache *c, const struct policy_set *s, const struct policy_subject *subject,
			   struct policy_verdict *ret);
