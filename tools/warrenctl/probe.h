/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that a hostile process in a pod could send. Used by prove.c. */
#pragma once
#include "agent/capture/capture.h"
#include "engine/base/addr.h"
#include <stdbool.h>
#include <stdint.h>
/* After the types that it needs. */
#include <linux/types.h>
#include "abi/maps.h"

struct probe_route {
	struct capture_link link;
	bool v4, v6; /* which of the addresses below are there */
	struct ip_addr from4, to4, from6, to6;
	uint16_t first_port, to_port;
};

struct probe {
	char name[80];
	enum { WAY_PACKET, WAY_PACKET_BYPASS, WAY_RAW, WAY_SOCKET } way;
	enum { WHAT_SYN, WHAT_BYTES, WHAT_FOREIGN, WHAT_MAPPED } what;
	bool v6; /* the packet, or the socket */
	uint32_t mark;
	int error; /* why it was not sent, errno */
	int fd;	   /* of a connection that is being tried */
};

/* All that the addresses allow: how many. */
unsigned probe_list(const struct probe_route *r, struct probe ret[CAPTURE_MAX_PROBES]);
/* From the current network namespace, from this port. */
void probe_send(const struct probe_route *r, struct probe *p, uint16_t port);
void probe_done(struct probe *p);
