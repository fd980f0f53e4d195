/* SPDX-License-Identifier: Apache-2.0 */
/* Which policies are a workload's: selection, what was last good, what never was valid, and that nothing is made anew
 * for a change elsewhere. */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/store.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/model/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define POD(name, ns, labels)                                                                                          \
	"---\napiVersion: v1\nkind: Pod\nmetadata: {name: " name ", namespace: " ns ", labels: {" labels               \
	"}}\nspec: {nodeName: n1}\n"
#define POLICY(name, ns, spec)                                                                                         \
	"---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: " name ", namespace: " ns  \
	"}\nspec: " spec "\n"
#define AUTH(name, ns, created, spec)                                                                                  \
	"---\napiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: " name                 \
	", namespace: " ns created "}\nspec: " spec "\n"
#define DENY_ALL "{action: DENY, rules: [{}]}"
#define ALLOW_A "{rules: [{from: [{source: {namespaces: [a]}}]}]}"
#define BAD "{action: DENY, rules: [{form: []}]}"
#define PODS                                                                                                           \
	POD("web", "shop", "app: web, istio.io/dataplane-mode: ambient")                                               \
	POD("db", "shop", "app: db, istio.io/dataplane-mode: ambient")                                                 \
	POD("other", "bank", "app: web, istio.io/dataplane-mode: ambient")

static struct store store;
static struct assembly assembly;
static struct model *model;
static size_t changed; /* workloads in the last delta */

static void document(void *arg, cJSON *tree, int line)
{
	store_put(arg, "m.yaml", line, tree);
}

static void broken(void *arg, const struct yaml_error *error)
{
	store_put_broken(arg, "m.yaml", error);
}

static void put_together(void)
{
	struct model_delta *d;

	assert_int_equal(assemble(&assembly, &store, &d), 0);
	assert_int_equal(model_apply(model, d), 0);
	changed = d->n_workloads;
	model_delta_free(d);
}

static void load(const char *text)
{
	static const struct yaml_handlers handlers = {document, broken};

	store_begin(&store);
	(void)yaml_parse(text, strlen(text), &handlers, &store);
	store_end(&store);
	put_together();
}

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	store = (struct store){.quiet = true};
	assembly = (struct assembly){.cfg = {.node = "n1",
					     .cluster_id = "Kubernetes",
					     .network = "",
					     .cluster_domain = "cluster.local",
					     .trust_domain = "example.org",
					     .policies = {.mesh = {.trust_domain_given = true}}}};
	model = model_new();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	model_free(model);
	assemble_done(&assembly);
	store_done(&store);
	return 0;
}

static struct policy_set *set_of(const char *pod)
{
	char uid[100];
	struct workload *w;

	snprintf(uid, sizeof(uid), "Kubernetes//Pod/%s", pod);
	w = model_workload_by_uid(model, uid);
	assert_non_null(w);
	return w->policy;
}

static struct policy_verdict ask(const char *pod, const char *identity)
{
	struct policy_subject s = {.identity = identity, .destination = {.port = 80}};
	struct policy_verdict v;

	assert_int_equal(ip_addr_parse("10.0.0.9", &s.source), 0);
	policy_evaluate(set_of(pod), &s, &v);
	return v;
}

static enum wr_reason reason(const char *pod)
{
	return ask(pod, "spiffe://example.org/ns/b/sa/c").reason;
}

static const cJSON *named(const cJSON *list, const char *name)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, list) {
		if (!strcmp(decode_string(i, "name", ""), name))
			return i;
	}
	fail_msg("no policy %s", name);
	return NULL;
}

/* --- selection --- */

static void no_policy_is_no_set(void **state)
{
	(void)state;
	load(PODS);
	assert_null(set_of("shop/web"));
	load(PODS POLICY("p", "elsewhere", DENY_ALL));
	assert_null(set_of("shop/web"));
	load(PODS POLICY("p", "shop", "{targetRefs: [{kind: Service, group: '', name: w}]}"));
	assert_null(set_of("shop/web"));
	load(PODS POLICY("p", "shop", "{action: AUDIT, rules: [{}]}"));
	assert_null(set_of("shop/web"));
}

static void other_nodes_pods_get_none(void **state)
{
	(void)state;
	load("apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {nodeName: n2}\n" POLICY(
		"p", "shop", DENY_ALL));
	assert_null(set_of("shop/web"));
}

static void the_scope_selects(void **state)
{
	(void)state;
	load(PODS POLICY("p", "shop", "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}"));
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_DENY);
	assert_null(set_of("shop/db"));
	assert_null(set_of("bank/other"));
	load(PODS POLICY("p", "shop", DENY_ALL));
	assert_int_equal(reason("shop/db"), WR_REASON_POLICY_DENY);
	assert_null(set_of("bank/other"));
	load(PODS POLICY("p", "istio-system", DENY_ALL));
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_DENY);
	load(PODS POLICY("p", "istio-system", "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}"));
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_DENY);
	assert_null(set_of("shop/db"));
}

static void peer_authentication_by_level_and_age(void **state)
{
	(void)state;
	load(PODS AUTH("mesh", "istio-system", "", "{mtls: {mode: STRICT}}") AUTH(
		"new", "shop", ", creationTimestamp: '2025-01-01T00:00:00Z'", "{mtls: {mode: STRICT}}")
		     AUTH("old", "shop", ", creationTimestamp: '2024-01-01T00:00:00Z'", "{mtls: {mode: PERMISSIVE}}"));
	assert_int_equal(policy_set_mode(set_of("bank/other"), 80), MTLS_STRICT);
	assert_int_equal(policy_set_mode(set_of("shop/web"), 80), MTLS_PERMISSIVE);
}

/* Istio's ambient mode does not use it, nor do we. */
static void a_root_selector_of_a_peer_authentication_is_not_used(void **state)
{
	(void)state;
	load(PODS POD("own", "istio-system", "app: web")
		     AUTH("a", "istio-system", "", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}"));
	assert_null(set_of("shop/web"));
	assert_null(set_of("istio-system/own"));
}

/* --- what stays the same --- */

static void a_change_elsewhere_makes_nothing_anew(void **state)
{
	struct policy_set *web, *db, *other;

	(void)state;
	load(PODS POLICY("p", "shop", ALLOW_A) POLICY("q", "bank", ALLOW_A));
	assert_int_equal(changed, 3);
	web = set_of("shop/web");
	db = set_of("shop/db");
	other = set_of("bank/other");
	assert_ptr_equal(web, db);
	assert_ptr_not_equal(web, other);
	load(PODS POLICY("p", "shop", ALLOW_A) POLICY("q", "bank", DENY_ALL));
	assert_int_equal(changed, 1);
	assert_ptr_equal(set_of("shop/web"), web);
	assert_ptr_not_equal(set_of("bank/other"), other);
	load(POD("new", "shop", "app: new") PODS POLICY("q", "bank", DENY_ALL) POLICY("p", "shop", ALLOW_A));
	assert_int_equal(changed, 1);
	assert_ptr_equal(set_of("shop/new"), web);
	load(PODS POLICY("p", "shop", DENY_ALL) POLICY("q", "bank", DENY_ALL));
	assert_int_equal(changed, 2);
	assert_int_equal(reason("shop/db"), WR_REASON_POLICY_DENY);
	load(PODS);
	assert_int_equal(changed, 3);
	assert_null(set_of("shop/web"));
}

static void a_label_moves_a_pod_between_sets(void **state)
{
	(void)state;
	load(PODS POLICY("p", "shop", "{selector: {matchLabels: {role: db}}, action: DENY, rules: [{}]}"));
	assert_null(set_of("shop/db"));
	load(POD("db", "shop", "role: db")
		     POLICY("p", "shop", "{selector: {matchLabels: {role: db}}, action: DENY, rules: [{}]}"));
	assert_int_equal(reason("shop/db"), WR_REASON_POLICY_DENY);
}

/* --- refused --- */

static void a_refused_update_leaves_the_last_good(void **state)
{
	struct policy_set *before;

	(void)state;
	load(PODS POLICY("p", "shop", ALLOW_A));
	before = set_of("shop/web");
	load(PODS POLICY("p", "shop", BAD));
	assert_ptr_equal(set_of("shop/web"), before);
	load(PODS "---\na: [\n");
	assert_ptr_equal(set_of("shop/web"), before);
	load(PODS);
	assert_null(set_of("shop/web"));
	load(PODS AUTH("a", "shop", "", "{mtls: {mode: STRICT}}"));
	load(PODS AUTH("a", "shop", "", "{mtls: {mode: PERMISIVE}}"));
	assert_int_equal(policy_set_mode(set_of("shop/web"), 80), MTLS_STRICT);
	assert_int_equal(reason("shop/web"), WR_REASON_NONE);
}

static void what_was_last_good_survives_a_restart(void **state)
{
	char path[] = "/tmp/wr-test-policies-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	close(fd);
	load(PODS POLICY("p", "shop", ALLOW_A) POLICY("q", "bank", BAD));
	load(PODS POLICY("p", "shop", BAD) POLICY("q", "bank", BAD));
	assert_int_equal(store_save(&store, path, "dir:/a"), 0);
	tear_down(state);
	set_up(state);
	assert_int_equal(store_load(&store, path, "dir:/a"), 0);
	unlink(path);
	put_together();
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_NO_ALLOW);
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_INVALID);
	load(PODS POLICY("p", "shop", BAD) POLICY("q", "bank", BAD));
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_NO_ALLOW);
}

static void what_never_was_valid_closes_its_scope(void **state)
{
	(void)state;
	load(PODS POLICY("p", "shop", "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{form: []}]}"));
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_INVALID);
	assert_null(set_of("shop/db"));
	load(PODS POLICY("p", "shop", "{selector: {matchLabel: {app: web}}, action: DENY, rules: [{}]}"));
	assert_int_equal(reason("shop/db"), WR_REASON_POLICY_INVALID);
	assert_null(set_of("bank/other"));
	load(PODS POLICY("p", "shop", DENY_ALL));
	assert_int_equal(reason("shop/db"), WR_REASON_POLICY_DENY);
	load(PODS AUTH("p", "shop", "", "{mtls: {mode: strict}}"));
	assert_int_equal(reason("shop/db"), WR_REASON_POLICY_INVALID);
	load(PODS "---\napiVersion: security.istio.io/v2\nkind: AuthorizationPolicy\nmetadata: {name: n, namespace: "
		  "bank}\n");
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_INVALID);
	load(PODS "---\nkind: PeerAuthentication\nmetadata: {name: n, namespace: bank}\nspec: {}\n");
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_INVALID);
	load(PODS POLICY("p", "shop", "{targetRefs: [{kind: Service, group: '', name: w}], rules: [{form: []}]}"));
	assert_null(set_of("shop/web"));
}

static enum resource_state judged(const char *text)
{
	load(text);
	return ((struct resource *)table_get_str(&store.resources, "AuthorizationPolicy/shop/p"))->state;
}

#define DOCUMENT "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop"

static void a_misspelt_document_is_refused(void **state)
{
	(void)state;
	assert_int_equal(judged(DOCUMENT ", creationTimestamp: null}\nspec: {}\nstatus: {}\n"), RESOURCE_APPLIED);
	assert_int_equal(judged(DOCUMENT "}\nsepc: {}\n"), RESOURCE_REFUSED);
	assert_int_equal(judged(DOCUMENT "}\nremark: x\n"), RESOURCE_WARNED);
	assert_int_equal(judged(DOCUMENT "}\naction: DENY\nrules: [{}]\n"), RESOURCE_REFUSED);
	assert_int_equal(judged(DOCUMENT ", anotations: {a: b}}\n"), RESOURCE_REFUSED);
	load("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: [a, null]\n---\n"
	     "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: [a, null]\nstatus: [a]\n");
	assert_int_equal(
		((struct resource *)table_get_str(&store.resources, "AuthorizationPolicy/default/m.yaml:1"))->state,
		RESOURCE_REFUSED);
	load("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {}\n");
	assert_string_equal(
		((struct resource *)table_get_str(&store.resources, "AuthorizationPolicy/default/p"))->reason,
		"metadata.namespace: missing: it is for namespace default");
	load("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespce: shop}\n");
	assert_int_equal(((struct resource *)table_get_str(&store.resources, "AuthorizationPolicy/default/p"))->state,
			 RESOURCE_REFUSED);
}

static void a_policy_for_no_pod_says_so(void **state)
{
	cJSON *list;

	(void)state;
	load(PODS POLICY("nowhere", "shp", ALLOW_A) POLICY("here", "bank", ALLOW_A));
	list = assemble_policy_dump(&assembly, &store);
	assert_non_null(strstr(decode_string(named(list, "nowhere"), "reason", ""), "no pod of the mesh"));
	assert_null(get(named(list, "here"), "reason"));
	cJSON_Delete(list);
}

static void a_bad_policy_of_the_mesh_spares_who_has_none(void **state)
{
	cJSON *alarms = cJSON_CreateArray(), *list;
	const cJSON *pod;

	(void)state;
	load(PODS POLICY("p", "istio-system", BAD) POLICY("q", "bank", ALLOW_A));
	assert_null(set_of("shop/web"));
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_INVALID);
	list = assemble_policy_dump(&assembly, &store);
	cJSON_ArrayForEach(pod, get(named(list, "p"), "pods")) {
		assert_int_equal(get(pod, "not_enforced") == NULL, !strcmp(decode_string(pod, "name", ""), "other"));
	}
	cJSON_Delete(list);
	assemble_policy_alarms(&assembly, &store, alarms);
	assert_int_equal(cJSON_GetArraySize(alarms), 1);
	assert_non_null(strstr(alarms->child->valuestring, "AuthorizationPolicy/istio-system/p never was valid"));
	cJSON_Delete(alarms);
	load(PODS AUTH("p", "istio-system", "", "{mtls: {mode: strict}}") POLICY("q", "bank", ALLOW_A));
	assert_null(set_of("shop/web"));
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_INVALID);
	/* One with a selector is not for the whole mesh: who is selected is all that it closes. Unless that is
	 * unreadable. */
	load(PODS POLICY("p", "istio-system", "{selector: {matchLabels: {app: web}}, action: DENY}"));
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_INVALID);
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_INVALID);
	assert_null(set_of("shop/db"));
	load(PODS POLICY("p", "istio-system", "{selector: {matchLabel: {app: web}}, action: DENY, rules: [{}]}")
		     POLICY("q", "bank", ALLOW_A));
	assert_null(set_of("shop/web"));
	assert_int_equal(reason("bank/other"), WR_REASON_POLICY_INVALID);
	assembly.cfg.policies.bad_mesh_policy_deny = true;
	load(PODS POLICY("p", "istio-system", BAD));
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_INVALID);
}

static void a_file_that_cannot_be_parsed_alarms(void **state)
{
	cJSON *alarms = cJSON_CreateArray();

	(void)state;
	load(PODS "---\na: [\n");
	assemble_policy_alarms(&assembly, &store, alarms);
	assert_int_equal(cJSON_GetArraySize(alarms), 1);
	assert_non_null(strstr(alarms->child->valuestring, "m.yaml"));
	cJSON_Delete(alarms);
}

/* --- the mesh's own settings --- */

#define MESH(text)                                                                                                     \
	"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: '" text  \
	"'}\n"
#define ALLOW_OLD "{rules: [{from: [{source: {principals: [example.org/ns/b/sa/c]}}]}]}"

static bool allowed(const char *domain)
{
	char identity[100];

	snprintf(identity, sizeof(identity), "spiffe://%s/ns/b/sa/c", domain);
	return ask("shop/web", identity).allow;
}

static void the_config_map_counts(void **state)
{
	char *domain = NULL;

	(void)state;
	load(PODS POLICY("p", "shop", ALLOW_OLD));
	assert_true(allowed("example.org") && !allowed("old.org"));
	/* Two settings on one line are none. */
	load(PODS POLICY("p", "shop", ALLOW_OLD) MESH("trustDomain: t.org trustDomainAliases: [old.org]"));
	assert_false(allowed("old.org"));
	load(PODS POLICY(
		"p", "shop",
		ALLOW_OLD) "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
			   "data:\n  mesh: |\n    trustDomain: t.org\n    trustDomainAliases: [old.org]\n    "
			   "rootNamespace: bank\n");
	assert_true(allowed("example.org") && allowed("old.org") && !allowed("t.org"));
	assert_int_equal(mesh_settings_domain(&(struct mesh_options){0}, &store, &domain), 0);
	assert_string_equal(domain, "t.org");
	free(domain);
	/* A map that is not in order leaves the last one in force. */
	load(PODS POLICY("p", "shop", ALLOW_OLD) MESH("trustDomainAliases: old.org"));
	assert_true(allowed("old.org"));
	load(PODS POLICY("p", "bank", DENY_ALL) MESH("trustDomainAliases: old.org"));
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_DENY);
}

static void options_win_over_the_config_map(void **state)
{
	(void)state;
	assembly.cfg.policies.mesh.trust_domain_aliases = "a.org,b.org";
	assembly.cfg.policies.mesh.root_namespace = "istio-system";
	load(PODS POLICY("p", "shop", ALLOW_OLD) MESH("{trustDomainAliases: [old.org], rootNamespace: bank}"));
	assert_true(allowed("example.org") && allowed("a.org") && allowed("b.org") && !allowed("old.org"));
	load(PODS POLICY("p", "bank", DENY_ALL) MESH("{trustDomainAliases: [old.org], rootNamespace: bank}"));
	assert_null(set_of("shop/web"));
}

static void l7_deny_as_the_option_says(void **state)
{
	static const char text[] =
		PODS POLICY("p", "shop", "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}");

	(void)state;
	load(text);
	assert_int_equal(reason("shop/web"), WR_REASON_POLICY_DENY);
	tear_down(state);
	set_up(state);
	assembly.cfg.policies.l7_deny = L7_DENY_IGNORED;
	load(text);
	assert_true(ask("shop/web", NULL).allow);
}

/* --- what people see --- */

static void assert_state(const cJSON *list, const char *name, const char *want, int pods)
{
	assert_string_equal(decode_string(named(list, name), "state", ""), want);
	assert_int_equal(cJSON_GetArraySize(get(named(list, name), "pods")), pods);
}

#define CUSTOM                                                                                                         \
	POLICY("ask", "shop",                                                                                          \
	       "{selector: {matchLabels: {app: db}}, action: CUSTOM, provider: {name: opa}, rules: [{}]}")

static void the_listing(void **state)
{
	cJSON *list;
	const cJSON *pod;

	(void)state;
	load(PODS POD("bare", "shop", "app: bare") CUSTOM POLICY("allow", "shop", ALLOW_A) POLICY(
		"bad", "bank", BAD) POLICY("way", "shop", "{targetRefs: [{kind: Service, group: '', name: w}]}")
		     POLICY("audit", "shop", "{action: AUDIT, rules: [{}]}") AUTH(
			     "old", "shop", ", creationTimestamp: '2024-01-01T00:00:00Z'",
			     "{}") AUTH("new", "shop", "", "{mtls: {mode: DISABLE}}")
			     AUTH("root", "istio-system", "",
				  "{selector: {matchLabels: {a: b}}}") "---\napiVersion: security.istio.io/v1\nkind: "
								       "AuthorizationPolicy\n"
								       "metadata: {name: dry, namespace: shop, "
								       "annotations: {istio.io/dry-run: "
								       "'true'}}\nspec: {}\n");
	list = assemble_policy_dump(&assembly, &store);
	assert_int_equal(cJSON_GetArraySize(list), 9);
	assert_state(list, "allow", "enforced here", 3);
	assert_state(list, "bad", "refused", 1);
	assert_true(cJSON_IsTrue(get(named(list, "bad"), "closed")));
	assert_non_null(strstr(decode_string(named(list, "bad"), "reason", ""), "did you mean from?"));
	assert_state(list, "ask", "enforced here", 1);
	assert_non_null(strstr(decode_string(get(named(list, "ask"), "warnings")->child, "reason", ""),
			       "what the rules match is denied here"));
	assert_state(list, "way", "waits for a waypoint", 0);
	assert_state(list, "audit", "not used here", 3);
	assert_non_null(strstr(decode_string(named(list, "audit"), "reason", ""), "AUDIT"));
	assert_state(list, "dry", "dry-run", 3);
	assert_state(list, "root", "not used here", 0);
	assert_non_null(strstr(decode_string(named(list, "root"), "reason", ""), "root namespace"));
	assert_state(list, "new", "enforced here", 3);
	assert_int_equal(cJSON_GetArraySize(get(named(list, "new"), "warnings")), 1);
	cJSON_ArrayForEach(pod, get(named(list, "new"), "pods")) {
		assert_string_equal(decode_string(pod, "loses_to", ""), "shop/old");
		assert_null(get(pod, "wins_over"));
		assert_int_equal(get(pod, "not_enforced") != NULL, !strcmp(decode_string(pod, "name", ""), "bare"));
	}
	cJSON_ArrayForEach(pod, get(named(list, "old"), "pods")) {
		assert_null(get(pod, "loses_to"));
		assert_int_equal(cJSON_GetArraySize(get(pod, "wins_over")), 1);
		assert_string_equal(get(pod, "wins_over")->child->valuestring, "shop/new");
	}
	cJSON_Delete(list);
}

/* Of one level only, and for the pods that both are for. */
static void who_counts_before_whom(void **state)
{
	static const struct {
		const char *name, *pod, *loses_to;
		int wins_over;
	} table[] = {{"a", "web", NULL, 2}, {"b", "web", "shop/a", 0}, {"c", "web", "shop/a", 0},
		     {"b", "db", NULL, 0},  {"level", "web", NULL, 0}, {"mesh", "db", NULL, 0}};
	cJSON *list;
	const cJSON *pod;

	(void)state;
	load(POD("web", "shop", "app: web, all: x, istio.io/dataplane-mode: ambient")
		     POD("db", "shop", "all: x, istio.io/dataplane-mode: ambient")
			     AUTH("b", "shop", ", creationTimestamp: '2024-01-01T00:00:00Z'",
				  "{selector: {matchLabels: {all: x}}, mtls: {mode: STRICT}}")
				     AUTH("a", "shop", ", creationTimestamp: '2024-01-01T00:00:00Z'",
					  "{selector: {matchLabels: {app: web}}}")
					     AUTH("c", "shop", "", "{selector: {matchLabels: {app: web}}}")
						     AUTH("level", "shop", "", "{}")
							     AUTH("mesh", "istio-system", "", "{}"));
	list = assemble_policy_dump(&assembly, &store);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		pod = named(get(named(list, table[i].name), "pods"), table[i].pod);
		assert_string_equal(decode_string(pod, "loses_to", ""), table[i].loses_to ? table[i].loses_to : "");
		assert_int_equal(cJSON_GetArraySize(get(pod, "wins_over")), table[i].wins_over);
	}
	cJSON_Delete(list);
}

static void what_is_not_tcp_is_said(void **state)
{
	cJSON *list;
	const cJSON *gaps;

	(void)state;
	load(PODS POLICY("p", "shop",
			 ALLOW_A) "---\napiVersion: v1\nkind: Pod\nmetadata: {name: dns, namespace: shop, "
				  "labels: {istio.io/dataplane-mode: ambient}}\nspec:\n  nodeName: n1\n  "
				  "containers:\n  - {name: a, ports: [{containerPort: 53, protocol: UDP}, "
				  "{containerPort: 53, protocol: TCP}, {containerPort: 80}]}\n  - {name: b, "
				  "ports: [{containerPort: 99, protocol: SCTP}]}\n");
	list = assemble_policy_dump(&assembly, &store);
	gaps = get(named(get(named(list, "p"), "pods"), "dns"), "not_enforced_for");
	assert_int_equal(cJSON_GetArraySize(gaps), 2);
	assert_string_equal(cJSON_GetArrayItem(gaps, 0)->valuestring, "port 53: UDP is not TCP");
	assert_string_equal(cJSON_GetArrayItem(gaps, 1)->valuestring, "port 99: SCTP is not TCP");
	assert_int_equal(cJSON_GetArraySize(get(named(get(named(list, "p"), "pods"), "web"), "not_enforced_for")), 0);
	cJSON_Delete(list);
}

static void a_pod_with_hostnetwork_is_said(void **state)
{
	cJSON *list;

	(void)state;
	load("apiVersion: v1\nkind: Pod\nmetadata: {name: node, namespace: shop, labels: {istio.io/dataplane-mode: "
	     "ambient}}\nspec: {nodeName: n1, hostNetwork: true}\n" POLICY("p", "shop", ALLOW_A));
	list = assemble_policy_dump(&assembly, &store);
	assert_non_null(
		strstr(decode_string(named(get(named(list, "p"), "pods"), "node"), "not_enforced", ""), "hostNetwork"));
	cJSON_Delete(list);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_policy_is_no_set),
		TEST(other_nodes_pods_get_none),
		TEST(the_scope_selects),
		TEST(peer_authentication_by_level_and_age),
		TEST(a_root_selector_of_a_peer_authentication_is_not_used),
		TEST(a_change_elsewhere_makes_nothing_anew),
		TEST(a_label_moves_a_pod_between_sets),
		TEST(a_refused_update_leaves_the_last_good),
		TEST(what_was_last_good_survives_a_restart),
		TEST(what_never_was_valid_closes_its_scope),
		TEST(a_misspelt_document_is_refused),
		TEST(a_policy_for_no_pod_says_so),
		TEST(a_bad_policy_of_the_mesh_spares_who_has_none),
		TEST(a_file_that_cannot_be_parsed_alarms),
		TEST(the_config_map_counts),
		TEST(options_win_over_the_config_map),
		TEST(l7_deny_as_the_option_says),
		TEST(the_listing),
		TEST(who_counts_before_whom),
		TEST(what_is_not_tcp_is_said),
		TEST(a_pod_with_hostnetwork_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
