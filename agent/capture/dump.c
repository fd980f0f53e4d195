/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in force, read back from the kernel: pods with mode and counters, what is attached (dump_links.c), maps
 * (dump_maps.c). In: an open capture, read-only or not. Out: JSON. Called by the admin commands and by warrenctl
 * without an agent.
 */
#include "private.h"
#include "abi/reasons.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>

static const char *const reason_names[] = {
#define REASON_NAME(id, name, text) name,
	WR_REASONS(REASON_NAME)
#undef REASON_NAME
};

static const char *mode_name(__u32 mode)
{
	static const char *const names[] = {"off", "enrolled", "draining"};

	return mode < ARRAY_SIZE(names) ? names[mode] : "unknown";
}

static const char *on_agent_loss(__u32 flags)
{
	if (!(flags & WR_POD_OPEN))
		return "closed";
	return flags & WR_POD_RESTRICTED ? "open, inbound closed by policy" : "open";
}

static cJSON *dump_counters(const struct capture *c, __u32 number)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct wr_count *rows = cpus > 0 ? calloc((size_t)cpus, sizeof(*rows)) : NULL;
	cJSON *o = cJSON_CreateObject();

	if (!rows || bpf_map_lookup_elem(c->maps[MAP_COUNT], &number, rows) < 0)
		return o;
	for (size_t reason = 1; reason < ARRAY_SIZE(reason_names); reason++) {
		uint64_t sum = 0;

		for (int cpu = 0; cpu < cpus; cpu++)
			sum += rows[cpu].n[reason];
		if (sum)
			cJSON_AddNumberToObject(o, reason_names[reason], (double)sum);
	}
	return o;
}

static void add_record(cJSON *o, const struct wr_pod_record *rec)
{
	static const char *const made[] = {"rule4", "rule6", "route4", "route6", "accept_local", "src_valid_mark"};
	cJSON *list;
	char cookie[24];

	snprintf(cookie, sizeof(cookie), "%" PRIu64, (uint64_t)rec->netns_cookie);
	cJSON_AddStringToObject(o, "uid", rec->uid);
	cJSON_AddStringToObject(o, "namespace", rec->namespace_);
	cJSON_AddStringToObject(o, "name", rec->name);
	cJSON_AddStringToObject(o, "netns", rec->netns_path);
	cJSON_AddNumberToObject(o, "netns_inode", (double)rec->netns_ino);
	cJSON_AddStringToObject(o, "netns_cookie", cookie);
	list = cJSON_AddArrayToObject(o, "made");
	for (size_t i = 0; i < ARRAY_SIZE(made); i++)
		if (rec->made & 1u << i)
			cJSON_AddItemToArray(list, cJSON_CreateString(made[i]));
}

static void add_address(void *list, const struct ip_addr *a)
{
	char addr[48];

	cJSON_AddItemToArray(list, cJSON_CreateString(ip_addr_format(a, addr, sizeof(addr))));
}

static cJSON *dump_pod(const struct capture *c, __u32 number, const struct wr_pod_record *rec, cJSON *programs)
{
	struct wr_pod_config cfg = {};
	cJSON *o = cJSON_CreateObject();
	__u32 known = 0;

	if (!o)
		return NULL;
	(void)bpf_map_lookup_elem(c->maps[MAP_PODCFG], &number, &cfg);
	(void)bpf_map_lookup_elem(c->maps[MAP_PODS], &rec->netns_cookie, &known);
	cJSON_AddNumberToObject(o, "number", number);
	add_record(o, rec);
	cJSON_AddStringToObject(o, "mode", mode_name(cfg.mode));
	cJSON_AddStringToObject(o, "on_agent_loss", on_agent_loss(cfg.flags));
	cJSON_AddStringToObject(o, "mtls", cfg.flags & WR_POD_STRICT ? "strict" : "permissive");
	cJSON_AddBoolToObject(o, "map_entry", known == number);
	dump_links(c, number, rec, !(cfg.flags & WR_POD_LINK_OFF), o, programs);
	addresses_each(c, number, add_address, cJSON_AddArrayToObject(o, "addresses"));
	cJSON_AddItemToObject(o, "counters", dump_counters(c, number));
	return o;
}

/* Records come from a map that outlives the agent: their texts may lack an end. */
static void terminate(struct wr_pod_record *rec)
{
	rec->uid[sizeof(rec->uid) - 1] = '\0';
	rec->namespace_[sizeof(rec->namespace_) - 1] = '\0';
	rec->name[sizeof(rec->name) - 1] = '\0';
	rec->netns_path[sizeof(rec->netns_path) - 1] = '\0';
}

static cJSON *dump_pods(const struct capture *c, cJSON *programs)
{
	cJSON *list = cJSON_CreateArray();

	for (__u32 number = 1; number < CAPTURE_MAX_PODS; number++) {
		struct wr_pod_record rec;

		if (bpf_map_lookup_elem(c->maps[MAP_PODREC], &number, &rec) < 0)
			continue;
		terminate(&rec);
		cJSON_AddItemToArray(list, dump_pod(c, number, &rec, programs));
	}
	return list;
}

struct cJSON *capture_dump(struct capture *c)
{
	cJSON *o = cJSON_CreateObject(), *programs = cJSON_CreateArray();

	if (!o || !programs) {
		cJSON_Delete(o);
		cJSON_Delete(programs);
		return NULL;
	}
	cJSON_AddStringToObject(o, "node", c->node);
	cJSON_AddStringToObject(o, "pins", c->dir);
	cJSON_AddNumberToObject(o, "abi", WR_ABI_VERSION);
	cJSON_AddStringToObject(o, "attach", c->tcx ? "tcx" : "clsact");
	cJSON_AddBoolToObject(o, "sockops", c->sockops);
	cJSON_AddItemToObject(o, "features", capture_probe(c->assume_missing));
	cJSON_AddItemToObject(o, "sockops_link", dump_sockops(c, programs));
	dump_maps(c, o);
	cJSON_AddItemToObject(o, "pods", dump_pods(c, programs));
	cJSON_AddItemToObject(o, "programs", programs);
	return o;
}
