/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies by hand: who may talk to whom, in the words of Istio's pages "Authorization Policy", "Authorization Policy
 * Conditions" and "PeerAuthentication". Each row is asked of the compiled set, of the cache and of the explanation.
 */
#include "policy_text.h"

#include <cjson/cJSON.h>
#include <malloc.h>

struct row {
	const char *what;
	const char *policies; /* parted by % */
	const char *peer;     /* without spiffe://; NULL: plaintext */
	enum wr_reason want;
	/* What most rows leave out. */
	const char *source; /* NULL: 10.0.0.1 */
	uint16_t port;	    /* 0: 80 */
	const char *auths;
	const char *named; /* "policy rule field" or "peer-authentication field" that is to be named; NULL: not asked */
	bool established;
	enum l7_deny l7;
};

#define ROW(what_, policies_, peer_, want_, ...)                                                                       \
	{                                                                                                              \
		.what = what_, .policies = policies_, .peer = peer_, .want = want_, __VA_ARGS__                        \
	}

#define NONE WR_REASON_NONE
#define DENIED WR_REASON_POLICY_DENY
#define NO_ALLOW WR_REASON_POLICY_NO_ALLOW
#define INVALID WR_REASON_POLICY_INVALID
#define MTLS WR_REASON_MTLS_REQUIRED
#define SLEEP "cluster.local/ns/default/sa/sleep"

/* Istio: Authorization Policy. */
static const struct row policy_rows[] = {
	ROW("no policy allows", "", SLEEP, NONE),
	ROW("spec {} allows nothing", "nothing ALLOW", SLEEP, NO_ALLOW, .named = "nothing -1 -"),
	ROW("rules [{}] allows all", "all ALLOW: any", SLEEP, NONE, .named = "all 0 -"),
	ROW("rules [{}] allows plaintext too", "all ALLOW: any", NULL, NONE, .named = "all 0 -"),
	ROW("deny all", "deny DENY: any % all ALLOW: any", SLEEP, DENIED, .named = "deny 0 -"),
	ROW("DENY comes before ALLOW", "a ALLOW: ns=default % b DENY: port=80", SLEEP, DENIED, .named = "b 0 port=80"),
	ROW("DENY that does not match, no ALLOW", "b DENY: port=81", SLEEP, NONE),
	ROW("a DENY without rules matches nothing", "b DENY", SLEEP, NONE),
	ROW("CUSTOM denies what it matches", "c CUSTOM: ns=default", SLEEP, DENIED, .named = "c 0 ns=default"),
	ROW("CUSTOM elsewhere", "c CUSTOM: ns=other", SLEEP, NONE),
	ROW("AUDIT decides nothing", "a AUDIT: any", SLEEP, NONE),
	ROW("bound to a waypoint", "a ALLOW waypoint % b DENY waypoint: any", SLEEP, NONE),
	ROW("any of several ALLOW", "a ALLOW: ns=x % b ALLOW: ns=default", SLEEP, NONE, .named = "b 0 -"),
	ROW("the first that matches is named", "b ALLOW: any % a ALLOW: any", SLEEP, NONE, .named = "a 0 -"),
	ROW("from and to and when all match", "a ALLOW: principal=" SLEEP " | ns=dev ; port=80 ; ip=10.0.0.0/8", SLEEP,
	    NONE),
	ROW("the nearest rule is named", "a ALLOW: ns=x + principal=" SLEEP " ; port=81", SLEEP, NO_ALLOW,
	    .named = "a 1 port=81"),
	ROW("sources of from are alternatives", "a ALLOW: ns=x | ns=default", SLEEP, NONE),
	ROW("fields of a source all count", "a ALLOW: ns=default & ip=11.0.0.0/8", SLEEP, NO_ALLOW),
	ROW("values are alternatives", "a ALLOW: port=1,2,80", SLEEP, NONE),
	ROW("a closed policy denies", "c ALLOW closed % all ALLOW: any", SLEEP, INVALID, .named = "c -1 -"),
	ROW("closed comes before DENY", "z DENY closed % a DENY: any", SLEEP, INVALID, .named = "z -1 -"),
	ROW("closed, but a waypoint's", "c ALLOW closed waypoint", SLEEP, NONE),
	ROW("closed, but dry-run", "c ALLOW closed dry", SLEEP, NONE),
	ROW("closed, but let in before", "c DENY closed", SLEEP, NONE, .established = true),
	ROW("let in before, the others count", "c DENY closed % a DENY: any", SLEEP, DENIED, .established = true,
	    .named = "a 0 -"),
};

/* Istio: Authorization Policy, Source and Operation; Authorization Policy Conditions. */
static const struct row field_rows[] = {
	ROW("exact principal", "a ALLOW: principal=" SLEEP, SLEEP, NONE),
	ROW("case counts", "a ALLOW: principal=cluster.local/ns/default/sa/Sleep", SLEEP, NO_ALLOW),
	ROW("longer than the value", "a ALLOW: principal=" SLEEP, SLEEP "y", NO_ALLOW),
	ROW("shorter than the value", "a ALLOW: principal=" SLEEP "y", SLEEP, NO_ALLOW),
	ROW("no spiffe:// in a principal", "a ALLOW: principal=spiffe://" SLEEP, SLEEP, NO_ALLOW),
	ROW("prefix", "a ALLOW: principal=cluster.local/ns/default/*", SLEEP, NONE),
	ROW("another prefix", "a ALLOW: principal=cluster.local/ns/defaults*", SLEEP, NO_ALLOW),
	ROW("suffix", "a ALLOW: principal=*/sa/sleep", SLEEP, NONE),
	ROW("another suffix", "a ALLOW: principal=*/sa/asleep", SLEEP, NO_ALLOW),
	ROW("presence", "a ALLOW: principal=*", SLEEP, NONE),
	ROW("presence needs an identity", "a ALLOW: principal=*", NULL, NO_ALLOW, .named = "a 0 principal=*"),
	ROW("notPrincipals * is plaintext", "d DENY: !principal=*", NULL, DENIED, .named = "d 0 !principal=*"),
	ROW("notPrincipals * and an identity", "d DENY: !principal=*", SLEEP, NONE),
	ROW("plaintext passes every negation",
	    "a ALLOW: !principal=x & !ns=default & !sa=default/sleep & !td=cluster.local", NULL, NONE),
	ROW("plaintext has no namespace", "a ALLOW: ns=*", NULL, NO_ALLOW),
	ROW("namespace", "a ALLOW: ns=default", SLEEP, NONE),
	ROW("namespace is not the trust domain", "a ALLOW: ns=cluster.local", SLEEP, NO_ALLOW),
	ROW("notNamespaces", "d DENY: !ns=default", "cluster.local/ns/dev/sa/x", DENIED),
	ROW("notNamespaces, the same", "d DENY: !ns=default", SLEEP, NONE),
	ROW("none of several negated", "a ALLOW: !ns=x,default", SLEEP, NO_ALLOW, .named = "a 0 !ns=x,default"),
	ROW("service account, any trust domain", "a ALLOW: sa=default/sleep", "td2/ns/default/sa/sleep", NONE),
	ROW("service account of another namespace", "a ALLOW: sa=dev/sleep", SLEEP, NO_ALLOW),
	ROW("not this service account", "a ALLOW: !sa=default/sleep", SLEEP, NO_ALLOW),
	ROW("trust domain", "a ALLOW: td=cluster.local", SLEEP, NONE),
	ROW("another trust domain", "a ALLOW: td=cluster.local", "td2/ns/default/sa/sleep", NO_ALLOW),
	ROW("trust domain by suffix", "a ALLOW: td=*.local", SLEEP, NONE),
	ROW("not this trust domain", "d DENY: !td=cluster.local", "td2/ns/default/sa/sleep", DENIED),
	ROW("an identity of another form is none", "a ALLOW: principal=*", "cluster.local/x", NO_ALLOW),
	ROW("ipBlocks", "a ALLOW: ip=1.2.3.4,5.6.7.0/24", NULL, NONE, .source = "5.6.7.255"),
	ROW("ipBlocks, one beside", "a ALLOW: ip=1.2.3.4,5.6.7.0/24", NULL, NO_ALLOW, .source = "5.6.8.0"),
	ROW("ipBlocks, one address", "a ALLOW: ip=1.2.3.4", NULL, NONE, .source = "1.2.3.4"),
	ROW("ipBlocks, odd length", "a ALLOW: ip=10.0.0.8/29", NULL, NO_ALLOW, .source = "10.0.0.16"),
	ROW("notIpBlocks", "d DENY: !ip=10.0.0.0/8", SLEEP, DENIED, .source = "11.0.0.1"),
	ROW("notIpBlocks, inside", "d DENY: !ip=10.0.0.0/8", SLEEP, NONE, .source = "10.255.0.1"),
	ROW("nested ranges, one refused", "a ALLOW: ip=10.0.0.0/8 & !ip=10.1.0.0/16", NULL, NO_ALLOW,
	    .source = "10.1.2.3"),
	ROW("IPv6 range", "a ALLOW: ip=fd00::/16", NULL, NONE, .source = "fd00::7"),
	ROW("0.0.0.0/0 is IPv4 only", "a ALLOW: ip=0.0.0.0/0", NULL, NO_ALLOW, .source = "fd00::7"),
	ROW("::/0 is IPv6 only", "a ALLOW: ip=::/0", NULL, NO_ALLOW),
	ROW("::/0", "a ALLOW: ip=::/0", NULL, NONE, .source = "fd00::7"),
	ROW("destination.ip", "a ALLOW: dip=10.9.0.0/16", NULL, NONE, .source = "1.1.1.1"),
	ROW("destination.ip, not the source", "a ALLOW: dip=1.1.1.1", NULL, NO_ALLOW, .source = "1.1.1.1"),
	ROW("not this destination.ip", "d DENY: !dip=10.9.0.0/16", NULL, NONE, .source = "1.1.1.1"),
	ROW("notPorts", "d DENY: !port=80", SLEEP, DENIED, .port = 81, .named = "d 0 !port=80"),
	ROW("notPorts, the same", "d DENY: !port=80", SLEEP, NONE),
};

/* Istio: Authorization Policy on TCP traffic; ztunnel's way with --l7-deny=ignore. */
static const struct row l7_rows[] = {
	ROW("L7 in ALLOW never matches", "a ALLOW: ns=default ; l7=GET", SLEEP, NO_ALLOW, .named = "a 0 l7=GET"),
	ROW("L7 in one source of ALLOW spoils the rule", "a ALLOW: l7=x | ns=default", SLEEP, NO_ALLOW),
	ROW("not the rule beside it", "a ALLOW: l7=x + ns=default", SLEEP, NONE, .named = "a 1 -"),
	ROW("negated L7 in ALLOW", "a ALLOW: !l7=x", SLEEP, NO_ALLOW),
	ROW("L7 in DENY counts as matched", "d DENY: ns=default ; l7=GET", SLEEP, DENIED),
	ROW("negated L7 in DENY as well", "d DENY: ns=default ; !l7=GET", SLEEP, DENIED),
	ROW("the L4 rest decides", "d DENY: port=81 & l7=GET", SLEEP, NONE),
	ROW("CUSTOM: the L4 part", "c CUSTOM: l7=/admin & port=80", SLEEP, DENIED),
	ROW("ztunnel's way", "d DENY: ns=default ; l7=GET", SLEEP, NONE, .l7 = L7_DENY_IGNORED),
	ROW("ztunnel's way, the operation beside", "d DENY: ns=default ; l7=GET | port=80", SLEEP, DENIED,
	    .l7 = L7_DENY_IGNORED),
};

/* Rules that share their values: no value tells them apart, and many values. */
#define TEN(x) x x x x x x x x x x
#define TWENTY(x) TEN(x) TEN(x)

static const struct row shared_rows[] = {
	ROW("the one among many", "a ALLOW: " TWENTY("ns=default & !port=80 + ") "ns=default & !port=81", SLEEP, NONE,
	    .named = "a 20 -"),
	ROW("the first among many", "a ALLOW: " TWENTY("ns=default & !port=80 + ") "ns=default & !port=81", SLEEP, NONE,
	    .port = 82, .named = "a 0 -"),
	ROW("none of many", "a ALLOW: " TWENTY("ns=default & !port=80 + ") "ns=x", SLEEP, NO_ALLOW),
	ROW("many wanted, none had", "a ALLOW: " TWENTY("ns=x & !port=81 + ") "ns=x & !port=82", SLEEP, NO_ALLOW),
	ROW("wanted and refused", "a ALLOW: " TWENTY("port=80,81 & !port=81 + ") "ns=x", SLEEP, NONE, .named = "a 0 -"),
	ROW("wanted and refused at once", "a ALLOW: " TWENTY("port=80,81 & !port=81 + ") "ns=x", SLEEP, NO_ALLOW,
	    .port = 81),
	ROW("wanted by many, refused by one", "a ALLOW: " TWENTY("ns=default & !port=81 + ") "!ns=default", SLEEP, NONE,
	    .named = "a 0 -"),
	ROW("alternatives of many", "d DENY: " TWENTY("ns=x | !ns=default ; port=1 | port=80 + ") "any", SLEEP, DENIED,
	    .named = "d 20 -"),
	ROW("many values", "a ALLOW: port=" TWENTY("1,") "80", SLEEP, NONE),
	ROW("many values, another", "a ALLOW: port=" TWENTY("1,") "80", SLEEP, NO_ALLOW, .port = 81),
	ROW("many values refused", "a ALLOW: !ip=" TWENTY("1.1.1.1,") "10.0.0.0/8", SLEEP, NO_ALLOW),
	ROW("many values refused, another", "a ALLOW: !sa=" TWENTY("a/b,") "a/c", SLEEP, NONE),
};

/* Istio: PeerAuthentication. */
static const struct row mtls_rows[] = {
	ROW("STRICT refuses plaintext", "", NULL, MTLS, .auths = "m mesh STRICT -", .named = "m spec.mtls.mode"),
	ROW("STRICT and an identity", "", SLEEP, NONE, .auths = "m mesh STRICT -"),
	ROW("PERMISSIVE", "", NULL, NONE, .auths = "m mesh PERMISSIVE -"),
	ROW("DISABLE is PERMISSIVE", "", SLEEP, NONE, .auths = "n namespace DISABLE - % m mesh STRICT -"),
	ROW("UNSET is PERMISSIVE at last", "", NULL, NONE, .auths = "m mesh UNSET -"),
	ROW("UNSET inherits", "", NULL, MTLS, .auths = "n namespace UNSET - % m mesh STRICT -",
	    .named = "m spec.mtls.mode"),
	ROW("namespace before mesh", "", NULL, NONE, .auths = "m mesh STRICT - % n namespace PERMISSIVE -"),
	ROW("workload before namespace", "", NULL, MTLS, .auths = "w workload STRICT - % n namespace PERMISSIVE -",
	    .named = "w spec.mtls.mode"),
	ROW("port before workload", "", NULL, NONE, .auths = "w workload STRICT - 80=PERMISSIVE"),
	ROW("port by DISABLE", "", NULL, NONE, .auths = "w workload STRICT - 80=DISABLE"),
	ROW("another port", "", NULL, MTLS, .port = 81, .auths = "w workload STRICT - 80=DISABLE",
	    .named = "w spec.mtls.mode"),
	ROW("port STRICT", "", NULL, MTLS, .auths = "w workload UNSET - 80=STRICT 81=DISABLE",
	    .named = "w spec.portLevelMtls"),
	ROW("port UNSET inherits", "", NULL, MTLS, .auths = "w workload STRICT - 80=UNSET",
	    .named = "w spec.mtls.mode"),
	ROW("UNSET workload, its port, a STRICT parent", "", NULL, NONE,
	    .auths = "w workload UNSET - 80=DISABLE % n namespace STRICT -"),
	ROW("the oldest of a level", "", NULL, MTLS,
	    .auths = "a mesh PERMISSIVE 2024-05-01T00:00:00Z % b mesh STRICT 2023-05-01T00:00:00Z",
	    .named = "b spec.mtls.mode"),
	ROW("the oldest by the clock, not by the text", "", NULL, MTLS,
	    .auths = "a mesh PERMISSIVE 2024-05-01T00:30:00Z % b mesh STRICT 2024-05-01T01:00:00+01:00",
	    .named = "b spec.mtls.mode"),
	ROW("without a date: the newest", "", NULL, MTLS,
	    .auths = "a mesh PERMISSIVE - % b mesh STRICT 2023-05-01T00:00:00.5Z", .named = "b spec.mtls.mode"),
	ROW("a tie goes by name", "", NULL, MTLS, .auths = "b mesh PERMISSIVE - % a mesh STRICT -",
	    .named = "a spec.mtls.mode"),
	ROW("the loser's ports do not count", "", NULL, MTLS,
	    .auths = "b workload UNSET - 80=DISABLE % a workload STRICT -", .named = "a spec.mtls.mode"),
	ROW("STRICT before a closed policy", "c DENY closed", NULL, MTLS, .auths = "m mesh STRICT -",
	    .named = "m spec.mtls.mode"),
	ROW("one that never was valid closes", "a ALLOW: any", SLEEP, INVALID,
	    .auths = "x workload closed - % m mesh PERMISSIVE -", .named = "x -"),
	ROW("but what was let in before stays", "a ALLOW: any", SLEEP, NONE, .auths = "x workload closed -",
	    .established = true),
};

struct made {
	struct policy *policies[4];
	struct peer_auth *auths[4];
	size_t n_policies, n_auths;
	struct policy_set *set;
};

static void make(struct made *m, const struct row *r)
{
	_cleanup_free_ char *policies_text = copy(r->policies ? r->policies : ""),
			    *auths = copy(r->auths ? r->auths : "");
	char *rest = policies_text, *one;

	*m = (struct made){0};
	while ((one = cut(&rest, "%")))
		if (*one)
			m->policies[m->n_policies++] = make_policy(one);
	for (rest = auths; (one = cut(&rest, "%"));)
		if (*one)
			m->auths[m->n_auths++] = make_auth(one);
	assert_int_equal(policy_set_new(m->policies, m->n_policies, m->auths, m->n_auths, r->l7, &m->set), 0);
}

static void done(struct made *m)
{
	policy_set_unref(m->set);
	for (size_t i = 0; i < m->n_policies; i++)
		policy_unref(m->policies[i]);
	for (size_t i = 0; i < m->n_auths; i++)
		peer_auth_unref(m->auths[i]);
}

static void subject_of(const struct row *r, struct policy_subject *s, char *identity, size_t size)
{
	*s = (struct policy_subject){.identity = r->peer ? identity : NULL};
	snprintf(identity, size, "spiffe://%s", r->peer);
	assert_int_equal(ip_addr_parse(r->source ? r->source : "10.0.0.1", &s->source), 0);
	assert_int_equal(ip_addr_parse("10.9.8.7", &s->destination.ip), 0);
	s->destination.port = r->port ? r->port : 80;
	s->established = r->established;
}

static void check_names(const struct row *r, const struct policy_verdict *v)
{
	char text[256];

	if (v->peer_auth)
		snprintf(text, sizeof(text), "%s %s", v->peer_auth->name, v->field ? v->field : "-");
	else
		snprintf(text, sizeof(text), "%s %d %s", v->policy ? v->policy->name : "-", v->rule,
			 v->field ? v->field : "-");
	if (r->named && strcmp(text, r->named))
		fail_msg("%s: named \"%s\", not \"%s\"", r->what, text, r->named);
}

static void check_row(const struct row *r, struct policy_cache *cache)
{
	struct policy_verdict v, cached;
	struct policy_subject s;
	char identity[128];
	struct made m;
	cJSON *o;

	make(&m, r);
	subject_of(r, &s, identity, sizeof(identity));
	policy_evaluate(m.set, &s, &v);
	if (v.reason != r->want || v.allow != (r->want == NONE))
		fail_msg("%s: reason %d, not %d", r->what, v.reason, r->want);
	check_names(r, &v);
	for (int i = 0; i < 2; i++) {
		policy_cache_evaluate(cache, m.set, &s, &cached);
		assert_int_equal(cached.reason, v.reason);
		check_names(r, &cached);
	}
	o = policy_explain(m.set, &s);
	if (cJSON_IsTrue(cJSON_GetObjectItem(o, "allow")) != v.allow)
		fail_msg("%s: explained as %s", r->what, cJSON_PrintUnformatted(o));
	cJSON_Delete(o);
	done(&m);
}

static void check_rows(const struct row *rows, size_t n)
{
	struct policy_cache *cache = policy_cache_new(16);

	assert_non_null(cache);
	for (size_t i = 0; i < n; i++)
		check_row(&rows[i], cache);
	policy_cache_free(cache);
}

static void policies(void **state)
{
	(void)state;
	check_rows(policy_rows, ARRAY_SIZE(policy_rows));
}

static void fields(void **state)
{
	(void)state;
	check_rows(field_rows, ARRAY_SIZE(field_rows));
}

static void l7(void **state)
{
	(void)state;
	check_rows(l7_rows, ARRAY_SIZE(l7_rows));
}

static void shared(void **state)
{
	(void)state;
	check_rows(shared_rows, ARRAY_SIZE(shared_rows));
}

static void mtls(void **state)
{
	(void)state;
	check_rows(mtls_rows, ARRAY_SIZE(mtls_rows));
}

/* What a dry-run policy would have changed, and only that. */
static void dry_run(void **state)
{
	static const struct {
		const char *policies;
		enum wr_reason reason;
		const char *would_deny, *would_allow;
	} rows[] = {
		{"d DENY dry: any", NONE, "d", NULL},
		{"d DENY dry: ns=x", NONE, NULL, NULL},
		{"d DENY dry: any % e DENY: any", DENIED, NULL, NULL},
		{"a ALLOW dry: ns=x", NONE, "a", NULL},
		{"a ALLOW dry: ns=default", NONE, NULL, NULL},
		{"a ALLOW dry: ns=x % b ALLOW: any", NONE, NULL, NULL},
		{"a ALLOW dry: ns=default % b ALLOW: ns=x", NO_ALLOW, NULL, "a"},
		{"a ALLOW dry: ns=default % b ALLOW: ns=x % d DENY dry: any", NO_ALLOW, NULL, NULL},
		{"a ALLOW dry: any % d DENY: any", DENIED, NULL, NULL},
		{"c ALLOW dry closed", NONE, "c", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct row r = ROW("dry run", rows[i].policies, SLEEP, rows[i].reason);
		struct policy_verdict v;
		struct policy_subject s;
		char identity[128];
		struct made m;

		make(&m, &r);
		subject_of(&r, &s, identity, sizeof(identity));
		policy_evaluate(m.set, &s, &v);
		assert_int_equal(v.reason, r.want);
		assert_string_equal(v.would_deny ? v.would_deny->name : "",
				    rows[i].would_deny ? rows[i].would_deny : "");
		assert_string_equal(v.would_allow ? v.would_allow->name : "",
				    rows[i].would_allow ? rows[i].would_allow : "");
		done(&m);
	}
}

/* Root namespace, namespace, selector: a policy's selector in the root namespace reaches everywhere, a peer
 * authentication's does not. */
static void scopes(void **state)
{
	static char app[] = "app", web[] = "web", version[] = "version", v1[] = "v1", root[] = "istio-system",
		    ns[] = "foo";
	struct policy_label pod[] = {{version, v1}, {app, web}}, selector[] = {{app, web}};
	struct policy p = {.namespace_ = root, .scope = SCOPE_MESH, .every_namespace = true};
	struct peer_auth a = {.namespace_ = root, .scope = SCOPE_MESH, .labels = selector, .n_labels = 1};

	(void)state;
	assert_true(policy_covers(&p, "bar", NULL, 0));
	assert_true(peer_auth_covers(&a, "bar", NULL, 0));
	p.scope = a.scope = SCOPE_WORKLOAD;
	p.labels = selector;
	p.n_labels = 1;
	assert_true(policy_covers(&p, "bar", pod, 2));
	assert_false(policy_covers(&p, "bar", pod, 1));
	assert_false(peer_auth_covers(&a, "bar", pod, 2));
	assert_true(peer_auth_covers(&a, "istio-system", pod, 2));
	assert_false(peer_auth_covers(&a, "istio-system", pod, 1));
	p = (struct policy){.namespace_ = ns, .scope = SCOPE_NAMESPACE};
	assert_true(policy_covers(&p, "foo", NULL, 0));
	assert_false(policy_covers(&p, "bar", NULL, 0));
	p.scope = SCOPE_WORKLOAD;
	p.labels = selector;
	p.n_labels = 1;
	assert_true(policy_covers(&p, "foo", pod, 2));
	assert_false(policy_covers(&p, "bar", pod, 2));
	selector[0].value = v1;
	assert_false(policy_covers(&p, "foo", pod, 2));
}

static void modes(void **state)
{
	static const struct row r = {
		.auths = "w workload UNSET - 90=DISABLE 80=STRICT 70=STRICT % n namespace DISABLE -"};
	static const struct row open = {.policies = "a ALLOW dry % b AUDIT: any % c DENY waypoint: any"};
	static const struct row strict = {.auths = "m mesh STRICT -"};
	static const struct row closed = {.policies = "a ALLOW closed"};
	static const struct row some = {.policies = "d DENY: ns=x"};
	const struct mtls_port *ports;
	struct made m;
	size_t n;

	(void)state;
	assert_int_equal(policy_set_mode(NULL, 80), MTLS_PERMISSIVE);
	assert_false(policy_set_restricts(NULL));
	make(&m, &r);
	assert_int_equal(policy_set_modes(m.set, &ports, &n), MTLS_PERMISSIVE);
	assert_int_equal(n, 2);
	assert_int_equal(ports[0].port, 70);
	assert_int_equal(ports[1].port, 80);
	assert_int_equal(ports[1].mode, MTLS_STRICT);
	assert_int_equal(policy_set_mode(m.set, 80), MTLS_STRICT);
	assert_int_equal(policy_set_mode(m.set, 90), MTLS_PERMISSIVE);
	assert_true(policy_set_restricts(m.set));
	done(&m);
	make(&m, &open);
	assert_false(policy_set_restricts(m.set));
	done(&m);
	for (size_t i = 0; i < 3; i++) {
		make(&m, i == 0 ? &strict : i == 1 ? &closed : &some);
		assert_true(policy_set_restricts(m.set));
		done(&m);
	}
}

/* The explanation says in which order what was asked, and what the subject had. */
static void explained(void **state)
{
	static const struct row r = ROW("", "a ALLOW: ns=x % d DENY: port=81 % w ALLOW waypoint", SLEEP, NO_ALLOW,
					.auths = "m mesh STRICT -");
	struct policy_subject s;
	char identity[128];
	struct made m;
	cJSON *o;
	char *text;

	(void)state;
	make(&m, &r);
	subject_of(&r, &s, identity, sizeof(identity));
	o = policy_explain(m.set, &s);
	text = cJSON_PrintUnformatted(o);
	assert_string_equal(
		text,
		"{\"steps\":["
		"{\"step\":\"peer_authentication\",\"result\":\"pass\",\"policy\":\"foo/m\",\"value\":\"STRICT\"},"
		"{\"step\":\"target_ref\",\"result\":\"decides nothing here\",\"policy\":\"foo/w\"},"
		"{\"step\":\"deny\",\"result\":\"no match\",\"policy\":\"foo/d\",\"rule\":0,"
		"\"field\":\"port=81\",\"value\":80},"
		"{\"step\":\"allow\",\"result\":\"no match\",\"policy\":\"foo/a\",\"rule\":0,"
		"\"field\":\"ns=x\",\"value\":\"default\"}],"
		"\"allow\":false,\"reason\":\"policy_no_allow\"}");
	cJSON_free(text);
	cJSON_Delete(o);
	o = policy_explain(NULL, &s);
	assert_true(cJSON_IsTrue(cJSON_GetObjectItem(o, "allow")));
	cJSON_Delete(o);
	done(&m);
}

/* A trace keeps hundreds of explanations: one must not grow with the number of policies. */
static void thousands_of_policies_are_summed_up(void **state)
{
	static const struct policy_subject s = {.destination.port = 80};
	struct policy *list[1000];
	struct policy_set *set;
	cJSON *o, *steps;
	char name[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		snprintf(name, sizeof(name), "p%zu", i);
		list[i] = policy_new();
		list[i]->namespace_ = strdup("foo");
		list[i]->name = strdup(name);
	}
	assert_int_equal(policy_set_new(list, ARRAY_SIZE(list), NULL, 0, L7_DENY_MATCHES, &set), 0);
	o = policy_explain(set, &s);
	steps = cJSON_GetObjectItem(o, "steps");
	assert_int_equal(cJSON_GetArraySize(steps), 1 + 16 + 1);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(steps, 17), "result")),
			    "no match in 984 more policies");
	cJSON_Delete(o);
	policy_set_unref(set);
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		policy_unref(list[i]);
}

/* A set that takes another's place is never answered from what the cache knows of the other. */
static void a_new_set_is_new_to_the_cache(void **state)
{
	static const struct row allow = ROW("", "a ALLOW: any", SLEEP, NONE);
	static const struct row deny = ROW("", "a DENY: any", SLEEP, DENIED);
	struct policy_cache *cache = policy_cache_new(8);
	struct policy_verdict v;
	struct policy_subject s;
	char identity[128];
	struct made m;

	(void)state;
	subject_of(&allow, &s, identity, sizeof(identity));
	for (int i = 0; i < 20; i++) {
		make(&m, i % 2 ? &deny : &allow);
		policy_cache_evaluate(cache, m.set, &s, &v);
		assert_int_equal(v.reason, i % 2 ? DENIED : NONE);
		done(&m);
	}
	policy_cache_evaluate(cache, NULL, &s, &v);
	assert_true(v.allow);
	policy_cache_free(cache);
}

/* What differs in one part of the key only is not the same question. */
static void the_cache_tells_questions_apart(void **state)
{
	static const struct row r =
		ROW("", "a ALLOW: principal=" SLEEP " ; ip=10.0.0.0/8 ; port=80 ; dip=10.9.8.7", SLEEP, NONE);
	struct policy_cache *cache = policy_cache_new(64);
	struct policy_subject good, bad[5];
	char identity[128], other[] = "spiffe://cluster.local/ns/default/sa/sleeq";
	struct policy_verdict v;
	struct made m;

	(void)state;
	make(&m, &r);
	subject_of(&r, &good, identity, sizeof(identity));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].identity = other;
	bad[1].identity = NULL;
	bad[2].source.b[12] = 11;
	bad[3].destination.port = 81;
	bad[4].destination.ip.b[15] = 8;
	for (int round = 0; round < 2; round++) {
		policy_cache_evaluate(cache, m.set, &good, &v);
		assert_true(v.allow);
		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			policy_cache_evaluate(cache, m.set, &bad[i], &v);
			assert_false(v.allow);
		}
	}
	done(&m);
	policy_cache_free(cache);
}

/* A connection that is open and one that begins are two questions, in either order. */
static void the_cache_tells_open_from_new(void **state)
{
	static const struct row r = ROW("", "c DENY closed", SLEEP, INVALID);
	struct policy_cache *cache = policy_cache_new(8);
	struct policy_verdict v;
	struct policy_subject s;
	char identity[128];
	struct made m;

	(void)state;
	make(&m, &r);
	subject_of(&r, &s, identity, sizeof(identity));
	for (int i = 0; i < 4; i++) {
		s.established = i % 2;
		policy_cache_evaluate(cache, m.set, &s, &v);
		assert_int_equal(v.allow, s.established);
	}
	done(&m);
	policy_cache_free(cache);
}

/* What is asked again comes from the cache, also for another address that no range tells from the first: seen by the
 * field's path, which each evaluation takes from the policy anew. */
static void the_cache_answers_by_the_class_of_the_source(void **state)
{
	static const struct row r = ROW("", "d DENY: ip=10.0.0.0/8 & !ip=10.1.0.0/16", SLEEP, DENIED);
	struct policy_cache *cache = policy_cache_new(64);
	struct policy_subject s;
	struct policy_verdict v;
	char identity[128], later[] = "later", *path;
	struct policy_field *f;
	struct made m;

	(void)state;
	make(&m, &r);
	f = &m.policies[0]->rules[0].groups[0].clauses[0].fields[0];
	path = f->path;
	subject_of(&r, &s, identity, sizeof(identity));
	policy_cache_evaluate(cache, m.set, &s, &v);
	assert_ptr_equal(v.field, path);
	f->path = later;
	policy_evaluate(m.set, &s, &v);
	assert_ptr_equal(v.field, later);
	for (uint8_t i = 1; i < 200; i++) {
		s.source.b[14] = i;
		policy_cache_evaluate(cache, m.set, &s, &v);
		assert_ptr_equal(v.field, path);
	}
	s.source.b[13] = 1;
	policy_cache_evaluate(cache, m.set, &s, &v);
	assert_true(v.allow);
	f->path = path;
	done(&m);
	policy_cache_free(cache);
}

/* However many ask, it holds what it was made for, and forgets instead of growing or mixing up. */
static void the_cache_is_bounded(void **state)
{
	static const struct row r = ROW("", "a ALLOW: port=80", SLEEP, NONE);
	struct policy_cache *cache = policy_cache_new(8);
	struct policy_subject s;
	struct policy_verdict v;
	char identity[128];
	size_t before;
	struct made m;

	(void)state;
	make(&m, &r);
	subject_of(&r, &s, identity, sizeof(identity));
	before = mallinfo2().uordblks;
	for (int round = 0; round < 2; round++) {
		for (uint32_t port = 0; port < 65536; port++) {
			s.destination.port = (uint16_t)port;
			policy_cache_evaluate(cache, m.set, &s, &v);
			assert_int_equal(v.allow, port == 80);
		}
	}
	assert_true(mallinfo2().uordblks <= before);
	done(&m);
	policy_cache_free(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(policies),
		cmocka_unit_test(fields),
		cmocka_unit_test(l7),
		cmocka_unit_test(shared),
		cmocka_unit_test(mtls),
		cmocka_unit_test(dry_run),
		cmocka_unit_test(scopes),
		cmocka_unit_test(modes),
		cmocka_unit_test(explained),
		cmocka_unit_test(thousands_of_policies_are_summed_up),
		cmocka_unit_test(a_new_set_is_new_to_the_cache),
		cmocka_unit_test(the_cache_tells_questions_apart),
		cmocka_unit_test(the_cache_tells_open_from_new),
		cmocka_unit_test(the_cache_answers_by_the_class_of_the_source),
		cmocka_unit_test(the_cache_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
