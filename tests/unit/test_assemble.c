/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests into the model: pods, services and endpoints, and where connections then go. */
#include "manifests.h"

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

#define HEIR                                                                                                           \
	"apiVersion: v1\nkind: Pod\nmetadata: {name: heir, namespace: shop, labels: {istio.io/dataplane-mode: "        \
	"ambient}}\n"                                                                                                  \
	"spec: {nodeName: n2}\nstatus: {podIP: 10.0.2.7}\n---\n"
#define LEAVER(metadata, status)                                                                                       \
	"apiVersion: v1\nkind: Pod\nmetadata: {name: leaver, namespace: shop" metadata                                 \
	", labels: {istio.io/dataplane-mode: none}}\nspec: {nodeName: n2}\nstatus: {podIP: 10.0.2.7" status "}\n---\n"
#define SLICED                                                                                                         \
	"apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {clusterIP: 10.96.0.9, ports: "    \
	"[{port: 80}]}\n---\n"                                                                                         \
	"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {name: s-1, namespace: "   \
	"shop, "                                                                                                       \
	"labels: {kubernetes.io/service-name: s}}\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.2.7]}]\n"

/* The new holder of an address is in the mesh, the old one was not: no order of events makes it plaintext. */
static void an_address_that_was_handed_on(void **state)
{
	static const char *const steps[] = {
		LEAVER(", deletionTimestamp: '2030-01-01T00:00:00Z'", "") HEIR SLICED,
		HEIR LEAVER(", deletionTimestamp: '2030-01-01T00:00:00Z'",
			    ", conditions: [{type: Ready, status: 'False'}]") SLICED,
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
	reload("apiVersion: v1\nkind: Pod\nmetadata: {name: heir, namespace: shop, deletionTimestamp: "
	       "'2030-01-01T00:00:00Z', "
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

static void slices_win_over_selectors(void **state)
{
	char text[2 * sizeof(mesh)];
	struct route r;

	(void)state;
	snprintf(
		text, sizeof(text),
		"%s---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-x, namespace: "
		"shop,\n"
		"  labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
		"endpoints: [{addresses: [192.0.2.7], conditions: {ready: true}}]\nports: [{name: http, port: 8000}]\n",
		mesh);
	reload(text);
	r = to("10.96.0.1", 80);
	assert_int_equal(r.kind, ROUTE_TCP);
	assert_int_equal(r.target.port, 8000);
	assert_null(r.workload);
}

/* A Service without selector and what an operator wrote for it, in the older form too. */
static void endpoints_serve_without_a_selector(void **state)
{
	static const char service[] =
		"apiVersion: v1\nkind: Service\nmetadata: {name: db}\n"
		"spec: {clusterIP: 10.96.5.1, ports: [{port: 5432}]%s}\n---\n"
		"apiVersion: v1\nkind: Endpoints\nmetadata: {name: db}\nsubsets:\n"
		"- {addresses: [{ip: %s}], notReadyAddresses: [{ip: 192.0.2.43}], ports: [{port: 9376}]}\n";
	char text[600];

	(void)state;
	snprintf(text, sizeof(text), service, "", "192.0.2.42");
	reload(text);
	assert_int_equal(to("10.96.5.1", 5432).kind, ROUTE_TCP);
	assert_int_equal(to("10.96.5.1", 5432).target.port, 9376);
	assert_int_equal(to("10.96.5.1", 5432).service->n_endpoints, 2);
	snprintf(text, sizeof(text), service, "", "192.0.2.420");
	reload(text);
	assert_non_null(strstr(resource("Endpoints/default/db")->reason,
			       "subsets[].addresses[]: not an IP address: 192.0.2.420 (line 10)"));
	assert_int_equal(to("10.96.5.1", 5432).kind, ROUTE_TCP);
	snprintf(text, sizeof(text), service, ", selector: {app: none}", "192.0.2.42");
	reload(text);
	assert_int_equal(to("10.96.5.1", 5432).reason, WR_REASON_NO_ENDPOINT);
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
	snprintf(text, sizeof(text), "%.*s%s", (int)(strstr(mesh, "---\napiVersion: v1\nkind: Service") - mesh), mesh,
		 slice);
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
	edit("ports: [{name: http, containerPort: 8080}]", "ports: [{name: http, containerPort: 8443, protocol: UDP}, "
							   "{name: http, containerPort: 8080, protocol: TCP}]");
	assert_int_equal(to("10.96.0.1", 80).target.port, 8080);
	snprintf(text, sizeof(text),
		 "%s---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-x, namespace: "
		 "shop,\n"
		 "  labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints: [{addresses: "
		 "[192.0.2.7]}]\n"
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
			 "{name: web-1, ownerReferences: [{kind: Node, name: n}, {controller: true, kind: %s, name: "
			 "'%s'}], "
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
			n += (size_t)snprintf(
				text + n, sizeof(text) - n,
				"---\napiVersion: v1\nkind: Pod\nmetadata: {name: %c, namespace: shop, %s}\n"
				"spec: {nodeName: n2}\nstatus: {podIPs: [{ip: 10.0.3.%d}, {ip: 10.0.3.9}]}\n",
				'a' + i, metas[i], i + 1);
	reload(text);
}

static void an_address_has_one_owner(void **state)
{
	static const char
		none[] = "labels: {}",
		old[] = "creationTimestamp: '2024-05-01T10:00:00Z'",
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
	assert_int_equal(to("10.0.2.1", 80).kind, ROUTE_HBONE);
	edit("metadata: {name: web-1,", "metadata: {annotations: {sidecar.istio.io/status: '{}'}, name: web-1,");
	assert_int_equal(to("10.0.2.1", 80).kind, ROUTE_TCP);
	edit("nodeName: n2, serviceAccountName", "hostNetwork: true, nodeName: n2, serviceAccountName");
	assert_int_equal(to("10.0.2.1", 80).kind, ROUTE_PASSTHROUGH);
}

static const char *service_behind(const char *ip, uint16_t port)
{
	struct ip_port target = {.port = port};
	const struct service *s;

	assert_int_equal(ip_addr_parse(ip, &target.ip), 0);
	s = model_service_by_target(model, &target);
	return s ? s->name : "";
}

/* Of this node's pods only. */
static void port_of_a_pod_tells_its_service(void **state)
{
	(void)state;
	assert_string_equal(service_behind("10.0.2.1", 8080), "");
	edit("nodeName: n2, serviceAccountName", "nodeName: n1, serviceAccountName");
	assert_string_equal(service_behind("10.0.2.1", 8080), "web");
	assert_string_equal(service_behind("fd00::1", 81), "web");
	assert_string_equal(service_behind("10.0.2.1", 80), "");
	assert_string_equal(service_behind("10.0.2.2", 9090), "");
	edit("{name: http, port: 80, targetPort: http}, ", "");
	assert_string_equal(service_behind("10.0.2.1", 8080), "");
}

/* A mistake in a labelled pod's manifest never opens a way in plaintext to it. */
static void pod_without_a_namespace_is_not_sent_plaintext(void **state)
{
	(void)state;
	reload("apiVersion: v1\nkind: Pod\nmetadata: {name: lost, namespace: shop, labels: "
	       "{istio.io/dataplane-mode: ambient}}\nspec: {nodeName: n1}\nstatus: {podIP: 10.0.1.5}\n");
	assert_int_equal(to("10.0.1.5", 80).kind, ROUTE_HBONE);
}

/* Deleted with a grace period: still running, so still reached by mTLS at its own address; out once its phase says it
 * ended. */
static void a_pod_being_deleted_stays_in_the_mesh(void **state)
{
	struct workload *w;

	(void)state;
	edit("name: web-1, namespace: shop,",
	     "name: web-1, namespace: shop, deletionTimestamp: '2026-01-01T00:00:00Z',");
	assert_int_equal(to("10.0.2.1", 8080).kind, ROUTE_HBONE);
	assert_int_equal(to("10.96.0.1", 80).reason, WR_REASON_NO_ENDPOINT);
	w = model_workload_by_uid(model, "Kubernetes//Pod/shop/web-1");
	assert_true(w && !w->terminated && !w->ready);
	edit("status: {podIPs", "status: {phase: Succeeded, podIPs");
	w = model_workload_by_uid(model, "Kubernetes//Pod/shop/web-1");
	assert_true(w && w->terminated);
	assert_int_equal(to("10.0.2.1", 8080).kind, ROUTE_PASSTHROUGH);
}

static void names_come_from_owner_and_labels(void **state)
{
	static const struct {
		const char *meta, *type, *name, *canonical, *revision;
	} cases[] = {
		{"labels: {pod-template-hash: 7f9c}, ownerReferences: [{kind: ReplicaSet, name: web-7f9c, controller: "
		 "true}]",
		 "deployment", "web", "web", "latest"},
		{"ownerReferences: [{kind: ReplicaSet, name: web-7f9c, controller: true}]", "pod", "p-0", "p-0",
		 "latest"},
		{"labels: {pod-template-hash: 7f9c}, ownerReferences: [{kind: ReplicaSet, name: 7f9c, controller: "
		 "true}]",
		 "pod", "p-0", "p-0", "latest"},
		{"ownerReferences: [{kind: Other, name: x}, {kind: Job, name: once, controller: true}]", "job", "once",
		 "once", "latest"},
		{"ownerReferences: [{kind: Job, name: nightly-28312345, controller: true}]", "cronjob", "nightly",
		 "nightly", "latest"},
		{"ownerReferences: [{kind: Job, name: build-1234567, controller: true}]", "job", "build-1234567",
		 "build-1234567", "latest"},
		{"ownerReferences: [{kind: StatefulSet, name: p, controller: true}], labels: {app: db, version: v2}",
		 "pod", "p-0", "db", "v2"},
		{"labels: {app: a, app.kubernetes.io/name: b, version: '1', app.kubernetes.io/version: '2'}", "pod",
		 "p-0", "b", "2"},
		{"labels: {service.istio.io/canonical-name: c, app.kubernetes.io/name: b, "
		 "service.istio.io/canonical-revision: r}",
		 "pod", "p-0", "c", "r"},
	};
	char text[600];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct workload *w;

		snprintf(text, sizeof(text),
			 "apiVersion: v1\nkind: Pod\nmetadata: {name: p-0, namespace: s, %s}\nspec: {}\n",
			 cases[i].meta);
		reload(text);
		w = model_workload_by_uid(model, "Kubernetes//Pod/s/p-0");
		assert_non_null(w);
		assert_string_equal(w->workload_type, cases[i].type);
		assert_string_equal(w->workload_name, cases[i].name);
		assert_string_equal(w->canonical_name, cases[i].canonical);
		assert_string_equal(w->canonical_revision, cases[i].revision);
	}
}

static void locality_comes_from_the_node(void **state)
{
	static const char pod[] =
		"apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: s}\nspec: {nodeName: n9}\n";
	static const char node[] =
		"apiVersion: v1\nkind: Node\nmetadata: {name: n9, labels: {topology.kubernetes.io/region: eu,\n"
		"  topology.kubernetes.io/zone: eu-%s}}\n---\n%s";
	struct workload *w;
	char text[600];

	(void)state;
	reload(pod);
	w = model_workload_by_uid(model, "Kubernetes//Pod/s/p");
	assert_true(w && !w->region && !w->zone);
	for (const char *zone = "ab"; *zone; zone++) {
		char z[2] = {*zone, 0}, want[] = {'e', 'u', '-', *zone, 0};

		snprintf(text, sizeof(text), node, z, pod);
		reload(text);
		w = model_workload_by_uid(model, "Kubernetes//Pod/s/p");
		assert_string_equal(w->region, "eu");
		assert_string_equal(w->zone, want);
	}
}

static void readiness_follows_the_status(void **state)
{
	static const struct {
		const char *status;
		bool ready;
	} cases[] = {{"", true},
		     {"status: {}", true},
		     {"status:", true},
		     {"status: {phase: Running, conditions: []}", true},
		     {"status: {phase: Pending}", false},
		     {"status: {phase: Pending, conditions: [{type: PodScheduled, status: 'True'}]}", false},
		     {"status: {phase: Running, conditions: [{type: Ready, status: 'False'}]}", false},
		     {"status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}", true}};
	char text[400];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(text, sizeof(text),
			 "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: s}\nspec: {}\n%s\n",
			 cases[i].status);
		reload(text);
		assert_int_equal(model_workload_by_uid(model, "Kubernetes//Pod/s/p")->ready, cases[i].ready);
	}
}

static void services_of_all_kinds(void **state)
{
	char text[IP_PORT_STRLEN], more[2 * sizeof(mesh)];
	struct route r;
	unsigned seen = 0;

	(void)state;
	/* Not ready, and published all the same; each pod's own port of the name. */
	edit("spec: {clusterIP: 10.96.0.1,",
	     "spec: {publishNotReadyAddresses: true, sessionAffinity: ClientIP, clusterIP: 10.96.0.1,");
	for (uint64_t random = 0; random < 8; random++) {
		struct ip_port dst = {.port = 80};

		ip_addr_parse("10.96.0.1", &dst.ip);
		route_decide(model, NULL, &dst, random, &r);
		ip_port_format(&r.target, text, sizeof(text));
		seen |= !strcmp(text, "10.0.2.1:8080") ? 1 : !strcmp(text, "10.0.2.2:9090") ? 2 : 4;
	}
	assert_int_equal(seen, 3);
	/* No pod has a port of that name. */
	edit("targetPort: http", "targetPort: metrics");
	assert_int_equal(to("10.96.0.1", 80).reason, WR_REASON_NO_ENDPOINT);
	/* An IPv4 Service of dual-stack pods; an IPv6 one whose pods have only the other family. */
	edit("clusterIPs: [10.96.0.1, 'fd96::1']", "ipFamilies: [IPv4]");
	r = to("10.96.0.1", 80);
	assert_string_equal(ip_port_format(&r.target, text, sizeof(text)), "10.0.2.1:8080");
	edit("{ip: 10.0.2.1}, {ip: 'fd00::1'}", "{ip: 10.0.2.1}");
	r = to("fd96::1", 80);
	assert_string_equal(ip_port_format(&r.target, text, sizeof(text)), "10.0.2.1:8080");
	/* Headless and ExternalName have no address of their own. */
	edit("clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd96::1']", "clusterIP: None, clusterIPs: [None]");
	assert_int_equal(to("10.96.0.1", 80).kind, ROUTE_PASSTHROUGH);
	assert_non_null(model_service_by_hostname(model, "web.shop.svc.cluster.local"));
	edit("spec: {clusterIP: 10.96.0.1,", "spec: {type: ExternalName, externalName: db.example.com,");
	assert_null(model_service_by_hostname(model, "web.shop.svc.cluster.local"));
	/* Slices: not ready, of a port that another slice has, by a name that no port has. */
	snprintf(more, sizeof(more),
		 "%s---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, namespace: shop,\n"
		 "  labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
		 "endpoints: [{addresses: [10.0.2.1], conditions: {ready: false}}]\nports: [{name: http, port: "
		 "1}]\n---\n"
		 "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: b, namespace: shop,\n"
		 "  labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
		 "endpoints: [{addresses: [10.0.2.2]}]\nports: [{name: raw, port: 2}, {name: other, port: 3}]\n",
		 mesh);
	reload(more);
	assert_int_equal(to("10.96.0.1", 80).reason, WR_REASON_NO_ENDPOINT);
	assert_int_equal(to("10.96.0.1", 81).target.port, 2);
	assert_int_equal(to("10.96.0.1", 81).kind, ROUTE_HBONE);
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
	static const char bare[] = "apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: shop, labels: "
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
		cmocka_unit_test_setup_teardown(slices_win_over_selectors, set_up, tear_down),
		cmocka_unit_test_setup_teardown(slices_name_pods_that_are_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(named_ports_are_tcp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(owners_name_the_workload, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_address_has_one_owner, set_up, tear_down),
		cmocka_unit_test_setup_teardown(port_of_a_pod_tells_its_service, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sidecar_and_host_network_stay_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pod_without_a_namespace_is_not_sent_plaintext, set_up, tear_down),
		cmocka_unit_test_setup_teardown(endpoints_serve_without_a_selector, set_up, tear_down),
		cmocka_unit_test_setup_teardown(services_of_all_kinds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(locality_comes_from_the_node, set_up, tear_down),
		cmocka_unit_test_setup_teardown(names_come_from_owner_and_labels, set_up, tear_down),
		cmocka_unit_test_setup_teardown(readiness_follows_the_status, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_pod_being_deleted_stays_in_the_mesh, set_up, tear_down),
		cmocka_unit_test_setup_teardown(addresses_found_follow_the_namespace, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
