/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of pods as others see it: counts, the names that readiness waits for, and the whole as JSON.
 * Changes nothing. Called by agent/node.c and agent/commands.c.
 */
#include "private.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* Lines in `status`; the rest is counted. */
#define ALARMS_MAX 20

struct pods_counts pods_count(const struct pods *p)
{
	struct pods_counts c = {0};
	struct table_iter it = {0};
	struct enrolment *e;

	while ((e = table_next(&p->by_uid, &it))) {
		c.enrolled += e->state == POD_ENROLLED;
		c.pending += e->state == POD_PENDING;
		c.draining += e->state == POD_DRAINING;
		c.refused += e->state == POD_REFUSED;
	}
	return c;
}

const char *pods_pending(const struct pods *p)
{
	static char text[400];
	struct table_iter it = {0};
	struct enrolment *e;
	size_t n = 0;

	text[0] = 0;
	while ((e = table_next(&p->by_uid, &it)) && n + 100 < sizeof(text))
		if (e->state == POD_PENDING || (e->state == POD_DRAINING && e->wanted))
			n += (size_t)snprintf(text + n, 100, "%s%.60s", n ? ", " : "", e->workload->name);
	return text;
}

void pods_alarms(const struct pods *p, struct cJSON *list)
{
	struct table_iter it = {0};
	struct enrolment *e;
	unsigned n = 0;
	char text[700];

	while ((e = table_next(&p->by_uid, &it))) {
		if (e->state != POD_REFUSED || e->released || objection_by_design(e->workload))
			continue;
		if (n++ >= ALARMS_MAX)
			continue;
		snprintf(text, sizeof(text), "pod %s/%s refused: %s", e->workload->namespace_, e->workload->name,
			 e->reason ? e->reason : "?");
		cJSON_AddItemToArray(list, cJSON_CreateString(text));
	}
	if (n <= ALARMS_MAX)
		return;
	snprintf(text, sizeof(text), "%u more pods refused: warrenctl pod list", n - ALARMS_MAX);
	cJSON_AddItemToArray(list, cJSON_CreateString(text));
}

const char *pods_outside(const struct pods *p, const struct workload *w, char *buf, size_t size)
{
	const struct enrolment *e = table_get_str(&p->by_uid, w->uid);

	if (workload_outside(w))
		return workload_outside(w);
	if (!e)
		return "it is not enrolled";
	if (e->state == POD_ENROLLED)
		return NULL;
	snprintf(buf, size, "it is %s%s%s", enrolment_states[e->state], e->reason && *e->reason ? ": " : "",
		 e->reason ? e->reason : "");
	return buf;
}

unsigned pods_held(const struct pods *p)
{
	return pods_count(p).enrolled + (unsigned)p->n_left;
}

struct cJSON *pods_dump(const struct pods *p)
{
	cJSON *array = cJSON_CreateArray(), *addrs;
	struct table_iter it = {0};
	struct enrolment *e;
	char ip[64], link[160];

	while ((e = table_next(&p->by_uid, &it))) {
		const struct workload *w = e->workload;
		cJSON *o = cJSON_CreateObject();

		cJSON_AddNumberToObject(o, "number", e->number);
		cJSON_AddStringToObject(o, "uid", e->uid);
		cJSON_AddStringToObject(o, "namespace", w->namespace_);
		cJSON_AddStringToObject(o, "name", w->name);
		addrs = cJSON_AddArrayToObject(o, "addresses");
		for (size_t i = 0; i < w->n_addrs; i++)
			cJSON_AddItemToArray(addrs, cJSON_CreateString(ip_addr_format(&w->addrs[i], ip, sizeof(ip))));
		cJSON_AddStringToObject(o, "netns", w->netns_path ? w->netns_path : "");
		cJSON_AddStringToObject(o, "state", enrolment_states[e->state]);
		if (e->reason && *e->reason)
			cJSON_AddStringToObject(o, "reason", e->reason);
		cJSON_AddStringToObject(o, "identity", w->identity);
		if (e->in_engine)
			cJSON_AddStringToObject(
				o, "link",
				capture_pod_link(p->cfg.capture, e->number, e->netns_fd, link, sizeof(link)));
		cJSON_AddItemToArray(array, o);
	}
	return array;
}
