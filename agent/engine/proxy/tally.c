/* SPDX-License-Identifier: Apache-2.0 */
/* Counts verdicts by what decided them, for `warrenctl policy`. Verdicts come in from admission.c; rows of counters
 * leave to dump.c. */
#include "tally.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "engine/telemetry/reason.h"

#include <cjson/cJSON.h>
#include <string.h>

struct row {
	const char *outcome;
	enum wr_reason reason;
	int rule;
	char *policy, *field;
	uint64_t count;
	char key[]; /* all of the above but the count */
};

static struct row *row_free(struct row *r)
{
	free(r->policy);
	free(r->field);
	free(r);
	return NULL;
}

static struct row *row_new(struct tally *t, const char *key, const char *outcome, const struct policy_verdict *v,
			   const char *policy)
{
	size_t len = strlen(key);
	struct row *r = calloc(1, sizeof(*r) + len + 1);

	if (!r)
		return NULL;
	memcpy(r->key, key, len);
	r->outcome = outcome;
	r->reason = v ? v->reason : WR_REASON_NONE;
	r->rule = v ? v->rule : -1;
	r->policy = strdup(policy);
	r->field = v && v->field ? strdup(v->field) : NULL;
	if (!r->policy || table_put(&t->rows, r->key, len, r, NULL))
		return row_free(r);
	return r;
}

/* v NULL: a policy alone decided. A counter for which there is no memory is lost, the verdict is not. */
static void count(struct tally *t, const char *outcome, const struct policy_verdict *v, const char *policy,
		  uint64_t times)
{
	_cleanup_free_ char *key = NULL;
	struct row *r;

	if (asprintf(&key, "%s|%d|%d|%s|%s", outcome, v ? v->reason : 0, v ? v->rule : -1, policy,
		     v && v->field ? v->field : "") < 0) {
		key = NULL;
		return;
	}
	r = table_get_str(&t->rows, key);
	if (!r && t->rows.n >= LIMIT_TALLY_ROWS && strcmp(policy, "others"))
		count(t, outcome, NULL, "others", times);
	else if (!r)
		r = row_new(t, key, outcome, v, policy);
	if (r)
		r->count += times;
}

static void count_dry_run(struct tally *t, const char *outcome, const struct policy *p, uint64_t times)
{
	_cleanup_free_ char *name = NULL;

	if (p && asprintf(&name, "AuthorizationPolicy/%s/%s", p->namespace_, p->name) >= 0)
		count(t, outcome, NULL, name, times);
}

void tally_count(struct tally *t, const struct policy_verdict *v, uint64_t times)
{
	char name[600];

	if (!v->allow) {
		policy_verdict_name(v, name, sizeof(name));
		count(t, "denied", v, name, times);
	}
	count_dry_run(t, "would_deny", v->would_deny, times);
	count_dry_run(t, "would_allow", v->would_allow, times);
}

void tally_dump(const struct tally *t, cJSON *array)
{
	struct table_iter it = {0};
	const struct row *r;

	while ((r = table_next(&t->rows, &it))) {
		cJSON *o = cJSON_CreateObject();

		cJSON_AddStringToObject(o, "outcome", r->outcome);
		if (r->reason)
			cJSON_AddStringToObject(o, "reason", reason_name(r->reason));
		cJSON_AddStringToObject(o, "policy", r->policy);
		if (r->rule >= 0)
			cJSON_AddNumberToObject(o, "rule", r->rule);
		if (r->field)
			cJSON_AddStringToObject(o, "field", r->field);
		cJSON_AddNumberToObject(o, "count", (double)r->count);
		cJSON_AddItemToArray(array, o);
	}
}

void tally_done(struct tally *t)
{
	struct table_iter it = {0};
	struct row *r;

	while ((r = table_next(&t->rows, &it)))
		row_free(r);
	table_done(&t->rows);
}
