/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's end of a pod's link, where the pod cannot take a program away. In: the pod's interfaces. Out: pod_link
 * on the other end of each, and for people whether it is there. Everything here runs in the node's network
 * namespace. Called by pod.c, dump_links.c and, for people, by agent/enroll and warrenctl.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <stdio.h>
#include <string.h>

/* An interface without a kind is a device that the pod was given; one of a kind that hangs on nothing elsewhere
 * (dummy, bridge, tunnel) sends through the others. */
static const char *without_end(const struct interface *i)
{
	if (i->ifindex == 1 || !i->ethernet)
		return "";
	if (!*i->kind)
		return "a device of its own, which has no end on the node";
	if (i->link_netns < 0)
		return "";
	if (strcmp(i->kind, "veth"))
		return "shares a device of the node, and has no end of its own there";
	return NULL;
}

const struct interface *node_end_of(const struct interface *i, int netns_fd, struct interface *buf,
				    const char **ret_why)
{
	const char *why = without_end(i);
	int32_t pod;

	/* Indexes repeat in every namespace: only when both ends name each other is it this one. */
	if (!why && (interfaces_netns_id(netns_fd, &pod) < 0 || interface_get(i->link, buf) < 0 ||
		     strcmp(buf->kind, "veth") || buf->link != i->ifindex || buf->link_netns != pod))
		why = "its other end is not in this network namespace";
	if (why)
		*ret_why = why;
	return why ? NULL : buf;
}

void link_record(const struct capture *c, uint32_t number, struct wr_link_record *ret)
{
	if (bpf_map_lookup_elem(c->maps[MAP_LINKREC], &number, ret) < 0)
		memset(ret, 0, sizeof(*ret));
}

int link_record_store(const struct capture *c, uint32_t number, const struct wr_link_record *rec)
{
	return bpf_map_update_elem(c->maps[MAP_LINKREC], &number, rec, BPF_ANY) < 0 ? -errno : 0;
}

static int remember_qdisc(const struct capture *c, uint32_t number, unsigned ifindex)
{
	struct wr_link_record rec;

	link_record(c, number, &rec);
	for (size_t i = 0; i < CAPTURE_MAX_INTERFACES; i++)
		if (!rec.clsact[i] || rec.clsact[i] == ifindex) {
			rec.clsact[i] = ifindex;
			return link_record_store(c, number, &rec);
		}
	return -ENOSPC;
}

static bool made_qdisc(const struct wr_link_record *rec, unsigned ifindex)
{
	for (size_t i = 0; i < CAPTURE_MAX_INTERFACES; i++)
		if (rec->clsact[i] == ifindex)
			return true;
	return false;
}

/* 1 when it was attached, 0 when it is there already and may stay. */
static int attach_one(struct instances *s, const struct interface *end, bool replace)
{
	struct attachment a = {.c = s->c, .number = s->number, .ifindex = end->ifindex, .where = PLACE_LINK};
	bool made = false;
	int r;

	if (!replace && link_attached(&a))
		return 0;
	s->netns_id = end->link_netns;
	r = instances_get(s, PLACE_LINK);
	if (r >= 0)
		r = link_attach(&a, r, &made);
	if (made) {
		int e = remember_qdisc(s->c, s->number, end->ifindex);

		if (e < 0)
			link_remove_node_end(&a, true);
		r = r < 0 ? r : e;
	}
	return r < 0 ? r : 1;
}

int node_end_attach(struct instances *s, int netns_fd, const struct interface *list, size_t n, bool replace,
		    char **ret_error)
{
	struct wr_link_record rec;
	const struct interface *end;
	struct interface buf;
	const char *why;
	int count = 0, r;

	if (s->c->anti_spoof == ANTI_SPOOF_OFF) {
		link_record(s->c, s->number, &rec);
		if (replace)
			node_end_detach(s->c, s->number, netns_fd, list, n, &rec);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		end = node_end_of(&list[i], netns_fd, &buf, &why);
		r = end ? attach_one(s, end, replace) : 0;
		if (r < 0)
			return capture_fail(ret_error, r,
					    "cannot attach to %s, the node's end of the pod's %s (%s): %s; "
					    "--anti-spoof=off does without",
					    end->name, list[i].name, s->c->tcx ? "tcx" : "clsact", strerror(-r));
		count += r;
	}
	return count;
}

void node_end_detach(struct capture *c, uint32_t number, int netns_fd, const struct interface *list, size_t n,
		     const struct wr_link_record *rec)
{
	struct attachment a = {.c = c, .number = number, .where = PLACE_LINK};
	struct interface end;
	const char *why;

	for (size_t i = 0; i < n; i++) {
		if (!node_end_of(&list[i], netns_fd, &end, &why))
			continue;
		a.ifindex = end.ifindex;
		link_remove_node_end(&a, made_qdisc(rec, end.ifindex));
	}
}

/* --- for people --- */

static const char *mode_of(const struct capture *c, uint32_t number)
{
	struct wr_pod_config p = {};

	(void)bpf_map_lookup_elem(c->maps[MAP_PODCFG], &number, &p);
	return p.flags & WR_POD_LINK_OFF ? "off" : p.flags & WR_POD_LINK_COUNT ? "counted" : "enforced";
}

/* Interfaces that lead out and have the program, and of the others the last one with its reason. */
static unsigned look(const struct capture *c, uint32_t number, int netns_fd, const struct interface *list, size_t n,
		     char *why, size_t size)
{
	struct attachment a = {.c = c, .number = number, .where = PLACE_LINK};
	struct interface end;
	unsigned there = 0;

	for (size_t i = 0; i < n; i++) {
		const char *none = "the program is not attached";

		if (node_end_of(&list[i], netns_fd, &end, &none)) {
			a.ifindex = end.ifindex;
			if (link_there(&a)) {
				there++;
				continue;
			}
		}
		if (*none)
			snprintf(why, size, "%s: %s", list[i].name, none);
	}
	return there;
}

const char *capture_pod_link(const struct capture *c, uint32_t number, int netns_fd, char *buf, size_t size)
{
	_cleanup_free_ struct interface *list = NULL;
	const char *mode = mode_of(c, number);
	char why[128] = "";
	unsigned there;
	size_t n = 0;

	if (!strcmp(mode, "off"))
		return "off";
	if (netns_fd < 0 || interfaces_of(netns_fd, &list, &n) < 0)
		return "none: its network namespace is gone";
	there = look(c, number, netns_fd, list, n, why, sizeof(why));
	if (there && !*why)
		return mode;
	snprintf(buf, size, "%s: %s", there ? "partly" : "none", *why ? why : "it has no interface that leads out");
	return buf;
}
