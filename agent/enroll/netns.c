/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces by path. Called by enrolment.c, leftover.c and objection.c. */
#include "netns.h"
#include "engine/base/cleanup.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

int netns_open(const char *path, struct stat *ret_st)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct statfs sf;

	if (fd < 0)
		return -errno;
	if (fstatfs(fd, &sf) < 0 || fstat(fd, ret_st) < 0)
		return -errno;
	if (sf.f_type != NSFS_MAGIC || ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return -EINVAL;
	return take_fd(fd);
}

bool netns_same(const char *path, const struct stat *st)
{
	struct stat now;

	return !stat(path, &now) && now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}

bool netns_is_node(const struct stat *st)
{
	return netns_same("/proc/self/ns/net", st) || netns_same("/proc/1/ns/net", st);
}

int netns_addresses(int fd, struct ip_addr *ret, size_t max)
{
	_cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct ifaddrs *list = NULL;
	int r, n = 0;

	if (home < 0 || setns(fd, CLONE_NEWNET) < 0)
		return -errno;
	r = getifaddrs(&list);
	/* The control thread in a pod's namespace would do everything else there, too. */
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
	if (r < 0)
		return -errno;
	for (struct ifaddrs *i = list; i && (size_t)n < max; i = i->ifa_next) {
		struct sockaddr_storage ss;
		struct ip_port p;

		if (!i->ifa_addr || (i->ifa_flags & IFF_LOOPBACK))
			continue;
		if (i->ifa_addr->sa_family == AF_INET)
			*(struct sockaddr_in *)(void *)&ss = *(struct sockaddr_in *)(void *)i->ifa_addr;
		else if (i->ifa_addr->sa_family == AF_INET6)
			*(struct sockaddr_in6 *)(void *)&ss = *(struct sockaddr_in6 *)(void *)i->ifa_addr;
		else
			continue;
		if (ip_port_from_sockaddr(&ss, &p) || (p.ip.b[0] == 0xfe && (p.ip.b[1] & 0xc0) == 0x80))
			continue;
		ret[n++] = p.ip;
	}
	freeifaddrs(list);
	return n;
}
