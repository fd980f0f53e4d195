/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance table (tests/policy, which see for its form): each row as a document, decoded, selected and compiled
 * as in production, and its connection judged by the index, by the cache and by plain comparison. */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/check.h"
#include "agent/engine/source/file.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/model/policy.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* What was asked for: fewer rows would prove less. */
#define ROWS_MIN 200
#define E2E_MIN 60

static struct {
	size_t rows, policy_sets, differing, refused, e2e, wrong;
} count;

static cJSON *cast, *parsed;
static struct policy_cache *cache;

/* --- reading --- */

static void document(void *arg, cJSON *tree, int line)
{
	(void)line;
	assert_null(parsed);
	parsed = tree;
	(void)arg;
}

static void broken(void *arg, const struct yaml_error *error)
{
	fail_msg("%s:%d: %s", (const char *)arg, error->line, error->reason);
}

static cJSON *read_table(const char *name)
{
	static const struct yaml_handlers handlers = {document, broken};
	_cleanup_free_ char *path = NULL, *text = NULL;
	size_t len = 0;

	assert_true(asprintf(&path, "tests/policy/%s", name) > 0);
	if (file_read(AT_FDCWD, path, &text, &len, NULL) < 0)
		fail_msg("%s: cannot be read: run it from the root of the sources", path);
	parsed = NULL;
	assert_int_equal(yaml_parse(text, len, &handlers, path), 0);
	assert_non_null(parsed);
	return take_ptr(parsed);
}

/* A misspelt field would be a check that is not made. */
static void only(const cJSON *o, const char *where, const char *const names[])
{
	struct check c = {0};

	if (!check_only(&c, where, o, names))
		fail_msg("%s", c.reason);
}

static const char *text(const cJSON *o, const char *name)
{
	return decode_string(o, name, NULL);
}

static const cJSON *pod_named(const char *name)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, get(cast, "pods")) {
		if (!strcmp(text(i, "name"), name))
			return i;
	}
	fail_msg("no pod %s in cast.yaml", name);
	return NULL;
}

/* --- documents --- */

static cJSON *new_document(const char *api, const char *kind, const char *namespace_, const char *name)
{
	cJSON *tree = cJSON_CreateObject(), *meta;

	cJSON_AddStringToObject(tree, "apiVersion", api);
	cJSON_AddStringToObject(tree, "kind", kind);
	meta = cJSON_AddObjectToObject(tree, "metadata");
	cJSON_AddStringToObject(meta, "namespace", namespace_);
	cJSON_AddStringToObject(meta, "name", name);
	return tree;
}

static cJSON *pod_document(const cJSON *pod)
{
	cJSON *tree = new_document("v1", "Pod", text(pod, "namespace"), text(pod, "name")), *labels, *spec;

	labels = get(pod, "labels") ? cJSON_Duplicate(get(pod, "labels"), true) : cJSON_CreateObject();
	cJSON_AddStringToObject(labels, "istio.io/dataplane-mode", "ambient");
	cJSON_AddItemToObject(cJSON_GetObjectItem(tree, "metadata"), "labels", labels);
	spec = cJSON_AddObjectToObject(tree, "spec");
	cJSON_AddStringToObject(spec, "nodeName", "n1");
	cJSON_AddStringToObject(spec, "serviceAccountName", text(pod, "account"));
	return tree;
}

static cJSON *policy_document(const cJSON *entry)
{
	const char *const api = decode_string(entry, "api", "security.istio.io/v1");
	const char *const kind = get(entry, "policy") ? "AuthorizationPolicy" : "PeerAuthentication";
	_cleanup_free_ char *key = strdup(text(entry, get(entry, "policy") ? "policy" : "peer"));
	char *name = strchr(key, '/');
	cJSON *tree, *meta;

	*name++ = '\0';
	tree = new_document(api, kind, key, name);
	meta = cJSON_GetObjectItem(tree, "metadata");
	if (text(entry, "created"))
		cJSON_AddStringToObject(meta, "creationTimestamp", text(entry, "created"));
	if (text(entry, "dry_run"))
		cJSON_AddStringToObject(cJSON_AddObjectToObject(meta, "annotations"), "istio.io/dry-run",
					text(entry, "dry_run"));
	if (get(entry, "spec"))
		cJSON_AddItemToObject(tree, "spec", cJSON_Duplicate(get(entry, "spec"), true));
	return tree;
}

static void load(struct store *s, const cJSON *policies)
{
	static const char *const names[] = {"policy", "peer",	 "api",	   "created", "dry_run",
					    "spec",   "refused", "warned", NULL};
	const cJSON *i;

	store_begin(s);
	cJSON_ArrayForEach(i, get(cast, "pods")) {
		store_put(s, "cast.yaml", 1, pod_document(i));
	}
	cJSON_ArrayForEach(i, policies) {
		only(i, "policies", names);
		store_put(s, "table.yaml", 1, policy_document(i));
	}
	store_end(s);
}

static void say(const cJSON *row, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(const cJSON *row, const char *fmt, ...)
{
	char what[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	print_error("error: row \"%s\": %s\n", text(row, "name"), what);
	count.wrong++;
}

/* --- what became of the documents --- */

static const cJSON *find_document(const cJSON *dump, const char *key)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, dump) {
		size_t n = strlen(text(i, "namespace"));

		if (strcmp(text(i, "kind"), "Pod") && !strncmp(key, text(i, "namespace"), n) && key[n] == '/' &&
		    !strcmp(key + n + 1, text(i, "name")))
			return i;
	}
	fail_msg("%s is not in the store", key);
	return NULL;
}

static void compare_documents(const struct store *s, const cJSON *group)
{
	const cJSON *i, *row = cJSON_GetArrayItem(get(group, "rows"), 0);
	cJSON *dump = store_dump(s);

	cJSON_ArrayForEach(i, get(group, "policies")) {
		const char *key = text(i, get(i, "policy") ? "policy" : "peer");
		const char *refused = text(i, "refused"), *warned = text(i, "warned");
		const cJSON *doc = find_document(dump, key);
		const char *state = text(doc, "state"), *reason = decode_string(doc, "reason", "");

		count.refused += refused != NULL;
		if (refused && (strcmp(state, "refused") || !strstr(reason, refused)))
			say(row, "%s: is %s (%s), not refused with \"%s\"", key, state, reason, refused);
		else if (!refused && !strcmp(state, "refused"))
			say(row, "%s: is refused: %s", key, reason);
		if (warned && (strcmp(state, "warned") || !strstr(reason, warned)))
			say(row, "%s: is %s (%s), and does not warn of \"%s\"", key, state, reason, warned);
	}
	cJSON_Delete(dump);
}

/* --- the connection of a row --- */

struct connection {
	struct policy_subject subject;
	char identity[400];
	char uid[200]; /* of the workload */
};

static void parse_address(const cJSON *row, const char *address, struct ip_addr *ret)
{
	if (ip_addr_parse(address, ret))
		fail_msg("row \"%s\": %s is no address", text(row, "name"), address);
}

static void connection_of(const cJSON *row, struct connection *ret)
{
	const cJSON *from = pod_named(text(row, "from")), *to = pod_named(decode_string(row, "to", "shop"));
	const char *field = text(row, "over") ? "ip6" : "ip";
	bool plaintext = get(from, "plaintext") || get(row, "plaintext");

	assert_true(!text(row, "over") || !strcmp(text(row, "over"), "ipv6"));
	snprintf(ret->identity, sizeof(ret->identity), "spiffe://cluster.local/ns/%s/sa/%s", text(from, "namespace"),
		 text(from, "account"));
	if (text(row, "identity"))
		snprintf(ret->identity, sizeof(ret->identity), "%s", text(row, "identity"));
	snprintf(ret->uid, sizeof(ret->uid), "Kubernetes//Pod/%s/%s", text(to, "namespace"), text(to, "name"));
	ret->subject = (struct policy_subject){
		.identity = plaintext ? NULL : ret->identity,
		.destination = {.port = (uint16_t)(get(row, "port") ? get(row, "port")->valuedouble : 8080)},
	};
	parse_address(row, decode_string(row, "ip", text(from, field)), &ret->subject.source);
	parse_address(row, text(to, field), &ret->subject.destination.ip);
}

/* --- verdicts --- */

static const char *reason_name(enum wr_reason reason)
{
	static const char *const names[] = {
#define NAME(id, name, text_) [WR_REASON_##id] = name,
		WR_REASONS(NAME)
#undef NAME
	};

	return reason ? names[reason] : "allow";
}

static bool same(const char *got, const char *want)
{
	return !strcmp(got ? got : "", want ? want : "");
}

static void policy_name(const struct policy *p, char *buf, size_t size)
{
	snprintf(buf, size, "%s%s%s", p ? p->namespace_ : "", p ? "/" : "", p ? p->name : "");
}

static void compare_dry_run(const cJSON *row, const char *field, const struct policy *got, const cJSON *explained)
{
	char name[300];

	policy_name(got, name, sizeof(name));
	if (!same(name, text(row, field)))
		say(row, "%s: %s", field, *name ? name : "none");
	if (!same(text(get(explained, field), "policy"), name))
		say(row, "%s: explained as %s", field, decode_string(get(explained, field), "policy", "none"));
}

static void compare(const cJSON *row, const char *how, const struct policy_verdict *v)
{
	const char *want = text(row, "warren");
	char name[300];

	policy_verdict_name(v, name, sizeof(name));
	if (v->allow != !v->reason || strcmp(reason_name(v->reason), want))
		say(row, "%s: %s by %s, not %s", how, reason_name(v->reason), name, want);
	if (text(row, "by") && (!strchr(name, '/') || strcmp(strchr(name, '/') + 1, text(row, "by"))))
		say(row, "%s: by %s, not by %s", how, name, text(row, "by"));
	if (text(row, "field") && !same(v->field, text(row, "field")))
		say(row, "%s: because of %s, not %s", how, v->field ? v->field : "none", text(row, "field"));
}

static void judge(const cJSON *row, const struct policy_set *set, const struct connection *c)
{
	cJSON *explained = policy_explain(set, &c->subject);
	struct policy_verdict v, cached;

	policy_evaluate(set, &c->subject, &v);
	compare(row, "evaluated", &v);
	for (int i = 0; i < 2; i++) {
		policy_cache_evaluate(cache, set, &c->subject, &cached);
		compare(row, i ? "from the cache" : "into the cache", &cached);
	}
	assert_non_null(explained);
	if (cJSON_IsTrue(get(explained, "allow")) != v.allow ||
	    strcmp(text(explained, "reason"), v.reason ? reason_name(v.reason) : "none"))
		say(row, "explained: %s", text(explained, "reason"));
	compare_dry_run(row, "would_deny", v.would_deny, explained);
	compare_dry_run(row, "would_allow", v.would_allow, explained);
	cJSON_Delete(explained);
}

static bool is_verdict(const char *word)
{
	return !word || !strcmp(word, "allow") || !strcmp(word, "deny") || !strcmp(word, "provider");
}

static bool differs(const cJSON *row, const char *whose)
{
	const char *theirs = text(row, whose), *ours = strcmp(text(row, "warren"), "allow") ? "deny" : "allow";

	assert_true(is_verdict(theirs));
	if (theirs && !strcmp(theirs, ours))
		say(row, "%s is given although it is no other", whose);
	return theirs != NULL;
}

static void judge_row(const cJSON *group, const cJSON *row, struct model *m)
{
	static const char *const names[] = {"name",	  "source",	 "from",      "to",	 "port", "over",
					    "identity",	  "ip",		 "plaintext", "warren",	 "by",	 "field",
					    "would_deny", "would_allow", "sidecar",   "ambient", "e2e",	 NULL};
	struct connection c;
	struct workload *w;

	only(row, decode_string(row, "name", "a row without name"), names);
	if (!text(row, "name") || !text(row, "from") || !text(row, "warren") || !text(group, "source"))
		fail_msg("a row needs name, from, warren and its group's source");
	connection_of(row, &c);
	w = model_workload_by_uid(m, c.uid);
	assert_non_null(w);
	judge(row, w->policy, &c);
	count.rows++;
	count.e2e += get(row, "e2e") != NULL;
	count.differing += (size_t)(differs(row, "sidecar") | differs(row, "ambient"));
}

/* --- a group --- */

static void configure(const cJSON *mesh, struct assemble_config *ret)
{
	static const char *const names[] = {"trust_domain", "aliases",	       "root_namespace",
					    "l7_deny",	    "bad_mesh_policy", NULL};

	only(mesh, "mesh", names);
	*ret = (struct assemble_config){
		.node = "n1",
		.cluster_id = "Kubernetes",
		.network = "",
		.cluster_domain = "cluster.local",
		.trust_domain = decode_string(mesh, "trust_domain", "cluster.local"),
		.policies = {.mesh = {.trust_domain_aliases = text(mesh, "aliases"),
				      .root_namespace = text(mesh, "root_namespace"),
				      .trust_domain_given = text(mesh, "trust_domain") != NULL},
			     .bad_mesh_policy_deny = same(text(mesh, "bad_mesh_policy"), "deny"),
			     .l7_deny = same(text(mesh, "l7_deny"), "ignore") ? L7_DENY_IGNORED : L7_DENY_MATCHES},
	};
}

static void judge_group(const cJSON *group)
{
	static const char *const names[] = {"source", "mesh", "policies", "rows", NULL};
	struct store s = {.quiet = true};
	struct assembly a = {0};
	struct model *m = model_new();
	struct model_delta *d;
	const cJSON *row;

	only(group, "a group", names);
	assert_true(cJSON_GetArraySize(get(group, "rows")) > 0);
	configure(get(group, "mesh"), &a.cfg);
	load(&s, get(group, "policies"));
	compare_documents(&s, group);
	assert_int_equal(assemble(&a, &s, &d), 0);
	assert_int_equal(model_apply(m, d), 0);
	model_delta_free(d);
	cJSON_ArrayForEach(row, get(group, "rows")) {
		judge_row(group, row, m);
	}
	count.policy_sets++;
	model_free(m);
	assemble_done(&a);
	store_done(&s);
}

/* --- themes --- */

static void theme_holds(void **state)
{
	cJSON *tree = read_table(*state);
	const cJSON *group;
	size_t wrong = count.wrong;

	cJSON_ArrayForEach(group, get(tree, "groups")) {
		judge_group(group);
	}
	cJSON_Delete(tree);
	assert_int_equal(count.wrong, wrong);
}

/* After all themes. */
static void nothing_is_missing(void **state)
{
	(void)state;
	print_message(
		"%zu rows of %zu policy sets (%zu documents refused, %zu rows end to end); %zu rows where Istio's "
		"sidecar or ambient mode differs\n",
		count.rows, count.policy_sets, count.refused, count.e2e, count.differing);
	assert_true(count.rows >= ROWS_MIN);
	assert_true(count.e2e >= E2E_MIN);
}

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	cast = read_table("cast.yaml");
	cache = policy_cache_new(256);
	return cache ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	cJSON_Delete(cast);
	policy_cache_free(cache);
	return 0;
}

#define THEME(file)                                                                                                    \
	{                                                                                                              \
		file, theme_holds, NULL, NULL, (void *)(file)                                                          \
	}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		THEME("modes.yaml"),
		THEME("from.yaml"),
		THEME("accounts.yaml"),
		THEME("to.yaml"),
		THEME("when.yaml"),
		THEME("not.yaml"),
		THEME("l7.yaml"),
		THEME("order.yaml"),
		THEME("dry_run.yaml"),
		THEME("scope.yaml"),
		THEME("trust.yaml"),
		THEME("refused.yaml"),
		cmocka_unit_test(nothing_is_missing),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
