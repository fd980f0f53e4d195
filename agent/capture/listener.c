/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's listeners in a pod: transparent (their accepted sockets keep the original destination as local
 * address), dual-stack, and marked as ours in the kernel; what is set here is inherited by accepted sockets.
 * Called by pod.c in the pod's namespace.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG 4096

static int set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int claim(const struct capture *c, int fd, uint16_t port)
{
	struct wr_sock s = {.kind = port == WR_PORT_OUTBOUND  ? WR_SOCK_LISTEN_OUT
				    : port == WR_PORT_INBOUND ? WR_SOCK_LISTEN_IN
							      : WR_SOCK_LISTEN_HBONE};

	return bpf_map_update_elem(c->maps[MAP_SOCK], &fd, &s, BPF_ANY) < 0 ? -errno : 0;
}

/* The namespace's own choice, which no option names: a fresh socket has it. */
static void default_congestion(int fd)
{
	_cleanup_close_ int fresh = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	char name[16];
	socklen_t len = sizeof(name);

	if (fresh >= 0 && !getsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, name, &len))
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, len);
}

int listener_adopt(const struct capture *c, int fd, uint16_t port)
{
	/* The engine sets what this agent's options say; without a word, the predecessor's must not stay. */
	if (port == WR_PORT_HBONE)
		default_congestion(fd);
	return claim(c, fd, port);
}

static int prepare(const struct capture *c, int fd, int family, uint16_t port)
{
	int r = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);

	if (r == 0 && family == AF_INET6)
		r = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (r == 0)
		r = set(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
	if (r == 0)
		r = set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	/* The other end of 15001's connections is in the same pod: nothing to pace, and answers pass strict
	 * source checks by their mark. The others' answers leave by the pod's interface. */
	if (r == 0 && port == WR_PORT_OUTBOUND) {
		r = set(fd, SOL_SOCKET, SO_MARK, (int)WR_MARK_ANSWER);
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	}
	return r < 0 ? r : claim(c, fd, port);
}

static int bind_any(int fd, int family, uint16_t port)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	int r = family == AF_INET6 ? bind(fd, (struct sockaddr *)&a6, sizeof(a6))
				   : bind(fd, (struct sockaddr *)&a4, sizeof(a4));

	return r < 0 ? -errno : 0;
}

static int open_family(const struct capture *c, int family, uint16_t port)
{
	_cleanup_close_ int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	int r;

	if (fd < 0)
		return -errno;
	r = prepare(c, fd, family, port);
	if (r == 0)
		r = bind_any(fd, family, port);
	if (r == 0 && listen(fd, LISTEN_BACKLOG) < 0)
		r = -errno;
	return r < 0 ? r : take_fd(fd);
}

int listener_open(const struct capture *c, uint16_t port, char **ret_error)
{
	int fd = open_family(c, AF_INET6, port);

	if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)
		fd = open_family(c, AF_INET, port);
	if (fd == -EADDRINUSE)
		return capture_fail(ret_error, fd, "port %u is held by another process of the pod", port);
	if (fd < 0)
		return capture_fail(ret_error, fd, "cannot listen on port %u in the pod: %s", port, strerror(-fd));
	return fd;
}
