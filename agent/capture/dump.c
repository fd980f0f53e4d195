/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in force, read back from the kernel: pods with mode, links and counters, maps with their fill. In:
 * an open capture, read-only or not. Out: JSON. Called by the admin commands and by warrenctl without an
 * agent.
 */
#include "private.h"
#include "abi/reasons.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cjson/cJSON.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

/* One pinned link: "<ifindex>_<place>". */
static void dump_link(const char *dir, const char *name, cJSON *list)
{
	struct {
		__u32 type, id, prog_id, pad, ifindex, attach_type, rest[32];
	} info = {};
	_cleanup_close_ int fd = -1;
	__u32 len = sizeof(info);
	unsigned ifindex;
	char path[900], place[8];
	cJSON *o;

	if (sscanf(name, "%u_%7s", &ifindex, place) != 2)
		return;
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = bpf_obj_get(path);
	o = cJSON_CreateObject();
	if (!o)
		return;
	cJSON_AddNumberToObject(o, "ifindex", ifindex);
	cJSON_AddStringToObject(o, "place", place);
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0) {
		cJSON_AddNumberToObject(o, "prog_id", info.prog_id);
		cJSON_AddNumberToObject(o, "link_id", info.id);
	}
	cJSON_AddBoolToObject(o, "attached", info.ifindex == ifindex);
	cJSON_AddItemToArray(list, o);
}

static void dump_filter(unsigned ifindex, enum place where, cJSON *list)
{
	cJSON *o = link_has_clsact(ifindex, where) ? cJSON_CreateObject() : NULL;

	if (!o)
		return;
	cJSON_AddNumberToObject(o, "ifindex", ifindex);
	cJSON_AddStringToObject(o, "place", place_names[where]);
	cJSON_AddBoolToObject(o, "attached", true);
	cJSON_AddItemToArray(list, o);
}

/* Without TCX nothing is pinned: the pod's namespace is asked, if it is still the recorded one. */
static void dump_filters(const struct wr_pod_record *rec, cJSON *list)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	_cleanup_close_ int fd = *rec->netns_path ? open(rec->netns_path, O_RDONLY | O_CLOEXEC) : -1;
	struct if_nameindex *names;

	if (fd < 0 || !capture_is_netns(fd, rec->netns_cookie) || netns_enter(fd, &g) < 0)
		return;
	names = if_nameindex();
	for (struct if_nameindex *i = names; i && i->if_index; i++) {
		if (i->if_index == 1) {
			dump_filter(1, PLACE_LO, list);
			continue;
		}
		dump_filter(i->if_index, PLACE_IN, list);
		dump_filter(i->if_index, PLACE_OUT, list);
	}
	if (names)
		if_freenameindex(names);
}

static cJSON *dump_links(const struct capture *c, __u32 number, const struct wr_pod_record *rec)
{
	cJSON *list = cJSON_CreateArray();
	struct dirent *e;
	char dir[560];
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/pods/%u", c->dir, number);
	d = opendir(dir);
	while (d && (e = readdir(d)))
		dump_link(dir, e->d_name, list);
	if (d)
		closedir(d);
	if (!cJSON_GetArraySize(list))
		dump_filters(rec, list);
	return list;
}

static cJSON *dump_pod(const struct capture *c, __u32 number, const struct wr_pod_record *rec)
{
	struct wr_pod_config cfg = {};
	cJSON *o = cJSON_CreateObject();
	char cookie[24];
	__u32 known = 0;

	if (!o)
		return NULL;
	(void)bpf_map_lookup_elem(c->maps[MAP_PODCFG], &number, &cfg);
	(void)bpf_map_lookup_elem(c->maps[MAP_PODS], &rec->netns_cookie, &known);
	snprintf(cookie, sizeof(cookie), "%" PRIu64, (uint64_t)rec->netns_cookie);
	cJSON_AddNumberToObject(o, "number", number);
	cJSON_AddStringToObject(o, "uid", rec->uid);
	cJSON_AddStringToObject(o, "namespace", rec->namespace_);
	cJSON_AddStringToObject(o, "name", rec->name);
	cJSON_AddStringToObject(o, "netns", rec->netns_path);
	cJSON_AddNumberToObject(o, "netns_inode", (double)rec->netns_ino);
	cJSON_AddStringToObject(o, "netns_cookie", cookie);
	cJSON_AddStringToObject(o, "mode", mode_name(cfg.mode));
	cJSON_AddStringToObject(o, "on_agent_loss", cfg.flags & WR_POD_OPEN ? "open" : "closed");
	cJSON_AddBoolToObject(o, "map_entry", known == number);
	cJSON_AddItemToObject(o, "links", dump_links(c, number, rec));
	cJSON_AddItemToObject(o, "counters", dump_counters(c, number));
	return o;
}

static cJSON *dump_pods(const struct capture *c)
{
	cJSON *list = cJSON_CreateArray();

	for (__u32 number = 1; number < CAPTURE_MAX_PODS; number++) {
		struct wr_pod_record rec;

		if (bpf_map_lookup_elem(c->maps[MAP_PODREC], &number, &rec) == 0)
			cJSON_AddItemToArray(list, dump_pod(c, number, &rec));
	}
	return list;
}

static cJSON *dump_ranges(const struct capture *c)
{
	cJSON *list = cJSON_CreateArray();
	struct wr_mesh_key key, next;
	bool have = false;

	while (bpf_map_get_next_key(c->maps[MAP_MESH], have ? &key : NULL, &next) == 0) {
		char addr[48], text[64];
		struct ip_addr a;
		bool v4;

		memcpy(&a, &next.addr, sizeof(a));
		v4 = ip_addr_is_v4(&a) && next.prefixlen >= 96;
		snprintf(text, sizeof(text), "%s/%u", ip_addr_format(&a, addr, sizeof(addr)),
			 v4 ? next.prefixlen - 96 : next.prefixlen);
		cJSON_AddItemToArray(list, cJSON_CreateString(text));
		key = next;
		have = true;
	}
	return list;
}

static cJSON *dump_destinations(const struct capture *c)
{
	cJSON *o = cJSON_CreateObject();
	struct ip_addr key, next;
	bool have = false;
	__u32 flags;

	while (bpf_map_get_next_key(c->maps[MAP_DEST], have ? &key : NULL, &next) == 0) {
		char addr[48];

		if (bpf_map_lookup_elem(c->maps[MAP_DEST], &next, &flags) == 0)
			cJSON_AddStringToObject(o, ip_addr_format(&next, addr, sizeof(addr)),
						flags & WR_DEST_VIP ? "vip" : "unenrolled");
		key = next;
		have = true;
	}
	return o;
}

static cJSON *dump_maps(const struct capture *c)
{
	cJSON *list = cJSON_CreateArray();

	for (int i = 0; i < MAP_MAX_; i++) {
		struct bpf_map_info info = {};
		__u32 len = sizeof(info);
		cJSON *o = cJSON_CreateObject();

		if (!o)
			break;
		cJSON_AddStringToObject(o, "name", map_names[i]);
		if (bpf_obj_get_info_by_fd(c->maps[i], &info, &len) == 0) {
			cJSON_AddNumberToObject(o, "id", info.id);
			cJSON_AddNumberToObject(o, "max_entries", info.max_entries);
		}
		cJSON_AddItemToArray(list, o);
	}
	return list;
}

struct cJSON *capture_dump(struct capture *c)
{
	cJSON *o = cJSON_CreateObject();

	if (!o)
		return NULL;
	cJSON_AddStringToObject(o, "node", c->node);
	cJSON_AddStringToObject(o, "pins", c->dir);
	cJSON_AddNumberToObject(o, "abi", WR_ABI_VERSION);
	cJSON_AddStringToObject(o, "attach", c->tcx ? "tcx" : "clsact");
	cJSON_AddBoolToObject(o, "sockops", c->sockops);
	cJSON_AddItemToObject(o, "features", capture_probe(c->assume_missing));
	cJSON_AddItemToObject(o, "mesh_ranges", dump_ranges(c));
	cJSON_AddItemToObject(o, "destinations", dump_destinations(c));
	cJSON_AddItemToObject(o, "maps", dump_maps(c));
	cJSON_AddItemToObject(o, "pods", dump_pods(c));
	return o;
}
