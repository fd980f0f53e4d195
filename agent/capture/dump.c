/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in force, read back from the kernel: programs, pods with mode, counters and the links that they have
 * and should have, maps (dump_maps.c). In: an open capture, read-only or not. Out: JSON. Called by the
 * admin commands and by warrenctl without an agent.
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

/* --- programs --- */

static const char *program_type(__u32 type)
{
	return type == BPF_PROG_TYPE_SCHED_CLS ? "sched_cls" : type == BPF_PROG_TYPE_SOCK_OPS ? "sock_ops" : "other";
}

/* Adds the program to `list` once: a pod's interfaces share their instances. pod: NULL for the node's own. */
static void dump_program(__u32 id, const char *pod, cJSON *list)
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	char tag[2 * BPF_TAG_SIZE + 1];
	cJSON *o;

	cJSON_ArrayForEach(o, list)
		if (cJSON_GetNumberValue(cJSON_GetObjectItem(o, "id")) == id)
			return;
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return;
	for (size_t i = 0; i < BPF_TAG_SIZE; i++)
		snprintf(tag + 2 * i, 3, "%02x", info.tag[i]);
	o = cJSON_CreateObject();
	cJSON_AddNumberToObject(o, "id", id);
	cJSON_AddStringToObject(o, "type", program_type(info.type));
	cJSON_AddStringToObject(o, "name", info.name);
	cJSON_AddStringToObject(o, "tag", tag);
	if (pod)
		cJSON_AddStringToObject(o, "pod", pod);
	cJSON_AddNumberToObject(o, "bytes_xlated", info.xlated_prog_len);
	cJSON_AddNumberToObject(o, "bytes_jited", info.jited_prog_len);
	cJSON_AddItemToArray(list, o);
}

/* --- links: what a pod's interfaces should have, and what is there --- */

struct links {
	const struct capture *c;
	__u32 number;
	const char *pod;
	cJSON *list, *programs;
	bool netns_there;
	const char *link;
	char link_buf[160];
};

static void fill_tcx(struct links *s, cJSON *o, unsigned ifindex, const char *place)
{
	struct tcx_info info = {};
	_cleanup_close_ int fd = -1;
	__u32 len = sizeof(info);
	char path[600];

	snprintf(path, sizeof(path), "%s/pods/%u/%u_%s", s->c->dir, s->number, ifindex, place);
	fd = bpf_obj_get(path);
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return;
	cJSON_AddStringToObject(o, "type", "tcx");
	cJSON_AddNumberToObject(o, "link_id", info.id);
	cJSON_AddNumberToObject(o, "prog_id", info.prog_id);
	/* A link whose interface was deleted reports index 0. */
	cJSON_AddBoolToObject(o, "attached", info.ifindex == ifindex);
	dump_program(info.prog_id, s->pod, s->programs);
}

/* In the interface's namespace. */
static void fill_filter(struct links *s, cJSON *o, unsigned ifindex, enum place where)
{
	__u32 id = link_filter(ifindex, where);

	if (!id)
		return;
	cJSON_AddStringToObject(o, "type", "clsact");
	cJSON_AddNumberToObject(o, "prog_id", id);
	cJSON_AddBoolToObject(o, "attached", true);
	dump_program(id, s->pod, s->programs);
}

static cJSON *new_link(struct links *s, unsigned ifindex, const char *place)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddNumberToObject(o, "ifindex", ifindex);
	cJSON_AddStringToObject(o, "place", place);
	cJSON_AddItemToArray(s->list, o);
	return o;
}

static void dump_wanted(struct links *s, const struct interface *i, enum place where)
{
	cJSON *o = new_link(s, i->ifindex, place_names[where]);

	cJSON_AddStringToObject(o, "interface", i->name);
	cJSON_AddBoolToObject(o, "wanted", true);
	fill_tcx(s, o, i->ifindex, place_names[where]);
	if (!cJSON_GetObjectItem(o, "attached"))
		fill_filter(s, o, i->ifindex, where);
	if (!cJSON_GetObjectItem(o, "attached"))
		cJSON_AddBoolToObject(o, "attached", false);
}

static int dump_inside(struct links *s, int netns_fd, struct interface **ret_list, size_t *ret_n)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	int r = netns_enter(netns_fd, &g);

	if (r == 0)
		r = interfaces_list(ret_list, ret_n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < *ret_n; i++) {
		const struct interface *one = &(*ret_list)[i];

		if (one->ifindex == 1) {
			dump_wanted(s, one, PLACE_LO);
			continue;
		}
		dump_wanted(s, one, PLACE_IN);
		dump_wanted(s, one, PLACE_OUT);
	}
	return 0;
}

/* Asks the pod's namespace for its interfaces, if the recorded path still names it, then this one for their other
 * ends. */
static void dump_interfaces(struct links *s, const struct wr_pod_record *rec, bool node_ends)
{
	_cleanup_close_ int fd = *rec->netns_path ? open(rec->netns_path, O_RDONLY | O_CLOEXEC) : -1;
	_cleanup_free_ struct interface *list = NULL;
	struct interface end;
	const char *why;
	size_t n = 0;

	if (fd < 0 || !capture_is_netns(fd, rec->netns_cookie) || dump_inside(s, fd, &list, &n) < 0)
		return;
	s->netns_there = true;
	for (size_t i = 0; node_ends && i < n; i++)
		if (node_end_of(&list[i], fd, &end, &why))
			dump_wanted(s, &end, PLACE_LINK);
	s->link = capture_pod_link(s->c, s->number, fd, s->link_buf, sizeof(s->link_buf));
}

static bool listed(const cJSON *list, unsigned ifindex, const char *place)
{
	const cJSON *o;

	cJSON_ArrayForEach(o, list)
		if (cJSON_GetNumberValue(cJSON_GetObjectItem(o, "ifindex")) == ifindex &&
		    !strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(o, "place")), place))
			return true;
	return false;
}

/* Pins "<ifindex>_<place>" that no interface asks for, or that nobody can be asked about. */
static void dump_pins(struct links *s)
{
	struct dirent *e;
	char dir[560], place[8];
	unsigned ifindex;
	cJSON *o;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/pods/%u", s->c->dir, s->number);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		if (sscanf(e->d_name, "%u_%7s", &ifindex, place) != 2 || listed(s->list, ifindex, place))
			continue;
		o = new_link(s, ifindex, place);
		/* A node's end that is not seen from here may be another namespace's. */
		if (s->netns_there && strcmp(place, place_names[PLACE_LINK]))
			cJSON_AddBoolToObject(o, "wanted", false);
		fill_tcx(s, o, ifindex, place);
		if (!cJSON_GetObjectItem(o, "attached"))
			cJSON_AddBoolToObject(o, "attached", false);
	}
	if (d)
		closedir(d);
}

static cJSON *dump_sockops(const struct capture *c, cJSON *programs)
{
	struct bpf_link_info info = {};
	_cleanup_close_ int fd = -1;
	__u32 len = sizeof(info);
	cJSON *o = cJSON_CreateObject();
	char path[600];

	snprintf(path, sizeof(path), "%s/app_socket", c->dir);
	fd = bpf_obj_get(path);
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0) {
		cJSON_AddBoolToObject(o, "attached", false);
		return o;
	}
	cJSON_AddNumberToObject(o, "link_id", info.id);
	cJSON_AddNumberToObject(o, "prog_id", info.prog_id);
	cJSON_AddNumberToObject(o, "cgroup_id", (double)info.cgroup.cgroup_id);
	/* A cgroup that is gone reports 0. */
	cJSON_AddBoolToObject(o, "attached", info.cgroup.cgroup_id != 0);
	dump_program(info.prog_id, NULL, programs);
	return o;
}

/* --- pods --- */

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
	char name[sizeof(rec->namespace_) + sizeof(rec->name) + 1];
	struct links s = {.c = c, .number = number, .pod = name, .programs = programs};
	__u32 known = 0;

	if (!o)
		return NULL;
	(void)bpf_map_lookup_elem(c->maps[MAP_PODCFG], &number, &cfg);
	(void)bpf_map_lookup_elem(c->maps[MAP_PODS], &rec->netns_cookie, &known);
	snprintf(name, sizeof(name), "%s/%s", rec->namespace_, rec->name);
	cJSON_AddNumberToObject(o, "number", number);
	add_record(o, rec);
	cJSON_AddStringToObject(o, "mode", mode_name(cfg.mode));
	cJSON_AddStringToObject(o, "on_agent_loss", on_agent_loss(cfg.flags));
	cJSON_AddStringToObject(o, "mtls", cfg.flags & WR_POD_STRICT ? "strict" : "permissive");
	cJSON_AddBoolToObject(o, "map_entry", known == number);
	s.list = cJSON_AddArrayToObject(o, "links");
	dump_interfaces(&s, rec, !(cfg.flags & WR_POD_LINK_OFF));
	dump_pins(&s);
	cJSON_AddBoolToObject(o, "netns_there", s.netns_there);
	cJSON_AddStringToObject(o, "link", s.netns_there ? s.link : "none: its network namespace is gone");
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
