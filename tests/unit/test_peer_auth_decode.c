/* SPDX-License-Identifier: Apache-2.0 */
/* PeerAuthentication and the mesh's ConfigMap as documents: what is accepted and what it becomes, what is refused. */
#include "agent/engine/source/mesh_config.h"
#include "documents.h"
#include "engine/base/limits.h"

/* --- PeerAuthentication --- */

static struct peer_auth *peer_auth_of(struct check *c, const char *namespace_, const char *spec)
{
	cJSON *tree = tree_of("PeerAuthentication", namespace_, "", spec);
	struct peer_auth *p = NULL;

	int r;

	*c = (struct check){0};
	r = peer_auth_decode(c, tree, &mesh, &p);
	assert_int_equal(r, p ? 0 : -EINVAL);
	cJSON_Delete(tree);
	return p;
}

static void peer_authentications(void **state)
{
	static const struct {
		const char *namespace_, *spec;
		enum mtls_mode mode;
		enum policy_scope scope;
		size_t ports;
	} table[] = {
		{"shop", NULL, MTLS_UNSET, SCOPE_NAMESPACE, 0},
		{"shop", "{mtls: {}}", MTLS_UNSET, SCOPE_NAMESPACE, 0},
		{"shop", "{mtls: {mode: UNSET}}", MTLS_UNSET, SCOPE_NAMESPACE, 0},
		{"shop", "{mtls: {mode: DISABLE}}", MTLS_DISABLE, SCOPE_NAMESPACE, 0},
		{"shop", "{mtls: {mode: PERMISSIVE}}", MTLS_PERMISSIVE, SCOPE_NAMESPACE, 0},
		{"istio-system", "{mtls: {mode: STRICT}}", MTLS_STRICT, SCOPE_MESH, 0},
		{"shop",
		 "{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}, "
		 "'9090': {mode: UNSET}}}",
		 MTLS_STRICT, SCOPE_WORKLOAD, 2},
	};
	struct check c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct peer_auth *p = peer_auth_of(&c, table[i].namespace_, table[i].spec);

		assert_non_null(p);
		assert_int_equal(p->mode, table[i].mode);
		assert_int_equal(p->scope, table[i].scope);
		assert_int_equal(p->n_ports, table[i].ports);
		if (p->n_ports)
			assert_true(p->ports[0].port == 80 && p->ports[0].mode == MTLS_DISABLE &&
				    p->ports[1].port == 9090 && p->ports[1].mode == MTLS_UNSET);
		assert_int_equal(c.warned, strstr(table[i].spec ? table[i].spec : "", "DISABLE") != NULL);
		peer_auth_unref(p);
	}
}

static void peer_authentications_refused(void **state)
{
	static const struct {
		const char *spec, *why;
	} table[] = {
		{"{mtls: {mode: strict}}", "not strict, did you mean STRICT?"},
		{"{mtls: {mode: ON}}", "must be UNSET, DISABLE, PERMISSIVE or STRICT"},
		{"{mtls: {mode: 1}}", "spec.mtls.mode: must be a text"},
		{"{mtls: {mode: null}}", "spec.mtls.mode: has no value"},
		{"{mtls: {modes: STRICT}}", "spec.mtls.modes: unknown field, did you mean mode?"},
		{"{mtls: STRICT}", "spec.mtls: must be a mapping"},
		{"{mtls: null}", "spec.mtls: has no value"},
		{"{mtl: {mode: STRICT}}", "spec.mtl: unknown field, did you mean mtls?"},
		{"{portLevelMtls: {80: {mode: STRICT}}}", "needs a selector"},
		{"{selector: {}, portLevelMtls: {80: {mode: STRICT}}}", "needs a selector"},
		{"{selector: {matchLabels: {a: b}}, portLevelMtls: {}}", "is empty"},
		{"{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}", "port from 1 to 65535"},
		{"{selector: {matchLabels: {a: b}}, portLevelMtls: {65536: {mode: STRICT}}}", "port from 1 to 65535"},
		{"{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}", "port from 1 to 65535"},
		{"{selector: {matchLabels: {a: b}}, portLevelMtls: {80: STRICT}}",
		 "portLevelMtls.80: must be a mapping"},
		{"{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mod: STRICT}}}", "did you mean mode?"},
		{"{selector: {matchlabels: {a: b}}}", "did you mean matchLabels?"},
		{"{selector: {app: web}}", "spec.selector.app: unknown field; known: matchLabels"},
		{"{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {tls: STRICT}}}",
		 "spec.portLevelMtls.80.tls: unknown field; known: mode"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct check c;
		struct peer_auth *p = peer_auth_of(&c, "shop", table[i].spec);

		if (p || !strstr(c.reason, table[i].why))
			fail_msg("%s: expected '%s', got '%s'", table[i].spec, table[i].why, p ? "accepted" : c.reason);
		if (!strstr(c.reason, "(line 4)"))
			fail_msg("%s: no line: %s", table[i].spec, c.reason);
	}
}

/* --- the mesh's ConfigMap --- */

static cJSON *config_map(const char *data)
{
	static const struct yaml_handlers handlers = {document, broken};
	char doc[600];
	int n = snprintf(doc, sizeof(doc), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\n%s\n", data);

	parsed = NULL;
	assert_int_equal(yaml_parse(doc, (size_t)n, &handlers, NULL), 0);
	return parsed;
}

static void the_meshs_settings(void **state)
{
	struct check c = {0};
	struct mesh_config m;
	cJSON *tree =
		config_map("data:\n  mesh: |\n    trustDomain: example.org\n    trustDomainAliases: [a.org, b.org]\n"
			   "    rootNamespace: mesh\n    accessLogFile: /dev/stdout\n");

	(void)state;
	assert_true(mesh_config_check(&c, tree));
	assert_int_equal(mesh_config_read(tree, &m), 0);
	assert_string_equal(m.trust_domain, "example.org");
	assert_string_equal(m.root_namespace, "mesh");
	assert_int_equal(m.n_aliases, 2);
	assert_string_equal(m.aliases[1], "b.org");
	mesh_config_done(&m);
	cJSON_Delete(tree);
	tree = config_map("data: {mesh: ''}");
	assert_true(mesh_config_check(&c, tree));
	assert_int_equal(mesh_config_read(tree, &m), 0);
	assert_true(!m.trust_domain && !m.root_namespace && !m.n_aliases);
	mesh_config_done(&m);
	cJSON_Delete(tree);
}

static void the_meshs_settings_refused(void **state)
{
	static char many[40 + 2 * LIMIT_TRUST_DOMAINS] = "data: {mesh: 'trustDomainAliases: [";
	static const struct {
		const char *data, *why;
	} table[] = {
		{"", "data: missing"},
		{"data: {}", "data.mesh: missing"},
		{"data: {mesh: 1}", "data.mesh: must be a text"},
		{"data: {mesh: '[a'}", "data.mesh: line 2 of it"},
		{"data: {mesh: 'a'}", "data.mesh: must be a mapping"},
		{"data: {mesh: 'trustDomain: A_b'}", "not a trust domain: A_b"},
		{"data: {mesh: 'trustDomain: [a]'}", "trustDomain: not a trust domain"},
		{"data: {mesh: 'trustDomainAliases: a'}", "trustDomainAliases: must be a list"},
		{"data: {mesh: 'trustDomainAliases: [a/b]'}", "not a trust domain: a/b"},
		{"data: {mesh: 'rootNamespace: a/b'}", "rootNamespace: not the name of a namespace"},
		{many, "trustDomainAliases: more than 63"},
	};

	(void)state;
	for (size_t i = 1; i < LIMIT_TRUST_DOMAINS; i++)
		strcat(many, "a,");
	strcat(many, "a]'}");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct check c = {0};
		cJSON *tree = config_map(table[i].data);

		if (mesh_config_check(&c, tree) || !strstr(c.reason, table[i].why))
			fail_msg("%s: expected '%s', got '%s'", table[i].data, table[i].why, c.reason);
		cJSON_Delete(tree);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(peer_authentications),
		cmocka_unit_test(peer_authentications_refused),
		cmocka_unit_test(the_meshs_settings),
		cmocka_unit_test(the_meshs_settings_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
