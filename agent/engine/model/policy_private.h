/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the policy share: a subject taken apart, the plain comparison of one rule, the index over the rules
 * of many policies, and the insides of a set. Private to model/.
 */
#pragma once
#include "engine/base/trie.h"
#include "engine/model/policy.h"

/* An identity that is longer is none (SPIFFE-ID 2.3). */
#define POLICY_IDENTITY_MAX 2048
/* The attributes that are texts come first in enum policy_attribute. */
#define POLICY_TEXTS (ATTRIBUTE_TRUST_DOMAIN + 1)

/* A subject with its identity taken apart. Texts without an identity are NULL: no positive field matches them. */
struct policy_view {
	const struct policy_subject *subject;
	const struct policy_index *index; /* while it compares: knows fields with many values */
	struct {
		const char *text;
		size_t len;
	} texts[POLICY_TEXTS];
	char service_account[POLICY_IDENTITY_MAX];
};

void policy_view_init(struct policy_view *v, const struct policy_subject *subject);

/* What a field that only an HTTP proxy sees does to its rule. */
enum l7_effect { L7_FAILS_RULE, L7_MATCHES, L7_FAILS_CLAUSE };

enum l7_effect policy_l7_effect(enum policy_action action, enum l7_deny l7_deny);
/* Whether a clause can match at all, as far as its L7 fields are concerned; the same of a whole rule. */
bool policy_clause_alive(const struct policy_clause *c, enum l7_effect l7);
bool policy_rule_alive(const struct policy_rule *r, enum l7_effect l7);

/* A rule beside a subject: of one that matches, the field that says so (NULL: it matches everything); of one that does
 * not, the field that failed and how many groups had matched before. */
struct policy_near {
	const struct policy *policy; /* NULL: none */
	int rule;		     /* -1: the policy has none */
	const struct policy_field *field;
	size_t groups;
};

/* One clause of a rule that stands for its group. */
struct policy_choice {
	uint32_t group, clause;
};

/* Fills field and groups of *ret. With a choice only that clause of its group is compared, of a rule that is alive. */
bool policy_rule_matches(const struct policy_rule *r, enum l7_effect l7, const struct policy_view *v,
			 const struct policy_choice *choice, struct policy_near *ret);

/* The rules of policies that share their action, in the order of the policies. */
struct policy_index;
/* The policies must outlive the index. 0 or -ENOMEM. */
int policy_index_new(struct policy *const *policies, size_t n, enum l7_effect l7, struct policy_index **ret);
struct policy_index *policy_index_free(struct policy_index *ix);
/* The first rule that matches; false: *ret is one that came near. */
bool policy_index_find(const struct policy_index *ix, struct policy_view *v, struct policy_near *ret);
/* Fields with more values have a look-up of their own in the index: whether the subject has any of them. */
#define FIELD_COMPARE_MAX 16
bool policy_index_field(const struct policy_index *ix, const struct policy_field *f, const struct policy_view *v);
size_t policy_field_count(const struct policy_field *f);

/* The mode of a workload and where it comes from; the winner among those of one level. */
struct peer_auth_result {
	enum mtls_mode mode;
	const struct peer_auth *mode_from; /* NULL: nobody says so, PERMISSIVE by default */
	const struct peer_auth *workload;  /* the one whose ports count; NULL: none */
	const struct peer_auth *closed;	   /* one that never was valid; NULL: none */
	struct mtls_port *ports;	   /* sorted; only those that differ from mode */
	size_t n_ports;
};

int peer_auth_resolve(struct peer_auth *const *list, size_t n, struct peer_auth_result *ret);

/* The classes of a set's policies; each has the policies that decide something, in order of namespace and name. */
enum policy_class { CLASS_DENY, CLASS_ALLOW, CLASS_DRY_DENY, CLASS_DRY_ALLOW, CLASS_COUNT };

struct policy_set {
	atomic_uint refs;
	uint64_t number; /* never used again */
	enum l7_deny l7_deny;
	struct policy **policies; /* in order of namespace and name */
	size_t n_policies;
	struct peer_auth **peer_auths;
	size_t n_peer_auths;
	struct peer_auth_result auth;
	const struct policy *closed, *dry_closed; /* the first of each; NULL: none */
	const struct policy *allow, *dry_allow;	  /* the same of ALLOW policies */
	struct policy_index *index[CLASS_COUNT];  /* NULL: no such policy */
	struct trie sources;			  /* every range of source addresses, for the class of one */
};

/* The class of a policy, CLASS_COUNT when it decides nothing or is closed. */
enum policy_class policy_class_of(const struct policy *p);
const struct peer_auth *policy_set_strict(const struct policy_set *s, const struct policy_view *v,
					  const char **ret_field);
/* A value that is the same for addresses that lie in the same source ranges of the set. */
const void *policy_set_source_class(const struct policy_set *s, const struct ip_addr *source);
/* Fills would_deny and would_allow of a verdict: what is different once the dry-run policies decide as well. */
void policy_dry_run(const struct policy_set *s, const struct policy *deny, const struct policy *allow,
		    struct policy_verdict *d);
