/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `policy list` and `policy show`, from the agent's answer; `policy lint`, from the files alone. Rows and details
 * leave. Called by main.c.
 */
#include "ctl.h"
#include "engine/base/cleanup.h"
#include "engine/source/lint.h"

#include <stdio.h>
#include <string.h>

/* --- list and show --- */

static const struct column columns[] = {{"KIND", "kind", AS_TEXT},	{"NAMESPACE", "namespace", AS_TEXT},
					{"NAME", "name", AS_TEXT},	{"ACTION", "does", AS_TEXT},
					{"SCOPE", "scope", AS_TEXT},	{"STATE", "state", AS_TEXT},
					{"PODS", "pod_count", AS_TEXT}, {"REASON", "reason", AS_TEXT}};

/* "2", or "1 of 4" when it is not enforced on three of them. */
static void add_pod_count(cJSON *p)
{
	int all = cJSON_GetArraySize(member(p, "pods")), enforced = all;
	const cJSON *i;
	char text[32];

	cJSON_ArrayForEach(i, member(p, "pods")) {
		enforced -= *text_of(i, "not_enforced") != 0;
	}
	snprintf(text, sizeof(text), "%d", all);
	if (enforced < all)
		snprintf(text, sizeof(text), "%d of %d", enforced, all);
	cJSON_DeleteItemFromObjectCaseSensitive(p, "pod_count");
	cJSON_AddStringToObject(p, "pod_count", text);
}

/* Where nothing else is to be said, what its document was warned of. */
static void add_warning(cJSON *p)
{
	const cJSON *warnings = member(p, "warnings");
	int n = cJSON_GetArraySize(warnings);
	const char *last = n ? text_of(cJSON_GetArrayItem(warnings, n - 1), "reason") : "";
	char text[700];

	if (!n || *text_of(p, "reason"))
		return;
	snprintf(text, sizeof(text), "warning: %s", last);
	if (n > 1)
		snprintf(text, sizeof(text), "%d warnings, such as %s", n, last);
	cJSON_AddStringToObject(p, "reason", text);
}

/* What a row has room for. */
static void add_summary(cJSON *p)
{
	cJSON_DeleteItemFromObjectCaseSensitive(p, "does");
	cJSON_AddStringToObject(p, "does",
				is_true(p, "closed")	? "closes"
				: *text_of(p, "action") ? text_of(p, "action")
							: text_of(p, "mode"));
	add_pod_count(p);
}

static void print_each(const char *what, const cJSON *texts)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, texts) {
		printf("    %s: %s\n", what, cJSON_IsString(i) ? i->valuestring : "?");
	}
}

static void print_pod(const cJSON *pod)
{
	printf("  pod %s/%s", text_of(pod, "namespace"), text_of(pod, "name"));
	if (*text_of(pod, "not_enforced"))
		printf("  not enforced: %s", text_of(pod, "not_enforced"));
	if (*text_of(pod, "loses_to"))
		printf("  another one counts: %s", text_of(pod, "loses_to"));
	printf("\n");
	print_each("counts before", member(pod, "wins_over"));
	print_each("not enforced for", member(pod, "not_enforced_for"));
}

static void print_policy(const cJSON *p)
{
	const cJSON *i;

	printf("%s %s/%s: %s, %s, scope %s\n", text_of(p, "kind"), text_of(p, "namespace"), text_of(p, "name"),
	       text_of(p, "does"), text_of(p, "state"), text_of(p, "scope"));
	cJSON_ArrayForEach(i, member(p, "selector")) {
		printf("  selector %s=%s\n", i->string, cJSON_IsString(i) ? i->valuestring : "?");
	}
	printf("  from %s:%.0f%s%s\n", text_of(p, "file"), number_of(p, "line"),
	       *text_of(p, "created") ? ", created " : "", text_of(p, "created"));
	if (*text_of(p, "reason"))
		printf("  reason: %s%s\n", text_of(p, "reason"),
		       is_true(p, "last_good_in_force") ? "; its last good version stays in force" : "");
	cJSON_ArrayForEach(i, member(p, "ports")) {
		printf("  port %s: %s\n", i->string, cJSON_IsString(i) ? i->valuestring : "?");
	}
	cJSON_ArrayForEach(i, member(p, "warnings")) {
		printf("  warning: line %.0f: %s\n", number_of(i, "line"), text_of(i, "reason"));
	}
	cJSON_ArrayForEach(i, member(p, "pods")) {
		print_pod(i);
	}
	if (!cJSON_GetArraySize(member(p, "pods")))
		printf("  no pod of this node\n");
}

static bool is_named(const cJSON *p, const char *name)
{
	const char *slash = strchr(name, '/'), *ns = text_of(p, "namespace");

	if (!slash)
		return !strcmp(name, text_of(p, "name"));
	return (size_t)(slash - name) == strlen(ns) && !strncmp(name, ns, strlen(ns)) &&
	       !strcmp(slash + 1, text_of(p, "name"));
}

static void keep_named(cJSON *list, const char *name)
{
	for (int i = cJSON_GetArraySize(list) - 1; i >= 0; i--)
		if (!is_named(cJSON_GetArrayItem(list, i), name))
			cJSON_DeleteItemFromArray(list, i);
}

int policy_show(struct ctl *c, const char *name)
{
	cJSON *list = NULL, *i;
	int r = client_call(c, "policy list", NULL, cJSON_Array, &list);

	if (r)
		return ctl_say(c, r);
	if (name)
		keep_named(list, name);
	if (name && !cJSON_GetArraySize(list)) {
		cJSON_Delete(list);
		return ctl_fail(c, CTL_NOT_SO, "no policy is called %s", name);
	}
	if (!ctl_print_json(c, list)) {
		cJSON_ArrayForEach(i, list) {
			add_summary(i);
			if (name)
				print_policy(i);
			else
				add_warning(i);
		}
		if (!name)
			table_print(list, columns, ARRAY_SIZE(columns));
	}
	cJSON_Delete(list);
	return CTL_OK;
}

/* --- lint --- */

/* What a line has room for. */
#define IGNORED_MAX 10

static bool is_refused(const cJSON *doc)
{
	return !strcmp(text_of(doc, "state"), "refused");
}

/* "field: what (line N)" after its place: FILE:N: word: field: what. A document that is no YAML has no name. */
static void print_finding(const cJSON *doc, const char *word, double line, const char *reason)
{
	const char *mark = strstr(reason, " (line ");
	int len = (int)strlen(reason), at = (int)(line > 0 ? line : number_of(doc, "line"));

	if (mark && sscanf(mark, " (line %d)", &at) == 1)
		len = (int)(mark - reason);
	printf("%s:%d: %s: ", text_of(doc, "file"), at, word);
	if (*text_of(doc, "kind"))
		printf("%s %s/%s: ", text_of(doc, "kind"), text_of(doc, "namespace"),
		       *text_of(doc, "name") ? text_of(doc, "name") : "?");
	printf("%.*s\n", len, reason);
}

static void print_document(const cJSON *doc)
{
	const cJSON *i;

	if (is_refused(doc))
		print_finding(doc, "refused", 0, text_of(doc, "reason"));
	if (!strcmp(text_of(doc, "state"), "not enforced"))
		print_finding(doc, "warning", 0, text_of(doc, "reason"));
	cJSON_ArrayForEach(i, member(doc, "warnings")) {
		print_finding(doc, "warning", number_of(i, "line"), text_of(i, "reason"));
	}
}

/* A document with a misspelt kind may be among them. */
static void print_ignored(const cJSON *list, int count)
{
	const cJSON *i;
	int n = 0;

	printf(", %d ignored, whose kind is not a policy nor used otherwise:", count);
	cJSON_ArrayForEach(i, list) {
		if (!strcmp(text_of(i, "state"), "ignored") && n++ < IGNORED_MAX)
			printf("%s %s %s/%s", n > 1 ? "," : "", text_of(i, "kind"), text_of(i, "namespace"),
			       text_of(i, "name"));
	}
	if (n > IGNORED_MAX)
		printf(" and %d more", n - IGNORED_MAX);
}

static int count_state(const cJSON *list, const char *state)
{
	const cJSON *i;
	int n = 0;

	cJSON_ArrayForEach(i, list) {
		n += !strcmp(text_of(i, "state"), state);
	}
	return n;
}

int policy_lint(struct ctl *c, const char *arg)
{
	cJSON *list = NULL, *i;
	int refused, ignored, r;
	size_t bad = 0;

	(void)arg; /* the first of c->files */
	if (!c->n_files)
		return ctl_fail(c, CTL_USAGE, "policy lint: name a file, or - for the standard input");
	r = source_lint((const char *const *)c->files, (size_t)c->n_files, &bad, &list);
	if (r < 0)
		return ctl_fail(c, CTL_USAGE, "%s: cannot be read: %s", c->files[bad], strerror(-r));
	refused = count_state(list, "refused");
	ignored = count_state(list, "ignored");
	if (!ctl_print_json(c, list)) {
		cJSON_ArrayForEach(i, list) {
			print_document(i);
		}
		printf("%d document%s, %d refused", cJSON_GetArraySize(list), cJSON_GetArraySize(list) == 1 ? "" : "s",
		       refused);
		if (ignored)
			print_ignored(list, ignored);
		printf("\n");
	}
	cJSON_Delete(list);
	return refused ? CTL_NOT_SO : CTL_OK;
}
