/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Istio's ConfigMap `istio`: the text under data.mesh is a YAML document of its own. A tree comes in; trust domain,
 * its aliases and the root namespace leave. Called by decode.c (is it in order?) and mesh_settings.c.
 */
#include "mesh_config.h"
#include "engine/base/array.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "yaml.h"

#include <string.h>

#define DOMAIN_LEN_MAX 255
#define NAMESPACE_LEN_MAX 63

struct parsed {
	cJSON *tree;
	struct yaml_error error;
};

static void document(void *arg, cJSON *tree, int line)
{
	struct parsed *p = arg;

	(void)line;
	if (p->tree)
		cJSON_Delete(tree);
	else
		p->tree = tree;
}

static void broken(void *arg, const struct yaml_error *error)
{
	struct parsed *p = arg;

	if (!p->error.line)
		p->error = *error;
}

/* The settings, to be deleted; NULL: there are none, or they are broken, which the error says. */
static cJSON *parse(const cJSON *tree, struct yaml_error *ret_error)
{
	static const struct yaml_handlers handlers = {document, broken};
	const char *text = decode_string(get(tree, "data"), "mesh", "");
	struct parsed p = {0};

	if (yaml_parse(text, strlen(text), &handlers, &p) < 0 && !p.error.line)
		p.error = (struct yaml_error){.line = 1, .reason = "out of memory"};
	*ret_error = p.error;
	return p.tree;
}

/* SPIFFE-ID 2.1. */
static bool check_domain(struct check *c, const cJSON *at, const cJSON *v, const char *path)
{
	const char *text = cJSON_IsString(v) ? v->valuestring : "";
	size_t n = strlen(text);

	if (n && n <= DOMAIN_LEN_MAX && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == n)
		return true;
	return check_refuse(c, at, "data.mesh: %s: not a trust domain: %.100s", path, *text ? text : "(no text)");
}

static bool check_settings(struct check *c, const cJSON *at, const cJSON *mesh)
{
	const cJSON *domain = get(mesh, "trustDomain"), *aliases = get(mesh, "trustDomainAliases"),
		    *root = get(mesh, "rootNamespace"), *i;
	const char *name = decode_string(mesh, "rootNamespace", "");

	if (mesh && !cJSON_IsObject(mesh))
		return check_refuse(c, at, "data.mesh: must be a mapping");
	if (domain && !check_domain(c, at, domain, "trustDomain"))
		return false;
	if (aliases && !cJSON_IsArray(aliases))
		return check_refuse(c, at, "data.mesh: trustDomainAliases: must be a list");
	if (cJSON_GetArraySize(aliases) >= LIMIT_TRUST_DOMAINS)
		return check_refuse(c, aliases, "data.mesh: trustDomainAliases: more than %d", LIMIT_TRUST_DOMAINS - 1);
	cJSON_ArrayForEach(i, aliases) {
		if (!check_domain(c, at, i, "trustDomainAliases[]"))
			return false;
	}
	if (root && (!*name || strlen(name) > NAMESPACE_LEN_MAX ||
		     strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(name)))
		return check_refuse(c, at, "data.mesh: rootNamespace: not the name of a namespace");
	return true;
}

bool mesh_config_check(struct check *c, const cJSON *tree)
{
	const cJSON *data = get(tree, "data");
	struct yaml_error error;
	cJSON *mesh;
	bool ok;

	if (!check_object(c, tree, "", "data", true) || !check_string(c, data, "data", "mesh", true))
		return false;
	mesh = parse(tree, &error);
	ok = error.line ? check_refuse(c, get(data, "mesh"), "data.mesh: line %d of it: %s", error.line, error.reason)
			: check_settings(c, get(data, "mesh"), mesh);
	cJSON_Delete(mesh);
	return ok;
}

static int add_alias(struct mesh_config *m, const char *text, size_t n)
{
	char **slot = array_grow(&m->aliases, &m->n_aliases, sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	*slot = strndup(text, n);
	if (*slot)
		return 0;
	m->n_aliases--;
	return -ENOMEM;
}

int mesh_config_read(const cJSON *tree, struct mesh_config *ret)
{
	struct mesh_config m = {0};
	struct yaml_error error;
	cJSON *mesh = parse(tree, &error);
	const char *domain = decode_string(mesh, "trustDomain", NULL),
		   *root = decode_string(mesh, "rootNamespace", NULL);
	const cJSON *i;
	int r = 0;

	m.trust_domain = domain ? strdup(domain) : NULL;
	m.root_namespace = root ? strdup(root) : NULL;
	if ((domain && !m.trust_domain) || (root && !m.root_namespace))
		r = -ENOMEM;
	cJSON_ArrayForEach(i, get(mesh, "trustDomainAliases")) {
		r = r ? r : add_alias(&m, i->valuestring, strlen(i->valuestring));
	}
	cJSON_Delete(mesh);
	if (r < 0)
		mesh_config_done(&m);
	else
		*ret = m;
	return r;
}

int mesh_config_split(const char *list, struct mesh_config *m)
{
	int r = 0;

	while (*list && r == 0) {
		size_t n = strcspn(list, ",");

		r = add_alias(m, list, n);
		list += n + (list[n] == ',');
	}
	return r;
}

char *mesh_config_join(const struct mesh_config *m, int *ret_error)
{
	size_t size = 1;
	char *text, *at;

	for (size_t i = 0; i < m->n_aliases; i++)
		size += strlen(m->aliases[i]) + 1;
	text = m->n_aliases ? malloc(size) : NULL;
	*ret_error = m->n_aliases && !text ? -ENOMEM : 0;
	at = text;
	for (size_t i = 0; text && i < m->n_aliases; i++)
		at = stpcpy(stpcpy(at, i ? "," : ""), m->aliases[i]);
	return text;
}

void mesh_config_done(struct mesh_config *m)
{
	for (size_t i = 0; i < m->n_aliases; i++)
		free(m->aliases[i]);
	free(m->aliases);
	free(m->trust_domain);
	free(m->root_namespace);
	*m = (struct mesh_config){0};
}
