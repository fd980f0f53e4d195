/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trust domain, its aliases and the root namespace, as they are in force. Options and the store's ConfigMap come in;
 * the names that policies are decoded by leave, an alarm when the ConfigMap asks for what needs a restart, and what
 * people are told of it. Called by policies.c, policy_dump.c and source.c.
 */
#include "mesh_settings.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_DOMAIN "cluster.local"
#define ROOT_NAMESPACE "istio-system"

static const char *map_namespace(const struct mesh_options *o)
{
	return o->root_namespace ? o->root_namespace : ROOT_NAMESPACE;
}

static const struct resource *find_map(const struct mesh_options *o, const struct store *s, int *ret_error)
{
	_cleanup_free_ char *key = resource_key("ConfigMap", map_namespace(o), MESH_CONFIG_NAME);
	const struct resource *r = key ? table_get_str(&s->resources, key) : NULL;

	*ret_error = key ? 0 : -ENOMEM;
	return r && r->tree && r->kind == KIND_MESH_CONFIG ? r : NULL;
}

int mesh_settings_domain(const struct mesh_options *o, const struct store *s, char **ret)
{
	struct mesh_config map = {0};
	int r = 0;
	const struct resource *found = find_map(o, s, &r);

	r = found ? mesh_config_read(found->tree, &map) : r;
	if (r == 0)
		*ret = take_ptr(map.trust_domain);
	mesh_config_done(&map);
	return r;
}

/* --- what is in force --- */

/* What an option says replaces the map's word. */
static int override(const struct mesh_options *o, struct mesh_config *m)
{
	const char *root = o->root_namespace ? o->root_namespace : m->root_namespace ? NULL : ROOT_NAMESPACE;
	struct mesh_config given = {0};
	int r = 0;

	if (root) {
		free(m->root_namespace);
		m->root_namespace = strdup(root);
	}
	if (o->trust_domain_aliases) {
		r = mesh_config_split(o->trust_domain_aliases, &given);
		for (size_t i = 0; i < m->n_aliases; i++)
			free(m->aliases[i]);
		free(m->aliases);
		m->aliases = given.aliases;
		m->n_aliases = given.n_aliases;
	}
	return m->root_namespace ? r : -ENOMEM;
}

static bool is_same(const struct mesh_config *a, const struct mesh_config *b)
{
	if (a->n_aliases != b->n_aliases || strcmp(a->root_namespace, b->root_namespace))
		return false;
	for (size_t i = 0; i < a->n_aliases; i++)
		if (strcmp(a->aliases[i], b->aliases[i]))
			return false;
	return true;
}

/* Our certificates carry the trust domain, and every peer expects it of us: it changes with the next start. */
static void judge_domain(struct mesh_settings *m, const struct mesh_options *o, const char *trust_domain)
{
	const char *wanted = m->map.trust_domain ? m->map.trust_domain : DEFAULT_DOMAIN;
	char *text = NULL;

	if (o->trust_domain_given) {
		if (m->map.trust_domain && strcmp(wanted, trust_domain))
			log_warn("source", "ConfigMap %s/%s: trustDomain: %s is not in use: --trust-domain says %s",
				 map_namespace(o), MESH_CONFIG_NAME, wanted, trust_domain);
		return;
	}
	if (strcmp(wanted, trust_domain) &&
	    asprintf(&text,
		     "ConfigMap %s/%s: trustDomain: %s%s is asked for, and %s stays in use, as certificates carry it: "
		     "restart this agent to change it",
		     map_namespace(o), MESH_CONFIG_NAME, m->map.trust_domain ? "" : "gone, so that ", wanted,
		     trust_domain) < 0)
		text = NULL;
	if (text && (!m->alarm || strcmp(text, m->alarm)))
		log_error("source", "ALARM: %s", text);
	if (!text && m->alarm)
		log_info("source", "the trust domain asked for is %s again, which is in use", trust_domain);
	free(m->alarm);
	m->alarm = text;
}

int mesh_settings_update(struct mesh_settings *m, const struct mesh_options *o, const char *trust_domain,
			 const struct store *s)
{
	struct mesh_config map = {0}, now = {0};
	int r = 0;
	const struct resource *found = find_map(o, s, &r);
	uint64_t version = found ? found->version : 0;

	if (r < 0 || (m->version && m->map_version == version))
		return r;
	r = found ? mesh_config_read(found->tree, &map) : 0;
	r = r == 0 && found ? mesh_config_read(found->tree, &now) : r;
	r = r < 0 ? r : override(o, &now);
	if (r < 0) {
		mesh_config_done(&map);
		mesh_config_done(&now);
		return r;
	}
	if (!m->version || !is_same(&m->now, &now))
		m->version++;
	mesh_config_done(&m->now);
	mesh_config_done(&m->map);
	m->now = now;
	m->map = map;
	m->names = (struct mesh_names){trust_domain, now.aliases, now.n_aliases, now.root_namespace};
	m->map_version = version;
	judge_domain(m, o, trust_domain);
	return 0;
}

void mesh_settings_done(struct mesh_settings *m)
{
	mesh_config_done(&m->now);
	mesh_config_done(&m->map);
	free(m->alarm);
	*m = (struct mesh_settings){0};
}

/* --- what people are told --- */

/* `option` is NULL where none is given, `asked` what the ConfigMap says, NULL or "" where it says nothing; `otherwise`
 * says where a value comes from that is neither's. */
static void add_setting(cJSON *to, const char *name, const char *value, const char *option, const char *asked,
			const char *otherwise)
{
	bool in_map = asked && *asked, as_asked = in_map && !strcmp(asked, value);
	cJSON *o = cJSON_AddObjectToObject(to, name);

	cJSON_AddStringToObject(o, "value", value);
	cJSON_AddStringToObject(o, "from", option ? option : as_asked ? "ConfigMap " MESH_CONFIG_NAME : otherwise);
	if (option && in_map && !as_asked)
		cJSON_AddStringToObject(o, "overridden", asked);
}

cJSON *mesh_settings_dump(const struct mesh_settings *m, const struct mesh_options *o)
{
	cJSON *dump = cJSON_CreateObject();
	_cleanup_free_ char *aliases = NULL, *asked = NULL;
	int r;

	if (!m->version)
		return dump;
	aliases = mesh_config_join(&m->now, &r);
	asked = mesh_config_join(&m->map, &r);
	add_setting(dump, "trust_domain", m->names.domain, o->trust_domain_given ? "--trust-domain" : NULL,
		    m->map.trust_domain, m->alarm ? "as this agent started" : "default");
	add_setting(dump, "trust_domain_aliases", aliases ? aliases : "",
		    o->trust_domain_aliases ? "--trust-domain-aliases" : NULL, asked, "default");
	add_setting(dump, "root_namespace", m->now.root_namespace, o->root_namespace ? "--root-namespace" : NULL,
		    m->map.root_namespace, "default");
	return dump;
}
