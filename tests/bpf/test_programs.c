/* SPDX-License-Identifier: Apache-2.0 */
/* Tables: one packet, one program, its verdict and what it counted (BPF_PROG_TEST_RUN in a pod's namespace).
 */
#include "packet_case.h"

static void put_destination(struct fixture *f, const char *ip, uint32_t flags)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(ip, &a), 0);
	assert_int_equal(bpf_map_update_elem(f->capture->maps[MAP_DEST], &a, &flags, BPF_ANY), 0);
}

static int setup(void **state)
{
	struct fixture *f;

	setup_attached(state);
	f = *state;
	put_destination(f, "192.0.2.10", WR_DEST_VIP);
	put_destination(f, "2001:db8::10", WR_DEST_VIP);
	put_destination(f, "10.5.0.9", WR_DEST_UNENROLLED);
	put_destination(f, "10.5.0.8", WR_DEST_UNENROLLED | WR_DEST_VIP);
	return 0;
}

static const struct packet_case present[] = {
	{"mesh range", PLACE_OUT, "4S", "10.99.0.1", 80, REDIRECT, WR_REASON_NONE},
	{"mesh range v6", PLACE_OUT, "6S", "fd99::1", 80, REDIRECT, WR_REASON_NONE},
	{"VIP outside the ranges", PLACE_OUT, "4S", "192.0.2.10", 80, REDIRECT, WR_REASON_NONE},
	{"VIP outside the ranges v6", PLACE_OUT, "6S", "2001:db8::10", 80, REDIRECT, WR_REASON_NONE},
	{"outside", PLACE_OUT, "4S", "192.0.2.11", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"outside v6", PLACE_OUT, "6S", "2001:db8::11", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"link-local v6", PLACE_OUT, "6S", "fe80::1", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"un-enrolled pod", PLACE_OUT, "4S", "10.5.0.9", 80, PASS, WR_REASON_BYPASS_UNENROLLED},
	{"un-enrolled and VIP", PLACE_OUT, "4S", "10.5.0.8", 80, REDIRECT, WR_REASON_NONE},
	{"excluded port", PLACE_OUT, "4S", "10.99.0.1", 9999, PASS, WR_REASON_BYPASS_EXCLUDED},
	{"UDP", PLACE_OUT, "4U", "10.99.0.1", 53, PASS, WR_REASON_NONE},
	{"ICMP", PLACE_OUT, "4I", "10.99.0.1", 0, PASS, WR_REASON_NONE},
	{"options", PLACE_OUT, "4oS", "10.99.0.1", 80, REDIRECT, WR_REASON_NONE},
	{"extension headers", PLACE_OUT, "6hrxS", "fd99::1", 80, REDIRECT, WR_REASON_NONE},
	{"first fragment", PLACE_OUT, "4fS", "10.99.0.1", 80, DROP, WR_REASON_DROP_FRAGMENT},
	{"stray RST", PLACE_OUT, "4R", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"SYN-ACK of the agent's", PLACE_OUT, "4C", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"inbound", PLACE_IN, "4S", POD4, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound v6", PLACE_IN, "6S", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound, options", PLACE_IN, "4odS", POD4, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound, extension headers", PLACE_IN, "6hrxS", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound, authentication header", PLACE_IN, "6sS", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"atomic fragment", PLACE_IN, "6aS", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"first fragment", PLACE_IN, "4fS", POD4, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"later fragment", PLACE_IN, "4lA", POD4, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"first fragment v6", PLACE_IN, "6fS", POD6, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"later fragment v6", PLACE_IN, "6lA", POD6, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"fragment before more headers", PLACE_IN, "6fxS", POD6, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"UDP fragment", PLACE_IN, "4fU", POD4, 53, PASS, WR_REASON_NONE},
	{"UDP fragment v6", PLACE_IN, "6lU", POD6, 53, PASS, WR_REASON_NONE},
	{"fragment of another protocol", PLACE_IN, "6fT", POD6, 36412, PASS, WR_REASON_NONE},
	{"later one of another protocol", PLACE_OUT, "6lT", "fd99::1", 36412, PASS, WR_REASON_NONE},
	{"cut in the TCP header", PLACE_IN, "4S-", POD4, 8080, DROP, WR_REASON_DROP_MALFORMED},
	{"cut in the TCP header v6", PLACE_IN, "6S-", POD6, 8080, DROP, WR_REASON_DROP_MALFORMED},
	{"too many extension headers", PLACE_IN, "6xxxxxxxxxxS", POD6, 8080, DROP, WR_REASON_DROP_MALFORMED},
	{"HBONE", PLACE_IN, "4S", POD4, 15008, ASSIGN, WR_REASON_NONE},
	{"ICMPv6", PLACE_IN, "6I", POD6, 0, PASS, WR_REASON_NONE},
};

static void test_agent_present(void **state)
{
	run_table(*state, present, ARRAY_SIZE(present));
}

static const struct packet_case absent[] = {
	{"SYN out", PLACE_OUT, "4S", "10.99.0.1", 80, DROP, WR_REASON_DROP_AGENT_GONE},
	{"SYN out v6", PLACE_OUT, "6S", "fd99::1", 80, DROP, WR_REASON_DROP_AGENT_GONE},
	{"SYN to outside", PLACE_OUT, "4S", "192.0.2.11", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"SYN-ACK", PLACE_OUT, "4C", "10.99.0.1", 80, DROP, WR_REASON_DROP_AGENT_GONE},
	{"SYN in", PLACE_IN, "4S", POD4, 8080, DROP, WR_REASON_DROP_AGENT_GONE},
	{"ACK in", PLACE_IN, "4A", POD4, 8080, DROP, WR_REASON_DROP_AGENT_GONE},
	{"HBONE", PLACE_IN, "6S", POD6, 15008, DROP, WR_REASON_DROP_AGENT_GONE},
	{"UDP", PLACE_IN, "4U", POD4, 53, PASS, WR_REASON_NONE},
};

static void test_agent_absent(void **state)
{
	close_listeners(*state);
	run_table(*state, absent, ARRAY_SIZE(absent));
}

static const struct packet_case foreign[] = {
	{"SYN out", PLACE_OUT, "4S", "10.99.0.1", 80, DROP, WR_REASON_DROP_FOREIGN_SOCKET},
	{"SYN in", PLACE_IN, "4S", POD4, 8080, DROP, WR_REASON_DROP_FOREIGN_SOCKET},
	{"HBONE", PLACE_IN, "4S", POD4, 15008, DROP, WR_REASON_DROP_FOREIGN_SOCKET},
};

/* The pod's own process takes the ports while the agent is away. */
static void test_foreign_sockets(void **state)
{
	struct fixture *f = *state;
	int fds[3];

	close_listeners(f);
	fds[0] = listen_on(f, f->pod, "0.0.0.0", 15001);
	fds[1] = listen_on(f, f->pod, "0.0.0.0", 15006);
	fds[2] = listen_on(f, f->pod, "0.0.0.0", 15008);
	run_table(f, foreign, ARRAY_SIZE(foreign));
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static const struct packet_case draining[] = {
	{"SYN out", PLACE_OUT, "4S", "10.99.0.1", 80, PASS, WR_REASON_BYPASS_DRAINING},
	{"SYN in", PLACE_IN, "4S", POD4, 8080, PASS, WR_REASON_BYPASS_DRAINING},
	{"HBONE", PLACE_IN, "4S", POD4, 15008, ASSIGN, WR_REASON_NONE},
};

static void test_pod_draining(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(capture_pod_drain(f->capture, 7), 0);
	run_table(f, draining, ARRAY_SIZE(draining));
}

static void test_model_changes(void **state)
{
	struct fixture *f = *state;
	struct model *m = model_new();
	struct model_delta *d = model_delta_new();
	struct workload *w = workload_new();
	struct ip_addr a;
	uint32_t flags = 0;

	w->uid = strdup("cluster//Pod/default/plain");
	w->addrs = calloc(1, sizeof(*w->addrs));
	w->n_addrs = 1;
	assert_int_equal(ip_addr_parse("10.5.0.7", &w->addrs[0]), 0);
	a = w->addrs[0];
	assert_int_equal(model_delta_add_workload(d, w), 0);
	assert_int_equal(model_apply(m, d), 0);
	assert_int_equal(capture_apply_model(f->capture, m, d), 0);
	assert_int_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &a, &flags), 0);
	assert_int_equal(flags, WR_DEST_UNENROLLED);
	/* The first state swept what an earlier agent had. */
	assert_int_equal(ip_addr_parse("10.5.0.9", &a), 0);
	assert_int_not_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &a, &flags), 0);
	model_delta_free(d);
	d = model_delta_new();
	assert_int_equal(model_delta_remove_workload(d, "cluster//Pod/default/plain"), 0);
	assert_int_equal(model_apply(m, d), 0);
	assert_int_equal(capture_apply_model(f->capture, m, d), 0);
	assert_int_equal(ip_addr_parse("10.5.0.7", &a), 0);
	assert_int_not_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &a, &flags), 0);
	model_delta_free(d);
	model_free(m);
}

/* Addresses of `s` from 11.0.0.0 on. */
static void add_vips(struct service *s, size_t n)
{
	s->vips = calloc(n, sizeof(*s->vips));
	s->n_vips = n;
	for (size_t i = 0; i < n; i++) {
		char text[24];

		snprintf(text, sizeof(text), "11.%zu.%zu.%zu", i >> 16, i >> 8 & 255, i & 255);
		assert_int_equal(ip_addr_parse(text, &s->vips[i]), 0);
	}
}

static void test_more_destinations_than_there_is_room_for(void **state)
{
	struct fixture *f = *state;
	struct model *m = model_new();
	struct model_delta *d = model_delta_new();
	struct service *s = service_new();
	struct workload *w = workload_new();
	struct ip_addr last;
	uint32_t flags;

	s->hostname = strdup("many.default.svc.cluster.local");
	add_vips(s, CAPTURE_MAX_DESTINATIONS + 1);
	last = s->vips[CAPTURE_MAX_DESTINATIONS];
	assert_int_equal(model_delta_add_service(d, s), 0);
	assert_int_equal(model_apply(m, d), 0);
	assert_null(capture_alarm(f->capture));
	assert_int_equal(capture_apply_model(f->capture, m, d), -E2BIG);
	assert_non_null(capture_alarm(f->capture));
	assert_int_not_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &last, &flags), 0);
	model_delta_free(d);
	/* Room for it, and the next change, whatever that is. */
	assert_int_equal(bpf_map_delete_elem(f->capture->maps[MAP_DEST], &s->vips[0]), 0);
	s->vips[0] = last;
	d = model_delta_new();
	w->uid = strdup("cluster//Pod/default/other");
	assert_int_equal(model_delta_add_workload(d, w), 0);
	assert_int_equal(model_apply(m, d), 0);
	assert_int_equal(capture_apply_model(f->capture, m, d), 0);
	assert_null(capture_alarm(f->capture));
	assert_int_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &last, &flags), 0);
	assert_int_equal(flags, WR_DEST_VIP);
	model_delta_free(d);
	model_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_more_destinations_than_there_is_room_for, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_agent_present, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_agent_absent, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_foreign_sockets, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_pod_draining, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_model_changes, setup, fixture_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
