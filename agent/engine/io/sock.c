/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of the data path. Called by proxy/ on a worker's thread. */
#include "engine/io/sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A batch used up within this time doubles the next one; an older one starts again at one. */
#define CACHE_QUICK_MS 1000

static int refill(struct sock_cache *c, int home_netns_fd, int family, uint64_t now_ms)
{
	int r = 0;

	c->batch = now_ms - c->refilled_ms < CACHE_QUICK_MS ? c->batch * 2 : 1;
	if (!c->batch)
		c->batch = 1;
	if (c->batch > LIMIT_SOCKET_BATCH)
		c->batch = LIMIT_SOCKET_BATCH;
	c->refilled_ms = now_ms;
	if (setns(c->netns_fd, CLONE_NEWNET) < 0)
		return -errno;
	while (c->n < c->batch) {
		int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);

		if (fd < 0) {
			r = -errno;
			break;
		}
		c->fds[c->n++] = fd;
	}
	/* A worker that stayed in a pod's namespace would open other pods' sockets there. */
	if (setns(home_netns_fd, CLONE_NEWNET) < 0)
		abort();
	return c->n ? 0 : r;
}

int sock_cache_take(struct sock_cache *c, int home_netns_fd, int family, uint64_t now_ms)
{
	if (!c->n) {
		int r = refill(c, home_netns_fd, family, now_ms);

		if (r < 0)
			return r;
	}
	return c->fds[--c->n];
}

void sock_cache_done(struct sock_cache *c)
{
	while (c->n)
		close(c->fds[--c->n]);
}

void sock_reset_on_close(int fd)
{
	static const struct linger now = {.l_onoff = 1, .l_linger = 0};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

void sock_close_reset(int fd)
{
	if (fd < 0)
		return;
	sock_reset_on_close(fd);
	close(fd);
}

static void set_int(int fd, int level, int name, int value)
{
	(void)setsockopt(fd, level, name, &value, sizeof(value));
}

void sock_keepalive(int fd)
{
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 180);
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 180);
	set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 9);
}

void sock_urgent_inline(int fd)
{
	set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
}

void sock_nodelay(int fd)
{
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

void sock_notsent_lowat(int fd, unsigned bytes)
{
	set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)bytes);
}

void sock_give_up_after(int fd, unsigned ms)
{
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)ms);
}

int sock_bind(int fd, bool v6, const struct ip_port *from)
{
	struct sockaddr_storage ss;
	socklen_t len = ip_port_to_sockaddr(from, v6 ? AF_INET6 : AF_INET, &ss);

	return bind(fd, (struct sockaddr *)&ss, len) < 0 ? -errno : 0;
}

int sock_bind_address(int fd, bool v6, const struct ip_addr *from)
{
	set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	return sock_bind(fd, v6, &(struct ip_port){.ip = *from});
}

int sock_connect(int fd, bool v6, const struct ip_port *to)
{
	struct sockaddr_storage ss;
	socklen_t len = ip_port_to_sockaddr(to, v6 ? AF_INET6 : AF_INET, &ss);

	return connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS ? -errno : 0;
}

int sock_error(int fd)
{
	int e = 0;
	socklen_t len = sizeof(e);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 ? -errno : -e;
}

int sock_local_addr(int fd, struct ip_port *ret)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		return -errno;
	return ip_port_from_sockaddr(&ss, ret);
}
