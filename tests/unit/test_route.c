/* SPDX-License-Identifier: Apache-2.0 */
/* Where an outbound connection goes: ztunnel's decision table row by row, and the choice among a service's endpoints.
 */
#include "engine/base/cleanup.h"
#include "engine/model/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct model *model;

static struct ip_addr address(const char *text)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(text, &a), 0);
	return a;
}

static void add_pod(struct model_delta *d, const char *uid, const char *ip, enum tunnel_protocol protocol)
{
	struct workload *w = workload_new();

	w->uid = strdup(uid);
	w->addrs = calloc(1, sizeof(*w->addrs));
	w->addrs[0] = address(ip);
	w->n_addrs = 1;
	w->protocol = protocol;
	assert_int_equal(model_delta_add_workload(d, w), 0);
}

/* One of the service "web", whose ports are 80 and 443. */
struct backend {
	const char *ip;
	uint32_t weight;
	uint16_t target80, target443;
	bool unhealthy;
};

static void add_service(struct model_delta *d, const char *name, const char *vip, bool publish_not_ready,
			const struct backend *backends, size_t n)
{
	struct service *s = service_new();

	s->name = strdup(name);
	s->namespace_ = strdup("ns");
	s->hostname = strdup(name);
	s->vips = calloc(1, sizeof(*s->vips));
	s->vips[0] = address(vip);
	s->n_vips = 1;
	s->ports = calloc(2, sizeof(*s->ports));
	s->ports[0] = (struct service_port){80, strdup("http")};
	s->ports[1] = (struct service_port){443, strdup("https")};
	s->n_ports = 2;
	s->endpoints = calloc(n, sizeof(*s->endpoints));
	s->n_endpoints = n;
	s->publish_not_ready = publish_not_ready;
	for (size_t i = 0; i < n; i++) {
		struct service_endpoint *e = &s->endpoints[i];

		e->addr = address(backends[i].ip);
		e->weight = backends[i].weight;
		e->healthy = !backends[i].unhealthy;
		e->target_ports = calloc(2, sizeof(*e->target_ports));
		e->target_ports[0] = backends[i].target80;
		e->target_ports[1] = backends[i].target443;
	}
	assert_int_equal(model_delta_add_service(d, s), 0);
}

static int set_up(void **state)
{
	static const struct backend weighted[] = {{"10.0.0.1", 1, 8080, 0, false},
						  {"10.0.0.2", 3, 8081, 8443, false},
						  {"10.0.0.3", 0, 8082, 0, false},
						  {"10.0.0.4", 5, 8083, 0, true},
						  {"fd00::5", 7, 8084, 0, false}};
	static const struct backend sick[] = {{"10.0.0.6", 1, 8080, 8443, true}};
	struct model_delta *d = model_delta_new();

	(void)state;
	model = model_new();
	add_pod(d, "in", "10.1.0.1", TUNNEL_HBONE);
	add_pod(d, "out", "10.1.0.2", TUNNEL_NONE);
	add_service(d, "weighted", "10.96.0.1", false, weighted, ARRAY_SIZE(weighted));
	add_service(d, "weighted6", "fd96::1", false, weighted, ARRAY_SIZE(weighted));
	add_service(d, "only4", "fd96::2", false, weighted, 2);
	add_service(d, "sick", "10.96.0.2", false, sick, 1);
	add_service(d, "published", "10.96.0.3", true, sick, 1);
	assert_int_equal(model_apply(model, d), 0);
	model_delta_free(d);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	model_free(model);
	return 0;
}

static struct route decide(const char *dst, uint64_t random)
{
	struct ip_port p;
	struct route r;

	assert_int_equal(ip_port_parse(dst, strlen(dst), &p), 0);
	route_decide(model, NULL, &p, random, &r);
	return r;
}

static void each_row_of_the_table(void **state)
{
	static const struct {
		const char *dst;
		enum route_kind kind;
		enum wr_reason reason;
		const char *target, *next_hop;
	} rows[] = {
		{"10.1.0.1:80", ROUTE_HBONE, WR_REASON_NONE, "10.1.0.1:80", "10.1.0.1:15008"},
		{"10.1.0.1:15006", ROUTE_DENY, WR_REASON_ILLEGAL_PORT, "10.1.0.1:15006", NULL},
		{"10.1.0.2:80", ROUTE_TCP, WR_REASON_NONE, "10.1.0.2:80", "10.1.0.2:80"},
		{"8.8.8.8:53", ROUTE_PASSTHROUGH, WR_REASON_NONE, "8.8.8.8:53", "8.8.8.8:53"},
		{"8.8.8.8:15001", ROUTE_DENY, WR_REASON_ILLEGAL_PORT, "8.8.8.8:15001", NULL},
		{"127.0.0.1:15001", ROUTE_DENY, WR_REASON_LOOP, NULL, NULL},
		{"127.0.0.1:15008", ROUTE_DENY, WR_REASON_LOOP, NULL, NULL},
		{"[::1]:15006", ROUTE_DENY, WR_REASON_LOOP, NULL, NULL},
		{"10.96.0.1:443", ROUTE_TCP, WR_REASON_NONE, "10.0.0.2:8443", "10.0.0.2:8443"},
		{"10.96.0.1:81", ROUTE_DENY, WR_REASON_NO_ENDPOINT, NULL, NULL},
		{"10.96.0.2:80", ROUTE_DENY, WR_REASON_NO_ENDPOINT, NULL, NULL},
		{"10.96.0.3:80", ROUTE_TCP, WR_REASON_NONE, "10.0.0.6:8080", "10.0.0.6:8080"},
		{"[fd96::1]:80", ROUTE_TCP, WR_REASON_NONE, "[fd00::5]:8084", "[fd00::5]:8084"},
	};
	char text[IP_PORT_STRLEN];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct route r = decide(rows[i].dst, 7);

		if (r.kind != rows[i].kind || r.reason != rows[i].reason)
			fail_msg("%s: kind %d, reason %d", rows[i].dst, r.kind, r.reason);
		if (rows[i].target)
			assert_string_equal(ip_port_format(&r.target, text, sizeof(text)), rows[i].target);
		if (rows[i].next_hop)
			assert_string_equal(ip_port_format(&r.next_hop, text, sizeof(text)), rows[i].next_hop);
	}
	assert_string_equal(decide("10.1.0.1:80", 0).workload->uid, "in");
	assert_null(decide("10.1.0.1:80", 0).service);
	assert_string_equal(decide("10.96.0.2:80", 0).service->name, "sick");
}

/* Of 400 random numbers each takes as many as its weight says; who is unhealthy, of weight 0 or of another family,
 * none. */
static void endpoints_by_weight(void **state)
{
	unsigned first = 0, second = 0;

	(void)state;
	for (uint64_t random = 0; random < 400; random++) {
		struct route r = decide("10.96.0.1:80", random);

		first += r.target.port == 8080;
		second += r.target.port == 8081;
	}
	assert_int_equal(first, 100);
	assert_int_equal(second, 300);
	first = 0;
	for (uint64_t random = 0; random < 400; random++)
		first += decide("[fd96::2]:80", random).target.port == 8080;
	assert_int_equal(first, 100); /* none of its own family: the other serves */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_row_of_the_table),
		cmocka_unit_test(endpoints_by_weight),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
