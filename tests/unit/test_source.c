/* SPDX-License-Identifier: Apache-2.0 */
/* Documents of manifests: what is applied, warned of, refused, kept, and how it is said. */
#include "agent/engine/source/file.h"
#include "manifests.h"

#include <fcntl.h>
#include <unistd.h>

static void bad_values_are_refused_and_the_last_good_stays(void **state)
{
	static const struct {
		const char *from, *with, *key, *field;
	} cases[] = {
		{"mode: ambient", "mode: ambeint", "Namespace//shop", "metadata.labels[istio.io/dataplane-mode]"},
		{"ip: 10.0.2.1", "ip: 10.0.2.300", "Pod/shop/web-1", "status.podIPs[].ip"},
		{"port: 80,", "port: 80000,", "Service/shop/web", "spec.ports[].port"},
		{"clusterIP: 10.96.0.1", "clusterIP: ten", "Service/shop/web", "spec.clusterIP"},
		{"targetPort: http", "targetPort: '8080'", "Service/shop/web", "spec.ports[].targetPort: a number"},
		{"selector: {app: web}", "selector: {app: }", "Service/shop/web", "spec.selector.app"},
		{"labels: {app: web}", "labels: {app: web, version: 1.10}", "Pod/shop/web-1",
		 "metadata.labels.version"},
		{"containerPort: 8080", "containerPort: x", "Pod/shop/web-1", "containerPort"},
		{"nodeName: n2, serviceAccountName", "nodeName: [n2], serviceAccountName", "Pod/shop/web-1",
		 "spec.nodeName"},
		{"serviceAccountName: web", "serviceAccountName: We/b", "Pod/shop/web-1", "spec.serviceAccountName"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		edit(cases[i].from, cases[i].with);
		assert_int_equal(resource(cases[i].key)->state, RESOURCE_REFUSED);
		assert_non_null(strstr(resource(cases[i].key)->reason, cases[i].field));
		assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_HBONE);
	}
	reload(mesh);
	assert_int_equal(resource("Service/shop/web")->state, RESOURCE_APPLIED);
}

/* Of the fields that Warren uses: of all others the API has more than it knows. */
static void misspelt_fields_are_named(void **state)
{
	static const struct {
		const char *from, *with, *said;
	} cases[] = {
		{"nodeName: n2, serviceA", "nodename: n2, serviceA",
		 "spec.nodename: unknown field, did you mean nodeName?"},
		{"nodeName: n2, serviceA", "nodeNmae: n2, serviceA",
		 "spec.nodeNmae: unknown field, did you mean nodeName?"},
		{"labels: {app: web}", "label: {app: web}", "metadata.label: unknown field, did you mean labels?"},
		{"nodeName: n2, serviceA", "nodeName: n2, hostNetworks: true, serviceA",
		 "spec.hostNetworks: unknown field, did you mean hostNetwork?"},
		{"podIPs: [{ip: 10.0.2.1}", "podIps: [{ip: 10.0.2.1}",
		 "status.podIps: unknown field, did you mean podIPs?"},
		{"nodeName: n2, serviceA", "nodeName: n2, hostname: x, hostPID: true, initContainers: [], serviceA",
		 NULL},
		{"conditions: [{type: Ready, status: 'True'}]", "hostIP: 1.2.3.4, hostIPs: [], podIP: 10.0.2.1", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct resource *r;

		edit(cases[i].from, cases[i].with);
		r = resource("Pod/shop/web-1");
		if (r->state != (cases[i].said ? RESOURCE_WARNED : RESOURCE_APPLIED) ||
		    strcmp(r->reason ? r->reason : "", cases[i].said ? cases[i].said : ""))
			fail_msg("%s: %s", cases[i].with, r->reason ? r->reason : "nothing was said");
	}
}

static void what_is_unknown_warns_or_is_ignored(void **state)
{
	(void)state;
	edit("selector: {app: web}", "selecter: {app: web}");
	assert_int_equal(resource("Service/shop/web")->state, RESOURCE_WARNED);
	assert_int_equal(to("10.96.0.1", 80).reason, WR_REASON_NO_ENDPOINT);
	reload("apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: p, namespace: shop}\n");
	assert_int_equal(resource("RequestAuthentication/shop/p")->state, RESOURCE_NOT_ENFORCED);
	assert_non_null(strstr(resource("RequestAuthentication/shop/p")->reason, "NOT ENFORCED"));
}

static void null_is_as_good_as_absent(void **state)
{
	(void)state;
	edit("{name: web-1,", "{deletionTimestamp: '2024-05-01T10:00:00Z', name: web-1,");
	assert_int_equal(to("10.96.0.1", 80).reason, WR_REASON_NO_ENDPOINT);
	edit("{name: web-1,", "{deletionTimestamp: null, name: web-1,");
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_HBONE);
	edit("ports: [{name: http, port: 80,", "selecter: null, ports: [{name: http, port: 80, protocol: null,");
	assert_int_equal(resource("Service/shop/web")->state, RESOURCE_APPLIED);
	assert_int_equal(to("10.96.0.1", 80).target.port, 8080);
	edit("port: 81}", "port: 81, targetPort: null}");
	assert_int_equal(to("10.96.0.1", 81).target.port, 81);
	edit("labels: {app: web}}", "labels: {app: web, tier: null}}");
	assert_int_equal(resource("Pod/shop/web-1")->state, RESOURCE_APPLIED);
	/* But not where less would mean more: this would select every pod. */
	edit("selector: {app: web}", "selector: {app: null}");
	assert_int_equal(resource("Service/shop/web")->state, RESOURCE_REFUSED);
}

static void broken_yaml_keeps_the_file(void **state)
{
	(void)state;
	reload("apiVersion: v1\nkind: [\n");
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_HBONE);
	assert_int_equal(cJSON_GetArraySize(store.problems), 1);
	reload("a: &x [1, *x]\n");
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_HBONE);
}

static bool problem_says(const char *text)
{
	const cJSON *p;

	cJSON_ArrayForEach(p, store.problems) {
		if (strstr(decode_string(p, "reason", ""), text))
			return true;
	}
	return false;
}

static void anchors_and_merge_keys_are_resolved(void **state)
{
	static const char bomb[] = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c "
				   "[*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
				   "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
				   "f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";

	(void)state;
	reload("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: s, labels: &l {app: web, version: &v '2'}}\n"
	       "spec: {}\nstatus: {podIP: &ip 10.0.7.1, podIPs: [{ip: *ip}]}\n---\n"
	       "apiVersion: v1\nkind: Service\nmetadata: {name: w, namespace: s, labels: {<<: {app: one, more: x}, "
	       "app: two}}\n"
	       "spec: {clusterIP: 10.96.7.1, selector: {<<: [&s {app: web}, {app: no}]}, notes: [*s], ports: [{port: "
	       "&p 80, targetPort: *p}]}\n");
	assert_int_equal(cJSON_GetArraySize(store.problems), 0);
	assert_int_equal(to("10.96.7.1", 80).target.port, 80);
	assert_string_equal(to("10.96.7.1", 80).workload->canonical_revision, "2");
	assert_string_equal(decode_string(decode_labels(resource("Service/s/w")->tree), "app", ""), "two");
	assert_string_equal(decode_string(decode_labels(resource("Service/s/w")->tree), "more", ""), "x");
	reload(bomb);
	assert_true(problem_says("too many values"));
	reload("a: &x 1\n---\na: *x\n");
	assert_true(problem_says("*x names no anchor"));
	reload("a: {<<: 5}\n");
	assert_true(problem_says("<<: must be"));
}

/* What was last good is kept for the source that it came from, and for no other. */
static void kept_state_is_its_sources(void **state)
{
	char path[] = "/tmp/warren-state-XXXXXX";
	struct store other = {0};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "[]", 2), 2);
	close(fd);
	assert_int_equal(store_load(&other, path, "dir:/a"), -EBADMSG); /* it names no source */
	assert_int_equal(store_save(&store, path, "dir:/a"), 0);
	assert_int_equal(store_load(&other, path, "dir:/b"), -ESTALE);
	assert_int_equal(store_count(&other), 0);
	assert_int_equal(store_load(&other, path, "dir:/a/"), 0);
	assert_int_equal(store_count(&other), store_count(&store));
	store_done(&other);
	unlink(path);
}

/* The hash of a file's JSON is the line before it: nothing of a file that was changed, or cut, comes back. */
static void kept_state_that_is_damaged_is_not_used(void **state)
{
	static const char allow[] = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, "
				    "namespace: a}\nspec: {rules: []}\n";
	char path[] = "/tmp/warren-state-XXXXXX";
	int fd = mkstemp(path);
	_cleanup_free_ char *text = NULL;
	char *name;
	size_t len;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	reload(allow);
	assert_int_equal(store_save(&store, path, "dir:/a"), 0);
	assert_int_equal(file_read(AT_FDCWD, path, &text, &len, NULL), 0);
	name = memmem(text, len, "\"rules\":[]", 10);
	assert_non_null(name);
	for (int damage = 0; damage < 4; damage++) {
		struct store other = {.quiet = true};
		FILE *f = fopen(path, "w");

		name[1] = damage == 0 ? 'R' : 'r'; /* then it would allow what it does not */
		assert_non_null(f);
		assert_int_equal(fwrite(text, damage == 1 ? len - 1 : damage == 2 ? 20 : len, 1, f), 1);
		fclose(f);
		assert_int_equal(store_load(&other, path, "dir:/a"), damage == 3 ? 0 : -EBADMSG);
		assert_int_equal(store_count(&other), damage == 3);
		store_done(&other);
	}
	unlink(path);
}

static int problem_line(int i)
{
	const cJSON *p = cJSON_GetArrayItem(store.problems, i);

	return p ? cJSON_GetObjectItem(p, "line")->valueint : -1;
}

static void a_broken_document_hides_no_other(void **state)
{
	static const char tail[] =
		"apiVersion: v1\nkind: Pod\nmetadata: {name: last}\nspec: {}\nstatus: {podIP: 10.0.9.9}\n";
	static const struct {
		const char *head;
		int line; /* of the error */
	} cases[] = {{"%YAML 1.1\n# a comment\n---\nkind: [\n---\n", 5},
		     {"kind: 'open\n--- # next\n", 2},
		     {"\r\nkind: x\r\nkind: y\r\n---\r\n", 3},
		     {"a: {b: c\n...\n# more\n", 2},
		     {"--- @no\n---\n", 1},
		     {"a: |\n  ok\n\tb: c\n---\n", 3},
		     {"a: b\n---\nx: \xff\n---\n", 3}};
	char text[600];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		reload("");
		snprintf(text, sizeof(text), "%s%s", cases[i].head, tail);
		reload(text);
		assert_int_equal(problem_line(0), cases[i].line);
		assert_non_null(model_workload_by_uid(model, "Kubernetes//Pod/default/last"));
		/* A second read finds the same. */
		reload(text);
		assert_int_equal(cJSON_GetArraySize(store.problems), 1);
		assert_int_equal(resource("Pod/default/last")->state, RESOURCE_APPLIED);
		/* What the file held before stays: the broken document may have been any of it. */
		snprintf(text, sizeof(text), "%s", cases[i].head);
		reload(text);
		assert_non_null(model_workload_by_uid(model, "Kubernetes//Pod/default/last"));
	}
}

static void lines_count_from_the_files_start(void **state)
{
	(void)state;
	reload("# one\n---\n# three\n---\n\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: s\nspec:\n  "
	       "ports:\n  - name: x\n"
	       "    port: 0\n");
	assert_int_equal(resource("Service/default/s")->line, 7);
	assert_non_null(strstr(resource("Service/default/s")->reason, "spec.ports[].port"));
	assert_non_null(strstr(resource("Service/default/s")->reason, "(line 13)"));
}

static void lists_are_their_items(void **state)
{
	static const char pod[] = "{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {}, status: {podIP: %s}}";
	char text[1000];
	int n;

	(void)state;
	n = snprintf(text, sizeof(text), "apiVersion: v1\nkind: List\nitems:\n- ");
	n += snprintf(text + n, sizeof(text) - (size_t)n, pod, "a", "10.0.8.1");
	snprintf(text + n, sizeof(text) - (size_t)n,
		 "\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n---\n"
		 "{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"metadata\": {\"resourceVersion\": \"\"}, "
		 "\"items\": [\n"
		 " {\"metadata\": {\"name\": \"c\"}, \"spec\": {}, \"status\": {\"podIP\": \"10.0.8.3\"}}]}\n---\n"
		 "apiVersion: apps/v1\nkind: DeploymentList\nitems: []\n");
	reload(text);
	assert_int_equal(to("10.0.8.1", 80).kind, ROUTE_TCP);
	assert_int_equal(to("10.0.8.3", 80).kind, ROUTE_TCP);
	assert_int_equal(resource("Service/default/b")->state, RESOURCE_REFUSED);
	assert_int_equal(resource("Service/default/b")->line, 5);
	assert_int_equal(resource("Pod/default/c")->line, 8);
	assert_int_equal(store.resources.n, 3);
}

static void what_is_not_used_is_not_kept(void **state)
{
	char path[] = "/tmp/wr-test-source-XXXXXX", text[2000] = "";
	int fd = mkstemp(path);

	(void)state;
	reload("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: n}\nstringData: {password: hunter2}\n---\n"
	       "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: p}\nspec: {issuer: "
	       "DENY}\n---\n"
	       "just a text\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {generateName: once-}\n");
	assert_int_equal(resource("Secret/n/s")->state, RESOURCE_IGNORED);
	assert_int_equal(resource("?//m.yaml:11")->state, RESOURCE_REFUSED);
	assert_int_equal(resource("Job/default/m.yaml:13")->state, RESOURCE_IGNORED);
	close(fd);
	assert_int_equal(store_save(&store, path, "dir:/a"), 0);
	fd = open(path, O_RDONLY);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_null(strstr(text, "hunter2"));
	assert_non_null(strstr(text, "DENY"));
	close(fd);
	unlink(path);
}

/* What Helm, kubectl and the API server write and nobody means anything by. */
static void emptiness_is_no_mistake(void **state)
{
	struct workload *w;

	(void)state;
	reload("# Source: chart/templates/none.yaml\n\n---\n---\n# Source: x\napiVersion: v1\nkind: Pod\nmetadata:\n  "
	       "name: p\n"
	       "  creationTimestamp: null\n  labels:\n    app: x\n    part-of:\n    istio.io/dataplane-mode:\n  "
	       "annotations:\n    note:\n"
	       "spec:\n  nodeName: \"\"\n  serviceAccountName: \"\"\n  containers:\n  - name: c\n    ports: []\n  "
	       "initContainers:\n"
	       "status:\n  podIP: \"\"\n  podIPs: []\n  conditions:\n---\n"
	       "apiVersion: v1\nkind: Service\nmetadata: {name: s, annotations: {}}\nspec:\n  clusterIP: \"\"\n  "
	       "externalTrafficPolicy:\n"
	       "  ports:\n  - port: 80\n    targetPort:\n    protocol:\n    nodePort: null\n  selector: {app: "
	       "x}\nstatus: {loadBalancer: {}}\n");
	assert_int_equal(resource("Pod/default/p")->state, RESOURCE_APPLIED);
	assert_int_equal(resource("Service/default/s")->state, RESOURCE_APPLIED);
	w = model_workload_by_uid(model, "Kubernetes//Pod/default/p");
	assert_string_equal(w->identity, "spiffe://cluster.local/ns/default/sa/default");
	assert_true(w->ready && !w->labelled && !w->local);
}

static void a_large_cluster_fits_in_one_file(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	fprintf(f, "apiVersion: v1\nkind: List\nitems:\n");
	for (int i = 0; i < 1000; i++) {
		fprintf(f, "- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: p%d\n    managedFields:\n", i);
		for (int k = 0; k < 300; k++)
			fprintf(f, "    - f:conditions: {}\n");
		fprintf(f, "  spec: {}\n  status: {podIP: 10.4.%d.%d}\n", i / 250, i % 250);
	}
	assert_int_equal(fclose(f), 0);
	assert_true(size > 5 * 1000 * 1000 && size < YAML_FILE_MAX);
	reload(text);
	free(text);
	assert_int_equal(to("10.4.3.249", 80).kind, ROUTE_TCP);
	assert_null(cJSON_GetObjectItem(cJSON_GetObjectItem(resource("Pod/default/p7")->tree, "metadata"),
					"managedFields"));
	assert_int_equal(cJSON_GetArraySize(store.problems), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bad_values_are_refused_and_the_last_good_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(misspelt_fields_are_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_unknown_warns_or_is_ignored, set_up, tear_down),
		cmocka_unit_test_setup_teardown(null_is_as_good_as_absent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(broken_yaml_keeps_the_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(kept_state_is_its_sources, set_up, tear_down),
		cmocka_unit_test_setup_teardown(kept_state_that_is_damaged_is_not_used, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_broken_document_hides_no_other, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lines_count_from_the_files_start, set_up, tear_down),
		cmocka_unit_test_setup_teardown(anchors_and_merge_keys_are_resolved, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lists_are_their_items, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_used_is_not_kept, set_up, tear_down),
		cmocka_unit_test_setup_teardown(emptiness_is_no_mistake, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_large_cluster_fits_in_one_file, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
