/* SPDX-License-Identifier: Apache-2.0 */
/* The node's end of a pod's link: what its program lets out, and that the program is where it should be. */
#include "packet_case.h"

static int setup(void **state)
{
	static const char *const destinations[][2] = {{"10.5.0.9", "u"}, {"192.0.2.10", "v"}};
	struct fixture *f;

	fixture_new(state);
	f = *state;
	open_capture(f, false);
	attach_from_world(f);
	for (size_t i = 0; i < ARRAY_SIZE(destinations); i++) {
		uint32_t flags = *destinations[i][1] == 'u' ? WR_DEST_UNENROLLED : WR_DEST_VIP;
		struct ip_addr a;

		assert_int_equal(ip_addr_parse(destinations[i][0], &a), 0);
		assert_int_equal(bpf_map_update_elem(f->capture->maps[MAP_DEST], &a, &flags, BPF_ANY), 0);
	}
	return 0;
}

#define LINK PLACE_LINK
#define SOURCE WR_REASON_DROP_SOURCE
#define BYPASS WR_REASON_DROP_BYPASS

static const struct packet_case enforced[] = {
	{"SYN to the mesh", LINK, "4S", "10.99.0.1", 80, DROP, BYPASS},
	{"SYN to the mesh v6", LINK, "6S", "fd99::1", 80, DROP, BYPASS},
	{"SYN to a VIP outside the ranges", LINK, "4S", "192.0.2.10", 80, DROP, BYPASS},
	{"SYN to HBONE", LINK, "4S", "10.99.0.1", 15008, DROP, BYPASS},
	{"SYN with options", LINK, "4oS", "10.99.0.1", 80, DROP, BYPASS},
	{"SYN behind extension headers", LINK, "6hrxS", "fd99::1", 80, DROP, BYPASS},
	{"bytes of no connection", LINK, "4Ap", "10.99.0.1", 80, DROP, BYPASS},
	{"bytes of no connection v6", LINK, "6Ap", "fd99::1", 80, DROP, BYPASS},
	{"bytes in a SYN-ACK of no socket", LINK, "4Cp", "10.99.0.1", 80, DROP, BYPASS},
	{"ACK of no connection", LINK, "4A", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"cookie", LINK, "4C", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"RST", LINK, "6R", "fd99::1", 80, PASS, WR_REASON_NONE},
	{"outside", LINK, "4S", "192.0.2.11", 80, PASS, WR_REASON_NONE},
	{"outside v6", LINK, "6S", "2001:db8::11", 80, PASS, WR_REASON_NONE},
	{"un-enrolled pod", LINK, "4S", "10.5.0.9", 80, PASS, WR_REASON_NONE},
	{"excluded port", LINK, "4S", "10.99.0.1", 9999, PASS, WR_REASON_NONE},
	{"UDP", LINK, "4U", "10.99.0.1", 53, PASS, WR_REASON_NONE},
	{"ICMPv6", LINK, "6I", "fd99::1", 0, PASS, WR_REASON_NONE},
	{"first fragment", LINK, "4fS", "10.99.0.1", 80, DROP, WR_REASON_DROP_FRAGMENT},
	{"later fragment v6", LINK, "6lA", "fd99::1", 80, DROP, WR_REASON_DROP_FRAGMENT},
	{"UDP fragment", LINK, "4fU", "10.99.0.1", 53, PASS, WR_REASON_NONE},
	{"cut in the TCP header", LINK, "4S-", "10.99.0.1", 80, DROP, WR_REASON_DROP_MALFORMED},
	{"too many extension headers", LINK, "6xxxxxxxxxxS", "fd99::1", 80, DROP, WR_REASON_DROP_MALFORMED},
	{"foreign source", LINK, "4A", "192.0.2.11 from 10.87.0.3", 80, DROP, SOURCE},
	{"foreign source v6", LINK, "6A", "2001:db8::11 from fd87::3", 80, DROP, SOURCE},
	{"foreign source, UDP", LINK, "4U", "192.0.2.11 from 198.51.100.1", 53, DROP, SOURCE},
	{"foreign source, ICMPv6", LINK, "6I", "2001:db8::11 from fd87::3", 0, DROP, SOURCE},
	{"foreign source, fragment", LINK, "4lU", "192.0.2.11 from 198.51.100.1", 53, DROP, SOURCE},
	{"the pod's address, v4-mapped on the wire", LINK, "6A", "2001:db8::11 from ::ffff:" POD4, 80, DROP, SOURCE},
	{"loopback v6", LINK, "6A", "2001:db8::11 from ::1", 80, DROP, SOURCE},
	{"link-local", LINK, "6I", "ff02::1 from fe80::1", 0, PASS, WR_REASON_NONE},
	{"duplicate address detection", LINK, "6I", "ff02::1:ff00:1 from ::", 0, PASS, WR_REASON_NONE},
	{"MLD", LINK, "6hI", "ff02::16 from ::", 0, PASS, WR_REASON_NONE},
	{"unspecified to somebody", LINK, "6I", "fd99::1 from ::", 0, DROP, SOURCE},
	{"DHCP", LINK, "4U", "255.255.255.255 from 0.0.0.0", 67, PASS, WR_REASON_NONE},
	{"unspecified to somebody v4", LINK, "4U", "10.99.0.1 from 0.0.0.0", 67, DROP, SOURCE},
	{"v4 loopback", LINK, "4U", "10.99.0.1 from 127.0.0.1", 67, DROP, SOURCE},
};

static void test_enforced(void **state)
{
	run_table(*state, enforced, ARRAY_SIZE(enforced));
}

/* Fail closed: an agent that is gone changes nothing here. */
static void test_without_agent(void **state)
{
	close_listeners(*state);
	run_table(*state, enforced, ARRAY_SIZE(enforced));
}

static const struct packet_case draining[] = {
	{"SYN", LINK, "4S", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"bytes of no connection", LINK, "4Ap", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"foreign source", LINK, "4A", "192.0.2.11 from 10.87.0.3", 80, DROP, SOURCE},
};

static const struct packet_case off[] = {
	{"SYN", LINK, "4S", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"foreign source", LINK, "4A", "192.0.2.11 from 10.87.0.3", 80, PASS, WR_REASON_NONE},
	{"fragment", LINK, "4fS", "10.99.0.1", 80, PASS, WR_REASON_NONE},
};

static void set_config(struct fixture *f, uint32_t mode, uint32_t flags)
{
	struct wr_pod_config p = {.mode = mode, .flags = flags};
	uint32_t number = 7;

	assert_int_equal(bpf_map_update_elem(f->capture->maps[MAP_PODCFG], &number, &p, BPF_ANY), 0);
}

static void test_follows_the_pod(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(capture_pod_drain(f->capture, 7), 0);
	run_table(f, draining, ARRAY_SIZE(draining));
	set_config(f, WR_POD_OFF, 0);
	run_table(f, off, ARRAY_SIZE(off));
}

static const struct packet_case counted[] = {
	{"SYN", LINK, "4S", "10.99.0.1", 80, PASS, BYPASS},
	{"foreign source", LINK, "4A", "192.0.2.11 from 10.87.0.3", 80, PASS, SOURCE},
	{"fragment", LINK, "4fS", "10.99.0.1", 80, PASS, WR_REASON_DROP_FRAGMENT},
};

static void test_only_counts(void **state)
{
	set_config(*state, WR_POD_ENROLLED, WR_POD_LINK_COUNT);
	run_table(*state, counted, ARRAY_SIZE(counted));
}

static const struct packet_case open_with_agent[] = {
	{"SYN", LINK, "4S", "10.99.0.1", 80, DROP, BYPASS},
};
static const struct packet_case open_without_agent[] = {
	{"SYN", LINK, "4S", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"SYN v6", LINK, "6S", "fd99::1", 80, PASS, WR_REASON_NONE},
	{"foreign source", LINK, "4S", "192.0.2.11 from 10.87.0.3", 80, DROP, SOURCE},
};

static void test_open_on_loss(void **state)
{
	struct fixture *f = *state;

	set_config(f, WR_POD_ENROLLED, WR_POD_OPEN);
	run_table(f, open_with_agent, ARRAY_SIZE(open_with_agent));
	close_listeners(f);
	run_table(f, open_without_agent, ARRAY_SIZE(open_without_agent));
}

static const struct packet_case moved[] = {
	{"the new address", LINK, "4A", "192.0.2.11 from 10.87.0.3", 80, PASS, WR_REASON_NONE},
	{"the old one", LINK, "4A", "192.0.2.11 from " POD4, 80, DROP, SOURCE},
};

static const struct packet_case moved_on[] = {
	{"the address after that", LINK, "4A", "192.0.2.11 from 10.87.1.3", 80, PASS, WR_REASON_NONE},
	{"the one before", LINK, "4A", "192.0.2.11 from 10.87.0.3", 80, DROP, SOURCE},
};

static void test_addresses_change(void **state)
{
	struct fixture *f = *state;
	struct ip_addr many[200];

	for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
		assert_int_equal(ip_addr_parse("10.87.0.3", &many[i]), 0);
		many[i].b[14] = (uint8_t)i;
	}
	assert_int_equal(capture_pod_set_addresses(f->capture, 7, many, ARRAY_SIZE(many)), 0);
	run_table(f, moved, ARRAY_SIZE(moved));
	assert_int_equal(capture_pod_set_addresses(f->capture, 7, many, 1), 0);
	run_table(f, moved, ARRAY_SIZE(moved));
	assert_int_equal(capture_pod_set_addresses(f->capture, 7, many + 1, 1), 0);
	run_table(f, moved_on, ARRAY_SIZE(moved_on));
}

/* --- real packets over the real link --- */

/* A SYN of this claim to WORLD4:15008; what the listener there gets. */
static int knock(struct fixture *f, int listener, const enum socket_role *claim, const char *ip)
{
	int fd = socket_in(f, f->pod, family_of(ip), SOCK_STREAM, 0), peer;
	struct sockaddr_storage ss;
	socklen_t len = address(ip, 15008, family_of(ip), &ss);

	if (claim)
		assert_int_equal(capture_claim_socket(f->capture, fd, *claim), 0);
	(void)connect(fd, (struct sockaddr *)&ss, len);
	peer = take(listener, claim ? WAIT_MS : QUIET_MS, NULL, NULL);
	if (peer >= 0) {
		pass_bytes(fd, peer);
		pass_bytes(peer, fd);
		close(peer);
	}
	close(fd);
	return peer;
}

/* The kernel takes a link away in the background. */
static void remove_pod_out(struct fixture *f)
{
	enter(f->pod);
	run("tc qdisc del dev eth0 clsact 2>/dev/null; true");
	enter(f->home);
	run("rm -f /sys/fs/bpf/warren/%s/v%d/pods/7/*_out", f->node, WR_ABI_VERSION);
	usleep(QUIET_MS * 1000);
}

/* With the pod's own programs gone, a socket reaches the mesh only if the agent wrote into it that it is its own. */
static void test_only_the_agents_sockets(void **state)
{
	static const enum socket_role tunnel = SOCKET_TUNNEL;
	struct fixture *f = *state;
	int l4 = listen_on(f, f->world, WORLD4, 15008), l6 = listen_on(f, f->world, WORLD6, 15008);
	uint64_t before = counter(f, BYPASS);

	remove_pod_out(f);
	assert_int_equal(knock(f, l4, NULL, WORLD4), -1);
	assert_int_equal(knock(f, l6, NULL, WORLD6), -1);
	assert_true(counter(f, BYPASS) >= before + 2);
	assert_true(knock(f, l4, &tunnel, WORLD4) >= 0);
	assert_true(knock(f, l6, &tunnel, WORLD6) >= 0);
	close(l4);
	close(l6);
}

/* What the app sends on a captured connection never leaves, not even while the pod is being un-enrolled. */
static void test_captured_stays_inside(void **state)
{
	struct fixture *f = *state;
	int app = dial(f, f->pod, AF_INET, NULL, 0, WORLD4, 80), agent = take(f->listeners[0], WAIT_MS, NULL, NULL);
	uint64_t before;

	assert_true(agent >= 0);
	assert_int_equal(connected(app, WAIT_MS), 0);
	remove_pod_out(f);
	for (int i = 0; i < 2; i++) {
		before = counter(f, BYPASS);
		assert_int_equal(send(app, "secret", 6, MSG_NOSIGNAL), 6);
		usleep(QUIET_MS * 1000);
		assert_true(counter(f, BYPASS) > before);
		assert_int_equal(capture_pod_drain(f->capture, 7), 0);
	}
	close(app);
	close(agent);
}

/* A connection older than enrolment goes on, whichever side opened it. */
static void test_older_connections(void **state)
{
	struct fixture *f;
	int out, in, listener, app, peer, caller;

	fixture_new(state);
	f = *state;
	listener = listen_on(f, f->world, WORLD4, 80);
	app = listen_on(f, f->pod, POD6, 80);
	out = dial(f, f->pod, AF_INET, NULL, 0, WORLD4, 80);
	peer = take(listener, WAIT_MS, NULL, POD4);
	caller = dial(f, f->world, AF_INET6, NULL, 0, POD6, 80);
	in = take(app, WAIT_MS, NULL, WORLD6);
	assert_true(peer >= 0 && in >= 0);
	open_capture(f, false);
	attach_from_world(f);
	pass_bytes(out, peer);
	pass_bytes(peer, out);
	pass_bytes(in, caller);
	pass_bytes(caller, in);
	assert_int_equal(counter(f, BYPASS), 0);
	close(out);
	close(in);
	close(peer);
	close(caller);
	close(listener);
	close(app);
}

/* --- where it is attached --- */

static const char *link_of(struct fixture *f, int from)
{
	static char buf[160];
	const char *text;

	enter(from);
	text = capture_pod_link(f->capture, 7, f->pod, buf, sizeof(buf));
	enter(f->home);
	return text;
}

static unsigned made_by_refresh(struct fixture *f)
{
	int r;

	enter(f->world);
	r = capture_pod_refresh(f->capture, 7, f->pod);
	enter(f->home);
	assert_true(r >= 0);
	return (unsigned)r;
}

static char *world_tc(struct fixture *f)
{
	static char text[4096];
	FILE *p;
	size_t n;

	enter(f->world);
	p = popen("tc qdisc show; tc filter show dev wrcapw ingress", "re");
	n = fread(text, 1, sizeof(text) - 1, p);
	pclose(p);
	enter(f->home);
	text[n] = 0;
	return text;
}

static void test_attached_and_removed(void **state)
{
	struct fixture *f;
	char before[4096];

	fixture_new(state);
	f = *state;
	snprintf(before, sizeof(before), "%s", world_tc(f));
	open_capture(f, false);
	attach_from_world(f);
	assert_string_equal(link_of(f, f->world), "enforced");
	assert_true(!strcmp(world_tc(f), before) == f->capture->tcx);
	assert_int_equal(made_by_refresh(f), 0);
	enter(f->world);
	assert_int_equal(capture_pod_detach(f->capture, 7, f->pod), 0);
	enter(f->home);
	assert_string_equal(link_of(f, f->world), "none: eth0: the program is not attached");
	assert_string_equal(world_tc(f), before);
}

/* Taken away on the node, or the link made anew: the next refresh attaches again. */
static void test_put_back(void **state)
{
	struct fixture *f = *state;
	int id = (int)getpid();

	enter(f->world);
	run("tc qdisc del dev wrcapw clsact 2>/dev/null; true");
	enter(f->home);
	run("rm -f /sys/fs/bpf/warren/%s/v%d/pods/7/*_link", f->node, WR_ABI_VERSION);
	assert_string_equal(link_of(f, f->world), "none: eth0: the program is not attached");
	assert_int_equal(made_by_refresh(f), 1);
	assert_string_equal(link_of(f, f->world), "enforced");
	run("ip -n wr-capw-%d link del wrcapw", id);
	run("ip -n wr-capp-%d link add eth0 type veth peer name wrcapw netns wr-capw-%d", id, id);
	assert_int_equal(made_by_refresh(f), 3);
	assert_string_equal(link_of(f, f->world), "enforced");
}

static void test_links_without_an_end(void **state)
{
	struct fixture *f = *state;
	int id = (int)getpid();

	assert_string_equal(link_of(f, f->home), "none: eth0: its other end is not in this network namespace");
	run("ip -n wr-capp-%d link add br0 type bridge && ip -n wr-capp-%d link add v0 type veth peer name v1", id, id);
	assert_string_equal(link_of(f, f->world), "enforced");
	run("ip -n wr-capw-%d link add mv0 link wrcapw netns wr-capp-%d type macvlan", id, id);
	assert_string_equal(link_of(f, f->world),
			    "partly: mv0: shares a device of the node, and has no end of its own there");
	run("ip -n wr-capp-%d link del mv0; ip -n wr-capp-%d link del eth0", id, id);
	assert_string_equal(link_of(f, f->world), "none: it has no interface that leads out");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_enforced, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_without_agent, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_follows_the_pod, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_only_counts, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_open_on_loss, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_addresses_change, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_only_the_agents_sockets, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_captured_stays_inside, setup, fixture_free),
		cmocka_unit_test_teardown(test_older_connections, fixture_free),
		cmocka_unit_test_teardown(test_attached_and_removed, fixture_free),
		cmocka_unit_test_setup_teardown(test_put_back, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_links_without_an_end, setup, fixture_free),
	};

	return run_either_way(tests, ARRAY_SIZE(tests));
}
