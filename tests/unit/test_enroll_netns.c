/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces by path, with real namespaces (root). */
#include "agent/enroll/netns.h"
#include "engine/base/cleanup.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <cmocka.h>

static char path[64];

/* A new namespace, bound to a file as `ip netns` does it; two addresses on an interface of its own. */
static void make(void)
{
	_cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd = -1;

	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(mount("/proc/self/ns/net", path, "none", MS_BIND, NULL), 0);
	assert_int_equal(system("ip link set lo up && ip link add wr-t type veth peer wr-u && ip link set "
				"wr-t up && ip link set wr-u up &&"
				"ip addr add 10.9.8.7/24 dev wr-t && ip addr add fd00::9/64 dev wr-t nodad"),
			 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
}

static void unmake(void)
{
	umount2(path, MNT_DETACH);
	unlink(path);
}

static int setup(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/run/wr-netns-%d", (int)getpid());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unmake();
	return 0;
}

static void opens_and_recognises(void **state)
{
	struct stat st, other;
	int fd;

	(void)state;
	make();
	fd = netns_open(path, &st);
	assert_true(fd >= 0);
	assert_true(netns_same(path, &st));
	assert_false(netns_is_node(&st));
	unmake();
	assert_false(netns_same(path, &st));
	/* Another namespace at the same path is another one: the old is held open, so its inode is not used
	 * again. */
	make();
	assert_false(netns_same(path, &st));
	close(fd);
	fd = netns_open("/proc/self/ns/net", &other);
	assert_true(fd >= 0);
	assert_true(netns_is_node(&other));
	close(fd);
}

static void finds_addresses_and_comes_back(void **state)
{
	struct ip_addr found[8], want;
	struct stat st, home;
	_cleanup_close_ int fd = netns_open(path, &st);

	(void)state;
	assert_int_equal(stat("/proc/self/ns/net", &home), 0);
	assert_int_equal(netns_addresses(fd, found, 8), 2);
	assert_int_equal(ip_addr_parse("10.9.8.7", &want), 0);
	assert_true(ip_addr_equal(&found[0], &want) || ip_addr_equal(&found[1], &want));
	assert_int_equal(netns_addresses(fd, found, 1), 1);
	assert_true(netns_same("/proc/self/ns/net", &home));
}

static void refuses_what_is_none(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(netns_open("/run/wr-no-such-path", &st), -ENOENT);
	assert_int_equal(netns_open("/dev/null", &st), -EINVAL);
	assert_int_equal(netns_open("/proc/self/ns/mnt", &st), -EINVAL);
	assert_int_equal(netns_open("/run", &st), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_and_recognises),
		cmocka_unit_test(finds_addresses_and_comes_back),
		cmocka_unit_test(refuses_what_is_none),
	};

	if (geteuid()) {
		printf("needs root for network namespaces\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
