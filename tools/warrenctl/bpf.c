/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bpf show` as text, one kernel object a line in bpftool's manner. In: what capture_dump made, its strings
 * cleaned. First comes what is wanted and not attached, because that is what people look for. Called by show.c.
 */
#include "ctl.h"
#include "engine/base/cleanup.h"

#include <stdio.h>
#include <string.h>

/* "namespace/name" of a pod, or its uid where the record has no name. */
static const char *pod_name(const cJSON *pod, char *buf, size_t size)
{
	const char *name = text_of(pod, "name");

	if (*name)
		snprintf(buf, size, "%s/%s", text_of(pod, "namespace"), name);
	else
		snprintf(buf, size, "%s", text_of(pod, "uid"));
	return buf;
}

static const cJSON *find_pod(const cJSON *pods, const char *field, const cJSON *like)
{
	const cJSON *p, *want = member(like, field);

	cJSON_ArrayForEach(p, pods)
		if (cJSON_Compare(member(p, field), want, true))
			return p;
	return NULL;
}

static const char *attach_state(const cJSON *link)
{
	if (is_true(link, "attached"))
		return cJSON_IsFalse(member(link, "wanted")) ? "attached, not wanted" : "attached";
	return is_true(link, "wanted") ? "NOT ATTACHED" : "stale";
}

/* --- wanted versus attached --- */

static int print_missing_links(const cJSON *pod)
{
	char name[400];
	const cJSON *l;
	int n = 0;

	pod_name(pod, name, sizeof(name));
	cJSON_ArrayForEach(l, member(pod, "links")) {
		if (!is_true(l, "wanted") || is_true(l, "attached"))
			continue;
		printf("  %s: %s(%.0f) %s is not attached\n", name, text_of(l, "interface"), number_of(l, "ifindex"),
		       text_of(l, "place"));
		n++;
	}
	if (cJSON_IsFalse(member(pod, "netns_there")))
		printf("  %s: its network namespace is gone\n", name);
	else if (!is_true(pod, "map_entry"))
		printf("  %s: no entry in wr_pods\n", name), n++;
	return n;
}

static int print_missing_pods(const cJSON *dump)
{
	const cJSON *pods = member(dump, "pods"), *wanted = member(dump, "wanted"), *p;
	char name[400];
	int n = 0;

	cJSON_ArrayForEach(p, wanted) {
		if (find_pod(pods, "uid", p))
			continue;
		printf("  %s is not captured: %s%s%s\n", pod_name(p, name, sizeof(name)), text_of(p, "state"),
		       *text_of(p, "reason") ? ": " : "", text_of(p, "reason"));
		n++;
	}
	cJSON_ArrayForEach(p, pods)
		if (wanted && !find_pod(wanted, "uid", p))
			printf("  %s is captured and no longer wanted\n", pod_name(p, name, sizeof(name)));
	return n;
}

static void print_wanted(const cJSON *dump)
{
	int links = 0, attached = 0, missing = 0;
	const cJSON *p, *l;

	printf("wanted and attached\n");
	cJSON_ArrayForEach(p, member(dump, "pods")) {
		cJSON_ArrayForEach(l, member(p, "links")) {
			links += is_true(l, "wanted");
			attached += is_true(l, "wanted") && is_true(l, "attached");
		}
		missing += print_missing_links(p);
	}
	missing += print_missing_pods(dump);
	if (is_true(dump, "sockops") && !is_true(member(dump, "sockops_link"), "attached"))
		printf("  app_socket is not attached\n"), missing++;
	printf("  %d pods captured, %d of %d wanted attachments there%s\n", cJSON_GetArraySize(member(dump, "pods")),
	       attached, links, missing ? ", see above" : ": all is as wanted");
	if (!member(dump, "wanted"))
		printf("  no agent was asked: pods that should be captured and are not cannot be told\n");
}

/* --- programs, links, pods, maps --- */

static void print_programs(const cJSON *dump)
{
	const cJSON *i;

	printf("\nprograms\n");
	cJSON_ArrayForEach(i, member(dump, "programs")) {
		printf("  %.0f: %s  name %s  tag %s", number_of(i, "id"), text_of(i, "type"), text_of(i, "name"),
		       text_of(i, "tag"));
		printf("  xlated %.0fB  jited %.0fB  ", number_of(i, "bytes_xlated"), number_of(i, "bytes_jited"));
		printf("%s%s\n", member(i, "pod") ? "pod " : "node", text_of(i, "pod"));
	}
}

static void print_link(const cJSON *l, const char *pod)
{
	if (member(l, "link_id"))
		printf("  %.0f: ", number_of(l, "link_id"));
	else
		printf("  -: ");
	printf("%s  %s(%.0f)  %s", member(l, "type") ? text_of(l, "type") : "none",
	       member(l, "interface") ? text_of(l, "interface") : "ifindex", number_of(l, "ifindex"),
	       text_of(l, "place"));
	if (member(l, "prog_id"))
		printf("  prog %.0f", number_of(l, "prog_id"));
	printf("  pod %s  %s\n", pod, attach_state(l));
}

static void print_links(const cJSON *dump)
{
	const cJSON *sockops = member(dump, "sockops_link"), *p, *l;
	char name[400];

	printf("\nlinks\n");
	if (is_true(dump, "sockops") || member(sockops, "link_id"))
		printf("  %.0f: cgroup  cgroup_id %.0f  sock_ops  prog %.0f  node  %s\n", number_of(sockops, "link_id"),
		       number_of(sockops, "cgroup_id"), number_of(sockops, "prog_id"),
		       is_true(sockops, "attached") ? "attached" : "NOT ATTACHED");
	cJSON_ArrayForEach(p, member(dump, "pods")) {
		cJSON_ArrayForEach(l, member(p, "links"))
			print_link(l, pod_name(p, name, sizeof(name)));
	}
}

static void print_pods(const cJSON *dump)
{
	static const struct column made = {"", "made", AS_TEXT}, own = {"", "addresses", AS_TEXT};
	const cJSON *p, *i;
	char name[400], list[128], addrs[1024];

	printf("\npods\n");
	cJSON_ArrayForEach(p, member(dump, "pods")) {
		printf("  %.0f: %s  %s  on-agent-loss %s  mtls %s\n", number_of(p, "number"),
		       pod_name(p, name, sizeof(name)), text_of(p, "mode"), text_of(p, "on_agent_loss"),
		       text_of(p, "mtls"));
		printf("\tnetns %s  inode %.0f  cookie %s\n", text_of(p, "netns"), number_of(p, "netns_inode"),
		       text_of(p, "netns_cookie"));
		printf("\tuid %s  made there %s\n", text_of(p, "uid"), field_text(p, &made, list, sizeof(list)));
		printf("\tlink %s  may send from %s\n", text_of(p, "link"), field_text(p, &own, addrs, sizeof(addrs)));
		cJSON_ArrayForEach(i, member(p, "counters"))
			printf("\t%-28s %.0f\n", i->string ? i->string : "", i->valuedouble);
	}
}

/* A key, and its value where the map has more than a set's. */
static void print_entry(const cJSON *i, const char *before)
{
	if (i->string && cJSON_IsString(i))
		printf("\t%s  %s\n", i->string, i->valuestring);
	else if (i->string && cJSON_IsNumber(i))
		printf("\t%s  %s%.0f\n", i->string, before, i->valuedouble);
	else if (cJSON_IsString(i))
		printf("\t%s\n", i->valuestring);
	else if (cJSON_IsNumber(i))
		printf("\t%.0f\n", i->valuedouble);
}

/* The others are shown with their pod, belong to one socket each, or hold nothing between two packets. */
static void print_content(const cJSON *dump, const char *map)
{
	static const char *const members[][3] = {{"wr_pods", "netns_cookies", "pod "},
						 {"wr_mesh", "mesh_ranges", ""},
						 {"wr_dest", "destinations", ""},
						 {"wr_excl", "excluded_ports", ""},
						 {"wr_mode", "port_modes", ""},
						 {"wr_denied", "refused", "suppressed "},
						 {"wr_probe_ports", "probe_ports", "pod "},
						 {"wr_probe_flows", "probes", "pod "}};
	const cJSON *i;

	for (size_t n = 0; n < ARRAY_SIZE(members); n++) {
		if (strcmp(members[n][0], map))
			continue;
		cJSON_ArrayForEach(i, member(dump, members[n][1]))
			print_entry(i, members[n][2]);
	}
}

static void print_maps(const cJSON *dump)
{
	const cJSON *m;

	printf("\nmaps\n");
	cJSON_ArrayForEach(m, member(dump, "maps")) {
		printf("  %.0f: %s  name %s  key %.0fB  value %.0fB", number_of(m, "id"), text_of(m, "type"),
		       text_of(m, "name"), number_of(m, "bytes_key"), number_of(m, "bytes_value"));
		if (member(m, "entries"))
			printf("  entries %.0f of %.0f\n", number_of(m, "entries"), number_of(m, "max_entries"));
		else
			printf("  max_entries %.0f\n", number_of(m, "max_entries"));
		print_content(dump, text_of(m, "name"));
	}
}

void bpf_print(const cJSON *dump)
{
	printf("node %s  abi %.0f  pins %s  attaches by %s\n\n", text_of(dump, "node"), number_of(dump, "abi"),
	       text_of(dump, "pins"), text_of(dump, "attach"));
	print_wanted(dump);
	print_programs(dump);
	print_links(dump);
	print_pods(dump);
	print_maps(dump);
}
