/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is attached, read back from the kernel: the links that a pod's interfaces have and should have, the node's
 * sockops link, and the programs behind them. In: an open capture, read-only or not. Out: JSON. Called by dump.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <cjson/cJSON.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>

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

void dump_links(const struct capture *c, __u32 number, const struct wr_pod_record *rec, bool node_ends, cJSON *o,
		cJSON *programs)
{
	char name[sizeof(rec->namespace_) + sizeof(rec->name) + 1];
	struct links s = {.c = c, .number = number, .pod = name, .programs = programs};

	snprintf(name, sizeof(name), "%s/%s", rec->namespace_, rec->name);
	s.list = cJSON_AddArrayToObject(o, "links");
	dump_interfaces(&s, rec, node_ends);
	dump_pins(&s);
	cJSON_AddBoolToObject(o, "netns_there", s.netns_there);
	cJSON_AddStringToObject(o, "link", s.netns_there ? s.link : "none: its network namespace is gone");
}

/* --- the node's own --- */

cJSON *dump_sockops(const struct capture *c, cJSON *programs)
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
