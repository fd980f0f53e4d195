/* SPDX-License-Identifier: Apache-2.0 */
/* AuthorizationPolicy as a document: what is accepted and what it becomes, what is refused and why, what warns. */
#include "documents.h"

/* The policy, or NULL with the reason in *c. */
static struct policy *policy_of(struct check *c, const char *spec)
{
	cJSON *tree = tree_of("AuthorizationPolicy", "shop", "", spec);
	struct policy *p = NULL;
	int r;

	*c = (struct check){.warnings = cJSON_CreateArray()};
	r = policy_decode(c, tree, &mesh, &p);
	assert_int_equal(r, p ? 0 : -EINVAL);
	assert_int_equal(c->refused, !p);
	cJSON_Delete(tree);
	cJSON_Delete(c->warnings);
	c->warnings = NULL;
	return p;
}

static struct policy *accepted(const char *spec)
{
	struct check c;
	struct policy *p = policy_of(&c, spec);

	if (!p)
		fail_msg("%s: %s", spec, c.reason);
	return p;
}

/* One clause of one rule of one source. */
static struct policy *source(const char *fields)
{
	_cleanup_free_ char *spec = NULL;

	assert_true(asprintf(&spec, "{rules: [{from: [{source: %s}]}]}", fields) > 0);
	return accepted(spec);
}

static const struct policy_field *field(const struct policy *p, size_t i)
{
	assert_true(p->n_rules == 1 && p->rules[0].n_groups == 1 && p->rules[0].groups[0].n_clauses == 1);
	assert_true(i < p->rules[0].groups[0].clauses[0].n_fields);
	return &p->rules[0].groups[0].clauses[0].fields[i];
}

static void assert_strings(const struct policy_field *f, enum policy_attribute a, bool negate, const char *want)
{
	static const char marks[] = {
		[MATCH_EXACT] = '=', [MATCH_PREFIX] = '^', [MATCH_SUFFIX] = '$', [MATCH_PRESENCE] = '*'};
	char text[512] = "";
	size_t n = 0;

	for (size_t i = 0; i < f->n_strings; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%c%s", i ? " " : "", marks[f->strings[i].kind],
				      f->strings[i].text);
	assert_int_equal(f->attribute, a);
	assert_int_equal(f->negate, negate);
	assert_string_equal(text, want);
}

/* --- what is accepted, and what it becomes --- */

static void strings_are_exact_prefix_suffix_or_presence(void **state)
{
	struct policy *p = source("{namespaces: [a, 'b*', '*c', '*'], notNamespaces: [d]}");

	(void)state;
	assert_strings(field(p, 0), ATTRIBUTE_NAMESPACE, false, "=a ^b $c *");
	assert_strings(field(p, 1), ATTRIBUTE_NAMESPACE, true, "=d");
	assert_string_equal(field(p, 1)->path, "rules[0].from[0].source.notNamespaces");
	policy_unref(p);
}

static void principals_hold_under_every_name_of_the_domain(void **state)
{
	static const struct {
		const char *text, *want;
	} table[] = {
		{"cluster.local/ns/a/sa/b", "=example.org/ns/a/sa/b =old.org/ns/a/sa/b =older.org/ns/a/sa/b"},
		{"example.org/ns/a/sa/b", "=example.org/ns/a/sa/b =old.org/ns/a/sa/b =older.org/ns/a/sa/b"},
		{"old.org/ns/a/sa/b", "=example.org/ns/a/sa/b =old.org/ns/a/sa/b =older.org/ns/a/sa/b"},
		{"cluster.local/ns/a/*", "^example.org/ns/a/ ^old.org/ns/a/ ^older.org/ns/a/"},
		{"other.org/ns/a/sa/b", "=other.org/ns/a/sa/b"},
		{"cluster.local.evil/ns/a/sa/b", "=cluster.local.evil/ns/a/sa/b"},
		{"*/sa/b", "$/sa/b"},
		{"*", "*"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char text[200];
		struct policy *p;

		snprintf(text, sizeof(text), "{principals: ['%s']}", table[i].text);
		p = source(text);
		assert_strings(field(p, 0), ATTRIBUTE_PRINCIPAL, false, table[i].want);
		policy_unref(p);
	}
}

static void accounts_are_of_the_policys_namespace(void **state)
{
	struct policy *p = source("{serviceAccounts: [a, other/b], notServiceAccounts: [c]}");

	(void)state;
	assert_strings(field(p, 0), ATTRIBUTE_SERVICE_ACCOUNT, false, "=shop/a =other/b");
	assert_strings(field(p, 1), ATTRIBUTE_SERVICE_ACCOUNT, true, "=shop/c");
	policy_unref(p);
	p = source("{serviceAccounts: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]}");
	assert_int_equal(field(p, 0)->n_strings, 16);
	policy_unref(p);
	p = accepted("{rules: [{when: [{key: source.serviceAccount, values: [a, other/b], notValues: [c]}]}]}");
	assert_strings(field(p, 0), ATTRIBUTE_SERVICE_ACCOUNT, false, "=shop/a =other/b");
	assert_strings(field(p, 1), ATTRIBUTE_SERVICE_ACCOUNT, true, "=shop/c");
	policy_unref(p);
	p = source("{trustDomains: [cluster.local, far.org], notTrustDomains: ['x*']}");
	assert_strings(field(p, 0), ATTRIBUTE_TRUST_DOMAIN, false, "=example.org =old.org =older.org =far.org");
	assert_strings(field(p, 1), ATTRIBUTE_TRUST_DOMAIN, true, "^x");
	policy_unref(p);
}

static void ranges_and_ports(void **state)
{
	struct policy *p = accepted("{rules: [{from: [{source: {ipBlocks: [10.1.2.3/8, 192.0.2.1, 'fd00::/8']}}],\n"
				    "  to: [{operation: {ports: ['80', '8080'], notPorts: ['9']}}],\n"
				    "  when: [{key: destination.ip, notValues: ['10.0.0.0/24']}]}]}");
	const struct policy_group *g = p->rules[0].groups;
	const struct policy_field *ip = &g[0].clauses[0].fields[0], *port = &g[1].clauses[0].fields[0];
	char text[IP_CIDR_STRLEN];

	(void)state;
	assert_int_equal(p->rules[0].n_groups, 3);
	assert_int_equal(ip->attribute, ATTRIBUTE_SOURCE_IP);
	assert_int_equal(ip->n_ranges, 3);
	assert_int_equal(ip->ranges[0].bits, 104);
	assert_string_equal(ip_cidr_format(&ip->ranges[0].net, ip->ranges[0].bits, text, sizeof(text)), "10.0.0.0/8");
	assert_int_equal(ip->ranges[1].bits, 128);
	assert_int_equal(port->attribute, ATTRIBUTE_DESTINATION_PORT);
	assert_int_equal(port->n_ports, 2);
	assert_int_equal(port->ports[1], 8080);
	assert_true(port[1].negate);
	assert_int_equal(g[2].clauses[0].fields[0].attribute, ATTRIBUTE_DESTINATION_IP);
	assert_true(g[2].clauses[0].fields[0].negate);
	assert_string_equal(g[2].clauses[0].fields[0].path, "rules[0].when[0].notValues");
	policy_unref(p);
}

static void conditions_are_groups_of_one(void **state)
{
	static const struct {
		const char *condition;
		enum policy_attribute attribute;
	} table[] = {
		{"key: source.ip, values: [10.0.0.1]", ATTRIBUTE_SOURCE_IP},
		{"key: source.namespace, values: [a]", ATTRIBUTE_NAMESPACE},
		{"key: source.principal, values: ['*']", ATTRIBUTE_PRINCIPAL},
		{"key: source.serviceAccount, values: [a]", ATTRIBUTE_SERVICE_ACCOUNT},
		{"key: source.trustDomain, values: [a]", ATTRIBUTE_TRUST_DOMAIN},
		{"key: destination.ip, values: [10.0.0.1]", ATTRIBUTE_DESTINATION_IP},
		{"key: destination.port, values: ['80']", ATTRIBUTE_DESTINATION_PORT},
		{"key: remote.ip, values: [10.0.0.1]", ATTRIBUTE_L7},
		{"key: connection.sni, values: [a]", ATTRIBUTE_L7},
		{"key: 'request.headers[x-a]', values: [a]", ATTRIBUTE_L7},
		{"key: 'request.auth.claims[iss]', values: [a]", ATTRIBUTE_L7},
		{"key: request.auth.principal, values: [a]", ATTRIBUTE_L7},
		{"key: request.auth.audiences, values: [a]", ATTRIBUTE_L7},
		{"key: request.auth.presenter, values: [a]", ATTRIBUTE_L7},
		{"key: 'experimental.envoy.filters.network.mysql_proxy[db]', values: [a]", ATTRIBUTE_L7},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char spec[200];
		struct policy *p;

		snprintf(spec, sizeof(spec), "{rules: [{when: [{%s}]}]}", table[i].condition);
		p = accepted(spec);
		assert_int_equal(field(p, 0)->attribute, table[i].attribute);
		assert_int_equal(field(p, 0)->n_strings + field(p, 0)->n_ranges + field(p, 0)->n_ports,
				 table[i].attribute != ATTRIBUTE_L7);
		policy_unref(p);
	}
}

static void the_shape_of_a_policy(void **state)
{
	struct policy *p = accepted(NULL);

	(void)state;
	assert_true(p->action == POLICY_ALLOW && !p->n_rules && p->scope == SCOPE_NAMESPACE && !p->every_namespace);
	policy_unref(p);
	p = accepted("{rules: [{}], selector: {matchLabels: {app: web}}}");
	assert_true(p->n_rules == 1 && !p->rules[0].n_groups && p->scope == SCOPE_WORKLOAD);
	assert_string_equal(p->labels[0].value, "web");
	policy_unref(p);
	p = accepted("{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {ports: ['80']}}]}]}");
	assert_int_equal(p->action, POLICY_CUSTOM);
	policy_unref(p);
	p = accepted("{action: DENY, targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: w}], rules: "
		     "[{}]}");
	assert_true(p->target_ref && p->action == POLICY_DENY);
	policy_unref(p);
	p = accepted(
		"{rules: [{to: [{operation: {paths: ['/', '*', '/a/*', '/{*}/b/', '/{**}/a.js', '{**}', '//']}}]}]}");
	assert_int_equal(p->n_rules, 1);
	policy_unref(p);
	p = accepted("{action: AUDIT, targetRef: {kind: Service, group: '', name: w}}");
	assert_true(p->target_ref && p->action == POLICY_AUDIT);
	policy_unref(p);
}

static void the_root_namespace_and_the_annotations(void **state)
{
	struct check c = {0};
	struct policy *p;
	cJSON *tree =
		tree_of("AuthorizationPolicy", "istio-system",
			", creationTimestamp: '2024-01-01T00:00:00Z', annotations: {istio.io/dry-run: 'true'}", "{}");

	(void)state;
	assert_int_equal(policy_decode(&c, tree, &mesh, &p), 0);
	assert_true(p->scope == SCOPE_MESH && p->every_namespace && p->dry_run);
	assert_string_equal(p->created, "2024-01-01T00:00:00Z");
	policy_unref(p);
	cJSON_Delete(tree);
	tree = tree_of("AuthorizationPolicy", "istio-system", ", annotations: {istio.io/dry-run: 'False'}",
		       "{selector: {matchLabels: {a: b}}}");
	assert_int_equal(policy_decode(&c, tree, &mesh, &p), 0);
	assert_true(p->scope == SCOPE_WORKLOAD && p->every_namespace && !p->dry_run);
	policy_unref(p);
	cJSON_Delete(tree);
}

static void a_dry_run_that_is_unclear(void **state)
{
	static const struct {
		const char *value, *spec, *why;
	} table[] = {
		{"'yes'", "{}", "metadata.annotations[istio.io/dry-run]: must be true or false, not yes"},
		{"''", "{}", "must be true or false"},
		{"'true'", "{action: AUDIT}", "only goes with action ALLOW or DENY"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		_cleanup_free_ char *annotation = NULL;
		struct check c = {0};
		struct policy *p;
		cJSON *tree;

		assert_true(asprintf(&annotation, ", annotations: {istio.io/dry-run: %s}", table[i].value) > 0);
		tree = tree_of("AuthorizationPolicy", "shop", annotation, table[i].spec);
		assert_int_equal(policy_decode(&c, tree, &mesh, &p), -EINVAL);
		assert_non_null(strstr(c.reason, table[i].why));
		cJSON_Delete(tree);
	}
}

/* --- what is refused --- */

#define TEN(x) x x x x x x x x x x

static void what_is_refused(void **state)
{
	static const struct {
		const char *spec, *why;
	} table[] = {
		{"{action: DENY}", "spec.rules: missing: action DENY"},
		{"{action: DENY, rules: []}", "spec.rules: missing: action DENY"},
		{"{action: CUSTOM, provider: {name: x}}", "spec.rules: missing: action CUSTOM"},
		{"{action: CUSTOM, rules: [{}]}", "spec.provider: missing"},
		{"{action: CUSTOM, provider: {}, rules: [{}]}", "spec.provider.name: missing"},
		{"{action: CUSTOM, provider: {name: ''}, rules: [{}]}", "spec.provider.name: must not be empty"},
		{"{action: CUSTOM, provider: {nam: x}, rules: [{}]}",
		 "provider.nam: unknown field, did you mean name?"},
		{"{action: CUSTOM, provider: {name: x}, rules: [{from: [{source: {namespaces: [a]}}]}]}", "CUSTOM"},
		{"{action: CUSTOM, provider: {name: x}, rules: [{from: [{source: {notPrincipals: [a]}}]}]}", "CUSTOM"},
		{"{action: CUSTOM, provider: {name: x}, rules: [{when: [{key: source.principal, values: [a]}]}]}",
		 "CUSTOM"},
		{"{action: CUSTOM, provider: {name: x}, rules: [{when: [{key: 'request.auth.claims[a]', values: "
		 "[a]}]}]}",
		 "CUSTOM"},
		{"{provider: {name: x}}", "spec.provider: only goes with"},
		{"{action: Deny, rules: [{}]}", "not Deny, did you mean DENY?"},
		{"{action: 1}", "spec.action: must be a text"},
		{"{action: null}", "spec.action: has no value"},
		{"{Action: DENY, rules: [{}]}", "spec.Action: unknown field, did you mean action?"},
		{"{rule: [{}]}", "spec.rule: unknown field, did you mean rules?"},
		{"{selectors: {}}", "spec.selectors: unknown field, did you mean selector?"},
		{"{selector: null}", "spec.selector: has no value"},
		{"{selector: {matchLabel: {a: b}}}", "did you mean matchLabels?"},
		{"{selector: {matchExpressions: []}}", "spec.selector.matchExpressions: unknown field"},
		{"{selector: {matchLabels: {a: 1}}}", "spec.selector.matchLabels.a: must be a text"},
		{"{selector: {matchLabels: {a: 'b*'}}}", "wildcards are not supported"},
		{"{selector: {matchLabels: {'': b}}}", "a label without a name"},
		{"{selector: [a]}", "spec.selector: must be a mapping"},
		{"{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, group: '', name: w}]}",
		 "exclude each other"},
		{"{targetRefs: []}", "spec.targetRefs: must be a list, and not an empty one"},
		{"{targetRefs: [{kind: Gateway, name: w}]}", "with its group"},
		{"{targetRefs: [{kind: Service, group: '', name: ''}]}", "name: must not be empty"},
		{"{targetRefs: [{kind: Service, group: '', name: w, namespace: b}]}", "in another namespace"},
		{"{targetRefs: [{kind: Service, group: '', name: w, port: b}]}", "targetRefs[0].port: unknown field"},
		{"{rules: {}}", "spec.rules: must be a list"},
		{"{rules: null}", "spec.rules: has no value"},
		{"{rules: [null]}", "spec.rules[0]: must be a mapping"},
		{"{rules: [{form: []}]}", "spec.rules[0].form: unknown field, did you mean from?"},
		{"{rules: [{from: []}]}", "not an empty one"},
		{"{rules: [{from: null}]}", "spec.rules[0].from: has no value"},
		{"{rules: [{from: [{}]}]}", "source: missing"},
		{"{rules: [{from: [a]}]}", "must be a mapping with source"},
		{"{rules: [{from: [{source: {}}]}]}", "must not be empty"},
		{"{rules: [{from: [{source: null}]}]}", "has no value"},
		{"{rules: [{from: [{sources: {}}]}]}", "did you mean source?"},
		{"{rules: [{from: [{source: {principals: []}}]}]}", "source.principals: must not be empty"},
		{"{rules: [{from: [{source: {principals: ['']}}]}]}", "must not be empty"},
		{"{rules: [{from: [{source: {principals: a}}]}]}", "source.principals: must be a list: a"},
		{"{rules: [{from: [{source: {principals: [1]}}]}]}", "every value must be a text"},
		{"{rules: [{from: [{source: {principal: [a]}}]}]}", "did you mean principals?"},
		{"{rules: [{from: [{source: {notprincipals: [a]}}]}]}", "did you mean notPrincipals?"},
		{"{rules: [{from: [{source: {serviceAccounts: ['*']}}]}]}", "wildcards"},
		{"{rules: [{from: [{source: {serviceAccounts: ['shop/*']}}]}]}", "wildcards"},
		{"{rules: [{from: [{source: {notServiceAccounts: ['a*']}}]}]}", "notServiceAccounts: wildcards"},
		{"{rules: [{when: [{key: source.serviceAccount, values: ['*/a']}]}]}", "values: wildcards"},
		{"{rules: [{when: [{key: source.serviceAccount, notValues: [a/b/c]}]}]}", "must be NAME or NAMESPACE"},
		{"{rules: [{from: [{source: {serviceAccounts: [a/]}}]}]}", "must be NAME or NAMESPACE/NAME"},
		{"{rules: [{from: [{source: {serviceAccounts: [" TEN(TEN("abc")) TEN("ab") "a/b]}}]}]}",
		 "is longer than 320 characters"},
		{"{rules: [{from: [{source: {serviceAccounts: [a/b/c]}}]}]}", "must be NAME or NAMESPACE/NAME"},
		{"{rules: [{from: [{source: {serviceAccounts: [/b]}}]}]}", "must be NAME or NAMESPACE/NAME"},
		{"{rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]}", "exclude each other"},
		{"{rules: [{from: [{source: {notServiceAccounts: [a], namespaces: [b]}}]}]}", "exclude each other"},
		{"{rules: [{from: [{source: {serviceAccounts: [a], notNamespaces: [b]}}]}]}", "exclude each other"},
		{"{rules: [{from: [{source: {notServiceAccounts: [a], notPrincipals: [b]}}]}]}", "exclude each other"},
		{"{rules: [{from: [{source: {serviceAccounts: [a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q]}}]}]}", "at most 16"},
		{"{rules: [{from: [{source: {notServiceAccounts: [a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q]}}]}]}",
		 "notServiceAccounts: too many"},
		{"{rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}", "not an address or a range"},
		{"{rules: [{from: [{source: {ipBlocks: [web]}}]}]}", "not an address or a range"},
		{"{rules: [{from: [{source: {remoteIpBlocks: [web]}}]}]}", "not an address or a range"},
		{"{rules: [{to: [{operation: {ports: [80]}}]}]}", "put it in quotes"},
		{"{rules: [{to: [{operation: {ports: ['http']}}]}]}", "must be a port"},
		{"{rules: [{to: [{operation: {ports: ['65536']}}]}]}", "must be a port"},
		{"{rules: [{to: [{operation: {ports: ['-1']}}]}]}", "must be a port"},
		{"{rules: [{to: [{operation: {method: [GET]}}]}]}", "did you mean methods?"},
		{"{rules: [{to: [{operation: {principals: [a]}}]}]}", "operation.principals: unknown field"},
		{"{rules: [{to: [{operation: {}}]}]}", "must not be empty"},
		{"{rules: [{to: [{operation: {paths: ['/a/{b}']}}]}]}", "paths: braces are for the templates"},
		{"{rules: [{to: [{operation: {paths: ['/a/{*']}}]}]}", "braces are for"},
		{"{rules: [{to: [{operation: {paths: ['/a{*}']}}]}]}", "braces are for"},
		{"{rules: [{to: [{operation: {notPaths: ['/{**}/a/{*}']}}]}]}", "notPaths: no template may follow"},
		{"{rules: [{to: [{operation: {paths: ['/{*}/a*']}}]}]}", "beside a template"},
		{"{rules: [{to: [{operation: {paths: ['/{*}//a']}}]}]}", "beside a template"},
		{"{rules: [{when: []}]}", "not an empty one"},
		{"{rules: [{when: [{key: source.ips, values: [a]}]}]}", "did you mean source.ip?"},
		{"{rules: [{when: [{key: destination.labels, values: [a]}]}]}", "unknown attribute"},
		{"{rules: [{when: [{key: request.headers, values: [a]}]}]}",
		 "must be written as request.headers[NAME]"},
		{"{rules: [{when: [{key: 'request.headers[]', values: [a]}]}]}", "must be written as"},
		{"{rules: [{when: [{key: source.ip}]}]}", "values or notValues must be there"},
		{"{rules: [{when: [{key: source.ip, values: []}]}]}", "must not be empty"},
		{"{rules: [{when: [{key: source.ip, values: [a]}]}]}", "not an address or a range"},
		{"{rules: [{when: [{key: destination.port, values: ['0x50']}]}]}", "must be a port"},
		{"{rules: [{when: [{values: [a]}]}]}", "key: missing"},
		{"{rules: [{when: [{key: source.ip, value: [a]}]}]}", "did you mean values?"},
		{"[]", "spec: must be a mapping"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct check c;
		struct policy *p = policy_of(&c, table[i].spec);

		if (p || !strstr(c.reason, table[i].why))
			fail_msg("%s: expected '%s', got '%s'", table[i].spec, table[i].why, p ? "accepted" : c.reason);
		if (!strstr(c.reason, "(line 4)"))
			fail_msg("%s: no line: %s", table[i].spec, c.reason);
	}
}

static void what_warns(void **state)
{
	static const struct {
		const char *spec, *why; /* "": nothing */
	} table[] = {
		{"{rules: [{from: [{source: {namespaces: [a]}}]}]}", ""},
		{"{action: AUDIT, rules: [{}]}", "AUDIT changes no verdict"},
		{"{comment: x}", "spec.comment: unknown field, ignored"},
		{"{rules: [{to: [{operation: {methods: [GET]}}]}]}", "this rule never matches here"},
		{"{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}", "counts as matched"},
		{"{rules: [{when: [{key: remote.ip, values: [10.0.0.1]}]}]}", "only an HTTP proxy"},
		{"{targetRefs: [{kind: Service, group: '', name: w}], rules: [{to: [{operation: {methods: [GET]}}]}]}",
		 ""},
		{"{rules: [{from: [{source: {notPrincipals: [a]}}]}]}", "plaintext, which has no identity, matches"},
		{"{rules: [{from: [{source: {notPrincipals: [a], namespaces: [b]}}]}]}", ""},
		{"{rules: [{to: [{operation: {notPorts: ['1']}}]}]}",
		 "rules[0].to[0].operation.notPorts: only says what is not allowed: plaintext"},
		{"{rules: [{from: [{source: {notIpBlocks: [10.0.0.0/8]}}], when: [{key: destination.port, notValues: "
		 "['1']}]}]}",
		 "rules[0].from[0].source.notIpBlocks: only says what is not allowed: plaintext"},
		{"{rules: [{}, {when: [{key: source.ip, notValues: [10.0.0.1]}]}]}",
		 "rules[1].when[0].notValues: only"},
		{"{rules: [{from: [{source: {notIpBlocks: [10.0.0.0/8]}}], to: [{operation: {ports: ['1']}}]}]}", ""},
		{"{action: DENY, rules: [{to: [{operation: {notPorts: ['1']}}]}]}", ""},
		{"{rules: [{from: [{source: {notNamespaces: [a]}}], when: [{key: source.principal, values: ['*']}]}]}",
		 ""},
		{"{rules: [{from: [{source: {namespaces: [b]}}, {source: {notNamespaces: [a]}}]}]}", "plaintext"},
		{"{action: DENY, rules: [{from: [{source: {notPrincipals: [a]}}]}]}", ""},
		{"{rules: [{from: [{source: {principals: ['spiffe://a/ns/b/sa/c']}}]}]}", "without spiffe://"},
		{"{rules: [{from: [{source: {principals: ['a*b']}}]}]}", "the first or the last letter"},
		{"{selector: {}}", "has no labels"},
		{"{action: CUSTOM, provider: {name: x}, rules: [{}]}", "cannot be asked at L4"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct check c;
		struct policy *p = policy_of(&c, table[i].spec);

		if (!p || c.warned != (*table[i].why != 0) || !strstr(c.reason, table[i].why))
			fail_msg("%s: expected '%s', got '%s'", table[i].spec, table[i].why, c.reason);
		policy_unref(p);
	}
}

/* What the whole comes to, behind what each field does. */
static void what_it_comes_to(void **state)
{
	static const struct {
		const char *spec, *effect; /* "": nothing */
	} table[] = {
		{"{rules: [{to: [{operation: {methods: [GET]}}]}]}", "spec.rules: none can match"},
		{"{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['1']}}]}]}", ""},
		{"{rules: [{}]}", ""},
		{"{action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}, {to: [{operation: {paths: [/a]}}]}]}",
		 "spec.rules[1]: nothing but"},
		{"{action: DENY, rules: [{from: [{source: {requestPrincipals: [a]}}, {source: {namespaces: [b]}}]}]}",
		 "spec.rules[0]: nothing but"},
		{"{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: ['1']}}]}]}", ""},
		{"{action: DENY, rules: [{from: [{source: {namespaces: [a]}}], to: [{operation: {paths: [/a]}}]}]}",
		 ""},
		{"{action: DENY, rules: [{}]}", ""},
		{"{action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {paths: [/a]}}]}]}", "nothing but"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		cJSON *tree = tree_of("AuthorizationPolicy", "shop", "", table[i].spec);
		struct check c = {.warnings = cJSON_CreateArray()};
		struct policy *p = NULL;
		const char *last;

		assert_int_equal(policy_decode(&c, tree, NULL, &p), 0);
		last = decode_string(cJSON_GetArrayItem(c.warnings, cJSON_GetArraySize(c.warnings) - 1), "reason", "");
		if (!*table[i].effect ? strstr(last, "none can") || strstr(last, "nothing but")
				      : !strstr(last, table[i].effect))
			fail_msg("%s: expected '%s', got '%s'", table[i].spec, table[i].effect, last);
		policy_unref(p);
		cJSON_Delete(c.warnings);
		cJSON_Delete(tree);
	}
}

/* --- a document that never was valid --- */

static void a_refused_policy_closes_its_readable_scope(void **state)
{
	static const struct {
		const char *namespace_, *spec;
		enum policy_scope scope;
		bool target_ref;
	} table[] = {
		{"shop", "{action: DENY}", SCOPE_NAMESPACE, false},
		{"shop", "{action: DENY, selector: {matchLabels: {app: web}}}", SCOPE_WORKLOAD, false},
		{"shop", "{action: DENY, selector: {matchLabels: {app: web}, matchAll: true}}", SCOPE_NAMESPACE, false},
		{"shop", "{action: DENY, selector: {matchLabels: {app: 1}}}", SCOPE_NAMESPACE, false},
		{"shop", "{action: DENY, selector: web}", SCOPE_NAMESPACE, false},
		{"istio-system", "{action: DENY}", SCOPE_MESH, false},
		{"shop", "{action: DENY, targetRefs: [{kind: Service, group: '', name: w}]}", SCOPE_NAMESPACE, true},
		{"shop", "[]", SCOPE_NAMESPACE, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		cJSON *tree = tree_of("AuthorizationPolicy", table[i].namespace_, "", table[i].spec);
		struct policy *p = policy_decode_closed(tree, &mesh);

		assert_true(p->closed && !p->n_rules);
		assert_int_equal(p->scope, table[i].scope);
		assert_int_equal(p->target_ref, table[i].target_ref);
		policy_unref(p);
		cJSON_Delete(tree);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strings_are_exact_prefix_suffix_or_presence),
		cmocka_unit_test(principals_hold_under_every_name_of_the_domain),
		cmocka_unit_test(accounts_are_of_the_policys_namespace),
		cmocka_unit_test(ranges_and_ports),
		cmocka_unit_test(conditions_are_groups_of_one),
		cmocka_unit_test(the_shape_of_a_policy),
		cmocka_unit_test(the_root_namespace_and_the_annotations),
		cmocka_unit_test(a_dry_run_that_is_unclear),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(what_warns),
		cmocka_unit_test(what_it_comes_to),
		cmocka_unit_test(a_refused_policy_closes_its_readable_scope),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
