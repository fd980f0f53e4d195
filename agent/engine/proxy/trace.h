/* SPDX-License-Identifier: Apache-2.0 */
/* The latest verdicts of one worker with all that led to them, for `warrenctl policy trace`. Private to proxy/. */
#pragma once
#include "engine/model/binding.h"
#include "engine/model/policy.h"

struct cJSON;
struct trace;

/* Adds one; makes *t on first use. `b`: of a caller that has proven an identity. Without memory nothing is added. */
void trace_add(struct trace **t, const struct workload *pod, const struct policy_subject *subject, uint16_t source_port,
	       const struct binding *b, const struct policy_verdict *v);
/* Appends copies, oldest first, to the array: {"seq","time","pod","src","dst","identity"?,"allow","reason"?,"policy"?,
 * "rule"?,"field"?,"steps"}. `seq` counts over all workers. */
void trace_dump(const struct trace *t, struct cJSON *array);
struct trace *trace_free(struct trace *t);
