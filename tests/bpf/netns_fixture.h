/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two real network namespaces for the capture tests: a pod, and the world it is linked to. All sockets are
 * made from one thread by switching; every wait is bounded. Included by tests/bpf/test_*.c.
 *
 *   pod  10.87.0.2 fd87::2  eth0 ---- veth  world 10.87.0.1 fd87::1 (default route of the pod)
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "abi/marks.h"
#include "agent/capture/capture.h"
#include "engine/base/addr.h"
#include "engine/base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#define POD4 "10.87.0.2"
#define POD6 "fd87::2"
#define WORLD4 "10.87.0.1"
#define WORLD6 "fd87::1"
#define WAIT_MS 2000
#define QUIET_MS 150

struct fixture {
	int home, pod, world;
	struct capture *capture;
	int listeners[3]; /* 15001, 15006, 15008 */
	char node[32];
};

static inline void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	if (system(cmd) != 0)
		fail_msg("failed: %s", cmd);
}

static inline void enter(int ns)
{
	assert_int_equal(setns(ns, CLONE_NEWNET), 0);
}

static inline int socket_in(struct fixture *f, int ns, int family, int type, int protocol)
{
	int fd;

	enter(ns);
	fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	enter(f->home);
	assert_true(fd >= 0);
	return fd;
}

static inline socklen_t address(const char *ip, uint16_t port, int family, struct sockaddr_storage *ss)
{
	struct ip_port a = {.port = port};

	assert_int_equal(ip_addr_parse(ip, &a.ip), 0);
	return ip_port_to_sockaddr(&a, family, ss);
}

static inline int family_of(const char *ip)
{
	return strchr(ip, ':') ? AF_INET6 : AF_INET;
}

/* Starts a connect; bound to `from` unless NULL. */
static inline int dial(struct fixture *f, int ns, int family, const char *from, uint16_t from_port, const char *ip,
		       uint16_t port)
{
	int fd = socket_in(f, ns, family, SOCK_STREAM, 0), one = 1;
	struct sockaddr_storage ss;
	socklen_t len;

	if (from) {
		len = address(from, from_port, family, &ss);
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	}
	len = address(ip, port, family, &ss);
	if (connect(fd, (struct sockaddr *)&ss, len) < 0)
		assert_int_equal(errno, EINPROGRESS);
	return fd;
}

static inline bool ready(int fd, short events, int ms)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, ms) == 1;
}

/* 0 when connected, the error when refused, ETIMEDOUT when still trying. */
static inline int connected(int fd, int ms)
{
	int e = 0;
	socklen_t len = sizeof(e);

	if (!ready(fd, POLLOUT, ms))
		return ETIMEDOUT;
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len), 0);
	return e;
}

static inline int listen_on(struct fixture *f, int ns, const char *ip, uint16_t port)
{
	int fd = socket_in(f, ns, family_of(ip), SOCK_STREAM, 0), one = 1;
	struct sockaddr_storage ss;
	socklen_t len = address(ip, port, family_of(ip), &ss);

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(listen(fd, 128), 0);
	return fd;
}

/* The next connection, or -1 after `ms`. Checks both of its addresses unless NULL. */
static inline int take(int listener, int ms, const char *local, const char *remote)
{
	struct sockaddr_storage ss;
	char text[IP_PORT_STRLEN];
	struct ip_port a;
	socklen_t len = sizeof(ss);
	int fd;

	if (!ready(listener, POLLIN, ms))
		return -1;
	fd = accept4(listener, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	if (remote) {
		assert_int_equal(ip_port_from_sockaddr(&ss, &a), 0);
		assert_string_equal(ip_addr_format(&a.ip, text, sizeof(text)), remote);
	}
	if (local) {
		len = sizeof(ss);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
		assert_int_equal(ip_port_from_sockaddr(&ss, &a), 0);
		assert_string_equal(ip_port_format(&a, text, sizeof(text)), local);
	}
	return fd;
}

/* A few bytes from one end to the other. */
static inline void pass_bytes(int from, int to)
{
	char buf[16] = "";

	assert_int_equal(send(from, "warren", 6, MSG_NOSIGNAL), 6);
	assert_true(ready(to, POLLIN, WAIT_MS));
	assert_int_equal(recv(to, buf, sizeof(buf), 0), 6);
	assert_string_equal(buf, "warren");
}

static inline void assert_congestion(int fd, const char *want, bool equal)
{
	char name[16] = "";
	socklen_t len = sizeof(name);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len), 0);
	if (equal)
		assert_string_equal(name, want);
	else
		assert_string_not_equal(name, want);
}

/* Sees every packet of the world's end of the link. */
static inline int tap(struct fixture *f)
{
	int fd = socket_in(f, f->world, AF_PACKET, SOCK_DGRAM, htons(0x0003));
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(0x0003)};

	enter(f->world);
	ll.sll_ifindex = (int)if_nametoindex("wrcapw");
	enter(f->home);
	assert_int_equal(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
	return fd;
}

/* TCP packets from the pod that the tap has seen by now. */
static inline unsigned leaked(int fd)
{
	uint8_t buf[2048];
	struct sockaddr_ll ll;
	socklen_t len = sizeof(ll);
	unsigned count = 0;
	ssize_t n;

	usleep(QUIET_MS * 1000);
	while ((n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&ll, &len)) > 0) {
		bool v4 = n >= 20 && buf[0] >> 4 == 4 && buf[9] == IPPROTO_TCP;
		bool v6 = n >= 40 && buf[0] >> 4 == 6 && buf[6] == IPPROTO_TCP;

		if (ll.sll_pkttype != PACKET_OUTGOING && (v4 || v6))
			count++;
		len = sizeof(ll);
	}
	return count;
}

/* Passes on the listeners that there are: after a first attach, a successor's. */
static inline void attach(struct fixture *f)
{
	struct ip_addr addrs[2];
	struct capture_pod pod = {.number = 7,
				  .uid = "cluster//Pod/default/web",
				  .namespace_ = "default",
				  .name = "web",
				  .netns_fd = f->pod,
				  .addrs = addrs,
				  .n_addrs = 2};
	char *error = NULL;

	assert_int_equal(ip_addr_parse(POD4, &addrs[0]), 0);
	assert_int_equal(ip_addr_parse(POD6, &addrs[1]), 0);
	if (capture_pod_attach(f->capture, &pod, f->listeners, f->listeners, &error) < 0)
		fail_msg("attach: %s", error);
}

static inline void close_listeners(struct fixture *f)
{
	for (int i = 0; i < 3; i++) {
		if (f->listeners[i] >= 0)
			close(f->listeners[i]);
		f->listeners[i] = -1;
	}
}

/* As an agent whose namespace the world is: the node's end of the link is there. */
static inline void attach_from_world(struct fixture *f)
{
	enter(f->world);
	attach(f);
	enter(f->home);
}

/* cfg: what differs from one test to another. */
static inline void open_capture_with(struct fixture *f, struct capture_config cfg)
{
	static const char *ranges[] = {"10.0.0.0/8", "fd00::/8"};
	static const uint16_t excluded[] = {9999};
	char *error = NULL;

	cfg.node = f->node;
	cfg.mesh_cidrs = ranges;
	cfg.n_mesh_cidrs = 2;
	cfg.excluded_ports = excluded;
	cfg.n_excluded_ports = 1;
	cfg.assume_missing = getenv("WR_ASSUME_MISSING");
	if (capture_open(&cfg, &f->capture, &error) < 0)
		fail_msg("open: %s", error);
}

static inline void open_capture(struct fixture *f, bool open_on_loss)
{
	open_capture_with(f, (struct capture_config){.on_agent_loss_open = open_on_loss});
}

/* Namespaces and pins of test programs that were killed: the number in a name is that of the process whose it was. */
static inline void remove_leftovers(void)
{
	run("for f in $(find /run/netns /sys/fs/bpf/warren -maxdepth 1 -name 'wr-cap*' 2>/dev/null); do "
	    "n=${f#*wr-cap*-}; [ -e /proc/${n%%%%-*} ] || "
	    "ip netns del ${f##*/} 2>/dev/null || find $f -delete 2>/dev/null || :; "
	    "done");
}

/* Namespaces named after this process, so that runs do not meet. */
static inline int fixture_new(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[64];
	int id = (int)getpid();

	remove_leftovers();
	snprintf(f->node, sizeof(f->node), "wr-cap-%d", id);
	f->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < 3; i++)
		f->listeners[i] = -1;
	/* Left when an earlier set-up of this process failed: its teardown does not run then. */
	run("for n in wr-capp-%d wr-capw-%d; do ip netns del $n 2>/dev/null || :; done", id, id);
	run("ip netns add wr-capp-%d && ip netns add wr-capw-%d", id, id);
	run("ip -n wr-capp-%d link add eth0 type veth peer name wrcapw netns wr-capw-%d", id, id);
	/* A link-local address would appear only when duplicate detection is over, in the middle of a test. */
	run("ip -n wr-capp-%d link set eth0 addrgenmode none && ip -n wr-capw-%d link set wrcapw addrgenmode none", id,
	    id);
	run("for n in lo eth0; do ip -n wr-capp-%d link set $n up; done", id);
	run("for n in lo wrcapw; do ip -n wr-capw-%d link set $n up; done", id);
	run("ip -n wr-capp-%d addr add " POD4 "/24 dev eth0 && ip -n wr-capp-%d addr add " POD6 "/64 dev eth0 nodad",
	    id, id);
	run("ip -n wr-capw-%d addr add " WORLD4 "/24 dev wrcapw && ip -n wr-capw-%d addr add " WORLD6
	    "/64 dev wrcapw nodad",
	    id, id);
	run("ip -n wr-capp-%d route add default via " WORLD4 " && ip -n wr-capp-%d route add default via " WORLD6, id,
	    id);
	run("ip netns exec wr-capp-%d sysctl -qw net.ipv4.tcp_fin_timeout=1", id);
	snprintf(path, sizeof(path), "/run/netns/wr-capp-%d", id);
	f->pod = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/run/netns/wr-capw-%d", id);
	f->world = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(f->pod >= 0 && f->world >= 0);
	*state = f;
	return 0;
}

/* For most tests: capture is open and the pod attached, with the test as its agent. */
static inline int setup_attached(void **state)
{
	fixture_new(state);
	open_capture(*state, false);
	attach(*state);
	return 0;
}

static inline int fixture_free(void **state)
{
	struct fixture *f = *state;
	int id = (int)getpid();

	(void)setns(f->home, CLONE_NEWNET);
	close_listeners(f);
	capture_close(f->capture);
	close(f->pod);
	close(f->world);
	close(f->home);
	run("ip netns del wr-capp-%d; ip netns del wr-capw-%d", id, id);
	run("find /sys/fs/bpf/warren/%s -delete", f->node);
	free(f);
	return 0;
}

/* With all that the kernel offers, then with every fallback; failed tests of both. */
static inline int run_either_way(const struct CMUnitTest *tests, size_t n)
{
	int r = _cmocka_run_group_tests("as the kernel offers", tests, n, NULL, NULL);

	setenv("WR_ASSUME_MISSING", "tcx,sockops", 1);
	return r + _cmocka_run_group_tests("without tcx and sockops", tests, n, NULL, NULL);
}

/* The agent dials the app with the caller's address. */
static inline int dial_app(struct fixture *f, const char *caller, const char *ip, uint16_t port)
{
	int family = family_of(ip), fd = socket_in(f, f->pod, family, SOCK_STREAM, 0);
	struct sockaddr_storage ss;
	socklen_t len = address(caller, 0, family, &ss);

	assert_int_equal(capture_claim_socket(f->capture, fd, SOCKET_TO_APP), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	len = address(ip, port, family, &ss);
	if (connect(fd, (struct sockaddr *)&ss, len) < 0)
		assert_int_equal(errno, EINPROGRESS);
	return fd;
}

struct inbound {
	int listener, caller, agent, to_app, app;
};

static inline void inbound_open(struct fixture *f, const char *pod, const char *world, struct inbound *c)
{
	char local[64];

	snprintf(local, sizeof(local), strchr(pod, ':') ? "[%s]:8080" : "%s:8080", pod);
	c->listener = listen_on(f, f->pod, strchr(pod, ':') ? "::" : "0.0.0.0", 8080);
	c->caller = dial(f, f->world, family_of(pod), NULL, 0, pod, 8080);
	c->agent = take(f->listeners[1], WAIT_MS, local, world);
	assert_true(c->agent >= 0);
	assert_int_equal(connected(c->caller, WAIT_MS), 0);
	c->to_app = dial_app(f, world, pod, 8080);
	c->app = take(c->listener, WAIT_MS, local, world);
	assert_true(c->app >= 0);
	assert_int_equal(connected(c->to_app, WAIT_MS), 0);
	assert_int_equal(take(c->listener, 0, NULL, NULL), -1);
}

static inline void inbound_close(struct inbound *c)
{
	close(c->caller);
	close(c->agent);
	close(c->to_app);
	close(c->app);
	close(c->listener);
}

static inline void inbound(struct fixture *f, const char *pod, const char *world)
{
	struct inbound c;

	inbound_open(f, pod, world, &c);
	pass_bytes(c.caller, c.agent);
	pass_bytes(c.agent, c.caller);
	pass_bytes(c.to_app, c.app);
	pass_bytes(c.app, c.to_app);
	assert_congestion(c.to_app, "reno", true);
	/* The wire keeps the system's choice. */
	assert_congestion(c.agent, "reno", false);
	if (!getenv("WR_ASSUME_MISSING"))
		assert_congestion(c.app, "reno", true);
	inbound_close(&c);
}
