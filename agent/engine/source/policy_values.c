/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of an AuthorizationPolicy's fields. A list of texts comes in; matches, ranges or ports leave, with
 * principals expanded over the names of the local trust domain. Called by policy_rules.c.
 */
#include "policy_decode.h"
#include "engine/base/array.h"
#include "engine/base/cleanup.h"

#include <stdio.h>
#include <string.h>

/* Istio's limits. */
#define ACCOUNTS_MAX 16
#define ACCOUNT_LEN_MAX 320
/* What stands for the local trust domain whatever that is called. */
#define LOCAL_DOMAIN "cluster.local"

struct values {
	struct check *c;
	const struct mesh_names *mesh;
	const char *namespace_;
	struct policy_field *f;
};

static int bad(struct values *v, const cJSON *at, const char *what, const char *value)
{
	return check_invalid(v->c, at, "spec.%s: %s: %.200s", v->f->path, what, value);
}

/* "*", "abc*" and "*abc"; a '*' elsewhere is a letter like any other. */
static int add_match(struct values *v, const char *text)
{
	struct string_match *m = array_grow(&v->f->strings, &v->f->n_strings, sizeof(*m));
	size_t n = strlen(text);

	if (!m)
		return -ENOMEM;
	if (!strcmp(text, "*")) {
		m->kind = MATCH_PRESENCE;
		m->text = strdup("");
	} else if (*text == '*') {
		m->kind = MATCH_SUFFIX;
		m->text = strdup(text + 1);
	} else if (n && text[n - 1] == '*') {
		m->kind = MATCH_PREFIX;
		m->text = strndup(text, n - 1);
	} else {
		m->kind = MATCH_EXACT;
		m->text = strdup(text);
	}
	return m->text ? 0 : -ENOMEM;
}

static void warn_wildcard(struct values *v, const cJSON *at)
{
	const char *text = at->valuestring;
	size_t n = strlen(text);

	if (n > 2 && (memchr(text + 1, '*', n - 2) || (*text == '*' && text[n - 1] == '*')))
		check_warn(v->c, at,
			   "spec.%s: %.200s: '*' stands for others only as the first or the last letter: "
			   "this matches nobody",
			   v->f->path, text);
}

static bool is_local(const struct mesh_names *mesh, const char *domain, size_t n)
{
	bool local = (n == strlen(LOCAL_DOMAIN) && !memcmp(domain, LOCAL_DOMAIN, n)) ||
		     (n == strlen(mesh->domain) && !memcmp(domain, mesh->domain, n));

	for (size_t i = 0; i < mesh->n_aliases && !local; i++)
		local = n == strlen(mesh->aliases[i]) && !memcmp(domain, mesh->aliases[i], n);
	return local;
}

static int add_with_domain(struct values *v, const char *domain, const char *rest)
{
	_cleanup_free_ char *text = NULL;

	if (asprintf(&text, "%s%s", domain, rest) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	return add_match(v, text);
}

static bool ends_like(const char *domain, const char *suffix, size_t n)
{
	size_t len = strlen(domain);

	return len >= n && !memcmp(domain + len - n, suffix, n);
}

/* "*-old/ns/a/sa/b": if that is one of the local domain's names, the others are meant as well. */
static int add_by_suffix(struct values *v, const char *text, size_t n)
{
	const struct mesh_names *mesh = v->mesh;
	bool local = ends_like(mesh->domain, text + 1, n - 1);
	int r = add_match(v, text);

	for (size_t i = 0; i < mesh->n_aliases; i++)
		local |= ends_like(mesh->aliases[i], text + 1, n - 1);
	if (r == 0 && local && !ends_like(mesh->domain, text + 1, n - 1))
		r = add_with_domain(v, mesh->domain, text + n);
	for (size_t i = 0; i < mesh->n_aliases && r == 0 && local; i++)
		if (!ends_like(mesh->aliases[i], text + 1, n - 1))
			r = add_with_domain(v, mesh->aliases[i], text + n);
	return r;
}

/* Only then the first piece is the end of a trust domain, and not that of another piece. */
static bool has_five_pieces(const char *text)
{
	size_t slashes = 0;

	for (; *text; text++)
		slashes += *text == '/';
	return slashes == 4;
}

/* The trust domain at the start of a text, which ends in '/' or with it: under every name of the local one if it is
 * that, so that policies outlive a migration. */
static int add_expanded(struct values *v, const char *text)
{
	const struct mesh_names *mesh = v->mesh;
	size_t n = strcspn(text, "/");
	int r;

	if (mesh && *text == '*' && n > 1 && has_five_pieces(text))
		return add_by_suffix(v, text, n);
	if (!mesh || !is_local(mesh, text, n))
		return add_match(v, text);
	r = add_with_domain(v, mesh->domain, text + n);
	for (size_t i = 0; i < mesh->n_aliases && r == 0; i++)
		if (strcmp(mesh->aliases[i], mesh->domain))
			r = add_with_domain(v, mesh->aliases[i], text + n);
	return r;
}

static int add_principal(struct values *v, const cJSON *at)
{
	if (!strncmp(at->valuestring, "spiffe://", 9))
		check_warn(v->c, at, "spec.%s: %.200s: write it without spiffe://: this matches nobody", v->f->path,
			   at->valuestring);
	warn_wildcard(v, at);
	return add_expanded(v, at->valuestring);
}

/* A bare name is an account of the policy's own namespace. */
static int add_account(struct values *v, const cJSON *at)
{
	const char *text = at->valuestring, *slash = strchr(text, '/');
	_cleanup_free_ char *full = NULL;

	if (strchr(text, '*'))
		return bad(v, at, "wildcards are not supported in a service account", text);
	if (strlen(text) > ACCOUNT_LEN_MAX)
		return bad(v, at, "is longer than 320 characters", text);
	if (slash && (slash == text || !slash[1] || strchr(slash + 1, '/')))
		return bad(v, at, "must be NAME or NAMESPACE/NAME", text);
	if (asprintf(&full, "%s%s%s", slash ? "" : v->namespace_, slash ? "" : "/", text) < 0) {
		full = NULL;
		return -ENOMEM;
	}
	return add_match(v, full);
}

static int add_range(struct values *v, const cJSON *at, bool keep)
{
	struct ip_range *range, r;

	if (ip_cidr_parse(at->valuestring, &r.net, &r.bits))
		return bad(v, at, "not an address or a range such as 10.0.0.0/8", at->valuestring);
	if (!keep)
		return 0;
	ip_addr_mask(&r.net, r.bits);
	range = array_grow(&v->f->ranges, &v->f->n_ranges, sizeof(*range));
	if (!range)
		return -ENOMEM;
	*range = r;
	return 0;
}

static int add_port(struct values *v, const cJSON *at)
{
	const char *text = at->valuestring;
	unsigned long number = strtoul(text, NULL, 10);
	uint16_t *port;

	if (strlen(text) > 5 || strspn(text, "0123456789") != strlen(text) || number > 65535)
		return bad(v, at, "must be a port from 0 to 65535", text);
	port = array_grow(&v->f->ports, &v->f->n_ports, sizeof(*port));
	if (!port)
		return -ENOMEM;
	*port = (uint16_t)number;
	return 0;
}

/* Istio's path templates: {*} stands for one piece, {**} for the rest, with no other template behind it. Beside them
 * the pieces are of letters that RFC 3986 (3.3) has for them. NULL: it is in order. */
static const char *path_mistake(const char *path)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()+,;:@=";
	bool template = strstr(path, "{*}") || strstr(path, "{**}"), rest = false;
	size_t n;

	for (path += *path == '/'; *path; path += n + (path[n] == '/')) {
		n = strcspn(path, "/");
		if ((n == 3 && !memcmp(path, "{*}", 3)) || (n == 4 && !memcmp(path, "{**}", 4))) {
			if (rest)
				return "no template may follow {**}";
			rest = n == 4;
		} else if (memchr(path, '{', n) || memchr(path, '}', n)) {
			return "braces are for the templates {*} and {**}, each a piece of its own";
		} else if (template && (!n || strspn(path, letters) < n)) {
			return "beside a template a piece must not be empty, nor have a '*'";
		}
	}
	return NULL;
}

static int check_path(struct values *v, const cJSON *at)
{
	const char *mistake = path_mistake(at->valuestring);

	return mistake ? bad(v, at, mistake, at->valuestring) : 0;
}

static int add_value(struct values *v, enum value_form form, const cJSON *at)
{
	switch (form) {
	case FORM_PRINCIPAL:
		return add_principal(v, at);
	case FORM_ACCOUNT:
		return add_account(v, at);
	case FORM_TRUST_DOMAIN:
		warn_wildcard(v, at);
		return add_expanded(v, at->valuestring);
	case FORM_RANGE:
	case FORM_L7_RANGE:
		return add_range(v, at, form == FORM_RANGE);
	case FORM_PORT:
		return add_port(v, at);
	case FORM_L7_PATH:
		return check_path(v, at);
	case FORM_L7:
		return 0;
	default:
		warn_wildcard(v, at);
		return add_match(v, at->valuestring);
	}
}

int values_read(struct check *c, const struct mesh_names *mesh, const char *namespace_, const cJSON *list,
		enum value_form form, struct policy_field *f)
{
	struct values v = {c, mesh, namespace_, f};
	const cJSON *i;
	int r = 0;

	if (!cJSON_IsArray(list))
		return bad(&v, list, "must be a list", cJSON_IsString(list) ? list->valuestring : "it is none");
	if (!list->child)
		return bad(&v, list, "must not be empty", "[]");
	if (form == FORM_ACCOUNT && cJSON_GetArraySize(list) > ACCOUNTS_MAX)
		return bad(&v, list, "too many", "at most 16 service accounts");
	cJSON_ArrayForEach(i, list) {
		if (!cJSON_IsString(i))
			return bad(&v, check_at(i, list), "every value must be a text", "put it in quotes");
		if (!*i->valuestring)
			return bad(&v, i, "must not be empty", "''");
		r = r ? r : add_value(&v, form, i);
	}
	return r;
}
