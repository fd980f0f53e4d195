/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control frames cost the receiver work and their sender next to nothing. Each tunnel has a budget of them that fills
 * with time and with the DATA that passes: counts come in, "enough" leaves. Called by h2_guard.c and h2.c.
 */
#include "h2_budget.h"
#include "engine/base/limits.h"

static void add(struct h2_budget *b, uint64_t n)
{
	uint64_t room = (uint64_t)(LIMIT_CONTROL_BURST - b->left);

	b->left += (int32_t)(n < room ? n : room);
}

void h2_budget_init(struct h2_budget *b, uint64_t now_ms)
{
	b->left = LIMIT_CONTROL_BURST;
	b->filled_ms = now_ms;
}

void h2_budget_fill(struct h2_budget *b, uint64_t now_ms)
{
	if (now_ms <= b->filled_ms)
		return;
	add(b, (now_ms - b->filled_ms) * LIMIT_CONTROL_PER_MS);
	b->filled_ms = now_ms;
}

void h2_budget_credit(struct h2_budget *b, int32_t frames, size_t bytes)
{
	add(b, (uint64_t)frames + bytes / LIMIT_CONTROL_BYTES);
}

bool h2_budget_take(struct h2_budget *b, int32_t frames, size_t bytes)
{
	b->left -= frames + (int32_t)(bytes / LIMIT_CONTROL_BYTES);
	return b->left >= 0;
}
