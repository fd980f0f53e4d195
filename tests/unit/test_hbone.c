/* SPDX-License-Identifier: Apache-2.0 */
/* HBONE's header texts against istio/ztunnel's forms. */
#include "engine/base/cleanup.h"
#include "engine/proto/hbone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void baggage_names_the_source(void **state)
{
	struct workload w = {.cluster_id = (char *)"Kubernetes",
			     .namespace_ = (char *)"shop",
			     .workload_type = (char *)"deployment",
			     .workload_name = (char *)"web",
			     .canonical_name = (char *)"web",
			     .canonical_revision = (char *)"v1"};
	char buf[HBONE_BAGGAGE_MAX], name[2000];

	(void)state;
	size_t n = hbone_baggage(&w, buf);

	assert_int_equal(n, strlen(buf));
	assert_string_equal(buf, "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,"
				 "service.name=web,service.version=v1");
	w.region = (char *)"eu-west-1";
	w.zone = (char *)"eu-west-1b";
	hbone_baggage(&w, buf);
	assert_string_equal(strstr(buf, "service.version"),
			    "service.version=v1,cloud.region=eu-west-1,cloud.availability_zone=eu-west-1b");
	w.canonical_name = (char *)"a,k8s.namespace.name=other";
	w.canonical_revision = NULL;
	hbone_baggage(&w, buf);
	assert_null(strstr(buf, "other"));
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	w.cluster_id = name;
	assert_true(hbone_baggage(&w, buf) < HBONE_BAGGAGE_MAX);
	assert_int_equal(strncmp(buf, "k8s.namespace.name=shop", 23), 0);
}

static void baggage_of_others_is_read(void **state)
{
	struct workload *w = hbone_baggage_parse(
		"other=1, service.name=web;p=q,k8s.namespace.name=shop,k8s.cluster.name=,service.name=two,");

	(void)state;
	assert_non_null(w);
	assert_string_equal(w->name, "web");
	assert_string_equal(w->namespace_, "shop");
	assert_null(w->cluster_id);
	workload_unref(w);
	assert_null(hbone_baggage_parse(""));
	assert_null(hbone_baggage_parse(",,;=,k8s.namespace.name,k8s.namespace.name="));
	assert_null(hbone_baggage_parse("service.name=a\"b,k8s.namespace.name=a b,k8s.cluster.name=\xff"));
}

static void forwarded_names_client_and_host(void **state)
{
	struct ip_port client;
	char buf[HBONE_FORWARDED_MAX];
	const char *host;
	size_t n;

	(void)state;
	ip_port_parse("[fd00::1]:123", 13, &client);
	hbone_forwarded(&client, "web.shop.svc.cluster.local", buf);
	assert_string_equal(buf, "for=\"[fd00::1]:123\";host=web.shop.svc.cluster.local");
	n = hbone_forwarded_host(buf, strlen(buf), &host);
	assert_int_equal(n, 26);
	assert_memory_equal(host, "web.shop.svc.cluster.local", n);
	n = hbone_forwarded_host("host=\"a.b\";for=x", 16, &host);
	assert_int_equal(n, 3);
	assert_int_equal(hbone_forwarded_host("for=x", 5, &host), 0);
	assert_int_equal(hbone_forwarded_host("", 0, &host), 0);
}

static void traceparent_has_its_form(void **state)
{
	uint8_t random[24] = {0xab};
	char buf[HBONE_TRACEPARENT_LEN + 1];

	(void)state;
	hbone_traceparent(random, buf);
	assert_int_equal(strlen(buf), HBONE_TRACEPARENT_LEN);
	assert_string_equal(buf, "00-ab000000000000000000000000000000-0000000000000000-00");
}

static void authorities(void **state)
{
	static const char *const bad[] = {"",	       "10.0.0.1",	"web",	  "web:",      "web:0",
					  ":80",       "10.0.0.256:80", "a b:80", "web:99999", "fd00::1:80",
					  "we\x01:80", "web:8 0",	"web:-1"};
	struct hbone_authority a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(hbone_authority_parse(bad[i], strlen(bad[i]), &a), -EINVAL);
	assert_int_equal(hbone_authority_parse("10.0.0.1:8080", 13, &a), 0);
	assert_false(a.is_host);
	assert_int_equal(a.port, 8080);
	assert_int_equal(hbone_authority_parse("[fd00::1]:80", 12, &a), 0);
	assert_int_equal(hbone_authority_parse("Web.shop.svc:443", 16, &a), 0);
	assert_true(a.is_host);
	assert_string_equal(a.host, "web.shop.svc");
	assert_int_equal(a.port, 443);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(baggage_names_the_source),
		cmocka_unit_test(baggage_of_others_is_read),
		cmocka_unit_test(forwarded_names_client_and_host),
		cmocka_unit_test(traceparent_has_its_form),
		cmocka_unit_test(authorities),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
