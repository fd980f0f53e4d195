/* SPDX-License-Identifier: Apache-2.0 */
/* Documents into the model's policies. The decoders of one kind each: policy_decode.c with policy_rules.c and
 * policy_values.c (AuthorizationPolicy), peer_auth_decode.c (PeerAuthentication); policy_scope.c has what both need.
 * Private to source/. */
#pragma once
#include "check.h"
#include "engine/model/policy.h"

/* What the mesh as a whole goes by: its trust domain with former names, and the namespace of mesh-wide policies. */
struct mesh_names {
	const char *domain; /* the local trust domain */
	char *const *aliases;
	size_t n_aliases;
	const char *root_namespace;
};

/* 0 and *ret; -EINVAL: c is refused, and says why; -ENOMEM. Without `mesh` it is good enough for a check. */
int policy_decode(struct check *c, const cJSON *tree, const struct mesh_names *mesh, struct policy **ret);
int peer_auth_decode(struct check *c, const cJSON *tree, const struct mesh_names *mesh, struct peer_auth **ret);
/* What stands for a document that never was valid: it closes what its selector says, else its namespace. NULL: out of
 * memory. */
struct policy *policy_decode_closed(const cJSON *tree, const struct mesh_names *mesh);
/* The same for one of which nothing can be read: it closes the whole mesh. */
struct policy *policy_new_unreadable(const char *name, const struct mesh_names *mesh);
struct peer_auth *peer_auth_decode_closed(const cJSON *tree, const struct mesh_names *mesh);

/* --- policy_scope.c --- */

/* What both kinds have in common; pointers into the policy that is being made. */
struct scope_fields {
	char **namespace_, **name, **created;
	enum policy_scope *scope;
	struct policy_label **labels;
	size_t *n_labels;
};
/* Name, age and scope, with the selector where the document has one that check_selector() accepts. 0 or -ENOMEM. */
int scope_decode(const cJSON *tree, const struct mesh_names *mesh, const struct scope_fields *to);
bool scope_check_selector(struct check *c, const cJSON *spec);
/* A bare `spec.selector`, whatever the rest of the document holds. */
bool scope_is_root(const cJSON *tree, const struct mesh_names *mesh);

/* --- policy_rules.c --- */

/* Who calls, as a certificate proves it: what plaintext does not have. */
bool policy_is_identity(enum policy_attribute a);
/* Reads spec.rules into p, whose action and scope are known. 0, -EINVAL (c is refused) or -ENOMEM. */
int rules_read(struct check *c, const struct mesh_names *mesh, const cJSON *spec, struct policy *p);

/* --- policy_effect.c --- */

/* Warns of what a policy in order does here that its author may not expect: rules that plaintext matches, that cannot
 * match, or that deny every connection. `rules` is the document's list. */
void policy_effect_warn(struct check *c, const struct policy *p, const cJSON *rules);

/* --- policy_values.c --- */

enum value_form {
	FORM_TEXT,
	FORM_PRINCIPAL,
	FORM_ACCOUNT,
	FORM_TRUST_DOMAIN,
	FORM_RANGE,
	FORM_PORT,
	FORM_L7,       /* texts, checked and not kept */
	FORM_L7_RANGE, /* ranges, as well */
	FORM_L7_PATH,  /* paths, as well */
};
/* Reads the list of values of one field, whose path is in f and whose policy is in `namespace_`. 0, -EINVAL (c is
 * refused) or -ENOMEM. */
int values_read(struct check *c, const struct mesh_names *mesh, const char *namespace_, const cJSON *list,
		enum value_form form, struct policy_field *f);
