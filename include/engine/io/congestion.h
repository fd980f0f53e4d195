/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Congestion control of the tunnels' sockets (tcp(7) TCP_CONGESTION), as --tunnel-congestion says. A system whose
 * choice is bbr paces each of them by a timer for every 64 KiB, a sixth of the CPU of bulk traffic: worth it on a long
 * way, not within a rack. CONGESTION_AUTO leaves it out to peers that are near.
 */
#pragma once
#include <stdint.h>

#define CONGESTION_AUTO "auto"
#define CONGESTION_SYSTEM "system"
/* As long as the kernel's TCP_CA_NAME_MAX. */
#define CONGESTION_NAME 16

/* For the sockets of one network namespace. All zeroes: the system's. */
struct congestion {
	char near[CONGESTION_NAME]; /* what a socket starts with; "": the system's */
	char far[CONGESTION_NAME];  /* what it goes on with once its peer is known not to be near; "": the same */
};

/* What `choice` (a name, CONGESTION_AUTO, CONGESTION_SYSTEM, or NULL for that) comes to, in the namespace of `fd`, a
 * socket whose congestion control is the system's. */
void congestion_choose(struct congestion *c, const char *choice, int fd);
/* Before connect(2) or listen(2); accepted sockets inherit it. */
void congestion_begin(const struct congestion *c, int fd);
/* Once it is connected, before bytes are sent. */
void congestion_connected(const struct congestion *c, int fd);
/* The name of what a socket has now, or "". */
void congestion_of(int fd, char ret[CONGESTION_NAME]);
