// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tc ingress on the pod's lo. In: captured packets from pod_out (mark and stamp), the agent's packets to the
 * app, and the pod's own loopback traffic. Out: a captured packet reaches the agent's socket, or the 15001
 * listener when it has none: that answers it with SYN-ACK, cookie or RST. Nothing of a captured connection
 * goes anywhere else.
 */
#include "lib/common.h"
#include "lib/parse.h"
#include "lib/tuple.h"
#include "lib/verdict.h"
#include "lib/timewait.h"

/* Link, network and TCP header with all options: a longer packet is not the last ACK of a handshake. */
#define LONGEST_ACK (14 + 60 + 60)

/* Tells app_socket, which runs next for this same packet, that the connection being accepted is the agent's.
 * The mark can be forged: a pod that does so only redirects its own traffic to its own lo. */
static __always_inline int from_agent(struct __sk_buff *skb)
{
	struct wr_hint *hint;
	struct packet p;
	__u32 zero = 0;

	if (skb->len > LONGEST_ACK || parse(skb, &p) != PARSED_TCP || p.flags != TCP_ACK)
		return TC_PASS;
	hint = bpf_map_lookup_elem(&wr_hint, &zero);
	if (!hint)
		return TC_PASS;
	hint->remote = p.src;
	hint->remote_port = p.sport;
	hint->local_port = p.dport;
	hint->pod = pod.number;
	return TC_PASS;
}

static __always_inline int to_agent(struct __sk_buff *skb, const struct packet *p)
{
	enum wr_reason gone = WR_REASON_NONE;
	struct bpf_sock *sk = socket_at(skb, p, p->sport, p->dport);
	_Bool syn = (p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	int r = TC_PASS;

	if (sk && sk->state != STATE_LISTEN) {
		if (syn && sk->state == STATE_TIME_WAIT)
			r = restart_connection(skb, sk, p);
		bpf_sk_release(sk);
		return r;
	}
	if (sk)
		bpf_sk_release(sk);
	sk = agent_listener(skb, p, WR_PORT_OUTBOUND, WR_SOCK_LISTEN_OUT, &gone);
	if (sk)
		return to_listener(skb, sk);
	return drop(syn || gone == WR_REASON_DROP_FOREIGN_SOCKET ? gone : WR_REASON_DROP_CONN_LOST);
}

SEC("tc")
int pod_lo(struct __sk_buff *skb)
{
	__u32 mark = skb->mark & WR_MARK_KIND_MASK;
	struct packet p;

	if (mark == WR_MARK_TO_APP)
		return from_agent(skb);
	if (mark != WR_MARK_CAPTURED)
		return TC_PASS;
	if (skb->tc_index != WR_STAMP && skb->tc_index != WR_STAMP_AGAIN)
		return drop(WR_REASON_DROP_SPOOFED_MARK);
	/* It carries the gateway's link address. */
	if (bpf_skb_change_type(skb, PACKET_HOST) || parse(skb, &p) != PARSED_TCP)
		return drop(WR_REASON_DROP_MALFORMED);
	return to_agent(skb, &p);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
