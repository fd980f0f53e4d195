/* SPDX-License-Identifier: Apache-2.0 */
/* Capture with real packets: what a pod's connections meet with an agent, and without one. The test is the
 * agent. */
#include "netns_fixture.h"

/* An app dials `ip`; the agent gets the connection with the original destination, and bytes pass both ways.
 */
static void outbound(struct fixture *f, int family, const char *ip, const char *from, const char *local)
{
	int app = dial(f, f->pod, family, NULL, 0, ip, 80), agent;

	agent = take(f->listeners[0], WAIT_MS, local, from);
	assert_true(agent >= 0);
	assert_int_equal(connected(app, WAIT_MS), 0);
	pass_bytes(app, agent);
	pass_bytes(agent, app);
	assert_congestion(agent, "reno", true);
	if (!getenv("WR_ASSUME_MISSING"))
		assert_congestion(app, "reno", true);
	close(app);
	assert_true(ready(agent, POLLIN, WAIT_MS));
	close(agent);
}

static void test_outbound(void **state)
{
	struct fixture *f = *state;
	int t = tap(f);

	outbound(f, AF_INET, "10.99.0.1", POD4, "10.99.0.1:80");
	outbound(f, AF_INET6, "fd99::1", POD6, "[fd99::1]:80");
	outbound(f, AF_INET6, "10.99.0.1", POD4, "10.99.0.1:80");
	assert_int_equal(leaked(t), 0);
	close(t);
}

static void test_inbound(void **state)
{
	struct fixture *f = *state;

	inbound(f, POD4, WORLD4);
	inbound(f, POD6, WORLD6);
}

static void test_hbone(void **state)
{
	struct fixture *f = *state;
	int peer = dial(f, f->world, AF_INET, NULL, 0, POD4, 15008), agent, back, out, t;

	agent = take(f->listeners[2], WAIT_MS, POD4 ":15008", WORLD4);
	assert_true(agent >= 0);
	pass_bytes(peer, agent);
	pass_bytes(agent, peer);
	close(peer);
	close(agent);
	/* And the agent's own tunnel leaves the pod. */
	back = listen_on(f, f->world, WORLD4, 15008);
	out = socket_in(f, f->pod, AF_INET, SOCK_STREAM, 0);
	t = tap(f);
	assert_int_equal(capture_claim_socket(f->capture, out, SOCKET_TUNNEL), 0);
	{
		struct sockaddr_storage ss;
		socklen_t len = address(WORLD4, 15008, AF_INET, &ss);

		(void)connect(out, (struct sockaddr *)&ss, len);
	}
	peer = take(back, WAIT_MS, NULL, POD4);
	assert_true(peer >= 0);
	pass_bytes(out, peer);
	pass_bytes(peer, out);
	assert_true(leaked(t) > 0);
	close(peer);
	close(out);
	close(back);
	close(t);
}

/* A predecessor's --tunnel-congestion is not its successor's. */
static void test_listeners_passed_on(void **state)
{
	struct fixture *f = *state;
	int before[3], peer, agent;

	memcpy(before, f->listeners, sizeof(before));
	assert_int_equal(setsockopt(before[2], IPPROTO_TCP, TCP_CONGESTION, "reno", 4), 0);
	attach(f);
	assert_memory_equal(f->listeners, before, sizeof(before));
	peer = dial(f, f->world, AF_INET, NULL, 0, POD4, 15008);
	agent = take(f->listeners[2], WAIT_MS, POD4 ":15008", WORLD4);
	assert_true(agent >= 0);
	assert_congestion(agent, "reno", false);
	close(agent);
	close(peer);
	/* 15001's is not a matter of the network. */
	assert_congestion(f->listeners[0], "reno", true);
}

/* Without an agent: new connections get no answer at all, and nothing of the captured ones is seen outside.
 */
static void agent_gone(struct fixture *f, const char *pod, const char *dst)
{
	int app = dial(f, f->pod, family_of(dst), NULL, 0, dst, 80), agent, fd, t;
	const char *world = family_of(dst) == AF_INET ? WORLD4 : WORLD6;
	struct inbound in;

	agent = take(f->listeners[0], WAIT_MS, NULL, NULL);
	assert_true(agent >= 0);
	assert_int_equal(connected(app, WAIT_MS), 0);
	inbound_open(f, pod, world, &in);
	pass_bytes(in.to_app, in.app);
	close_listeners(f);
	close(agent);
	close(in.to_app);
	close(take_fd(in.agent));
	t = tap(f);
	/* The kernel keeps the agent's ends for tcp_fin_timeout, here a second. */
	usleep(1500000);
	(void)leaked(t);
	(void)send(app, "secret", 6, MSG_NOSIGNAL);
	(void)send(in.app, "secret", 6, MSG_NOSIGNAL);
	assert_int_equal(leaked(t), 0);
	fd = dial(f, f->pod, family_of(dst), NULL, 0, dst, 80);
	assert_int_equal(connected(fd, QUIET_MS), ETIMEDOUT);
	close(fd);
	fd = dial(f, f->world, family_of(dst), NULL, 0, pod, 8080);
	assert_int_equal(connected(fd, QUIET_MS), ETIMEDOUT);
	close(fd);
	fd = dial(f, f->world, family_of(dst), NULL, 0, pod, 15008);
	assert_int_equal(connected(fd, QUIET_MS), ETIMEDOUT);
	close(fd);
	close(app);
	close(in.app);
	assert_int_equal(leaked(t), 0);
	close(in.caller);
	close(in.listener);
	close(t);
}

static void test_agent_gone_v4(void **state)
{
	agent_gone(*state, POD4, "10.99.0.1");
}

static void test_agent_gone_v6(void **state)
{
	agent_gone(*state, POD6, "fd99::1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_outbound, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_inbound, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_hbone, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_listeners_passed_on, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_agent_gone_v4, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_agent_gone_v6, setup_attached, fixture_free),
	};

	return run_either_way(tests, sizeof(tests) / sizeof(tests[0]));
}
