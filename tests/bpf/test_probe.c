/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kubelet's probes: what a process of the node connects to a declared port goes to the app, agent or none; what
 * only looks like it goes the way of everybody. The node is the world's namespace: capture is opened there.
 */
#include "packet_case.h"

#include <sys/stat.h>
#include <sys/wait.h>

#define PODS_CGROUP "/sys/fs/cgroup/unified/kubepods.wr-%d"

static const uint16_t declared[] = {8080};

static void declare(struct fixture *f)
{
	struct ip_addr a[2];

	assert_int_equal(ip_addr_parse(POD4, &a[0]), 0);
	assert_int_equal(ip_addr_parse(POD6, &a[1]), 0);
	assert_int_equal(capture_pod_set_probes(f->capture, 7, a, 2, declared, 1), 0);
}

/* As agent and kubelet see it: everything else is closed by policy. */
static int node_is_world(void **state, bool every_port)
{
	const struct capture_modes m = {.mode = MTLS_STRICT, .restricted = true};
	struct fixture *f;

	fixture_new(state);
	f = *state;
	enter(f->world);
	open_capture_with(f, (struct capture_config){.exempt_node_sockets = every_port});
	enter(f->home);
	attach(f);
	declare(f);
	assert_int_equal(capture_pod_set_modes(f->capture, 7, &m), 0);
	return 0;
}

static int setup(void **state)
{
	return node_is_world(state, false);
}

static int setup_every_port(void **state)
{
	return node_is_world(state, true);
}

/* The app itself accepts, and both sides talk. */
static void reaches_app(struct fixture *f, int family, const char *ip, uint16_t port, int app)
{
	int fd = dial(f, f->world, family, NULL, 0, ip, port), got;

	assert_int_equal(connected(fd, WAIT_MS), 0);
	got = take(app, WAIT_MS, NULL, strchr(ip, ':') ? WORLD6 : WORLD4);
	assert_true(got >= 0);
	pass_bytes(fd, got);
	pass_bytes(got, fd);
	close(fd);
	close(got);
}

static void is_refused(struct fixture *f, int ns, const char *ip, uint16_t port)
{
	int fd = dial(f, ns, family_of(ip), NULL, 0, ip, port);

	assert_int_equal(connected(fd, WAIT_MS), ECONNREFUSED);
	close(fd);
}

static void reaches_app_each_way(struct fixture *f, uint16_t port, int app)
{
	reaches_app(f, AF_INET, POD4, port, app);
	reaches_app(f, AF_INET6, POD6, port, app);
	reaches_app(f, AF_INET6, POD4, port, app);
}

static size_t flows(struct fixture *f)
{
	struct wr_flow key;
	size_t n = 0;

	while (bpf_map_get_next_key(f->capture->maps[MAP_PROBE_FLOWS], n ? &key : NULL, &key) == 0)
		n++;
	return n;
}

static void test_declared_port(void **state)
{
	struct fixture *f = *state;
	int app = listen_on(f, f->pod, "::", 8080), other = listen_on(f, f->pod, "::", 8081);
	uint64_t before = counter(f, WR_REASON_PROBE);

	reaches_app_each_way(f, 8080, app);
	assert_int_equal(counter(f, WR_REASON_PROBE), before + 3);
	is_refused(f, f->world, POD4, 8081);
	is_refused(f, f->world, POD6, 8081);
	close_listeners(f);
	reaches_app_each_way(f, 8080, app);
	is_refused(f, f->world, POD4, 8081);
	assert_int_equal(counter(f, WR_REASON_PROBE), before + 6);
	assert_int_equal(counter(f, WR_REASON_BYPASS_OLD), 0);
	/* Nothing is kept of sockets that are closed. */
	usleep(QUIET_MS * 1000);
	assert_int_equal(flows(f), 0);
	close(app);
	close(other);
}

/* A port that nobody listens on refuses by itself, as without a mesh. */
static void test_closed_port(void **state)
{
	struct fixture *f = *state;

	close_listeners(f);
	is_refused(f, f->world, POD4, 8080);
	is_refused(f, f->world, POD6, 8080);
}

static void test_every_port(void **state)
{
	struct fixture *f = *state;
	int app = listen_on(f, f->pod, "::", 8081);

	reaches_app_each_way(f, 8081, app);
	/* But the agent's own are not the app's. */
	close_listeners(f);
	{
		int fd = dial(f, f->world, AF_INET, NULL, 0, POD4, 15006);

		assert_int_equal(connected(fd, QUIET_MS), ETIMEDOUT);
		close(fd);
	}
	close(app);
}

/* With cookies the last ACK of the handshake belongs to no socket: it is a probe's as well. */
static void test_syn_cookies(void **state)
{
	struct fixture *f = *state;
	int app = listen_on(f, f->pod, "::", 8080);

	run("nsenter --net=/run/netns/wr-capp-%d sysctl -qw net.ipv4.tcp_syncookies=2", (int)getpid());
	reaches_app_each_way(f, 8080, app);
	close_listeners(f);
	reaches_app_each_way(f, 8080, app);
	close(app);
}

/* The same packets from elsewhere, with the node's address: nobody recorded them. */
static void test_packets_without_a_socket(void **state)
{
	static const struct packet_case cases[] = {
		{"SYN", PLACE_IN, "4S", POD4, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
		{"SYN v6", PLACE_IN, "6S", POD6, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
	};

	run_table(*state, cases, ARRAY_SIZE(cases));
}

static void record(struct fixture *f, uint32_t pod, uint64_t age)
{
	struct timespec now;
	struct wr_flow key = {.sport = 40000, .dport = 8080};
	struct wr_probe_flow v = {.pod = pod};

	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
	v.at = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - age;
	assert_int_equal(ip_addr_parse(POD4, (struct ip_addr *)(void *)&key.src), 0);
	key.dst = key.src;
	assert_int_equal(bpf_map_update_elem(f->capture->maps[MAP_PROBE_FLOWS], &key, &v, BPF_ANY), 0);
}

static void test_records(void **state)
{
	static const struct packet_case probe = {"SYN", PLACE_IN, "4S", POD4, 8080, PASS, WR_REASON_PROBE},
					ack = {"last ACK", PLACE_IN, "4A", POD4, 8080, PASS, WR_REASON_NONE},
					none = {"not a probe",		PLACE_IN, "4S", POD4, 8080, REDIRECT,
						WR_REASON_MTLS_REQUIRED};

	record(*state, 7, 1000000000);
	run_table(*state, &probe, 1);
	run_table(*state, &ack, 1);
	record(*state, 7, WR_PROBE_OPENING_NS);
	run_table(*state, &none, 1);
	record(*state, 8, 0);
	run_table(*state, &none, 1);
}

/* In a child that has moved itself to the cgroup: its exit code is the error of its connect. */
static int connect_from(struct fixture *f, const char *cgroup, uint16_t port)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		char path[128];
		FILE *procs;

		snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
		procs = fopen(path, "w");
		if (!procs || fprintf(procs, "%d", (int)getpid()) < 0 || fclose(procs))
			_exit(255);
		_exit(connected(dial(f, f->world, AF_INET, NULL, 0, POD4, port), WAIT_MS));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* A hostNetwork pod is in the node's namespace as the kubelet is: the error of its connect, and of another process's.
 */
static void from_each_cgroup(struct fixture *f, int *ret_inside, int *ret_outside)
{
	int app = listen_on(f, f->pod, "::", 8080);
	char pods[64], pod[80], deep[96], other[64];

	snprintf(pods, sizeof(pods), PODS_CGROUP, (int)getpid());
	snprintf(pod, sizeof(pod), "%s/pod1", pods);
	snprintf(deep, sizeof(deep), "%s/container", pod);
	snprintf(other, sizeof(other), "/sys/fs/cgroup/unified/wr-system-%d", (int)getpid());
	run("mkdir -p %s %s", deep, other);
	*ret_inside = connect_from(f, deep, 8080);
	*ret_outside = connect_from(f, other, 8080);
	run("rmdir %s %s %s %s", deep, pod, pods, other);
	close(app);
}

static void test_process_of_a_pod(void **state)
{
	int inside, outside;

	from_each_cgroup(*state, &inside, &outside);
	assert_int_equal(inside, ECONNREFUSED);
	assert_int_equal(outside, 0);
}

static void test_every_process(void **state)
{
	int inside, outside;

	from_each_cgroup(*state, &inside, &outside);
	assert_int_equal(inside, 0);
	assert_int_equal(outside, 0);
}

/* The whole set is replaced, and only one pod's. */
static void test_ports_change(void **state)
{
	struct fixture *f = *state;
	int app = listen_on(f, f->pod, "::", 8080), other = listen_on(f, f->pod, "::", 9090);
	static const uint16_t moved[] = {9090};
	static uint16_t many[3000];
	struct wr_probe_port key;
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(POD4, &a), 0);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (uint16_t)(i + 1);
	assert_int_equal(capture_pod_set_probes(f->capture, 8, &(struct ip_addr){.b = {10}}, 1, many, ARRAY_SIZE(many)),
			 0);
	assert_int_equal(capture_pod_set_probes(f->capture, 7, &a, 1, moved, 1), 0);
	reaches_app(f, AF_INET, POD4, 9090, other);
	is_refused(f, f->world, POD4, 8080);
	is_refused(f, f->world, POD6, 9090);
	assert_int_equal(capture_pod_set_probes(f->capture, 7, NULL, 0, NULL, 0), 0);
	is_refused(f, f->world, POD4, 9090);
	assert_int_equal(bpf_map_get_next_key(f->capture->maps[MAP_PROBE_PORTS], NULL, &key), 0);
	assert_int_equal(capture_pod_set_probes(f->capture, 8, NULL, 0, NULL, 0), 0);
	assert_int_not_equal(bpf_map_get_next_key(f->capture->maps[MAP_PROBE_PORTS], NULL, &key), 0);
	close(app);
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_declared_port, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_closed_port, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_every_port, setup_every_port, fixture_free),
		cmocka_unit_test_setup_teardown(test_syn_cookies, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_packets_without_a_socket, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_records, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_process_of_a_pod, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_every_process, setup_every_port, fixture_free),
		cmocka_unit_test_setup_teardown(test_ports_change, setup, fixture_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
