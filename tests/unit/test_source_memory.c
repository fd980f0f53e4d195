/* SPDX-License-Identifier: Apache-2.0 */
/* Assembly when memory runs out, at each allocation in turn: the last state stays, nothing leaks, and the next round
 * makes up for it. */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/published.h"
#include "agent/engine/source/store.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/log.h"
#include "engine/model/policy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A sanitizer's allocator must not be replaced. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define REPLACED 0
static long fail_at, live;
#else
#define REPLACED 1
static long fail_at; /* this allocation from now fails; 0: none */
static long live;    /* allocated and not freed */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

static void *count(void *p, bool is_new)
{
	live += p && is_new;
	return p;
}

static bool refuse(void)
{
	if (!fail_at || --fail_at)
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return refuse() ? NULL : count(__libc_malloc(size), true);
}

void *calloc(size_t n, size_t size)
{
	return refuse() ? NULL : count(__libc_calloc(n, size), true);
}

void *realloc(void *p, size_t size)
{
	return refuse() ? NULL : count(__libc_realloc(p, size), !p);
}

void free(void *p)
{
	live -= p != NULL;
	__libc_free(p);
}
#endif

static const char before[] =
	"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2}\nstatus: {podIP: 10.0.2.1}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-2, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2}\nstatus: {podIP: 10.0.2.2}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: shop}\nspec: {nodeName: n1}\n---\n"
	"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
	"spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}\n";
/* web-1 changes, web-2 goes, web-3 comes and claims web-1's address, too; the service follows, with so many ports that
 * its text has to grow; another comes, with a slice. */
static const char after[] =
	"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2}\nstatus: {podIP: 10.0.2.11}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-3, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2}\nstatus: {podIPs: [{ip: 10.0.2.3}, {ip: 'fd00::3'}, {ip: 10.0.2.11}]}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: shop}\nspec: {nodeName: n1}\n---\n"
	"apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n"
	"spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}\n---\n"
	"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: api-x, namespace: shop,\n"
	"  labels: {kubernetes.io/service-name: api}}\naddressType: IPv4\n"
	"endpoints: [{addresses: [10.0.2.3]}]\nports: [{name: http, port: 8000}]\n---\n"
	"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
	"spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [";

static struct store store;
static struct assembly assembly;

static void document(void *arg, cJSON *tree, int line)
{
	store_put(arg, "m.yaml", line, tree);
}

static void load(const char *text)
{
	static const struct yaml_handlers handlers = {document, NULL};

	store_begin(&store);
	assert_int_equal(yaml_parse(text, strlen(text), &handlers, &store), 0);
	store_end(&store);
}

static void load_after(void)
{
	char text[sizeof(after) + 200 * 40];
	size_t n = (size_t)snprintf(text, sizeof(text), "%s", after);

	for (int i = 0; i < 200; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s{name: p%d, port: %d}", i ? ", " : "", i,
				      1000 + i);
	snprintf(text + n, sizeof(text) - n, "]}\n");
	load(text);
}

static int found(const char *ip)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(ip, &a), 0);
	return assemble_set_addresses(&assembly, "Kubernetes//Pod/shop/bare", &a, 1);
}

static void start(void)
{
	struct model_delta *d;

	assembly = (struct assembly){.cfg = {.node = "n1",
					     .cluster_id = "Kubernetes",
					     .network = "",
					     .cluster_domain = "cluster.local",
					     .trust_domain = "cluster.local"}};
	load(before);
	assert_int_equal(assemble(&assembly, &store, &d), 0);
	model_delta_free(d);
	load_after();
}

static void end(void)
{
	assemble_done(&assembly);
	store_done(&store);
}

static void expect_all(struct model_delta *d)
{
	assert_int_equal(d->n_workloads, 2);
	assert_int_equal(d->n_removed_workloads, 1);
	assert_string_equal(d->removed_workloads[0], "Kubernetes//Pod/shop/web-2");
	assert_int_equal(d->n_services, 2);
	assert_int_equal(d->n_removed_services, 0);
	for (size_t i = 0; i < d->n_services; i++)
		assert_non_null(d->services[i]->endpoints[0].workload);
	model_delta_free(d);
}

static void a_round_without_memory_changes_nothing(void **state)
{
	bool failed = true;

	(void)state;
	for (long k = 1; failed; k++) {
		struct model_delta *d;
		long had;
		int r;

		start();
		had = live;
		fail_at = k;
		r = assemble(&assembly, &store, &d);
		failed = !fail_at;
		fail_at = 0;
		if (r < 0) {
			assert_int_equal(r, -ENOMEM);
			assert_int_equal(live, had);
			assert_int_equal(assemble(&assembly, &store, &d), 0);
		}
		expect_all(d);
		assert_int_equal(assemble(&assembly, &store, &d), 0);
		assert_int_equal(d->n_workloads + d->n_services + d->n_removed_workloads, 0);
		model_delta_free(d);
		end();
		assert_true(k < 10000);
	}
}

static void addresses_found_without_memory_leave_the_last(void **state)
{
	bool failed = true;

	(void)state;
	for (long k = 1; failed; k++) {
		long had;
		int r;

		start();
		assert_int_equal(found("10.0.1.5"), 1);
		had = live;
		fail_at = k;
		r = found("10.0.1.6");
		failed = !fail_at;
		fail_at = 0;
		assert_int_equal(r, failed ? -ENOMEM : 1);
		assert_int_equal(live, had);
		assert_int_equal(found("10.0.1.5"), failed ? 0 : 1);
		end();
	}
}

#define BARE                                                                                                           \
	"apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: shop, labels: {app: bare}}\n"                    \
	"spec: {nodeName: n1}\n---\n"
#define POLICY(name, spec)                                                                                             \
	"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: " name ", namespace: shop}\n"   \
	"spec: " spec "\n---\n"

static enum wr_reason verdict(void)
{
	const struct workload *w = published_by_uid(&assembly.workloads, "Kubernetes//Pod/shop/bare");
	struct policy_subject subject = {.identity = "spiffe://cluster.local/ns/a/sa/b", .destination = {.port = 80}};
	struct policy_verdict v;

	policy_evaluate(w->policy, &subject, &v);
	return v.reason;
}

/* What was in force is so until all of the new is there; that memory ran out on the way is forgotten. */
static void policies_without_memory_stay_as_they_were(void **state)
{
	bool failed = true;

	(void)state;
	for (long k = 1; failed; k++) {
		struct model_delta *d;
		long had = live;
		int r;

		start();
		load(BARE POLICY("p", "{rules: [{from: [{source: {principals: [cluster.local/ns/x/sa/y]}}]}]}"));
		assert_int_equal(assemble(&assembly, &store, &d), 0);
		model_delta_free(d);
		load(BARE POLICY("p", "{action: DENY, selector: {matchLabels: {app: bare}}, rules: [{to: [{operation: "
				      "{ports: ['80', '90']}}], from: [{source: {ipBlocks: ['::/0']}}]}]}")
			     POLICY("q", "{}"));
		fail_at = k;
		r = assemble(&assembly, &store, &d);
		failed = !fail_at;
		fail_at = 0;
		assert_int_equal(verdict(), r < 0 ? WR_REASON_POLICY_NO_ALLOW : WR_REASON_POLICY_DENY);
		if (r < 0) {
			assert_int_equal(r, -ENOMEM);
			assert_int_equal(assemble(&assembly, &store, &d), 0);
			assert_int_equal(verdict(), WR_REASON_POLICY_DENY);
		}
		assert_int_equal(d->n_workloads, 1);
		model_delta_free(d);
		end();
		assert_int_equal(live, had);
		assert_true(k < 10000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_round_without_memory_changes_nothing),
		cmocka_unit_test(addresses_found_without_memory_leave_the_last),
		cmocka_unit_test(policies_without_memory_stay_as_they_were),
	};

	if (!REPLACED) {
		printf("a sanitizer's allocator does not fail on demand\n");
		return 77;
	}
	log_set_level("error");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
