/* SPDX-License-Identifier: Apache-2.0 */
/* `policy check`, `policy trace` and `policy verdicts` as text. Called by main.c. */
#include "ctl.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRACE_POLL_US 200000

static const struct column verdict_columns[] = {{"OUTCOME", "outcome", AS_TEXT}, {"REASON", "reason", AS_TEXT},
						{"POLICY", "policy", AS_TEXT},	 {"RULE", "rule", AS_NUMBER},
						{"FIELD", "field", AS_TEXT},	 {"COUNT", "count", AS_NUMBER}};

static void print_step(const cJSON *s)
{
	printf("  %-20s", text_of(s, "step"));
	if (*text_of(s, "policy"))
		printf(" %s", text_of(s, "policy"));
	else if (*text_of(s, "value"))
		printf(" none");
	if (member(s, "rule"))
		printf(" rule %.0f", number_of(s, "rule"));
	if (*text_of(s, "field"))
		printf(" %s", text_of(s, "field"));
	if (*text_of(s, "value"))
		printf(" (%s)", text_of(s, "value"));
	printf("%s %s\n", *text_of(s, "policy") || *text_of(s, "value") ? ":" : "", text_of(s, "result"));
}

static void print_verdict(const cJSON *v)
{
	const cJSON *s;

	printf("%s", is_true(v, "allow") ? "allowed" : "DENIED");
	if (*text_of(v, "reason") && !is_true(v, "allow"))
		printf("  %s", text_of(v, "reason"));
	if (*text_of(v, "not_enforced"))
		printf("  NOT ENFORCED here: %s", text_of(v, "not_enforced"));
	if (*text_of(v, "policy"))
		printf("  %s", text_of(v, "policy"));
	printf("\n");
	cJSON_ArrayForEach(s, member(v, "steps"))
		print_step(s);
}

int verdict_check(struct ctl *c, const char *arg)
{
	cJSON *args, *result = NULL;
	bool allowed;
	int r;

	(void)arg;
	if (!c->from || !c->to)
		return ctl_fail(
			c, CTL_USAGE,
			"policy check: --from=NAMESPACE/POD, ip:ADDRESS or spiffe://... and --to=NAMESPACE/POD:PORT");
	args = cJSON_CreateObject();
	cJSON_AddStringToObject(args, "from", c->from);
	cJSON_AddStringToObject(args, "to", c->to);
	cJSON_AddBoolToObject(args, "plaintext", c->plaintext);
	r = client_call(c, "policy check", args, cJSON_Object, &result);
	/* 0 and 1 are the answers; that there is none is 2, whoever is to blame. */
	if (r)
		return ctl_say(c, CTL_USAGE);
	allowed = is_true(result, "allow");
	if (!ctl_print_json(c, result))
		print_verdict(result);
	cJSON_Delete(result);
	return allowed ? CTL_OK : CTL_NOT_SO;
}

static double last_seq(const cJSON *rows, double before)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, rows)
		before = number_of(i, "seq");
	return before;
}

static void print_traced(const struct ctl *c, cJSON *rows)
{
	cJSON *i;

	cJSON_ArrayForEach(i, rows) {
		if (ctl_print_json(c, i))
			continue;
		printf("%s %s %s -> %s %s ", text_of(i, "time"), text_of(i, "pod"), text_of(i, "src"),
		       text_of(i, "dst"), *text_of(i, "identity") ? text_of(i, "identity") : "plaintext");
		print_verdict(i);
	}
	fflush(stdout);
}

int verdict_trace(struct ctl *c, const char *arg)
{
	char *rest = NULL;
	unsigned long seconds = arg ? strtoul(arg, &rest, 10) : 0;
	uint64_t end = seconds ? clock_now_ms() + seconds * 1000 : UINT64_MAX;
	double since = 0;

	if (arg && (!seconds || *rest))
		return ctl_fail(c, CTL_USAGE, "policy trace: %s: expected seconds", arg);
	for (bool first = true; clock_now_ms() < end; first = false) {
		cJSON *args = cJSON_CreateObject(), *rows = NULL;
		int r;

		cJSON_AddNumberToObject(args, "since", since);
		r = client_call(c, "policy trace", args, cJSON_Array, &rows);
		if (r)
			return ctl_say(c, r);
		since = last_seq(rows, since);
		/* What an earlier watcher left in the rings is no news. */
		if (!first)
			print_traced(c, rows);
		cJSON_Delete(rows);
		if (ferror(stdout))
			return CTL_BROKEN;
		usleep(TRACE_POLL_US);
	}
	return CTL_OK;
}

int verdict_counts(struct ctl *c, const char *arg)
{
	cJSON *rows = NULL;
	int r = client_call(c, "policy verdicts", NULL, cJSON_Array, &rows);

	(void)arg;
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, rows))
		table_print(rows, verdict_columns, ARRAY_SIZE(verdict_columns));
	cJSON_Delete(rows);
	return CTL_OK;
}
