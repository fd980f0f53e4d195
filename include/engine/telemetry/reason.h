/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of the reason codes, and the agent's counters: one relaxed atomic per reason. */
#pragma once
#include "abi/reasons.h"
#include <stdint.h>

/* Stable name ("tls_unknown_ca") and one-line text; static storage, "unknown" when out of range. */
const char *reason_name(enum wr_reason r);
const char *reason_text(enum wr_reason r);
/* Counts one event, or several; any thread. */
void reason_count(enum wr_reason r);
void reason_count_times(enum wr_reason r, uint64_t times);
uint64_t reason_counter(enum wr_reason r);
