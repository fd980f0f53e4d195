// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * sockops at the cgroup v2 root, one per node. In: TCP sockets of the whole machine becoming established.
 * Out: the app's end of a connection with the agent of this node leaves congestion control and pacing meant
 * for networks, as the hop never leaves the pod; an accepted one gets its verdict written. What the node
 * opens to a probe port of its pods is recorded. Everyone else returns untouched.
 */
#include "lib/common.h"

#define BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB 4
#define BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB 5
#define AF_INET6 10
#define SOL_TCP 6
#define TCP_CONGESTION 13

#include "lib/node.h"

static __always_inline _Bool remote_is(struct bpf_sock_ops *ops, const struct wr_addr *a)
{
	__u32 w[4];

	__builtin_memcpy(w, a, sizeof(w));
	if (ops->family == AF_INET6)
		return w[0] == ops->remote_ip6[0] && w[1] == ops->remote_ip6[1] && w[2] == ops->remote_ip6[2] &&
		       w[3] == ops->remote_ip6[3];
	return !w[0] && !w[1] && w[2] == bpf_htonl(0xffff) && w[3] == ops->remote_ip4;
}

/* Whether pod_lo said of the packet now in the stack that it is the agent's. */
static __always_inline _Bool accepted_from_agent(struct bpf_sock_ops *ops, __u32 pod)
{
	__u32 zero = 0;
	struct wr_hint *hint = bpf_map_lookup_elem(&wr_hint, &zero);

	if (!hint || hint->pod != pod)
		return 0;
	/* remote_port is in network order, as a 32-bit number. */
	return hint->local_port == ops->local_port && hint->remote_port == bpf_ntohl(ops->remote_port) &&
	       remote_is(ops, &hint->remote);
}

SEC("sockops")
int app_socket(struct bpf_sock_ops *ops)
{
	char reno[] = "reno";
	struct bpf_sock *sk;
	struct wr_sock *s;
	__u64 cookie;
	__u32 *pod;

	/* Called some ten times in a socket's life, of which few are of interest. */
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB || ops->op == BPF_SOCK_OPS_STATE_CB) {
		node_socket(ops);
		return 1;
	}
	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	cookie = bpf_get_netns_cookie(ops);
	pod = bpf_map_lookup_elem(&wr_pods, &cookie);
	if (!pod)
		return 1;
	sk = ops->sk;
	if (!sk)
		return 1;
	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB) {
		s = bpf_sk_storage_get(&wr_sock, sk, 0, 0);
		if (!s || s->kind != WR_SOCK_APP_CAPTURED)
			return 1;
	} else {
		if (!accepted_from_agent(ops, *pod))
			return 1;
		s = bpf_sk_storage_get(&wr_sock, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		/* What a listener of the agent accepted has its kind already. */
		if (!s || s->kind >= WR_SOCK_LISTEN_OUT)
			return 1;
		s->kind = WR_SOCK_APP_INBOUND;
	}
	bpf_setsockopt(ops, SOL_TCP, TCP_CONGESTION, reno, sizeof(reno));
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
