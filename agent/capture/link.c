/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program at an interface of the current network namespace: a pinned TCX link where the kernel has them, a
 * clsact filter otherwise. Other people's programs, filters and qdiscs stay. Called by pod.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* Younger than the distribution's headers. */
#define ATTACH_TCX_INGRESS 46
#define ATTACH_TCX_EGRESS 47
#define ATTACH_BEFORE (1u << 3) /* nobody named: before all others */
#define ATTACH_AFTER (1u << 4)
#define ATTACH_NAMES_LINK (1u << 13)

static void pin_path(const struct attachment *a, char *buf, size_t size)
{
	snprintf(buf, size, "%s/pods/%u/%u_%s", a->c->dir, a->number, a->ifindex, place_names[a->where]);
}

static long sys_bpf(int cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/* `next_to`: the link that the flags speak of. */
static int tcx_create(int prog_fd, unsigned ifindex, enum place where, __u32 flags, int next_to)
{
	union bpf_attr attr;
	int fd;

	memset(&attr, 0, sizeof(attr));
	attr.link_create.prog_fd = (__u32)prog_fd;
	attr.link_create.target_ifindex = ifindex;
	attr.link_create.attach_type = where == PLACE_OUT ? ATTACH_TCX_EGRESS : ATTACH_TCX_INGRESS;
	attr.link_create.flags = flags;
	/* Where newer headers have tcx.relative_fd. */
	if (flags & ATTACH_NAMES_LINK)
		attr.link_create.target_btf_id = (__u32)next_to;
	fd = (int)sys_bpf(BPF_LINK_CREATE, &attr);
	return fd < 0 ? -errno : fd;
}

bool link_tcx_supported(void)
{
	struct bpf_insn pass[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1},
				  {.code = BPF_JMP | BPF_EXIT}};
	_cleanup_close_ int prog =
		bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "wr_probe", "GPL", pass, ARRAY_SIZE(pass), NULL);
	_cleanup_close_ int link = -1;

	if (prog < 0)
		return false;
	/* No interface has this index: a kernel that knows the attach type says so. */
	link = tcx_create(prog, 0x7fffffff, PLACE_OUT, 0, -1);
	return link >= 0 || link == -ENODEV;
}

static int tcx_attach(const struct attachment *a, int prog_fd)
{
	_cleanup_close_ int link = -1;
	char path[600];
	int r;

	pin_path(a, path, sizeof(path));
	/* A link whose interface is gone, while the index came back, cannot be updated. */
	r = pins_update_link(path, prog_fd);
	if (r != -ENOENT)
		return r;
	/* Others on the node's end may send a packet on by themselves. */
	link = tcx_create(prog_fd, a->ifindex, a->where, a->where == PLACE_LINK ? ATTACH_BEFORE : 0, -1);
	if (link < 0)
		return link;
	return bpf_obj_pin(link, path) < 0 ? -errno : 0;
}

static enum bpf_tc_attach_point point(enum place where)
{
	return where == PLACE_OUT ? BPF_TC_EGRESS : BPF_TC_INGRESS;
}

static __u32 priority(enum place where)
{
	return where == PLACE_LINK ? WR_TC_LINK_PRIORITY : WR_TC_PRIORITY;
}

static __u32 handle(enum place where)
{
	return where == PLACE_LINK ? WR_TC_LINK_HANDLE : WR_TC_HANDLE;
}

/* The program of the filter at our priority and handle if that is ours, 0 for a foreign one, -ENOENT for none. */
static long clsact_query(unsigned ifindex, enum place where)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point(where));
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle(where), .priority = priority(where));
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	_cleanup_close_ int fd = -1;

	if (bpf_tc_query(&hook, &opts) < 0)
		return -ENOENT;
	fd = bpf_prog_get_fd_by_id(opts.prog_id);
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return 0;
	return strncmp(info.name, "pod_", 4) ? 0 : (long)opts.prog_id;
}

static int clsact_attach(const struct attachment *a, int prog_fd, bool *ret_made)
{
	LIBBPF_OPTS(bpf_tc_hook, both, .ifindex = (int)a->ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)a->ifindex, .attach_point = point(a->where));
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle(a->where), .priority = priority(a->where), .prog_fd = prog_fd);
	long ours = clsact_query(a->ifindex, a->where);
	int r;

	if (!ours)
		return -EEXIST;
	if (ours > 0) {
		opts.flags = BPF_TC_F_REPLACE;
	} else {
		r = bpf_tc_hook_create(&both);
		if (r < 0 && r != -EEXIST)
			return r;
		if (r == 0)
			*ret_made = true;
	}
	return bpf_tc_attach(&hook, &opts);
}

static void clsact_detach(unsigned ifindex, enum place where)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point(where));
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle(where), .priority = priority(where));

	if (clsact_query(ifindex, where) > 0)
		(void)bpf_tc_detach(&hook, &opts);
}

__u32 link_filter(unsigned ifindex, enum place where)
{
	long id = clsact_query(ifindex, where);

	return id > 0 ? (__u32)id : 0;
}

static bool tcx_attached(const struct attachment *a)
{
	struct tcx_info info = {};
	_cleanup_close_ int link = -1;
	__u32 len = sizeof(info);
	char path[600];

	pin_path(a, path, sizeof(path));
	link = bpf_obj_get(path);
	/* A link whose interface was deleted reports index 0. */
	return link >= 0 && bpf_obj_get_info_by_fd(link, &info, &len) == 0 && info.ifindex == a->ifindex;
}

bool link_attached(const struct attachment *a)
{
	return a->c->tcx ? tcx_attached(a) : link_filter(a->ifindex, a->where) > 0;
}

bool link_there(const struct attachment *a)
{
	return tcx_attached(a) || link_filter(a->ifindex, a->where) > 0;
}

int link_attach(const struct attachment *a, int prog_fd, bool *ret_made_clsact)
{
	char path[600];
	int r;

	*ret_made_clsact = false;
	if (a->c->tcx) {
		r = tcx_attach(a, prog_fd);
		/* An earlier agent may have run without TCX: one of the two is enough. */
		if (r == 0)
			clsact_detach(a->ifindex, a->where);
		return r;
	}
	r = clsact_attach(a, prog_fd, ret_made_clsact);
	if (r < 0)
		return r;
	pin_path(a, path, sizeof(path));
	(void)unlink(path);
	return 0;
}

/* Whether a filter of anybody's is left at the hook; "yes" when it cannot be told. */
static bool filters_left(unsigned ifindex, __u32 parent)
{
	struct {
		struct nlmsghdr h;
		struct tcmsg t;
	} q = {.h = {.nlmsg_len = sizeof(q), .nlmsg_type = RTM_GETTFILTER, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
	       .t = {.tcm_ifindex = (int)ifindex, .tcm_parent = parent}};
	_cleanup_close_ int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	char buf[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *h = (void *)buf;
	ssize_t n;

	if (s < 0 || send(s, &q, sizeof(q), 0) < 0)
		return true;
	n = recv(s, buf, sizeof(buf), 0);
	return n < (ssize_t)sizeof(*h) || h->nlmsg_type != NLMSG_DONE;
}

static void remove_qdisc(unsigned ifindex, bool made)
{
	LIBBPF_OPTS(bpf_tc_hook, both, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);

	if (made && !filters_left(ifindex, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)) &&
	    !filters_left(ifindex, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)))
		(void)bpf_tc_hook_destroy(&both);
}

void link_remove_clsact(unsigned ifindex, bool made)
{
	clsact_detach(ifindex, PLACE_OUT);
	clsact_detach(ifindex, PLACE_IN);
	remove_qdisc(ifindex, made);
}

void link_remove_node_end(const struct attachment *a, bool made)
{
	char path[600];

	pin_path(a, path, sizeof(path));
	(void)unlink(path);
	clsact_detach(a->ifindex, PLACE_LINK);
	remove_qdisc(a->ifindex, made);
}

int link_witness_tcx(const struct attachment *watched, int prog_fd)
{
	_cleanup_close_ int link = -1;
	char path[600];

	pin_path(watched, path, sizeof(path));
	link = bpf_obj_get(path);
	return tcx_create(prog_fd, watched->ifindex, PLACE_LINK,
			  link < 0 ? ATTACH_BEFORE : ATTACH_AFTER | ATTACH_NAMES_LINK, link);
}

int link_witness_filter(unsigned ifindex, int prog_fd, bool *ret_made_clsact)
{
	LIBBPF_OPTS(bpf_tc_hook, both, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = WR_TC_LINK_HANDLE, .priority = WR_TC_WITNESS_PRIORITY,
		    .prog_fd = prog_fd);
	int r = bpf_tc_hook_create(&both);

	*ret_made_clsact = r == 0;
	return r < 0 && r != -EEXIST ? r : bpf_tc_attach(&hook, &opts);
}

void link_remove_witness(unsigned ifindex, bool made)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = WR_TC_LINK_HANDLE, .priority = WR_TC_WITNESS_PRIORITY);

	(void)bpf_tc_detach(&hook, &opts);
	remove_qdisc(ifindex, made);
}

void link_remove_pins(const struct capture *c, uint32_t number)
{
	char dir[560], path[900];
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/pods/%u", c->dir, number);
	d = opendir(dir);
	if (!d)
		return;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		(void)unlink(path);
	}
	closedir(d);
	(void)rmdir(dir);
}
