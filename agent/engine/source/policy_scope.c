/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom a policy is for: namespace, selector and the root namespace's special part. The tree of either kind comes in.
 * Called by policy_decode.c and peer_auth_decode.c.
 */
#include "policy_decode.h"
#include "engine/base/array.h"
#include "engine/base/cleanup.h"

#include <string.h>

#define ROOT_NAMESPACE "istio-system"

/* Istio's rule: labels are compared whole, so that a wildcard would select nothing in silence. */
static bool check_label(struct check *c, const cJSON *labels, const cJSON *label)
{
	if (!cJSON_IsString(label))
		return check_refuse(c, check_at(label, labels),
				    "spec.selector.matchLabels.%s: must be a text; put it in quotes", label->string);
	if (!*label->string)
		return check_refuse(c, label, "spec.selector.matchLabels: a label without a name");
	if (strchr(label->string, '*') || strchr(label->valuestring, '*'))
		return check_refuse(c, label, "spec.selector.matchLabels.%s: wildcards are not supported in a selector",
				    label->string);
	return true;
}

bool scope_check_selector(struct check *c, const cJSON *spec)
{
	static const char *const fields[] = {"matchLabels", NULL};
	const cJSON *selector = get(spec, "selector"), *labels = get(selector, "matchLabels"), *i;

	if (!selector)
		return true;
	if (!check_object(c, spec, "spec", "selector", false) || !check_only(c, "spec.selector", selector, fields) ||
	    !check_object(c, selector, "spec.selector", "matchLabels", false))
		return false;
	if (!cJSON_GetArraySize(labels))
		check_warn(c, selector, "spec.selector: has no labels: the policy is for the whole namespace");
	cJSON_ArrayForEach(i, labels) {
		if (!check_label(c, labels, i))
			return false;
	}
	return true;
}

static const char *namespace_of(const cJSON *tree)
{
	return decode_string(get(tree, "metadata"), "namespace", "default");
}

bool scope_is_root(const cJSON *tree, const struct mesh_names *mesh)
{
	return !strcmp(namespace_of(tree), mesh ? mesh->root_namespace : ROOT_NAMESPACE);
}

static int add_label(const struct scope_fields *to, const cJSON *from)
{
	struct policy_label *label = array_grow(to->labels, to->n_labels, sizeof(*label));

	if (!label)
		return -ENOMEM;
	label->key = strdup(from->string);
	label->value = strdup(from->valuestring);
	return label->key && label->value ? 0 : -ENOMEM;
}

int scope_decode(const cJSON *tree, const struct mesh_names *mesh, const struct scope_fields *to)
{
	const cJSON *meta = get(tree, "metadata"), *spec = get(tree, "spec"), *i;
	const char *created = decode_string(meta, "creationTimestamp", NULL);
	struct check unreadable = {0};
	int r = 0;

	*to->namespace_ = strdup(namespace_of(tree));
	*to->name = strdup(decode_string(meta, "name", "?"));
	*to->created = created ? strdup(created) : NULL;
	if (!*to->namespace_ || !*to->name || (created && !*to->created))
		return -ENOMEM;
	if (scope_check_selector(&unreadable, spec))
		cJSON_ArrayForEach(i, get(get(spec, "selector"), "matchLabels")) {
			r = r ? r : add_label(to, i);
		}
	*to->scope = *to->n_labels ? SCOPE_WORKLOAD : scope_is_root(tree, mesh) ? SCOPE_MESH : SCOPE_NAMESPACE;
	return r;
}
