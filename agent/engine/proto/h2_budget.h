/* SPDX-License-Identifier: Apache-2.0 */
/* The control frames that one peer may still send: a token bucket. Called by h2_guard.c and h2.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct h2_budget {
	int32_t left;
	uint64_t filled_ms;
};

/* Full, from now on. */
void h2_budget_init(struct h2_budget *b, uint64_t now_ms);
/* Adds what has become due since the last call. */
void h2_budget_fill(struct h2_budget *b, uint64_t now_ms);
/* Adds for `frames` and for `bytes` that did useful work. */
void h2_budget_credit(struct h2_budget *b, int32_t frames, size_t bytes);
/* Takes for `frames` and for the `bytes` they hold. False once the peer has used up what it was given. */
bool h2_budget_take(struct h2_budget *b, int32_t frames, size_t bytes);
