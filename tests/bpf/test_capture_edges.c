/* SPDX-License-Identifier: Apache-2.0 */
/* Capture where it is easy to get wrong: reused ports, SYN cookies, draining, un-enrolment, strict source
 * checks. */
#include "netns_fixture.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cjson/cJSON.h>
#include <linux/bpf.h>

static void pod_sysctl(struct fixture *f, const char *assignment)
{
	enter(f->pod);
	run("sysctl -qw %s", assignment);
	enter(f->home);
}

/* A connection that the agent's side closes first, so that its end waits in TIME_WAIT; then the same ports
 * again. */
static void reuse(struct fixture *f, int ns, int listener, const char *from, uint16_t port, const char *ip, uint16_t to)
{
	for (int i = 0; i < 2; i++) {
		int fd = dial(f, ns, family_of(ip), from, port, ip, to),
		    agent = take(listener, WAIT_MS / 4, NULL, from);

		assert_true(agent >= 0);
		assert_int_equal(connected(fd, WAIT_MS), 0);
		pass_bytes(fd, agent);
		close(agent);
		assert_true(ready(fd, POLLIN, WAIT_MS));
		close(fd);
		usleep(20000);
	}
}

static void test_time_wait_outbound(void **state)
{
	struct fixture *f = *state;

	reuse(f, f->pod, f->listeners[0], POD4, 40000, "10.99.0.1", 80);
	reuse(f, f->pod, f->listeners[0], POD6, 40000, "fd99::1", 80);
}

static void test_time_wait_inbound(void **state)
{
	struct fixture *f = *state;

	reuse(f, f->world, f->listeners[1], WORLD4, 40000, POD4, 8080);
	reuse(f, f->world, f->listeners[1], WORLD6, 40000, POD6, 8080);
}

/* Cookies: the last ACK of a handshake belongs to no socket yet, on each of the three ways. */
static void cookies(struct fixture *f)
{
	int app = dial(f, f->pod, AF_INET, NULL, 0, "10.99.0.1", 80),
	    agent = take(f->listeners[0], WAIT_MS, NULL, POD4);

	assert_true(agent >= 0);
	pass_bytes(app, agent);
	pass_bytes(agent, app);
	close(app);
	close(agent);
	inbound(f, POD4, WORLD4);
	inbound(f, POD6, WORLD6);
}

static void test_syn_cookies_always(void **state)
{
	struct fixture *f = *state;

	pod_sysctl(f, "net.ipv4.tcp_syncookies=2");
	cookies(f);
}

#define BURST 300

/* More at once than the backlog takes: cookies are sent, nobody is reset, the app sees none of it. How many
 * get through in time is the kernel's affair: without Warren not all do either. */
static void test_syn_cookies_burst(void **state)
{
	struct fixture *f = *state;
	int fds[BURST], agents[BURST], app = listen_on(f, f->pod, "0.0.0.0", 8080), fd, e;
	unsigned n = 0;

	pod_sysctl(f, "net.ipv4.tcp_syncookies=1");
	assert_int_equal(listen(f->listeners[1], 32), 0);
	for (int i = 0; i < BURST; i++)
		fds[i] = dial(f, f->world, AF_INET, NULL, 0, POD4, 8080);
	while (n < BURST && (fd = take(f->listeners[1], WAIT_MS, POD4 ":8080", WORLD4)) >= 0)
		agents[n++] = fd;
	assert_true(n >= 32);
	for (int i = 0; i < BURST; i++) {
		e = connected(fds[i], 0);
		assert_true(e == 0 || e == ETIMEDOUT);
	}
	assert_int_equal(take(app, 0, NULL, NULL), -1);
	for (int i = 0; i < BURST; i++)
		close(fds[i]);
	while (n)
		close(agents[--n]);
	close(app);
}

/* New connections, out of the pod to `world` and into it to `app`, meet no agent. */
static void bypasses(struct fixture *f, int world, int app)
{
	int fd, peer;

	fd = dial(f, f->pod, AF_INET, NULL, 0, WORLD4, 80);
	peer = take(world, WAIT_MS, NULL, POD4);
	assert_true(peer >= 0);
	pass_bytes(fd, peer);
	close(fd);
	close(peer);
	fd = dial(f, f->world, AF_INET, NULL, 0, POD4, 8080);
	peer = take(app, WAIT_MS, NULL, WORLD4);
	assert_true(peer >= 0);
	pass_bytes(fd, peer);
	pass_bytes(peer, fd);
	close(fd);
	close(peer);
}

static void test_draining(void **state)
{
	struct fixture *f = *state;
	int world = listen_on(f, f->world, WORLD4, 80), app = listen_on(f, f->pod, "0.0.0.0", 8080), t;
	int before = dial(f, f->pod, AF_INET, NULL, 0, "10.99.0.1", 80), agent;

	agent = take(f->listeners[0], WAIT_MS, NULL, POD4);
	assert_true(agent >= 0);
	assert_int_equal(capture_pod_drain(f->capture, 7), 0);
	bypasses(f, world, app);
	usleep(50000);
	t = tap(f);
	pass_bytes(before, agent);
	pass_bytes(agent, before);
	assert_int_equal(leaked(t), 0);
	close(t);
	close(before);
	close(agent);
	close(world);
	close(app);
}

/* Everything of the pod that Warren may touch, as text. */
static char *snapshot(struct fixture *f)
{
	static const char cmd[] =
		"ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | grep 22354; "
		"tc qdisc show; sysctl net.ipv4.conf.lo.accept_local net.ipv4.conf.lo.src_valid_mark; "
		"bpftool net show 2>/dev/null | grep pod_; ls /sys/fs/bpf/warren/%s/v%d/pods";
	char *text = calloc(1, 16384), full[1024];
	FILE *p;
	size_t n;

	snprintf(full, sizeof(full), cmd, f->node, WR_ABI_VERSION);
	enter(f->pod);
	p = popen(full, "r");
	assert_non_null(p);
	n = fread(text, 1, 16383, p);
	assert_true(n > 0);
	pclose(p);
	enter(f->home);
	return text;
}

static int setup_detached(void **state)
{
	fixture_new(state);
	open_capture(*state, false);
	return 0;
}

static void test_detach_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	char *before = snapshot(f), *during, *after;
	struct capture_leftover *left = NULL;
	struct capture *ro = NULL;
	char *error = NULL;
	size_t n = 0;

	attach(f);
	during = snapshot(f);
	assert_string_not_equal(before, during);
	close_listeners(f);
	f->capture = capture_close(f->capture);
	/* As warrenctl does it, without an agent. */
	assert_int_equal(capture_open_readonly(f->node, NULL, &ro, &error), 0);
	assert_int_equal(capture_leftovers(ro, &left, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(left[0].number, 7);
	assert_string_equal(left[0].uid, "cluster//Pod/default/web");
	assert_int_equal(access(left[0].netns_path, F_OK), 0);
	assert_int_equal(capture_pod_detach(ro, 7, f->pod), 0);
	assert_int_equal(capture_pod_detach(ro, 7, f->pod), 0);
	after = snapshot(f);
	assert_string_equal(before, after);
	capture_close(ro);
	free(left);
	free(before);
	free(during);
	free(after);
}

/* What the old agent held is answered with RST by the new one, and nothing leaves the pod. */
static void test_lost_connections_are_reset(void **state)
{
	struct fixture *f = *state;
	int app = dial(f, f->pod, AF_INET, NULL, 0, "10.99.0.1", 80), agent, t;
	struct inbound in;

	agent = take(f->listeners[0], WAIT_MS, NULL, POD4);
	assert_true(agent >= 0);
	inbound_open(f, POD4, WORLD4, &in);
	close_listeners(f);
	f->capture = capture_close(f->capture);
	close(agent);
	close(in.to_app);
	close(in.agent);
	usleep(1500000);
	open_capture(f, false);
	attach(f);
	t = tap(f);
	assert_int_equal(send(app, "secret", 6, MSG_NOSIGNAL), 6);
	assert_int_equal(send(in.app, "secret", 6, MSG_NOSIGNAL), 6);
	assert_int_equal(leaked(t), 0);
	/* EPIPE, as both had seen the old agent's FIN. */
	assert_int_equal(connected(app, WAIT_MS), EPIPE);
	assert_int_equal(connected(in.app, WAIT_MS), EPIPE);
	close(t);
	close(app);
	close(in.app);
	close(in.caller);
	close(in.listener);
}

/* With clsact: filters and a qdisc that others use stay. */
static void test_foreign_filters_stay(void **state)
{
	struct fixture *f = *state;
	struct bpf_insn pass[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1},
				  {.code = BPF_JMP | BPF_EXIT}};
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 5);
	char *after;

	opts.prog_fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL", pass, 2, NULL);
	assert_true(opts.prog_fd >= 0);
	enter(f->pod);
	hook.ifindex = (int)if_nametoindex("eth0");
	(void)bpf_tc_hook_create(&hook);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
	enter(f->home);
	close(opts.prog_fd);
	assert_int_equal(capture_pod_detach(f->capture, 7, f->pod), 0);
	after = snapshot(f);
	assert_non_null(strstr(after, "clsact"));
	free(after);
}

/* What a person sees without an agent: three attachments, whichever way they are made. */
static void test_dump_without_agent(void **state)
{
	struct fixture *f = *state;
	struct capture *ro = NULL;
	cJSON *dump, *pod;

	assert_int_equal(capture_open_readonly(f->node, NULL, &ro, NULL), 0);
	dump = capture_dump(ro);
	pod = cJSON_GetArrayItem(cJSON_GetObjectItem(dump, "pods"), 0);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(pod, "mode")), "enrolled");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(pod, "name")), "web");
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(pod, "links")), 3);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(dump, "mesh_ranges")), 2);
	cJSON_Delete(dump);
	capture_close(ro);
	assert_int_equal(capture_open_readonly("wr-cap-none", NULL, &ro, NULL), -ENOENT);
}

/* The same pod under another number: one set of programs remains, and detaching leaves nothing. */
static void test_renumbered(void **state)
{
	struct fixture *f = *state;
	struct capture_pod pod = {.number = 8, .uid = "u", .namespace_ = "n", .name = "p", .netns_fd = f->pod};
	char *before = snapshot(f), *after, *error = NULL;
	struct capture_leftover *left = NULL;
	size_t n = 0;

	attach(f);
	close_listeners(f);
	assert_int_equal(capture_pod_attach(f->capture, &pod, NULL, f->listeners, &error), 0);
	cookies(f);
	assert_int_equal(capture_leftovers(f->capture, &left, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(left[0].number, 8);
	assert_int_equal(capture_pod_detach(f->capture, 8, f->pod), 0);
	after = snapshot(f);
	assert_string_equal(before, after);
	free(before);
	free(after);
	free(left);
}

/* A second agent takes over pins and pod; what was connected goes on, what comes next reaches the new
 * listeners. */
static void test_adopted(void **state)
{
	struct fixture *f = *state;
	int app = dial(f, f->pod, AF_INET, NULL, 0, "10.99.0.1", 80),
	    agent = take(f->listeners[0], WAIT_MS, NULL, POD4);
	int fd, peer;

	assert_true(agent >= 0);
	close_listeners(f);
	f->capture = capture_close(f->capture);
	fd = dial(f, f->pod, AF_INET, NULL, 0, "10.99.0.2", 80);
	open_capture(f, false);
	attach(f);
	assert_int_equal(capture_pod_refresh(f->capture, 7, f->pod), 0);
	pass_bytes(app, agent);
	pass_bytes(agent, app);
	/* The SYN that was dropped comes again. */
	peer = take(f->listeners[0], WAIT_MS, "10.99.0.2:80", POD4);
	assert_true(peer >= 0);
	pass_bytes(fd, peer);
	close(fd);
	close(peer);
	close(app);
	close(agent);
	inbound(f, POD4, WORLD4);
}

static void test_later_interface(void **state)
{
	struct fixture *f = *state;
	int id = (int)getpid(), fd, peer;

	run("ip -n wr-capp-%d link add eth1 type veth peer name wrcapw1 netns wr-capw-%d", id, id);
	run("ip -n wr-capp-%d link set eth1 up && ip -n wr-capw-%d link set wrcapw1 up", id, id);
	run("ip -n wr-capp-%d addr add 10.86.0.2/24 dev eth1 && ip -n wr-capw-%d addr add 10.86.0.1/24 dev "
	    "wrcapw1",
	    id, id);
	assert_int_equal(capture_pod_refresh(f->capture, 7, f->pod), 2);
	assert_int_equal(capture_pod_refresh(f->capture, 7, f->pod), 0);
	fd = dial(f, f->pod, AF_INET, NULL, 0, "10.86.0.1", 80);
	peer = take(f->listeners[0], WAIT_MS, "10.86.0.1:80", "10.86.0.2");
	assert_true(peer >= 0);
	close(fd);
	close(peer);
}

/* Two nodes on one kernel, each with a pod of the same number; one leaves. */
static void test_two_nodes(void **state)
{
	struct fixture *f = *state, other = *f;
	int fd, peer;

	run("ip -n wr-capw-%d route add default via " POD4, (int)getpid());
	snprintf(other.node, sizeof(other.node), "wr-cap-%d-b", (int)getpid());
	other.pod = f->world;
	other.listeners[0] = other.listeners[1] = other.listeners[2] = -1;
	open_capture(&other, false);
	attach(&other);
	fd = dial(f, f->world, AF_INET, NULL, 0, "10.99.0.1", 80);
	peer = take(other.listeners[0], WAIT_MS, "10.99.0.1:80", WORLD4);
	assert_true(peer >= 0);
	pass_bytes(fd, peer);
	if (!getenv("WR_ASSUME_MISSING"))
		assert_congestion(fd, "reno", true);
	close(fd);
	close(peer);
	close_listeners(&other);
	assert_int_equal(capture_pod_detach(other.capture, 7, other.pod), 0);
	capture_close(other.capture);
	run("find /sys/fs/bpf/warren/%s -delete", other.node);
	cookies(f);
}

/* What somebody in the pod took away comes back. */
static void test_refresh_repairs(void **state)
{
	struct fixture *f = *state;

	if (!getenv("WR_ASSUME_MISSING"))
		return; /* a TCX link cannot be removed from inside the pod */
	enter(f->pod);
	run("tc qdisc del dev eth0 clsact");
	enter(f->home);
	assert_int_equal(capture_pod_refresh(f->capture, 7, f->pod), 2);
	cookies(f);
}

/* A pod that dials itself: its own address never enters the agent; by its own Service the agent dials over
 * lo. */
static void test_itself(void **state)
{
	struct fixture *f = *state;
	int app = listen_on(f, f->pod, "0.0.0.0", 8080), fd = dial(f, f->pod, AF_INET, NULL, 0, POD4, 8080), peer,
	    agent;

	peer = take(app, WAIT_MS, POD4 ":8080", POD4);
	assert_true(peer >= 0);
	pass_bytes(fd, peer);
	close(fd);
	close(peer);
	fd = dial(f, f->pod, AF_INET, NULL, 0, "10.96.0.10", 80);
	agent = take(f->listeners[0], WAIT_MS, "10.96.0.10:80", POD4);
	assert_true(agent >= 0);
	close(fd);
	close(agent);
	fd = socket_in(f, f->pod, AF_INET, SOCK_STREAM, 0);
	assert_int_equal(capture_claim_socket(f->capture, fd, SOCKET_TUNNEL), 0);
	{
		struct sockaddr_storage ss;
		socklen_t len = address(POD4, 15008, AF_INET, &ss);

		(void)connect(fd, (struct sockaddr *)&ss, len);
	}
	agent = take(f->listeners[2], WAIT_MS, POD4 ":15008", POD4);
	assert_true(agent >= 0);
	pass_bytes(fd, agent);
	close(fd);
	close(agent);
	fd = dial_app(f, POD4, POD4, 8080);
	peer = take(app, WAIT_MS, POD4 ":8080", POD4);
	assert_true(peer >= 0);
	pass_bytes(fd, peer);
	pass_bytes(peer, fd);
	close(fd);
	close(peer);
	close(app);
}

static int setup_strict(void **state)
{
	fixture_new(state);
	pod_sysctl(*state, "net.ipv4.conf.all.rp_filter=1");
	open_capture(*state, false);
	attach(*state);
	return 0;
}

static void test_strict_source_checks(void **state)
{
	cookies(*state);
}

static void test_foreign_listener(void **state)
{
	struct fixture *f = *state;
	struct capture_pod pod = {.number = 7, .uid = "u", .namespace_ = "n", .name = "p", .netns_fd = f->pod};
	int held = listen_on(f, f->pod, "0.0.0.0", 15006);
	char *error = NULL, *before = snapshot(f), *after;

	assert_int_equal(capture_pod_attach(f->capture, &pod, NULL, f->listeners, &error), -EADDRINUSE);
	assert_non_null(strstr(error, "15006"));
	after = snapshot(f);
	assert_string_equal(before, after);
	free(before);
	free(after);
	free(error);
	close(held);
}

static double counted(struct fixture *f, const char *reason)
{
	cJSON *dump = capture_dump(f->capture);
	cJSON *pod = cJSON_GetArrayItem(cJSON_GetObjectItem(dump, "pods"), 0), *n;
	double v;

	n = cJSON_GetObjectItem(cJSON_GetObjectItem(pod, "counters"), reason);
	v = n ? n->valuedouble : 0;
	cJSON_Delete(dump);
	return v;
}

/* A mark alone brings nobody anywhere. */
static void test_forged_mark(void **state)
{
	struct fixture *f = *state;
	int fd = socket_in(f, f->pod, AF_INET, SOCK_STREAM, 0), mark = (int)WR_MARK_CAPTURED, t = tap(f);
	struct sockaddr_storage ss;
	socklen_t len = address(POD4, 0, AF_INET, &ss);

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	len = address("10.99.0.1", 80, AF_INET, &ss);
	(void)connect(fd, (struct sockaddr *)&ss, len);
	assert_int_equal(take(f->listeners[0], QUIET_MS, NULL, NULL), -1);
	assert_int_equal(leaked(t), 0);
	assert_true(counted(f, "drop_spoofed_mark") > 0);
	close(fd);
	close(t);
}

/* Connected before, so outside the mesh for good; counted once. */
static void test_older_connection(void **state)
{
	struct fixture *f = *state;
	int world = listen_on(f, f->world, WORLD4, 80), fd = dial(f, f->pod, AF_INET, NULL, 0, WORLD4, 80), peer;

	peer = take(world, WAIT_MS, NULL, POD4);
	assert_true(peer >= 0);
	attach(f);
	pass_bytes(fd, peer);
	pass_bytes(peer, fd);
	pass_bytes(fd, peer);
	assert_true(counted(f, "bypass_older_than_enrolment") == 1);
	close(fd);
	close(peer);
	close(world);
}

static int setup_open(void **state)
{
	fixture_new(state);
	open_capture(*state, true);
	attach(*state);
	return 0;
}

static void test_open_on_loss(void **state)
{
	struct fixture *f = *state;
	int world = listen_on(f, f->world, WORLD4, 80), app = listen_on(f, f->pod, "0.0.0.0", 8080);

	close_listeners(f);
	bypasses(f, world, app);
	close(world);
	close(app);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_syn_cookies_always, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_syn_cookies_burst, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_draining, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_detach_leaves_nothing, setup_detached, fixture_free),
		cmocka_unit_test_setup_teardown(test_lost_connections_are_reset, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_foreign_filters_stay, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_dump_without_agent, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_renumbered, setup_detached, fixture_free),
		cmocka_unit_test_setup_teardown(test_adopted, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_two_nodes, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_refresh_repairs, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_later_interface, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_itself, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_strict_source_checks, setup_strict, fixture_free),
		cmocka_unit_test_setup_teardown(test_foreign_listener, setup_detached, fixture_free),
		cmocka_unit_test_setup_teardown(test_forged_mark, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_older_connection, setup_detached, fixture_free),
		cmocka_unit_test_setup_teardown(test_open_on_loss, setup_open, fixture_free),
		cmocka_unit_test_setup_teardown(test_time_wait_outbound, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_time_wait_inbound, setup_attached, fixture_free),
	};
	return run_either_way(tests, sizeof(tests) / sizeof(tests[0]));
}
