/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at every frame of the peer before nghttp2 does: see h2_guard.c. Called by h2.c. */
#pragma once
#include "h2_budget.h"
#include "h2_ids.h"

struct h2_guard {
	struct h2_budget budget;
	struct h2_ids ids;
	bool server;
	uint8_t preface;  /* bytes of the client's preface still to come */
	uint8_t have;	  /* of head */
	uint8_t head[10]; /* a frame's header; of DATA the length of its padding, too */
	uint32_t left;	  /* of the present frame's payload */
	uint32_t block;	  /* of the present header block so far */
	uint8_t continuations;
	const char *limit; /* of limits.h, that the peer went over */
};

void h2_guard_init(struct h2_guard *g, bool server, uint64_t now_ms);
/* How many of the received bytes may be parsed now. Fewer than len: *ret_error is the HTTP/2 error code with which the
 * connection ends behind them, or there is none and *turns, the number of frames that may begin or end a stream, is
 * used up. */
size_t h2_guard_pass(struct h2_guard *g, const uint8_t *data, size_t len, uint64_t now_ms, unsigned *turns,
		     uint32_t *ret_error);
