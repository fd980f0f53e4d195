/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a client's latest streams it has opened, and finished: see h2_ids.c. Called by h2_guard.c. */
#pragma once
#include <stdint.h>

#define H2_IDS 256 /* streams looked back: RFC 9113 5.1 asks for "a short period" */

struct h2_ids {
	uint32_t last; /* the newest stream the client has opened */
	uint64_t opened[H2_IDS / 64], finished[H2_IDS / 64];
};

/* A frame of this type and these flags on a client's stream. 0, or the HTTP/2 error code with which the connection
 * ends.
 */
uint32_t h2_ids_frame(struct h2_ids *ids, uint32_t id, uint8_t type, uint8_t flags);
