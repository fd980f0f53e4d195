/* SPDX-License-Identifier: Apache-2.0 */
/* Congestion control of a tunnel, by choice and by how far its peer is. Sockets come in from proxy/tunnel.c and the
 * listeners of proxy/engine.c; nothing leaves but their options. */
#include "engine/io/congestion.h"
#include "engine/base/limits.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int set(int fd, const char *name)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name));
}

void congestion_of(int fd, char ret[CONGESTION_NAME])
{
	socklen_t len = CONGESTION_NAME;

	memset(ret, 0, CONGESTION_NAME);
	if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, ret, &len) < 0 || len >= CONGESTION_NAME)
		ret[CONGESTION_NAME - 1] = 0;
}

void congestion_choose(struct congestion *c, const char *choice, int fd)
{
	char system[CONGESTION_NAME];

	*c = (struct congestion){0};
	if (!choice || !*choice || !strcmp(choice, CONGESTION_SYSTEM))
		return;
	if (strcmp(choice, CONGESTION_AUTO)) {
		snprintf(c->near, sizeof(c->near), "%s", choice);
		return;
	}
	congestion_of(fd, system);
	if (strncmp(system, "bbr", 3))
		return;
	memcpy(c->near, "cubic", sizeof("cubic"));
	memcpy(c->far, system, sizeof(system));
}

void congestion_begin(const struct congestion *c, int fd)
{
	/* Every kernel has reno. */
	if (*c->near && set(fd, c->near) < 0 && *c->far)
		(void)set(fd, "reno");
}

/* By the round trip of the handshake, the only one there has been. */
static bool is_near(int fd)
{
	struct tcp_info ti = {.tcpi_min_rtt = UINT32_MAX};
	socklen_t len = sizeof(ti);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) && ti.tcpi_min_rtt < LIMIT_NEAR_US;
}

void congestion_connected(const struct congestion *c, int fd)
{
	if (*c->far && !is_near(fd))
		(void)set(fd, c->far);
}
