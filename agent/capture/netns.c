/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod's network namespace: entering it, telling it apart, and the rules, routes and sysctls that bring
 * packets on lo to the agent's sockets. Whatever is found already there is not ours and is never removed.
 * Called by pod.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define NETNS_COOKIE_OPTION 71 /* SO_NETNS_COOKIE */
#define ACCEPT_LOCAL "/proc/sys/net/ipv4/conf/lo/accept_local"
#define SRC_VALID_MARK "/proc/sys/net/ipv4/conf/lo/src_valid_mark"

int netns_enter(int netns_fd, struct netns_guard *ret)
{
	_cleanup_close_ int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	if (home < 0)
		return -errno;
	if (setns(netns_fd, CLONE_NEWNET) < 0)
		return -errno;
	ret->home = take_fd(home);
	return 0;
}

void netns_leave(struct netns_guard *g)
{
	if (g->home < 0)
		return;
	/* A control thread that stayed in a pod's namespace would do all its later work there. */
	if (setns(g->home, CLONE_NEWNET) < 0)
		abort();
	close(take_fd(g->home));
}

/* Path of the namespace as it was opened, for whoever comes without the agent. */
static void remember_path(int netns_fd, struct wr_pod_record *rec)
{
	char self[64];
	ssize_t n;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", netns_fd);
	n = readlink(self, rec->netns_path, sizeof(rec->netns_path) - 1);
	if (n <= 0 || rec->netns_path[0] != '/')
		n = 0;
	rec->netns_path[n] = '\0';
}

int netns_cookie(uint64_t *ret)
{
	_cleanup_close_ int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	return s < 0 || getsockopt(s, SOL_SOCKET, NETNS_COOKIE_OPTION, ret, &len) < 0 ? -errno : 0;
}

int netns_identify(int netns_fd, struct wr_pod_record *ret)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	uint64_t cookie;
	struct stat st;
	int r;

	if (fstat(netns_fd, &st) < 0)
		return -errno;
	r = netns_enter(netns_fd, &g);
	if (r < 0)
		return r;
	r = netns_cookie(&cookie);
	if (r < 0)
		return r;
	ret->netns_cookie = cookie;
	ret->netns_dev = st.st_dev;
	ret->netns_ino = st.st_ino;
	remember_path(netns_fd, ret);
	return 0;
}

bool capture_is_netns(int netns_fd, uint64_t netns_cookie)
{
	struct wr_pod_record now = {};

	return netns_identify(netns_fd, &now) == 0 && now.netns_cookie == netns_cookie;
}

static int read_number(const char *path)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	int v;

	if (!f)
		return -errno;
	return fscanf(f, "%d", &v) == 1 && v >= 0 ? v : -EINVAL;
}

static int write_number(const char *path, int value)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return dprintf(fd, "%d", value) < 0 ? -errno : 0;
}

static int set_sysctl(const char *path, uint32_t bit, uint32_t *made)
{
	int v = read_number(path), r;

	if (v < 0)
		return v;
	if (v)
		return 0;
	r = write_number(path, 1);
	if (r == 0)
		*made |= bit;
	return r;
}

static int unset_sysctl(const char *path, uint32_t bit, uint32_t *made)
{
	int r = 0;

	if (*made & bit && read_number(path) == 1)
		r = write_number(path, 0);
	*made &= ~bit;
	return r;
}

static int add(int (*fn)(bool add, int family), int family, uint32_t bit, uint32_t *made)
{
	int r = fn(true, family);

	if (r == 0)
		*made |= bit;
	/* There already: an earlier agent's (then the record says so) or somebody else's. */
	return r == -EEXIST ? 0 : r;
}

static bool ipv6_off(void)
{
	return read_number("/proc/sys/net/ipv6/conf/lo/disable_ipv6") != 0;
}

static bool strict_source_check(void)
{
	int all = read_number("/proc/sys/net/ipv4/conf/all/rp_filter");
	int lo = read_number("/proc/sys/net/ipv4/conf/lo/rp_filter");

	return (all > lo ? all : lo) == 1;
}

int netns_prepare(uint32_t *made, char **ret_error)
{
	int r = add(route_rule, AF_INET, WR_MADE_RULE4, made);

	if (r == 0)
		r = add(route_local, AF_INET, WR_MADE_ROUTE4, made);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot add the IPv4 rule and route for lo: %s", strerror(-r));
	if (!ipv6_off()) {
		r = add(route_rule, AF_INET6, WR_MADE_RULE6, made);
		if (r == 0)
			r = add(route_local, AF_INET6, WR_MADE_ROUTE6, made);
		if (r < 0)
			return capture_fail(ret_error, r, "cannot add the IPv6 rule and route for lo: %s",
					    strerror(-r));
	}
	/* A captured packet arrives on lo from the pod's own address. */
	r = set_sysctl(ACCEPT_LOCAL, WR_MADE_ACCEPT_LOCAL, made);
	/* Strict source checks pass when the reverse look-up uses the mark: its rule leads to lo. */
	if (r == 0 && strict_source_check())
		r = set_sysctl(SRC_VALID_MARK, WR_MADE_SRC_VALID_MARK, made);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot set sysctls of lo: %s", strerror(-r));
	return 0;
}

int netns_restore(uint32_t *made)
{
	static const struct {
		uint32_t bit;
		int (*fn)(bool add, int family);
		int family;
	} steps[] = {
		{WR_MADE_RULE4, route_rule, AF_INET},
		{WR_MADE_RULE6, route_rule, AF_INET6},
		{WR_MADE_ROUTE4, route_local, AF_INET},
		{WR_MADE_ROUTE6, route_local, AF_INET6},
	};
	int first = 0, r;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		r = *made & steps[i].bit ? steps[i].fn(false, steps[i].family) : 0;
		*made &= ~steps[i].bit;
		if (!first && r < 0 && r != -ENOENT && r != -ESRCH)
			first = r;
	}
	r = unset_sysctl(ACCEPT_LOCAL, WR_MADE_ACCEPT_LOCAL, made);
	first = first ? first : r;
	r = unset_sysctl(SRC_VALID_MARK, WR_MADE_SRC_VALID_MARK, made);
	return first ? first : r;
}
