/* SPDX-License-Identifier: Apache-2.0 */
/* Reason names, texts and counters from the one table in include/abi/reasons.h. Called everywhere. */
#include "engine/telemetry/reason.h"

#include <stdatomic.h>

static const struct {
	const char *name, *text;
} reasons[] = {
#define REASON_ROW(id, name, text) {name, text},
	WR_REASONS(REASON_ROW)
#undef REASON_ROW
};
static atomic_ulong counters[WR_REASON_MAX_];

const char *reason_name(enum wr_reason r)
{
	return (unsigned)r < WR_REASON_MAX_ ? reasons[r].name : "unknown";
}

const char *reason_text(enum wr_reason r)
{
	return (unsigned)r < WR_REASON_MAX_ ? reasons[r].text : "unknown";
}

void reason_count(enum wr_reason r)
{
	reason_count_times(r, 1);
}

void reason_count_times(enum wr_reason r, uint64_t times)
{
	if ((unsigned)r < WR_REASON_MAX_)
		atomic_fetch_add_explicit(&counters[r], times, memory_order_relaxed);
}

uint64_t reason_counter(enum wr_reason r)
{
	return (unsigned)r < WR_REASON_MAX_ ? atomic_load_explicit(&counters[r], memory_order_relaxed) : 0;
}
