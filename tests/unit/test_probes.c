/* SPDX-License-Identifier: Apache-2.0 */
/* The ports of a manifest's probes and handlers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "agent/engine/source/assemble_private.h"
#include "engine/base/cleanup.h"

/* The ports of a spec, in their order, as text. */
static void expect(const char *spec, const char *ports)
{
	struct workload *w = workload_new();
	cJSON *tree = cJSON_Parse(spec);
	char text[128] = "";
	size_t n = 0;

	assert_non_null(tree);
	assert_int_equal(assemble_probes(w, tree), 0);
	for (size_t i = 0; i < w->n_probe_ports; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%u", i ? " " : "", w->probe_ports[i]);
	assert_string_equal(text, ports);
	workload_unref(w);
	cJSON_Delete(tree);
}

#define CONTAINER(x) "{\"containers\":[{" x "}]}"

static void each_kind_of_probe(void **state)
{
	(void)state;
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":8080,\"path\":\"/\"}}"), "8080");
	expect(CONTAINER("\"readinessProbe\":{\"tcpSocket\":{\"port\":81}}"), "81");
	expect(CONTAINER("\"startupProbe\":{\"grpc\":{\"port\":9000}}"), "9000");
	expect(CONTAINER("\"lifecycle\":{\"postStart\":{\"httpGet\":{\"port\":82}},\"preStop\":{\"tcpSocket\":{"
			 "\"port\":83}}}"),
	       "82 83");
	expect("{\"initContainers\":[{\"startupProbe\":{\"httpGet\":{\"port\":84}}}],"
	       "\"containers\":[{\"livenessProbe\":{\"httpGet\":{\"port\":85}}},{\"livenessProbe\":{\"grpc\":{\"port\":"
	       "86}}}]}",
	       "85 86 84");
	expect(CONTAINER(
		       "\"livenessProbe\":{\"httpGet\":{\"port\":80}},\"readinessProbe\":{\"httpGet\":{\"port\":80}}"),
	       "80");
}

static void ports_by_name(void **state)
{
	(void)state;
	expect(CONTAINER("\"ports\":[{\"name\":\"a\",\"containerPort\":1},{\"name\":\"http\",\"containerPort\":8080}],"
			 "\"livenessProbe\":{\"httpGet\":{\"port\":\"http\"}}"),
	       "8080");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":\"8081\"}}"), "8081");
	/* A name is looked up in its own container alone. */
	expect("{\"containers\":[{\"ports\":[{\"name\":\"http\",\"containerPort\":8080}]},"
	       "{\"livenessProbe\":{\"httpGet\":{\"port\":\"http\"}}}]}",
	       "");
}

static void what_is_no_port_of_the_pod(void **state)
{
	(void)state;
	expect("{}", "");
	expect(CONTAINER("\"ports\":[{\"containerPort\":80}]"), "");
	expect(CONTAINER("\"livenessProbe\":{\"exec\":{\"command\":[\"true\"]}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"host\":\"10.0.0.1\",\"port\":80}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":0}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":65536}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":80.5}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":-1}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":\"\"}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":\"80x\"}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":\"99999999999999999999\"}}"), "");
	expect(CONTAINER("\"livenessProbe\":{\"httpGet\":{\"port\":{}}},\"readinessProbe\":[1],\"lifecycle\":5"), "");
	expect("{\"containers\":{\"livenessProbe\":7}}", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_of_probe),
		cmocka_unit_test(ports_by_name),
		cmocka_unit_test(what_is_no_port_of_the_pod),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
