/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AuthorizationPolicy. A document's tree comes in; a struct policy leaves, or what is wrong with it: here all but the
 * rules (policy_rules.c). Fields as in Istio's reference page "Authorization Policy" and its own validation. Called by
 * decode.c for the verdict and by policies.c for the object.
 */
#include "policy_decode.h"
#include "engine/base/cleanup.h"

#include <stdio.h>
#include <string.h>

static int read_action(struct check *c, struct policy *p, const cJSON *spec)
{
	static const char *const names[] = {"ALLOW", "DENY", "AUDIT", "CUSTOM", NULL};
	static const char *const provider_fields[] = {"name", NULL};
	const char *action = decode_string(spec, "action", "ALLOW");
	const cJSON *provider = get(spec, "provider");
	char hint[80];
	int i = 0;

	if (spec && !check_string(c, spec, "spec", "action", false))
		return -EINVAL;
	while (names[i] && strcmp(names[i], action))
		i++;
	if (!names[i])
		return check_invalid(c, get(spec, "action"),
				     "spec.action: must be ALLOW, DENY, AUDIT or CUSTOM, not %.60s%s", action,
				     check_suggest(action, names, hint, sizeof(hint)));
	p->action = (enum policy_action)i;
	if (p->action == POLICY_AUDIT)
		check_warn(c, get(spec, "action"),
			   "spec.action: AUDIT changes no verdict, and nothing is recorded here");
	if (provider && p->action != POLICY_CUSTOM)
		return check_invalid(c, provider, "spec.provider: only goes with action CUSTOM");
	if (p->action != POLICY_CUSTOM)
		return 0;
	if (!check_object(c, spec, "spec", "provider", true) ||
	    !check_only(c, "spec.provider", provider, provider_fields) ||
	    !check_string(c, provider, "spec.provider", "name", true))
		return -EINVAL;
	if (!*decode_string(provider, "name", ""))
		return check_invalid(c, provider, "spec.provider.name: must not be empty");
	check_warn(c, provider, "spec.provider: cannot be asked at L4: what the rules match is denied here");
	return 0;
}

static int check_target(struct check *c, const cJSON *o, const char *path)
{
	static const char *const only[] = {"group", "kind", "name", "namespace", NULL};
	static const char *const allowed[] = {"gateway.networking.k8s.io/Gateway",
					      "gateway.networking.k8s.io/GatewayClass",
					      "/Service",
					      "core/Service",
					      "networking.istio.io/ServiceEntry",
					      NULL};
	char full[160];

	if (!check_only(c, path, o, only) || !check_string(c, o, path, "group", false) ||
	    !check_string(c, o, path, "kind", true) || !check_string(c, o, path, "name", true) ||
	    !check_string(c, o, path, "namespace", false))
		return -EINVAL;
	if (!*decode_string(o, "name", ""))
		return check_invalid(c, o, "%s.name: must not be empty", path);
	if (*decode_string(o, "namespace", ""))
		return check_invalid(c, get(o, "namespace"),
				     "%s.namespace: a target in another namespace is not supported", path);
	snprintf(full, sizeof(full), "%.80s/%.60s", decode_string(o, "group", ""), decode_string(o, "kind", ""));
	for (const char *const *a = allowed; *a; a++)
		if (!strcmp(*a, full))
			return 0;
	return check_invalid(c, o,
			     "%s: must be a Gateway, GatewayClass, Service or ServiceEntry with its group, not %s",
			     path, full);
}

static int read_targets(struct check *c, struct policy *p, const cJSON *spec)
{
	const cJSON *list = get(spec, "targetRefs"), *one = get(spec, "targetRef"), *i;
	int e = 0, n = 0;

	if (!list && !one)
		return 0;
	if (list && (!cJSON_IsArray(list) || !list->child))
		return check_invalid(c, list, "spec.targetRefs: must be a list, and not an empty one");
	if ((get(spec, "selector") != NULL) + (list != NULL) + (one != NULL) > 1)
		return check_invalid(c, list ? list : one,
				     "spec: selector, targetRefs and targetRef exclude each other");
	p->target_ref = true;
	cJSON_ArrayForEach(i, list) {
		char path[48];

		snprintf(path, sizeof(path), "spec.targetRefs[%d]", n++);
		if (!cJSON_IsObject(i))
			return check_invalid(c, check_at(i, list), "%s: must be a mapping", path);
		e = e ? e : check_target(c, i, path);
	}
	if (!one)
		return e;
	return check_object(c, spec, "spec", "targetRef", true) ? check_target(c, one, "spec.targetRef") : -EINVAL;
}

/* What Istio takes for true (1) and false (0): the words of Go's strconv.ParseBool. */
static int truth_of(const char *text)
{
	static const char *const words[][6] = {{"0", "f", "F", "false", "FALSE", "False"},
					       {"1", "t", "T", "true", "TRUE", "True"}};

	for (int truth = 0; text && truth < 2; truth++)
		for (size_t i = 0; i < ARRAY_SIZE(words[truth]); i++)
			if (!strcmp(text, words[truth][i]))
				return truth;
	return -EINVAL;
}

/* A mistake here could enforce what was to be tried, or the other way round. */
static int check_dry_run(struct check *c, struct policy *p, const cJSON *tree)
{
	static const char path[] = "metadata.annotations[istio.io/dry-run]";
	const char *text = decode_annotation(tree, "istio.io/dry-run");

	if (text && truth_of(text) < 0)
		return check_invalid(c, tree, "%s: must be true or false, not %.40s", path, text);
	if (text && p->action != POLICY_ALLOW && p->action != POLICY_DENY)
		return check_invalid(c, tree, "%s: only goes with action ALLOW or DENY", path);
	return 0;
}

static struct policy *new_scoped(const cJSON *tree, const struct mesh_names *mesh)
{
	struct policy *p = policy_new();
	struct scope_fields to = {&p->namespace_, &p->name, &p->created, &p->scope, &p->labels, &p->n_labels};

	if (!p || scope_decode(tree, mesh, &to) < 0)
		return policy_unref(p);
	p->every_namespace = scope_is_root(tree, mesh);
	p->dry_run = truth_of(decode_annotation(tree, "istio.io/dry-run")) == 1;
	return p;
}

int policy_decode(struct check *c, const cJSON *tree, const struct mesh_names *mesh, struct policy **ret)
{
	static const char *const fields[] = {"selector", "targetRef", "targetRefs", "action",
					     "provider", "rules",     NULL};
	const cJSON *spec = get(tree, "spec");
	struct policy *p;
	int e;

	if (!check_object(c, tree, "", "spec", false) || !check_near(c, "spec", spec, fields) ||
	    !scope_check_selector(c, spec))
		return -EINVAL;
	p = new_scoped(tree, mesh);
	if (!p)
		return -ENOMEM;
	e = read_targets(c, p, spec);
	e = e ? e : read_action(c, p, spec);
	e = e ? e : check_dry_run(c, p, tree);
	e = e ? e : rules_read(c, mesh, spec, p);
	if (e < 0) {
		policy_unref(p);
		return e;
	}
	policy_effect_warn(c, p, get(spec, "rules"));
	*ret = p;
	return 0;
}

struct policy *policy_decode_closed(const cJSON *tree, const struct mesh_names *mesh)
{
	struct policy *p = new_scoped(tree, mesh);
	const cJSON *spec = get(tree, "spec"), *targets = get(spec, "targetRefs");

	if (!p)
		return NULL;
	p->closed = true;
	p->action = POLICY_DENY;
	/* Its readable scope is a waypoint. */
	p->target_ref = !get(spec, "selector") &&
			((cJSON_IsArray(targets) && targets->child) || cJSON_IsObject(get(spec, "targetRef")));
	return p;
}

struct policy *policy_new_unreadable(const char *name, const struct mesh_names *mesh)
{
	struct policy *p = policy_new();

	if (!p)
		return NULL;
	p->namespace_ = strdup(mesh->root_namespace);
	p->name = strdup(name);
	if (!p->namespace_ || !p->name)
		return policy_unref(p);
	p->closed = p->every_namespace = true;
	p->scope = SCOPE_MESH;
	p->action = POLICY_DENY;
	return p;
}
