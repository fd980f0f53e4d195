/* SPDX-License-Identifier: Apache-2.0 */
/* What cannot be read and may be a policy: it closes what a bad policy of the mesh closes, unless it was read well
 * before; what names no policy closes nothing. */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/store.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/source/lint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define POD(name, ns)                                                                                                  \
	"apiVersion: v1\nkind: Pod\nmetadata: {name: " name ", namespace: " ns                                         \
	", labels: {istio.io/dataplane-mode: ambient}}\nspec: {nodeName: n1}\n---\n"
#define PODS POD("bare", "open") POD("web", "shop") POD("db", "bank")
#define POLICY(name, ns, spec)                                                                                         \
	"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: " name ", namespace: " ns       \
	"}\nspec: " spec "\n---\n"
#define ALLOW_ALL "{rules: [{}]}"
#define DENY_ALL "{action: DENY, rules: [{}]}"
#define BROKEN "{rules: [\n---\n"

/* A file of the folder; NULL ends them. `error`: it cannot be read. */
struct file {
	const char *name, *text;
	int error;
};

static struct store store;
static struct assembly assembly;

static void document(void *arg, cJSON *tree, int line)
{
	store_put(&store, arg, line, tree);
}

static void broken(void *arg, const struct yaml_error *error)
{
	store_put_broken(&store, arg, error);
}

static void load(const struct file *files)
{
	static const struct yaml_handlers handlers = {document, broken};
	struct model_delta *d;

	store_begin(&store);
	for (; files->name; files++)
		if (files->error)
			store_keep_file(&store, files->name, files->error);
		else
			(void)yaml_parse(files->text, strlen(files->text), &handlers, (void *)(uintptr_t)files->name);
	store_end(&store);
	assert_int_equal(assemble(&assembly, &store, &d), 0);
	model_delta_free(d);
}

#define LOAD(...) load((const struct file[]){{"pods.yaml", PODS, 0}, __VA_ARGS__, {NULL, NULL, 0}})

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	store = (struct store){.quiet = true};
	assembly = (struct assembly){.cfg = {.node = "n1",
					     .cluster_id = "Kubernetes",
					     .network = "",
					     .cluster_domain = "cluster.local",
					     .trust_domain = "cluster.local"}};
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	assemble_done(&assembly);
	store_done(&store);
	return 0;
}

/* NULL: the pod has no policy, and is open. */
static const struct policy_set *set_of(const char *pod)
{
	struct table_iter it = {0};
	const struct resource *r;
	static struct policy_set *set;

	policy_set_unref(set);
	set = NULL;
	while ((r = table_next(&store.resources, &it)))
		if (r->kind == KIND_POD && !strcmp(r->name, pod))
			assert_int_equal(
				policies_set_of(&assembly.policies, r->namespace_, decode_labels(r->tree), &set), 0);
	return set;
}

enum outcome { OPEN, ALLOWED, DENIED, CLOSED };

static enum outcome outcome(const char *pod)
{
	const struct policy_set *set = set_of(pod);
	struct policy_subject s = {.identity = "spiffe://cluster.local/ns/a/sa/b", .destination = {.port = 80}};
	struct policy_verdict v;

	if (!set)
		return OPEN;
	policy_evaluate(set, &s, &v);
	return v.allow ? ALLOWED : v.reason == WR_REASON_POLICY_INVALID ? CLOSED : DENIED;
}

static bool alarmed(const char *text)
{
	cJSON *alarms = cJSON_CreateArray(), *i;
	bool found = false;

	assemble_policy_alarms(&assembly, &store, alarms);
	cJSON_ArrayForEach(i, alarms) {
		found |= strstr(i->valuestring, text) != NULL;
	}
	cJSON_Delete(alarms);
	return found;
}

static const struct file good = {"a.yaml", POLICY("p", "shop", ALLOW_ALL), 0};

static void what_names_a_policy_closes(void **state)
{
	static const struct file bad[] = {
		{"b.yaml", "kind: AuthorizationPolicy\nspec: [\n", 0},
		{"b.yaml", "# a comment\n---\nkind: PeerAuthentication\n\tspec: x\n", 0},
		{"b.json", "{\"apiVersion\": \"security.istio.io/v1\", \"kind\": ", 0},
		{"b.yaml", "KIND: authorizationpolicy\nspec: [\n", 0},
		{"b.yaml", NULL, -EFBIG},
		{"b.yaml", NULL, -EACCES},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		LOAD(good);
		assert_int_equal(outcome("web"), ALLOWED);
		LOAD(good, bad[i]);
		assert_int_equal(outcome("web"), CLOSED);
		/* As with any bad policy of the mesh. */
		assert_int_equal(outcome("bare"), OPEN);
		assert_true(alarmed(bad[i].name) && alarmed("never was read well"));
		LOAD(good, bad[i]);
		assert_int_equal(outcome("web"), CLOSED);
		LOAD(good);
		assert_int_equal(outcome("web"), ALLOWED);
		assert_false(alarmed(bad[i].name));
	}
	assembly.cfg.policies.bad_mesh_policy_deny = true;
	LOAD(bad[0]);
	assert_int_equal(outcome("bare"), CLOSED);
}

/* Both bytes of each character, the second of which is 0. */
static void it_is_found_in_utf_16_too(void **state)
{
	static const char text[] = "kind: AuthorizationPolicy\nspec: [\n";
	static char wide[2 * sizeof(text) + 2] = "\xff\xfe";
	static const struct yaml_handlers handlers = {document, broken};
	struct model_delta *d;

	(void)state;
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		wide[2 + 2 * i] = text[i];
	LOAD(good);
	store_begin(&store);
	(void)yaml_parse(PODS, strlen(PODS), &handlers, (void *)(uintptr_t) "pods.yaml");
	(void)yaml_parse(good.text, strlen(good.text), &handlers, (void *)(uintptr_t)good.name);
	(void)yaml_parse(wide, 2 * sizeof(text), &handlers, (void *)(uintptr_t) "b.yaml");
	store_end(&store);
	assert_int_equal(assemble(&assembly, &store, &d), 0);
	model_delta_free(d);
	assert_int_equal(outcome("web"), CLOSED);
}

static void what_names_none_closes_nothing(void **state)
{
	static const struct file bad[] = {
		{"b.yaml", "kind: Pod\nspec: [\n", 0},
		{"b.yaml", "\xff\xfe\xff", 0},
		{"b.yaml", NULL, -EISDIR},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		LOAD(good, bad[i]);
		assert_int_equal(outcome("web"), ALLOWED);
		assert_true(alarmed("b.yaml"));
	}
}

/* The other documents of the file are in force; what one names does not count against another. */
static void only_the_broken_document_counts(void **state)
{
	(void)state;
	LOAD({"a.yaml", POLICY("p", "shop", DENY_ALL) "kind: Pod\nspec: " BROKEN POLICY("q", "bank", ALLOW_ALL), 0});
	assert_int_equal(outcome("web"), DENIED);
	assert_int_equal(outcome("db"), ALLOWED);
	LOAD({"a.yaml", POLICY("p", "shop", DENY_ALL) POLICY("r", "bank", BROKEN) POLICY("q", "bank", ALLOW_ALL), 0});
	assert_int_equal(outcome("web"), CLOSED);
	assert_int_equal(outcome("db"), CLOSED);
	assert_true(alarmed("a.yaml:10: "));
}

static void what_was_read_well_stays_in_force(void **state)
{
	(void)state;
	LOAD(good, {"b.yaml", POLICY("q", "bank", DENY_ALL), 0});
	LOAD(good, {"b.yaml", POLICY("q", "bank", BROKEN), 0});
	assert_int_equal(outcome("web"), ALLOWED);
	assert_int_equal(outcome("db"), DENIED);
	assert_true(alarmed("b.yaml"));
	/* One more than it held: that one never was read. */
	LOAD(good, {"b.yaml", POLICY("q", "bank", BROKEN) POLICY("new", "bank", BROKEN), 0});
	assert_int_equal(outcome("web"), CLOSED);
	LOAD(good, {"b.yaml", POLICY("q", "bank", DENY_ALL) POLICY("new", "bank", BROKEN), 0});
	assert_int_equal(outcome("web"), CLOSED);
	LOAD(good, {"b.yaml", POLICY("q", "bank", DENY_ALL), 0});
	assert_int_equal(outcome("web"), ALLOWED);
}

static void renamed_and_broken_in_one_step(void **state)
{
	(void)state;
	LOAD(good, {"b.yaml", POLICY("q", "bank", DENY_ALL), 0});
	/* It still names it: its last good version stays in force, as long as that lies there. */
	for (int i = 0; i < 3; i++) {
		LOAD(good, {"c.yaml", POLICY("q", "bank", BROKEN), 0});
		assert_int_equal(outcome("web"), ALLOWED);
		assert_int_equal(outcome("db"), DENIED);
		assert_true(alarmed("c.yaml"));
	}
	LOAD(good);
	assert_int_equal(outcome("db"), OPEN);
	/* It may be that one or another. */
	LOAD(good, {"b.yaml", POLICY("q", "bank", DENY_ALL), 0});
	for (int i = 0; i < 3; i++) {
		LOAD(good, {"c.yaml", POLICY("unknown", "bank", BROKEN), 0});
		assert_int_equal(outcome("web"), CLOSED);
		assert_int_equal(outcome("db"), CLOSED);
	}
	LOAD(good, {"c.yaml", POLICY("q", "bank", ALLOW_ALL), 0});
	assert_int_equal(outcome("web"), ALLOWED);
	assert_int_equal(outcome("db"), ALLOWED);
	/* What goes while something is broken already is gone. */
	LOAD(good, {"c.yaml", POLICY("q", "bank", ALLOW_ALL), 0}, {"d.yaml", "kind: AuthorizationPolicy\na: [\n", 0});
	assert_int_equal(outcome("db"), CLOSED);
	LOAD(good, {"d.yaml", "kind: AuthorizationPolicy\na: [\n", 0});
	assert_int_equal(outcome("db"), OPEN);
}

static void it_is_listed(void **state)
{
	cJSON *list;
	const cJSON *i;
	size_t n = 0;

	(void)state;
	LOAD(good, {"b.yaml", "# one\n" POLICY("q", "bank", BROKEN), 0});
	list = assemble_policy_dump(&assembly, &store);
	cJSON_ArrayForEach(i, list) {
		if (strcmp(decode_string(i, "state", ""), "refused"))
			continue;
		n++;
		assert_string_equal(decode_string(i, "file", ""), "b.yaml");
		assert_non_null(strstr(decode_string(i, "reason", ""), "b.yaml:6: not YAML"));
		assert_string_equal(decode_string(i, "scope", ""), "mesh");
		assert_true(cJSON_IsTrue(get(i, "closed")));
		assert_int_equal(cJSON_GetArraySize(get(i, "pods")), 3);
	}
	assert_int_equal(n, 1);
	cJSON_Delete(list);
	/* In the list of resources it is the broken document. */
	n = 0;
	list = store_dump(&store);
	cJSON_ArrayForEach(i, list) {
		n += !strcmp(decode_string(i, "file", ""), "b.yaml");
		if (!strcmp(decode_string(i, "file", ""), "b.yaml"))
			assert_true(cJSON_IsTrue(get(i, STORE_MAY_BE_POLICY)));
	}
	assert_int_equal(n, 1);
	cJSON_Delete(list);
}

/* The row of the first document of b.yaml that is refused. */
static bool says_kept(void)
{
	cJSON *list = store_dump(&store), *i;
	bool kept = false, found = false;

	cJSON_ArrayForEach(i, list) {
		if (found || strcmp(decode_string(i, "file", ""), "b.yaml") || !get(i, STORE_KEPT))
			continue;
		found = true;
		kept = cJSON_IsTrue(get(i, STORE_KEPT));
	}
	cJSON_Delete(list);
	assert_true(found);
	return kept;
}

static void only_what_was_read_is_called_kept(void **state)
{
	(void)state;
	LOAD(good, {"b.yaml", POLICY("q", "bank", BROKEN), 0});
	assert_false(says_kept());
	LOAD(good, {"b.yaml", POLICY("q", "bank", DENY_ALL), 0});
	LOAD(good, {"b.yaml", POLICY("q", "bank", BROKEN), 0});
	assert_true(says_kept());
}

static void a_refused_update_alarms(void **state)
{
	(void)state;
	LOAD(good);
	assert_false(alarmed("AuthorizationPolicy/shop/p"));
	LOAD({"a.yaml", POLICY("p", "shop", "{action: DENY, rules: [{form: []}]}"), 0});
	assert_int_equal(outcome("web"), ALLOWED);
	assert_true(alarmed("a.yaml:1: AuthorizationPolicy/shop/p refused: spec.rules[0].form"));
	assert_true(alarmed("its last good version stays in force"));
	LOAD(good);
	assert_false(alarmed("AuthorizationPolicy/shop/p"));
}

/* A restart begins with what was kept, which explains what cannot be read. */
static void after_a_restart(void **state)
{
	char path[] = "/tmp/wr-test-unreadable-XXXXXX";

	(void)state;
	close(mkstemp(path));
	LOAD(good, {"b.yaml", POLICY("q", "bank", DENY_ALL), 0});
	assert_int_equal(store_save(&store, path, "dir:/a"), 0);
	tear_down(state);
	set_up(state);
	assert_int_equal(store_load(&store, path, "dir:/a"), 0);
	unlink(path);
	LOAD(good, {"b.yaml", POLICY("q", "bank", BROKEN), 0});
	assert_int_equal(outcome("web"), ALLOWED);
	assert_int_equal(outcome("db"), DENIED);
	tear_down(state);
	set_up(state);
	LOAD(good, {"b.yaml", POLICY("q", "bank", BROKEN), 0});
	assert_int_equal(outcome("web"), CLOSED);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_names_a_policy_closes),
		TEST(it_is_found_in_utf_16_too),
		TEST(what_names_none_closes_nothing),
		TEST(only_the_broken_document_counts),
		TEST(what_was_read_well_stays_in_force),
		TEST(renamed_and_broken_in_one_step),
		TEST(it_is_listed),
		TEST(only_what_was_read_is_called_kept),
		TEST(a_refused_update_alarms),
		TEST(after_a_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
