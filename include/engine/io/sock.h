/* SPDX-License-Identifier: Apache-2.0 */
/* Socket plumbing of the data path: sockets made inside a pod's namespace, options, abortive close. */
#pragma once
#include "engine/base/addr.h"
#include "engine/base/limits.h"

/* Sockets of one family made ahead in one network namespace, so that switching to it is paid once per batch. */
struct sock_cache {
	int netns_fd; /* borrowed */
	int fds[LIMIT_SOCKET_BATCH];
	unsigned n, batch; /* batch: how many are made at the next switch; doubles while they are used up quickly */
	uint64_t refilled_ms;
};

/* A non-blocking TCP socket of the given family (one cache, one family) of the namespace; the calling thread must
 * be in `home_netns_fd` and is again afterwards. A descriptor, or -errno. */
int sock_cache_take(struct sock_cache *c, int home_netns_fd, int family, uint64_t now_ms);
void sock_cache_done(struct sock_cache *c);

/* From here on close(2) says RST, also the kernel's when the process is killed. Inherited by accepted sockets. */
void sock_reset_on_close(int fd);
/* Closes with RST instead of FIN. Accepts -1. */
void sock_close_reset(int fd);
/* SO_KEEPALIVE with the mesh's values; inherited by accepted sockets. */
void sock_keepalive(int fd);
/* The kernel forgets the connection when what was sent is not acknowledged for so long, closed or not. */
void sock_give_up_after(int fd, unsigned ms);
void sock_nodelay(int fd);
/* An urgent byte (RFC 6093) stays in its place in the stream; otherwise it would be lost. */
void sock_urgent_inline(int fd);
void sock_notsent_lowat(int fd, unsigned bytes);
/* bind(2) and connect(2) in the family of `v6`, to which the address must belong or be mapped. 0, a connection under
 * way included, or -errno. */
int sock_bind(int fd, bool v6, const struct ip_port *from);
/* The same with a port that connect(2) chooses. */
int sock_bind_address(int fd, bool v6, const struct ip_addr *from);
int sock_connect(int fd, bool v6, const struct ip_port *to);
/* Pending error of a socket as a negative errno, 0 if none. */
int sock_error(int fd);
int sock_local_addr(int fd, struct ip_port *ret);
