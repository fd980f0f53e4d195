/* SPDX-License-Identifier: Apache-2.0 */
/* The Kubernetes resources Warren understands, decoded; and the table that holds each with its state. Private to
 * source/. */
#pragma once
#include "engine/base/addr.h"
#include "engine/base/table.h"
#include <cjson/cJSON.h>
#include <stdbool.h>

enum resource_kind {
	KIND_NAMESPACE,
	KIND_POD,
	KIND_SERVICE,
	KIND_ENDPOINTSLICE,
	KIND_ENDPOINTS,
	KIND_SERVICEACCOUNT,
	KIND_NODE,
	KIND_AUTHORIZATION_POLICY,
	KIND_PEER_AUTHENTICATION,
	KIND_MESH_CONFIG, /* the ConfigMap "istio" */
	KIND_OTHER
};
/* NOT_ENFORCED: a kind that people rely on, and that does nothing here. */
enum resource_state {
	RESOURCE_APPLIED,
	RESOURCE_WARNED,
	RESOURCE_REFUSED,
	RESOURCE_IGNORED,
	RESOURCE_NOT_ENFORCED,
};

struct resource {
	enum resource_kind kind;
	enum resource_state state;
	char *key; /* kind/namespace/name */
	/* As the document says, also a refused one: "" where it says none. They live as long as the key. */
	char *kind_name, *namespace_, *name;
	char *file;
	int line;
	char *reason;	  /* refused, warned, ignored, not enforced: why */
	cJSON *warnings;  /* of the document as it is now: [{"line","reason"}]; NULL: none */
	cJSON *tree;	  /* in force; NULL when it never was valid */
	cJSON *invalid;	  /* of a policy that never was valid: what was refused; it closes what it is for */
	uint64_t version; /* of the two trees: another one, another number */
	bool unreadable;  /* it stands for what cannot be read in its file, and closes as a bad policy of the mesh */
	bool stray;	  /* gone while something of its file could not be read, which does not name it */
	bool seen;	  /* by the present read */
	bool alone;	  /* in force since an earlier read, though the folder did not say it any more */
	unsigned missed;  /* disturbed reads one after the other that did not see it */
};

static inline bool is_policy_kind(enum resource_kind kind)
{
	return kind == KIND_AUTHORIZATION_POLICY || kind == KIND_PEER_AUTHENTICATION;
}

/* A policy of which another version is in force than its document says. */
static inline bool is_refused_update(const struct resource *r)
{
	return is_policy_kind(r->kind) && r->state == RESOURCE_REFUSED && r->tree;
}

/* "<kind>/<namespace>/<name>", to be freed. */
char *resource_key(const char *kind, const char *namespace_, const char *name);

/* What the check of a document finds. */
struct judgement {
	enum resource_kind kind; /* also of a refused one, if it says so */
	char *reason;		 /* refused, warned, ignored, not enforced: "field: what (line N)"; malloc'd */
	cJSON *warnings;	 /* [{"line","reason"}]; NULL: none */
};

/* Checks a document and names what it is. 0 applied or warned, -EINVAL refused, -ENOTSUP a kind that does not concern a
 * mesh, -ENOSYS what does concern it and is not handled here. */
int decode_check(const cJSON *tree, struct judgement *ret);

/* A field. Null is as good as absent, as the API server writes and reads it. */
static inline const cJSON *get(const cJSON *o, const char *name)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);

	return cJSON_IsNull(v) ? NULL : v;
}

/* Typed access for assemble.c, workload.c and service.c, on checked trees. */
const char *decode_string(const cJSON *o, const char *name, const char *fallback);
const cJSON *decode_labels(const cJSON *tree);
const char *decode_annotation(const cJSON *tree, const char *name);
