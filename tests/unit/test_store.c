/* SPDX-License-Identifier: Apache-2.0 */
/* The listing of all resources: what each is called, where it stands, in which state it is. */
#include "agent/engine/source/store.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct store store;

static void document(void *arg, cJSON *tree, int line)
{
	store_put(&store, arg, line, tree);
}

static void broken(void *arg, const struct yaml_error *error)
{
	store_put_broken(&store, arg, error);
}

static void read_file(char *file, const char *text)
{
	static const struct yaml_handlers handlers = {document, broken};

	(void)yaml_parse(text, strlen(text), &handlers, file);
}

static void reload(const char *text)
{
	static char name[] = "m.yaml";

	store_begin(&store);
	read_file(name, text);
	store_end(&store);
}

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	store = (struct store){0};
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	store_done(&store);
	return 0;
}

static void assert_text(const cJSON *o, const char *name, const char *want)
{
	assert_string_equal(decode_string(o, name, "no text"), want);
}

/* A document that was readable has its names in the listing, whatever else is wrong with it. */
static void the_refused_are_listed_by_name(void **state)
{
	static const char *const want[][4] = {
		{"Service", "shop", "web", "spec.clusterIP"},
		{"Pod", "shop", "", "metadata.name"},
		{"", "default", "x", "kind"},
		{"Service", "shop", "web", "already defined"},
		{"", "", "", "did not find"},
	};
	cJSON *list, *i;
	size_t n = 0;

	(void)state;
	reload("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
	       "spec: {clusterIP: ten}\n---\n"
	       "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop}\nspec: {}\n---\n"
	       "apiVersion: v1\nmetadata: {name: x}\n---\n"
	       "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n---\nkind: [\n");
	list = store_dump(&store);
	assert_int_equal(cJSON_GetArraySize(list), ARRAY_SIZE(want));
	cJSON_ArrayForEach(i, list) {
		assert_text(i, "state", "refused");
		assert_text(i, "file", "m.yaml");
		assert_text(i, "kind", want[n][0]);
		assert_text(i, "namespace", want[n][1]);
		assert_text(i, "name", want[n][2]);
		assert_non_null(strstr(decode_string(i, "reason", ""), want[n][3]));
		n++;
	}
	cJSON_Delete(list);
}

/* A slip in the kind is no reason to leave a policy out of force; what another project calls the same is not ours. */
static void misspelt_kinds_and_those_of_others(void **state)
{
	static const struct {
		const char *api, *kind, *state;
	} cases[] = {
		{"security.istio.io/v1", "AuthorisationPolicy", "refused"},
		{"security.istio.io/v1", "authorizationpolicy", "refused"},
		{"security.istio.io/v1beta1", "PeerAuthentications", "refused"},
		{"security.isto.io/v1", "PeerAuthentication", "refused"},
		{"rbac.istio.io/v1alpha1", "AuthorizationPolicy", "refused"},
		{"policy.linkerd.io/v1alpha1", "AuthorizationPolicy", "ignored"},
		{"serving.knative.dev/v1", "Service", "ignored"},
		{"security.istio.io/v1", "MeshPolicy", "not enforced"},
	};
	char text[400];
	cJSON *revision;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cJSON *list;

		snprintf(text, sizeof(text), "apiVersion: %s\nkind: %s\nmetadata: {name: p}\nspec: {}\n", cases[i].api,
			 cases[i].kind);
		reload(text);
		list = store_dump(&store);
		assert_text(list->child, "state", cases[i].state);
		cJSON_Delete(list);
	}
	reload("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-1-24}\ndata: {mesh: 'trustDomain: td'}\n");
	revision = store_dump(&store);
	assert_non_null(strstr(decode_string(revision->child, "reason", ""), "only those of ConfigMap istio"));
	cJSON_Delete(revision);
}

/* What people rely on and what merely lies in the folder are two things; a misspelt apiVersion is a mistake in what
 * people rely on. */
static void what_is_not_enforced(void **state)
{
	static const char *const want[] = {"not enforced", "refused", "not enforced", "ignored", "applied"};
	cJSON *list, *i;
	size_t n = 0;

	(void)state;
	reload("apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: p}\n---\n"
	       "apiVersion: securty/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n---\n"
	       "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n---\n"
	       "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n"
	       "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n");
	list = store_dump(&store);
	assert_int_equal(cJSON_GetArraySize(list), ARRAY_SIZE(want));
	cJSON_ArrayForEach(i, list) {
		assert_text(i, "state", want[n++]);
	}
	cJSON_Delete(list);
}

/* The order is that of the manifests, and so the same each time. */
static void the_listing_is_in_order(void **state)
{
	static char first[] = "a.yaml", second[] = "b.yaml";
	cJSON *list, *i, *last = NULL;
	char text[4096] = "";

	(void)state;
	for (int n = 0; n < 30; n++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: n%d}\n---\n", n);
	store_begin(&store);
	read_file(second, "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n");
	read_file(first, text);
	store_end(&store);
	list = store_dump(&store);
	assert_int_equal(cJSON_GetArraySize(list), 31);
	cJSON_ArrayForEach(i, list) {
		if (last && !strcmp(decode_string(last, "file", ""), decode_string(i, "file", "")))
			assert_true(get(last, "line")->valueint < get(i, "line")->valueint);
		last = i;
	}
	assert_text(last, "file", "b.yaml");
	cJSON_Delete(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_refused_are_listed_by_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(misspelt_kinds_and_those_of_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_enforced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_listing_is_in_order, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
