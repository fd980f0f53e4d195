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
	char *reason; /* refused, warned, ignored, not enforced: why */
	cJSON *tree;  /* in force; NULL when it never was valid */
	bool seen;    /* by the present read */
};

struct resource *resource_free(struct resource *r);
/* "<kind>/<namespace>/<name>", to be freed. */
char *resource_key(const char *kind, const char *namespace_, const char *name);

/* Checks a document and names what it is. 0 applied or warned (*ret_reason set when warned), -EINVAL refused,
 * -ENOTSUP a kind that does not concern a mesh, -ENOSYS one that does and is not handled; *ret_reason is
 * malloc'd, "field: what (line N)". */
int decode_check(const cJSON *tree, enum resource_kind *ret_kind, char **ret_reason);

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
