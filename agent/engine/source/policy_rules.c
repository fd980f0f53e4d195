/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of an AuthorizationPolicy: from, to, when. A document's spec comes in; the rules of a struct policy leave,
 * or what is wrong with them. Fields and rules as in Istio's reference page "Authorization Policy" and its own
 * validation. Called by policy_decode.c.
 */
#include "engine/base/array.h"
#include "engine/base/cleanup.h"
#include "policy_decode.h"

#include <stdio.h>
#include <string.h>

/* Of "rules[1].from[2]", and of a field below it. */
#define ENTRY_SIZE 96
#define PATH_SIZE 256

struct reader {
	struct check *c;
	const struct mesh_names *mesh;
	struct policy *p;
};

static const struct field_kind {
	const char *name, *negated;
	enum policy_attribute attribute;
	enum value_form form;
} source_fields[] =
	{
		{"principals", "notPrincipals", ATTRIBUTE_PRINCIPAL, FORM_PRINCIPAL},
		{"requestPrincipals", "notRequestPrincipals", ATTRIBUTE_L7, FORM_L7},
		{"namespaces", "notNamespaces", ATTRIBUTE_NAMESPACE, FORM_TEXT},
		{"serviceAccounts", "notServiceAccounts", ATTRIBUTE_SERVICE_ACCOUNT, FORM_ACCOUNT},
		{"trustDomains", "notTrustDomains", ATTRIBUTE_TRUST_DOMAIN, FORM_TRUST_DOMAIN},
		{"ipBlocks", "notIpBlocks", ATTRIBUTE_SOURCE_IP, FORM_RANGE},
		{"remoteIpBlocks", "notRemoteIpBlocks", ATTRIBUTE_L7, FORM_L7_RANGE},
		{NULL},
},
  operation_fields[] =
	  {
		  {"hosts", "notHosts", ATTRIBUTE_L7, FORM_L7},
		  {"ports", "notPorts", ATTRIBUTE_DESTINATION_PORT, FORM_PORT},
		  {"methods", "notMethods", ATTRIBUTE_L7, FORM_L7},
		  {"paths", "notPaths", ATTRIBUTE_L7, FORM_L7_PATH},
		  {NULL},
},
  keys[] = {
	  {"source.ip", NULL, ATTRIBUTE_SOURCE_IP, FORM_RANGE},
	  {"source.namespace", NULL, ATTRIBUTE_NAMESPACE, FORM_TEXT},
	  {"source.principal", NULL, ATTRIBUTE_PRINCIPAL, FORM_PRINCIPAL},
	  {"source.serviceAccount", NULL, ATTRIBUTE_SERVICE_ACCOUNT, FORM_ACCOUNT},
	  {"source.trustDomain", NULL, ATTRIBUTE_TRUST_DOMAIN, FORM_TRUST_DOMAIN},
	  {"destination.ip", NULL, ATTRIBUTE_DESTINATION_IP, FORM_RANGE},
	  {"destination.port", NULL, ATTRIBUTE_DESTINATION_PORT, FORM_PORT},
	  {"remote.ip", NULL, ATTRIBUTE_L7, FORM_L7_RANGE},
	  {"connection.sni", NULL, ATTRIBUTE_L7, FORM_L7},
	  {"request.auth.principal", NULL, ATTRIBUTE_L7, FORM_L7},
	  {"request.auth.audiences", NULL, ATTRIBUTE_L7, FORM_L7},
	  {"request.auth.presenter", NULL, ATTRIBUTE_L7, FORM_L7},
	  {NULL},
};

/* Keys with a name in brackets behind them. */
static const char *const map_keys[] = {"request.headers", "request.auth.claims", "experimental.envoy.filters.", NULL};

bool policy_is_identity(enum policy_attribute a)
{
	return a == ATTRIBUTE_PRINCIPAL || a == ATTRIBUTE_NAMESPACE || a == ATTRIBUTE_SERVICE_ACCOUNT ||
	       a == ATTRIBUTE_TRUST_DOMAIN;
}

/* --- fields --- */

/* What is said of a field that only an HTTP proxy can check, while the policy is for this point. */
static void warn_l7(struct reader *r, const cJSON *at, const char *path)
{
	const char *effect = r->p->action == POLICY_ALLOW
				     ? "this rule never matches here"
				     : "here it counts as matched (see --l7-deny), the rest decides";

	if (!r->p->target_ref && r->p->action != POLICY_AUDIT)
		check_warn(r->c, at, "spec.%s: only an HTTP proxy can check it: %s", path, effect);
}

static int add_field(struct reader *r, struct policy_clause *clause, const cJSON *list, const struct field_kind *kind,
		     bool negate, const char *path)
{
	struct policy_field *f = array_grow(&clause->fields, &clause->n_fields, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->attribute = kind->attribute;
	f->negate = negate;
	f->path = strdup(path);
	if (!f->path)
		return -ENOMEM;
	if (kind->attribute == ATTRIBUTE_L7)
		warn_l7(r, list, path);
	/* Istio's ext_authz is not given a verified peer to match. */
	if (r->p->action == POLICY_CUSTOM &&
	    (policy_is_identity(kind->attribute) || !strncmp(kind->name, "request.auth", 12) ||
	     !strcmp(kind->name, "requestPrincipals")))
		return check_invalid(r->c, list, "spec.%s: not supported with action CUSTOM", path);
	return values_read(r->c, r->mesh, r->p->namespace_, list, kind->form, f);
}

static const struct field_kind *find_field(const struct field_kind *kinds, const char *name, bool *ret_negate)
{
	for (; kinds->name; kinds++) {
		*ret_negate = kinds->negated && !strcmp(name, kinds->negated);
		if (*ret_negate || !strcmp(name, kinds->name))
			return kinds;
	}
	return NULL;
}

static bool only_fields(struct reader *r, const char *where, const cJSON *o, const struct field_kind *kinds)
{
	const char *names[2 * ARRAY_SIZE(source_fields) + 1] = {NULL};
	size_t n = 0;

	for (; kinds->name; kinds++) {
		names[n++] = kinds->name;
		names[n++] = kinds->negated;
	}
	return check_only(r->c, where, o, names);
}

/* --- from, to --- */

static bool has(const struct policy_clause *c, enum policy_attribute a)
{
	for (size_t i = 0; i < c->n_fields; i++)
		if (c->fields[i].attribute == a)
			return true;
	return false;
}

/* `from[].source` and `to[].operation`: the one field of an entry, itself a mapping of fields. */
static int read_clause(struct reader *r, struct policy_group *g, const cJSON *entry, const char *path, const char *name,
		       const struct field_kind *kinds)
{
	struct policy_clause *clause = array_grow(&g->clauses, &g->n_clauses, sizeof(*clause));
	const char *const only[] = {name, NULL};
	const cJSON *o = get(entry, name), *i;
	char where[PATH_SIZE], inner[PATH_SIZE];
	int e = 0;

	if (!clause)
		return -ENOMEM;
	snprintf(where, sizeof(where), "spec.%s", path);
	snprintf(inner, sizeof(inner), "spec.%s.%s", path, name);
	if (!check_only(r->c, where, entry, only) || !check_object(r->c, entry, where, name, true) ||
	    !only_fields(r, inner, o, kinds))
		return -EINVAL;
	if (!o->child)
		return check_invalid(r->c, o, "%s: must not be empty: it would match everything", inner);
	cJSON_ArrayForEach(i, o) {
		char field[PATH_SIZE];
		bool negate = false;
		const struct field_kind *kind = find_field(kinds, i->string, &negate);

		snprintf(field, sizeof(field), "%s.%s.%s", path, name, i->string);
		e = e ? e : add_field(r, clause, i, kind, negate, field);
	}
	if (!e && has(clause, ATTRIBUTE_SERVICE_ACCOUNT) &&
	    (has(clause, ATTRIBUTE_PRINCIPAL) || has(clause, ATTRIBUTE_NAMESPACE)))
		return check_invalid(r->c, o, "%s: serviceAccounts and principals or namespaces exclude each other",
				     inner);
	return e;
}

static int read_group(struct reader *r, struct policy_rule *rule, const cJSON *list, const char *path, const char *name,
		      const struct field_kind *kinds)
{
	struct policy_group *g;
	const cJSON *i;
	int e = 0, n = 0;

	if (!list)
		return 0;
	if (!cJSON_IsArray(list) || !list->child)
		return check_invalid(r->c, list, "spec.%s: must be a list, and not an empty one", path);
	g = array_grow(&rule->groups, &rule->n_groups, sizeof(*g));
	if (!g)
		return -ENOMEM;
	cJSON_ArrayForEach(i, list) {
		char entry[ENTRY_SIZE];

		snprintf(entry, sizeof(entry), "%s[%d]", path, n++);
		if (!cJSON_IsObject(i))
			return check_invalid(r->c, check_at(i, list), "spec.%s: must be a mapping with %s", entry,
					     name);
		e = e ? e : read_clause(r, g, i, entry, name, kinds);
	}
	return e;
}

/* --- when --- */

static bool is_map_key(const char *key)
{
	size_t n = strlen(key), open = strcspn(key, "[");

	if (!n || key[n - 1] != ']' || open + 2 >= n)
		return false;
	for (const char *const *k = map_keys; *k; k++) {
		size_t len = strlen(*k);

		if (!strncmp(key, *k, len) && (key[len] == '[' || (*k)[len - 1] == '.'))
			return true;
	}
	return false;
}

static int unknown_key(struct reader *r, const cJSON *at, const char *path)
{
	const char *names[ARRAY_SIZE(keys) + ARRAY_SIZE(map_keys)] = {NULL};
	size_t n = 0;
	char hint[80];

	for (const struct field_kind *k = keys; k->name; k++)
		names[n++] = k->name;
	for (const char *const *k = map_keys; *k; k++) {
		if (!strncmp(at->valuestring, *k, strlen(*k)))
			return check_invalid(r->c, at, "spec.%s.key: %.100s: must be written as %s[NAME]", path,
					     at->valuestring, *k);
		names[n++] = *k;
	}
	return check_invalid(r->c, at, "spec.%s.key: %.100s: unknown attribute%s", path, at->valuestring,
			     check_suggest(at->valuestring, names, hint, sizeof(hint)));
}

static int read_condition(struct reader *r, struct policy_rule *rule, const cJSON *o, const char *path)
{
	static const char *const only[] = {"key", "values", "notValues", NULL};
	static const struct field_kind in_map = {"request.headers", NULL, ATTRIBUTE_L7, FORM_L7},
				       in_claims = {"request.auth.claims", NULL, ATTRIBUTE_L7, FORM_L7};
	struct policy_group *g = array_grow(&rule->groups, &rule->n_groups, sizeof(*g));
	struct policy_clause *clause = g ? array_grow(&g->clauses, &g->n_clauses, sizeof(*clause)) : NULL;
	const struct field_kind *kind;
	char where[PATH_SIZE];
	const char *key;
	bool negate;
	int e = 0;

	if (!clause)
		return -ENOMEM;
	snprintf(where, sizeof(where), "spec.%s", path);
	if (!check_only(r->c, where, o, only) || !check_string(r->c, o, where, "key", true))
		return -EINVAL;
	key = decode_string(o, "key", "");
	kind = is_map_key(key) ? (strncmp(key, "request.auth", 12) ? &in_map : &in_claims)
			       : find_field(keys, key, &negate);
	if (!kind)
		return unknown_key(r, get(o, "key"), path);
	if (!get(o, "values") && !get(o, "notValues"))
		return check_invalid(r->c, o, "%s: values or notValues must be there", where);
	for (int n = 0; n < 2 && !e; n++) {
		const cJSON *list = get(o, only[1 + n]);

		snprintf(where, sizeof(where), "%s.%s", path, only[1 + n]);
		e = list ? add_field(r, clause, list, kind, n == 1, where) : 0;
	}
	return e;
}

static int read_conditions(struct reader *r, struct policy_rule *rule, const cJSON *list, const char *path)
{
	const cJSON *i;
	int e = 0, n = 0;

	if (!list)
		return 0;
	if (!cJSON_IsArray(list) || !list->child)
		return check_invalid(r->c, list, "spec.%s: must be a list, and not an empty one", path);
	cJSON_ArrayForEach(i, list) {
		char entry[ENTRY_SIZE];

		snprintf(entry, sizeof(entry), "%s[%d]", path, n++);
		if (!cJSON_IsObject(i))
			return check_invalid(r->c, check_at(i, list), "spec.%s: must be a mapping with key and values",
					     entry);
		e = e ? e : read_condition(r, rule, i, entry);
	}
	return e;
}

/* --- rules --- */

static int read_rule(struct reader *r, const cJSON *o, int number)
{
	static const char *const only[] = {"from", "to", "when", NULL};
	struct policy_rule *rule = array_grow(&r->p->rules, &r->p->n_rules, sizeof(*rule));
	char path[3][64], where[64];
	int e;

	if (!rule)
		return -ENOMEM;
	snprintf(where, sizeof(where), "spec.rules[%d]", number);
	for (int i = 0; i < 3; i++)
		snprintf(path[i], sizeof(path[i]), "rules[%d].%s", number, only[i]);
	if (!check_only(r->c, where, o, only))
		return -EINVAL;
	e = read_group(r, rule, get(o, "from"), path[0], "source", source_fields);
	e = e ? e : read_group(r, rule, get(o, "to"), path[1], "operation", operation_fields);
	e = e ? e : read_conditions(r, rule, get(o, "when"), path[2]);
	return e;
}

int rules_read(struct check *c, const struct mesh_names *mesh, const cJSON *spec, struct policy *p)
{
	static const char *const no_rules[] = {[POLICY_DENY] = "DENY", [POLICY_CUSTOM] = "CUSTOM"};
	const cJSON *rules = get(spec, "rules"), *i;
	struct reader r = {c, mesh, p};
	int e = 0, n = 0;

	if (!check_list(c, spec, "spec", "rules"))
		return -EINVAL;
	if (!cJSON_GetArraySize(rules) && (p->action == POLICY_DENY || p->action == POLICY_CUSTOM))
		return check_invalid(
			c, rules ? rules : spec,
			"spec.rules: missing: action %s without rules does nothing; an empty rule {} is for "
			"every connection",
			no_rules[p->action]);
	cJSON_ArrayForEach(i, rules) {
		if (!cJSON_IsObject(i))
			return check_invalid(c, check_at(i, rules), "spec.rules[%d]: must be a mapping", n);
		e = e ? e : read_rule(&r, i, n++);
	}
	return e;
}
