/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of verdicts, each as it will be shown. They come in from admission.c while somebody watches, and leave to
 * dump.c. */
#include "trace.h"
#include "engine/base/limits.h"
#include "engine/base/log.h"
#include "engine/model/model.h"
#include "engine/telemetry/reason.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

struct trace {
	unsigned next; /* slot of the next one, which is that of the oldest once all are used */
	cJSON *ring[LIMIT_TRACE];
};

static void add_addr(cJSON *o, const char *name, const struct ip_port *a)
{
	char text[IP_PORT_STRLEN];

	cJSON_AddStringToObject(o, name, ip_port_format(a, text, sizeof(text)));
}

static void add_verdict(cJSON *o, const struct policy_verdict *v)
{
	char name[600];

	cJSON_AddBoolToObject(o, "allow", v->allow);
	if (v->reason)
		cJSON_AddStringToObject(o, "reason", reason_name(v->reason));
	policy_verdict_name(v, name, sizeof(name));
	if (*name)
		cJSON_AddStringToObject(o, "policy", name);
	if (v->rule >= 0)
		cJSON_AddNumberToObject(o, "rule", v->rule);
	if (v->field)
		cJSON_AddStringToObject(o, "field", v->field);
}

/* The binding first; where that denied, nobody asked the policies. */
static cJSON *steps_of(const struct workload *pod, const struct policy_subject *s, const struct binding *b,
		       const struct policy_verdict *v)
{
	bool unbound = b && !b->allow && v->reason == b->reason;
	cJSON *o = unbound ? NULL : policy_explain(pod->policy, s);
	cJSON *steps = o ? cJSON_DetachItemFromObjectCaseSensitive(o, "steps") : cJSON_CreateArray(), *first;

	cJSON_Delete(o);
	if (!b)
		return steps;
	first = cJSON_CreateObject();
	cJSON_AddStringToObject(first, "step", "source binding");
	cJSON_AddStringToObject(first, "result", b->text);
	cJSON_InsertItemInArray(steps, 0, first);
	return steps;
}

static cJSON *record(const struct workload *pod, const struct policy_subject *s, uint16_t source_port,
		     const struct binding *b, const struct policy_verdict *v)
{
	static atomic_ulong seq;
	struct ip_port src = {s->source, source_port};
	cJSON *o = cJSON_CreateObject();
	char text[600];

	cJSON_AddNumberToObject(o, "seq", (double)(atomic_fetch_add(&seq, 1) + 1));
	log_timestamp(text, sizeof(text));
	cJSON_AddStringToObject(o, "time", text);
	snprintf(text, sizeof(text), "%s/%s", pod->namespace_, pod->name);
	cJSON_AddStringToObject(o, "pod", text);
	add_addr(o, "src", &src);
	add_addr(o, "dst", &s->destination);
	if (s->identity)
		cJSON_AddStringToObject(o, "identity", s->identity);
	add_verdict(o, v);
	cJSON_AddItemToObject(o, "steps", steps_of(pod, s, b, v));
	return o;
}

void trace_add(struct trace **t, const struct workload *pod, const struct policy_subject *subject, uint16_t source_port,
	       const struct binding *b, const struct policy_verdict *v)
{
	struct trace *r = *t;

	if (!r)
		r = *t = calloc(1, sizeof(*r));
	if (!r)
		return;
	cJSON_Delete(r->ring[r->next]);
	r->ring[r->next] = record(pod, subject, source_port, b, v);
	r->next = (r->next + 1) % LIMIT_TRACE;
}

void trace_dump(const struct trace *t, cJSON *array)
{
	for (unsigned i = 0; t && i < LIMIT_TRACE; i++) {
		const cJSON *o = t->ring[(t->next + i) % LIMIT_TRACE];

		if (o)
			cJSON_AddItemToArray(array, cJSON_Duplicate(o, true));
	}
}

struct trace *trace_free(struct trace *t)
{
	for (unsigned i = 0; t && i < LIMIT_TRACE; i++)
		cJSON_Delete(t->ring[i]);
	free(t);
	return NULL;
}
