/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Ends of a program: pass, drop, on to lo, to a listener. Drops and bypasses are counted here. */
#pragma once

#define TC_PASS (-1) /* TCX_NEXT, and clsact's TC_ACT_UNSPEC: other programs go on */
#define TC_DROP 2
#define LO_IFINDEX 1
#define BPF_F_INGRESS 1
#define PACKET_HOST 0

/* Set by the loader: each pod has its own instance of the program. */
const volatile struct wr_pod_constants pod = {};

static __always_inline void count(enum wr_reason reason)
{
	__u32 key = pod.number;
	struct wr_count *c = bpf_map_lookup_elem(&wr_count, &key);

	if (c)
		c->n[reason]++;
}

static __always_inline int drop(enum wr_reason reason)
{
	count(reason);
	return TC_DROP;
}

static __always_inline int bypass(enum wr_reason reason)
{
	count(reason);
	return TC_PASS;
}

/* Whether the packet is TCP and parsed; else *ret_verdict says what becomes of it: what may hide TCP is dropped. */
static __always_inline _Bool is_tcp(struct __sk_buff *skb, struct packet *p, int *ret_verdict)
{
	switch (parse(skb, p)) {
	case PARSED_TCP:
		return 1;
	case PARSED_FRAGMENT:
		*ret_verdict = drop(WR_REASON_DROP_FRAGMENT);
		return 0;
	case PARSED_MALFORMED:
		*ret_verdict = drop(WR_REASON_DROP_MALFORMED);
		return 0;
	case PARSED_OTHER:
		break;
	}
	*ret_verdict = TC_PASS;
	return 0;
}

static __always_inline struct wr_pod_config *pod_config(void)
{
	__u32 key = pod.number;
	struct wr_pod_config *c = bpf_map_lookup_elem(&wr_podcfg, &key);

	return c && c->mode != WR_POD_OFF ? c : 0;
}

/* From the app to the agent: the stamp tells pod_lo that it was us, the mark brings it past routing. */
static __always_inline int to_lo(struct __sk_buff *skb)
{
	skb->mark = WR_MARK_CAPTURED;
	skb->tc_index = WR_STAMP;
	return (int)bpf_redirect(LO_IFINDEX, BPF_F_INGRESS);
}

/* Hands the packet to a listener and lets go of it. */
static __always_inline int to_listener(struct __sk_buff *skb, struct bpf_sock *listener)
{
	long r = bpf_sk_assign(skb, listener, 0);

	bpf_sk_release(listener);
	return r ? drop(WR_REASON_DROP_ASSIGN_FAILED) : TC_PASS;
}
