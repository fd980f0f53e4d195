/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections that processes of the node's own network namespace open to probe ports, recorded for pod_in. A process
 * below a cgroup of Kubernetes' pods is a hostNetwork pod's, and only recorded where every socket of the node is.
 * Called by app_socket.
 */
#pragma once
#include <bpf/bpf_core_read.h>

#define BPF_SOCK_OPS_TCP_CONNECT_CB 3
#define BPF_SOCK_OPS_STATE_CB 10
#define BPF_SOCK_OPS_STATE_CB_FLAG 4
#define TCP_STATE_CLOSE 7
#define MAX_CGROUP_DEPTH 16

/* Set by the loader. */
const volatile struct wr_node_constants node = {};

/* Internal to the kernel, so every access is relocated; only what is read here. */
#define RELOCATED __attribute__((preserve_access_index))
struct cgroup;
struct kernfs_node {
	const char *name;
	__u64 id;
} RELOCATED;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
} RELOCATED;
struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
} RELOCATED;
struct css_set {
	struct cgroup *dfl_cgrp;
} RELOCATED;
struct task_struct {
	struct css_set *cgroups;
} RELOCATED;

static __always_inline _Bool begins(const char *name, const char *with, __u32 n)
{
	for (__u32 i = 0; i < n; i++)
		if (name[i] != with[i])
			return 0;
	return 1;
}

/* What the kubelet calls the cgroup of all pods: kubepods, kubepods.slice, in kind kubelet-kubepods.slice. */
static __always_inline _Bool holds_pods(const char name[24])
{
	return begins(name, "kubepods", 8) || begins(name, "kubelet-kubepods", 16);
}

/* Whether the calling process belongs to a pod. One whose place is too deep to be seen counts as a pod's. */
static __always_inline _Bool in_pod_cgroup(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	for (int i = 0; i < MAX_CGROUP_DEPTH; i++) {
		struct kernfs_node *kn = BPF_CORE_READ(cgroup, kn);
		struct cgroup_subsys_state *parent;
		char name[24] = "";

		/* What is above the node's own root is another node's, around this one. */
		if (BPF_CORE_READ(kn, id) == node.cgroup)
			return 0;
		bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(kn, name));
		if (holds_pods(name))
			return 1;
		parent = BPF_CORE_READ(cgroup, self.parent);
		if (!parent)
			return 0;
		cgroup = BPF_CORE_READ(parent, cgroup);
	}
	return 1;
}

static __always_inline void map_v4(struct wr_addr *a, __u32 v4)
{
	__u32 w[4] = {0, 0, bpf_htonl(0xffff), v4};

	__builtin_memcpy(a, w, sizeof(w));
}

/* The connection as the pod sees its packets. An IPv6 socket that speaks IPv4 has both addresses v4-mapped. */
static __always_inline void flow_of(struct bpf_sock_ops *ops, struct wr_flow *f)
{
	__u32 src[4] = {ops->local_ip6[0], ops->local_ip6[1], ops->local_ip6[2], ops->local_ip6[3]};
	__u32 dst[4] = {ops->remote_ip6[0], ops->remote_ip6[1], ops->remote_ip6[2], ops->remote_ip6[3]};

	/* Both in 32 bits: the one in host order, the other in network order. */
	f->sport = (__u16)ops->local_port;
	f->dport = (__u16)bpf_ntohl(ops->remote_port);
	if (ops->family == AF_INET6) {
		__builtin_memcpy(&f->src, src, sizeof(src));
		__builtin_memcpy(&f->dst, dst, sizeof(dst));
		return;
	}
	map_v4(&f->src, ops->local_ip4);
	map_v4(&f->dst, ops->remote_ip4);
}

/* The pod whose probe port this is, for the processes that may probe; where all of a pod's ports are, as
 * --probe-exemption=node-sockets has it, for every process. */
static __always_inline __u32 *probed_pod(const struct wr_flow *f)
{
	struct wr_probe_port key = {.addr = f->dst, .port = f->dport};
	__u32 *number = bpf_map_lookup_elem(&wr_probe_ports, &key);

	if (number)
		return in_pod_cgroup() ? 0 : number;
	key.port = 0;
	return bpf_map_lookup_elem(&wr_probe_ports, &key);
}

/* A connect, or a change of state of a socket that asked to hear of it. */
static __always_inline void node_socket(struct bpf_sock_ops *ops)
{
	struct wr_probe_flow value = {};
	struct wr_flow f = {};
	__u32 *number;

	if (bpf_get_netns_cookie(ops) != node.netns_cookie)
		return;
	flow_of(ops, &f);
	if (ops->op == BPF_SOCK_OPS_STATE_CB) {
		if (ops->args[1] == TCP_STATE_CLOSE)
			bpf_map_delete_elem(&wr_probe_flows, &f);
		return;
	}
	number = probed_pod(&f);
	if (!number)
		return;
	value.at = bpf_ktime_get_ns();
	value.pod = *number;
	if (!bpf_map_update_elem(&wr_probe_flows, &f, &value, 0))
		bpf_sock_ops_cb_flags_set(ops, (int)(ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG));
}
