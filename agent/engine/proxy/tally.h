/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of what policies decided, by outcome, policy, rule and field. One per worker; private to proxy/. */
#pragma once
#include "engine/base/table.h"
#include "engine/model/policy.h"

struct cJSON;

struct tally {
	struct table rows;
};

/* Counts a denial, and what dry-run policies would have made of the connection. Beyond LIMIT_TALLY_ROWS different
 * ones they are counted together. */
void tally_count(struct tally *t, const struct policy_verdict *v, uint64_t times);
/* Appends {"outcome":"denied"|"would_deny"|"would_allow","reason"?,"policy","rule"?,"field"?,"count"} to the array. */
void tally_dump(const struct tally *t, struct cJSON *array);
void tally_done(struct tally *t);
