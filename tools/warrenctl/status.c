/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `status show` and `config list` as text: how the node is, and what became of each resource. In: the agent's
 * answers, their strings cleaned. Called by show.c.
 */
#include "ctl.h"
#include "engine/base/cleanup.h"

#include <stdio.h>

static void print_lines(const cJSON *list, const char *before)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, list) {
		if (cJSON_IsString(i))
			printf("%s: %s\n", before, i->valuestring);
	}
}

static void print_names(const cJSON *list, const char *before)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, list) {
		printf("%s%s %s", i == list->child ? before : ",", i == list->child ? ":" : "", text_of(i, "name"));
	}
	if (cJSON_GetArraySize(list))
		printf("\n");
}

static void print_numbers(const cJSON *o, const char *before)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, o) {
		if (cJSON_IsNumber(i) && i->string)
			printf("%s %.0f %s", before, i->valuedouble, i->string);
	}
}

/* A file that could not be read has neither kind nor name: its place says which it is. */
static void print_refused(const cJSON *r)
{
	printf("  refused: ");
	if (*text_of(r, "kind") || *text_of(r, "name"))
		printf("%s %s/%s  ", *text_of(r, "kind") ? text_of(r, "kind") : "?", text_of(r, "namespace"),
		       *text_of(r, "name") ? text_of(r, "name") : "?");
	printf("%s:%.0f  %s%s\n", text_of(r, "file"), number_of(r, "line"), text_of(r, "reason"),
	       is_true(r, "last_good_in_force") ? "; its last good version stays in force" : "");
}

static void print_source(const cJSON *source)
{
	const cJSON *states = member(source, "resources"), *refused = member(source, "refused"), *i;
	double more = number_of(states, "refused") - cJSON_GetArraySize(refused);

	printf("source: %s", text_of(source, "spec"));
	print_numbers(states, ",");
	printf("\n");
	cJSON_ArrayForEach(i, refused) {
		print_refused(i);
	}
	if (more > 0)
		printf("  and %.0f more: warrenctl config list\n", more);
}

static void print_setting(const char *before, const cJSON *s)
{
	printf("%s %s (%s", before, *text_of(s, "value") ? text_of(s, "value") : "none", text_of(s, "from"));
	if (*text_of(s, "overridden"))
		printf(" wins over ConfigMap istio: %s", text_of(s, "overridden"));
	printf(")");
}

/* Nothing before the first read. */
static void print_mesh(const cJSON *mesh)
{
	if (!member(mesh, "trust_domain"))
		return;
	print_setting("mesh: trust domain", member(mesh, "trust_domain"));
	print_setting(", aliases", member(mesh, "trust_domain_aliases"));
	print_setting(", root namespace", member(mesh, "root_namespace"));
	printf("\n");
}

void status_print(const cJSON *s)
{
	const cJSON *i;

	printf("node %s: %s  (warren %s, pid %.0f)\n", text_of(s, "node"), is_true(s, "up") ? "up" : "NOT up",
	       text_of(s, "version"), number_of(s, "pid"));
	print_lines(member(s, "pending"), "waiting for");
	print_lines(member(s, "alarms"), "ALARM");
	print_names(member(s, "without"), "without");
	printf("pods:");
	print_numbers(member(s, "pods"), "");
	printf("\nconnections: %.0f open\ntunnels: %.0f open\nca: %s; who can read %s can issue every identity\n",
	       number_of(s, "connections"), number_of(s, "tunnels"), text_of(s, "ca"), text_of(s, "ca_folder"));
	print_mesh(member(s, "mesh"));
	print_source(member(s, "source"));
	cJSON_ArrayForEach(i, member(s, "counters")) {
		if (cJSON_IsNumber(i) && i->string)
			printf("%-28s %.0f\n", i->string, i->valuedouble);
	}
}

void resources_print(cJSON *resources)
{
	static const struct column columns[] = {{"KIND", "kind", AS_TEXT},   {"NAMESPACE", "namespace", AS_TEXT},
						{"NAME", "name", AS_TEXT},   {"STATE", "state", AS_TEXT},
						{"PLACE", "place", AS_TEXT}, {"REASON", "reason", AS_TEXT}};
	char place[4200];
	cJSON *i;

	cJSON_ArrayForEach(i, resources) {
		if (!cJSON_IsObject(i))
			continue;
		snprintf(place, sizeof(place), "%s:%.0f", text_of(i, "file"), number_of(i, "line"));
		cJSON_DeleteItemFromObjectCaseSensitive(i, "place");
		cJSON_AddStringToObject(i, "place", place);
	}
	table_print(resources, columns, ARRAY_SIZE(columns));
}
