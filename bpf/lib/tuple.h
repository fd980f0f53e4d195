/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Socket look-ups by packet. A socket that is returned must be released. */
#pragma once

#define BPF_F_CURRENT_NETNS (-1)
#define STATE_SYN_SENT 2
#define STATE_TIME_WAIT 6
#define STATE_LISTEN 10
#define STATE_NEW_SYN_RECV 12
#define SOCK_STREAM 1

/* The socket that would receive a packet from (src, sport) to (dst, dport): established, request, TIME_WAIT
 * or listening. netns: an id that the network namespace of the packet has given another one. */
static __always_inline struct bpf_sock *socket_in(struct __sk_buff *skb, const struct packet *p, __u16 sport,
						  __u16 dport, __s32 netns)
{
	struct bpf_sock_tuple t = {};

	if (p->v6) {
		__builtin_memcpy(t.ipv6.saddr, &p->src, 16);
		__builtin_memcpy(t.ipv6.daddr, &p->dst, 16);
		t.ipv6.sport = bpf_htons(sport);
		t.ipv6.dport = bpf_htons(dport);
		return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), netns, 0);
	}
	__builtin_memcpy(&t.ipv4.saddr, &p->src.b[12], 4);
	__builtin_memcpy(&t.ipv4.daddr, &p->dst.b[12], 4);
	t.ipv4.sport = bpf_htons(sport);
	t.ipv4.dport = bpf_htons(dport);
	return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), netns, 0);
}

static __always_inline struct bpf_sock *socket_at(struct __sk_buff *skb, const struct packet *p, __u16 sport,
						  __u16 dport)
{
	return socket_in(skb, p, sport, dport, BPF_F_CURRENT_NETNS);
}

/* What the agent or we wrote about a socket; WR_SOCK_NONE for one that is not full (request, TIME_WAIT). */
static __always_inline __u32 sock_kind(struct bpf_sock *sk)
{
	struct wr_sock *s = bpf_sk_storage_get(&wr_sock, sk, 0, 0);

	return s ? s->kind : WR_SOCK_NONE;
}

static __always_inline _Bool sock_remember(struct bpf_sock *sk, __u32 kind)
{
	struct wr_sock *s = bpf_sk_storage_get(&wr_sock, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!s)
		return 0;
	s->kind = kind;
	return 1;
}

/* The agent's listener on `port` for this packet's family. NULL with *ret_reason: gone, or someone else's. */
static __always_inline struct bpf_sock *agent_listener(struct __sk_buff *skb, const struct packet *p, __u16 port,
						       __u32 kind, enum wr_reason *ret_reason)
{
	struct bpf_sock *sk = socket_at(skb, p, 0, port);

	if (!sk) {
		*ret_reason = WR_REASON_DROP_AGENT_GONE;
		return 0;
	}
	if (sk->state == STATE_LISTEN && sock_kind(sk) == kind)
		return sk;
	bpf_sk_release(sk);
	*ret_reason = WR_REASON_DROP_FOREIGN_SOCKET;
	return 0;
}
