/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests into the model: what is applied, refused, kept, and where connections then go. */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/store.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/model/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const char mesh[] =
	"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2, serviceAccountName: web, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}\n"
	"status: {podIPs: [{ip: 10.0.2.1}, {ip: 'fd00::1'}], conditions: [{type: Ready, status: 'True'}]}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-2, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2, containers: [{name: c, ports: [{name: http, containerPort: 9090}]}]}\n"
	"status: {podIP: 10.0.2.2, conditions: [{type: Ready, status: 'False'}]}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: old, namespace: shop, labels: {istio.io/dataplane-mode: none}}\n"
	"spec: {nodeName: n1}\nstatus: {podIP: 10.0.1.9}\n---\n"
	"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
	"spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd96::1'], selector: {app: web},\n"
	"       ports: [{name: http, port: 80, targetPort: http}, {name: raw, port: 81}, {name: dns, port: 53, protocol: UDP}]}\n";

static struct store store;
static struct assembly assembly;
static struct model *model;

static void document(void *arg, cJSON *tree, int line)
{
	store_put(arg, "m.yaml", line, tree);
}

static struct model_delta *load(const char *text)
{
	struct yaml_error error = {0};
	struct model_delta *d;

	store_begin(&store);
	if (yaml_parse(text, strlen(text), document, &store, &error) < 0)
		store_keep_file(&store, "m.yaml", error.line, error.reason);
	store_end(&store);
	assert_int_equal(assemble(&assembly, &store, &d), 0);
	assert_int_equal(model_apply(model, d), 0);
	return d;
}

static void reload(const char *text)
{
	model_delta_free(load(text));
}

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	store = (struct store){0};
	assembly = (struct assembly){.cfg = {"n1", "Kubernetes", "", "cluster.local", "cluster.local"}};
	model = model_new();
	reload(mesh);
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

static struct route to(const char *ip, uint16_t port)
{
	struct ip_port dst = {.port = port};
	struct route r;

	assert_int_equal(ip_addr_parse(ip, &dst.ip), 0);
	route_decide(model, NULL, &dst, 12345, &r);
	return r;
}

static void services_lead_to_ready_pods(void **state)
{
	char text[IP_PORT_STRLEN];
	struct route r = to("10.96.0.1", 80);

	(void)state;
	assert_int_equal(r.kind, ROUTE_HBONE);
	assert_string_equal(ip_port_format(&r.target, text, sizeof(text)), "10.0.2.1:8080");
	assert_string_equal(ip_port_format(&r.next_hop, text, sizeof(text)), "10.0.2.1:15008");
	assert_string_equal(r.workload->identity, "spiffe://cluster.local/ns/shop/sa/web");
	assert_string_equal(r.service->hostname, "web.shop.svc.cluster.local");
	r = to("10.96.0.1", 81);
	assert_int_equal(r.target.port, 81);
	r = to("fd96::1", 80);
	assert_string_equal(ip_port_format(&r.target, text, sizeof(text)), "[fd00::1]:8080");
	r = to("10.96.0.1", 53);
	assert_int_equal(r.kind, ROUTE_DENY);
	assert_int_equal(r.reason, WR_REASON_NO_ENDPOINT);
}

static void pods_unknown_and_illegal(void **state)
{
	(void)state;
	assert_int_equal(to("10.0.2.2", 9090).kind, ROUTE_HBONE); /* by its own address even when not ready */
	assert_int_equal(to("10.0.1.9", 80).kind, ROUTE_TCP);	  /* label none wins over the namespace */
	assert_int_equal(to("192.0.2.1", 443).kind, ROUTE_PASSTHROUGH);
	assert_int_equal(to("10.0.2.1", 15008).reason, WR_REASON_ILLEGAL_PORT);
	assert_int_equal(to("192.0.2.1", 15001).reason, WR_REASON_ILLEGAL_PORT); /* it may be the caller's own */
	assert_int_equal(to("127.0.0.1", 15001).reason, WR_REASON_LOOP);
}

#define HEIR                                                                                                 \
	"apiVersion: v1\nkind: Pod\nmetadata: {name: heir, namespace: shop, labels: {istio.io/dataplane-mode: ambient}}\n" \
	"spec: {nodeName: n2}\nstatus: {podIP: 10.0.2.7}\n---\n"
#define LEAVER(metadata, status)                                                                             \
	"apiVersion: v1\nkind: Pod\nmetadata: {name: leaver, namespace: shop" metadata                       \
	", labels: {istio.io/dataplane-mode: none}}\nspec: {nodeName: n2}\nstatus: {podIP: 10.0.2.7" status "}\n---\n"
#define SLICED                                                                                               \
	"apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}\n---\n" \
	"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {name: s-1, namespace: shop, "         \
	"labels: {kubernetes.io/service-name: s}}\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.2.7]}]\n"

/* The new holder of an address is in the mesh, the old one was not: no order of events makes it plaintext. */
static void an_address_that_was_handed_on(void **state)
{
	static const char *const steps[] = {
		LEAVER(", deletionTimestamp: '2030-01-01T00:00:00Z'", "") HEIR SLICED,
		HEIR LEAVER(", deletionTimestamp: '2030-01-01T00:00:00Z'", ", conditions: [{type: Ready, status: 'False'}]") SLICED,
		HEIR LEAVER(", deletionTimestamp: '2030-01-01T00:00:00Z'", ", phase: Succeeded") SLICED,
		HEIR SLICED,
	};

	(void)state;
	reload(LEAVER("", ""));
	assert_int_equal(to("10.0.2.7", 80).kind, ROUTE_TCP);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		reload(steps[i]);
		assert_int_equal(to("10.0.2.7", 80).kind, ROUTE_HBONE);
		assert_int_equal(to("10.96.0.9", 80).kind, ROUTE_HBONE);
	}
	/* Until it ends it is where it was. */
	reload("apiVersion: v1\nkind: Pod\nmetadata: {name: heir, namespace: shop, deletionTimestamp: '2030-01-01T00:00:00Z', "
	       "labels: {istio.io/dataplane-mode: ambient}}\nspec: {nodeName: n2}\nstatus: {podIP: 10.0.2.7}\n");
	assert_int_equal(to("10.0.2.7", 80).kind, ROUTE_HBONE);
}

static void only_what_changed_is_published(void **state)
{
	char text[sizeof(mesh) + 64];
	struct model_delta *d = load(mesh);
	char *at;

	(void)state;
	assert_int_equal(d->n_workloads + d->n_services + d->n_removed_workloads + d->n_removed_services, 0);
	model_delta_free(d);
	strcpy(text, mesh);
	at = strstr(text, "'False'");
	memcpy(at, "'True' ", 7);
	d = load(text);
	assert_int_equal(d->n_workloads, 1);
	assert_int_equal(d->n_services, 1);
	model_delta_free(d);
	d = load("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
	assert_int_equal(d->n_removed_workloads, 3);
	assert_int_equal(d->n_removed_services, 1);
	model_delta_free(d);
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_PASSTHROUGH);
}

static struct resource *resource(const char *key)
{
	return table_get_str(&store.resources, key);
}

/* Replaces one piece of the manifests and reads them again. */
static void edit(const char *from, const char *with)
{
	char text[2 * sizeof(mesh)];
	const char *at = strstr(mesh, from);

	assert_non_null(at);
	snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - mesh), mesh, with, at + strlen(from));
	reload(text);
}

static void bad_values_are_refused_and_the_last_good_stays(void **state)
{
	static const struct {
		const char *from, *with, *key, *field;
	} cases[] = {
		{"mode: ambient", "mode: ambeint", "Namespace//shop", "metadata.labels[istio.io/dataplane-mode]"},
		{"ip: 10.0.2.1", "ip: 10.0.2.300", "Pod/shop/web-1", "status.podIPs[].ip"},
		{"port: 80,", "port: 80000,", "Service/shop/web", "spec.ports[].port"},
		{"clusterIP: 10.96.0.1", "clusterIP: ten", "Service/shop/web", "spec.clusterIP"},
		{"containerPort: 8080", "containerPort: x", "Pod/shop/web-1", "containerPort"},
		{"nodeName: n2, serviceAccountName", "nodeName: [n2], serviceAccountName", "Pod/shop/web-1", "spec.nodeName"},
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

static void what_is_unknown_warns_or_is_ignored(void **state)
{
	(void)state;
	edit("selector: {app: web}", "selecter: {app: web}");
	assert_int_equal(resource("Service/shop/web")->state, RESOURCE_WARNED);
	assert_int_equal(to("10.96.0.1", 80).reason, WR_REASON_NO_ENDPOINT);
	reload("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n");
	assert_int_equal(resource("AuthorizationPolicy/shop/p")->state, RESOURCE_IGNORED);
	assert_non_null(strstr(resource("AuthorizationPolicy/shop/p")->reason, "NOT ENFORCED"));
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
	reload("a: &x [1]\nb: *x\n");
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_HBONE);
}

static void slices_win_over_selectors(void **state)
{
	char text[2 * sizeof(mesh)];
	struct route r;

	(void)state;
	snprintf(text, sizeof(text),
		 "%s---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-x, namespace: shop,\n"
		 "  labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
		 "endpoints: [{addresses: [192.0.2.7], conditions: {ready: true}}]\nports: [{name: http, port: 8000}]\n",
		 mesh);
	reload(text);
	r = to("10.96.0.1", 80);
	assert_int_equal(r.kind, ROUTE_TCP);
	assert_int_equal(r.target.port, 8000);
	assert_null(r.workload);
}

static void slices_name_pods_that_are_there(void **state)
{
	static const char slice[] =
		"---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
		"spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}\n"
		"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-x, namespace: shop,\n"
		"  labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
		"endpoints: [{addresses: [10.0.2.1]}]\nports: [{name: http, port: 8000}]\n";
	char text[2 * sizeof(mesh)];

	(void)state;
	snprintf(text, sizeof(text), "%.*s%s", (int)(strstr(mesh, "---\napiVersion: v1\nkind: Service") - mesh), mesh, slice);
	reload(text);
	assert_string_equal(to("10.96.0.1", 80).workload->name, "web-1");
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_HBONE);
	/* The pod has gone, its slice not yet. */
	reload(slice + 4);
	assert_null(to("10.96.0.1", 80).workload);
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_TCP);
}

static void named_ports_are_tcp(void **state)
{
	char text[2 * sizeof(mesh)];

	(void)state;
	edit("ports: [{name: http, containerPort: 8080}]", "ports: [{name: http, containerPort: 8443, protocol: UDP}]");
	assert_int_equal(to("10.96.0.1", 80).reason, WR_REASON_NO_ENDPOINT);
	edit("ports: [{name: http, containerPort: 8080}]",
	     "ports: [{name: http, containerPort: 8443, protocol: UDP}, {name: http, containerPort: 8080, protocol: TCP}]");
	assert_int_equal(to("10.96.0.1", 80).target.port, 8080);
	snprintf(text, sizeof(text),
		 "%s---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-x, namespace: shop,\n"
		 "  labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints: [{addresses: [192.0.2.7]}]\n"
		 "ports: [{name: http, port: 8000}, {name: http, port: 8443, protocol: UDP}]\n",
		 mesh);
	reload(text);
	assert_int_equal(to("10.96.0.1", 80).target.port, 8000);
}

/* Istio's names: what dashboards and policies call a workload. */
static void owners_name_the_workload(void **state)
{
	static const struct {
		const char *kind, *owner, *hash, *type, *name;
	} cases[] = {
		{"ReplicaSet", "web-6b7f", "6b7f", "deployment", "web"},
		{"ReplicaSet", "web6b7f", "6b7f", "pod", "web-1"},
		{"ReplicaSet", "-6b7f", "6b7f", "pod", "web-1"},
		{"ReplicaSet", "web-6b7f", "other", "pod", "web-1"},
		{"Job", "nightly-28412345", "", "cronjob", "nightly"},
		{"Job", "nightly-1699999999", "", "cronjob", "nightly"},
		{"Job", "nightly-1234567", "", "job", "nightly-1234567"},
		{"Job", "nightly-2841234x", "", "job", "nightly-2841234x"},
		{"Job", "-28412345", "", "job", "-28412345"},
		{"Job", "migrate", "", "job", "migrate"},
		{"CronJob", "nightly", "", "cronjob", "nightly"},
		{"StatefulSet", "db", "", "pod", "web-1"},
	};
	char with[300];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct workload *w;

		snprintf(with, sizeof(with),
			 "{name: web-1, ownerReferences: [{kind: Node, name: n}, {controller: true, kind: %s, name: '%s'}], "
			 "namespace: shop, labels: {pod-template-hash: '%s', app: web}}",
			 cases[i].kind, cases[i].owner, cases[i].hash);
		edit("{name: web-1, namespace: shop, labels: {app: web}}", with);
		w = model_workload_by_uid(model, "Kubernetes//Pod/shop/web-1");
		assert_string_equal(w->workload_type, cases[i].type);
		assert_string_equal(w->workload_name, cases[i].name);
	}
}

static const char *owner_of(const char *ip)
{
	struct ip_addr a;
	struct workload *w;

	assert_int_equal(ip_addr_parse(ip, &a), 0);
	w = model_workload_by_addr(model, &a);
	return w ? w->name : "";
}

static bool disputed(const char *ip, const char *owner, const char *other)
{
	struct table_iter it = {0};
	char words[300];
	const char *text;

	snprintf(words, sizeof(words), "%s is claimed by pods shop/%s and shop/%s:", ip, owner, other);
	while ((text = table_next(&assembly.claims.disputes, &it)))
		if (!strncmp(text, words, strlen(words)))
			return true;
	return false;
}

/* a, b and c want one address; "" is a pod that is not there. */
static void claim(const char *a, const char *b, const char *c)
{
	const char *const metas[] = {a, b, c};
	char text[2000];
	size_t n = (size_t)snprintf(text, sizeof(text), "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");

	for (int i = 0; i < 3; i++)
		if (*metas[i])
			n += (size_t)snprintf(text + n, sizeof(text) - n,
					      "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %c, namespace: shop, %s}\n"
					      "spec: {nodeName: n2}\nstatus: {podIPs: [{ip: 10.0.3.%d}, {ip: 10.0.3.9}]}\n",
					      'a' + i, metas[i], i + 1);
	reload(text);
}

static void an_address_has_one_owner(void **state)
{
	static const char none[] = "labels: {}", old[] = "creationTimestamp: '2024-05-01T10:00:00Z'",
			  young[] = "creationTimestamp: '2024-05-01T10:00:01Z'",
			  gone[] = "creationTimestamp: '2024-04-01T10:00:00Z', deletionTimestamp: '2024-06-01T10:00:00Z'";

	(void)state;
	claim("", none, none);
	assert_string_equal(owner_of("10.0.3.9"), "b");
	assert_true(disputed("10.0.3.9", "b", "c"));
	assert_string_equal(owner_of("10.0.3.3"), "c");
	claim(none, young, old);
	assert_string_equal(owner_of("10.0.3.9"), "c");
	assert_true(disputed("10.0.3.9", "c", "a") && disputed("10.0.3.9", "c", "b"));
	/* The owner goes, or ends: the next one has it. */
	claim(none, young, "");
	assert_string_equal(owner_of("10.0.3.9"), "b");
	assert_int_equal(assembly.claims.disputes.n, 1);
	claim(gone, young, "");
	assert_string_equal(owner_of("10.0.3.9"), "b");
	assert_int_equal(assembly.claims.disputes.n, 0);
	claim(old, young, "");
	assert_string_equal(owner_of("10.0.3.9"), "a");
	assert_string_equal(owner_of("10.0.3.2"), "b");
}

static void sidecar_and_host_network_stay_out(void **state)
{
	(void)state;
	edit("containers: [{name: c,", "containers: [{name: istio-proxy,");
	assert_int_equal(to("10.0.2.1", 80).kind, ROUTE_TCP);
	edit("nodeName: n2, serviceAccountName", "hostNetwork: true, nodeName: n2, serviceAccountName");
	assert_int_equal(to("10.0.2.1", 80).kind, ROUTE_PASSTHROUGH);
}

/* A mistake in a labelled pod's manifest never opens a way in plaintext to it. */
static void pod_without_a_namespace_is_not_sent_plaintext(void **state)
{
	(void)state;
	reload("apiVersion: v1\nkind: Pod\nmetadata: {name: lost, namespace: shop, labels: "
	       "{istio.io/dataplane-mode: ambient}}\nspec: {nodeName: n1}\nstatus: {podIP: 10.0.1.5}\n");
	assert_int_equal(to("10.0.1.5", 80).kind, ROUTE_HBONE);
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

static void publish(void)
{
	struct model_delta *d;

	assert_int_equal(assemble(&assembly, &store, &d), 0);
	assert_int_equal(model_apply(model, d), 0);
	model_delta_free(d);
}

static int found(const char *ip)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(ip, &a), 0);
	return assemble_set_addresses(&assembly, "Kubernetes//Pod/shop/bare", &a, 1);
}

/* A local pod whose status names no address has those of its namespace, as they are now. */
static void addresses_found_follow_the_namespace(void **state)
{
	static const char bare[] =
		"apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: shop, labels: "
		"{istio.io/dataplane-mode: %s}, annotations: {warren.dev/netns: /run/netns/bare}}\n"
		"spec: {nodeName: n1}\n";
	char text[400];

	(void)state;
	snprintf(text, sizeof(text), bare, "ambient");
	reload(text);
	assert_int_equal(to("10.0.1.5", 80).kind, ROUTE_PASSTHROUGH);
	assert_int_equal(found("10.0.1.5"), 1);
	publish();
	assert_int_equal(to("10.0.1.5", 80).kind, ROUTE_HBONE);
	assert_int_equal(found("10.0.1.5"), 0);
	assert_int_equal(found("10.0.1.6"), 1);
	publish();
	assert_int_equal(to("10.0.1.5", 80).kind, ROUTE_PASSTHROUGH);
	assert_int_equal(to("10.0.1.6", 80).kind, ROUTE_HBONE);
	/* Out of the mesh nobody looks at its namespace, so nobody knows. */
	snprintf(text, sizeof(text), bare, "none");
	reload(text);
	assert_int_equal(to("10.0.1.6", 80).kind, ROUTE_PASSTHROUGH);
	assert_int_equal(assembly.overrides.n, 0);
	assert_int_equal(found("10.0.1.6"), 1);
	reload(mesh);
	assert_int_equal(assembly.overrides.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(services_lead_to_ready_pods, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pods_unknown_and_illegal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_address_that_was_handed_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(only_what_changed_is_published, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_values_are_refused_and_the_last_good_stays, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(what_is_unknown_warns_or_is_ignored, set_up, tear_down),
		cmocka_unit_test_setup_teardown(null_is_as_good_as_absent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(broken_yaml_keeps_the_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(slices_win_over_selectors, set_up, tear_down),
		cmocka_unit_test_setup_teardown(slices_name_pods_that_are_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(named_ports_are_tcp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(owners_name_the_workload, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_address_has_one_owner, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sidecar_and_host_network_stay_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pod_without_a_namespace_is_not_sent_plaintext, set_up, tear_down),
		cmocka_unit_test_setup_teardown(kept_state_is_its_sources, set_up, tear_down),
		cmocka_unit_test_setup_teardown(addresses_found_follow_the_namespace, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
