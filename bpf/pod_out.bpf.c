// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tc egress on a pod's interfaces. In: what the pod sends. Out: packets of captured connections, and the
 * app's answers to the agent, go to lo (pod_lo); the agent's own and all others pass. The verdict is taken at
 * the SYN and kept with the app's socket, so that it outlives the agent.
 */
#include "lib/common.h"
#include "lib/parse.h"
#include "lib/tuple.h"
#include "lib/verdict.h"
#include "lib/probe.h"
#include "lib/mesh.h"

static __always_inline enum wr_reason decide(const struct wr_pod_config *cfg, const struct packet *p)
{
	return cfg->mode == WR_POD_DRAINING ? WR_REASON_BYPASS_DRAINING : mesh_rule(p);
}

/* A SYN decides anew each time: one descriptor may connect twice, to different places. */
static __always_inline int new_connection(struct __sk_buff *skb, const struct packet *p,
					  const struct wr_pod_config *cfg, struct bpf_sock *app, __u32 known)
{
	enum wr_reason reason = decide(cfg, p), gone = WR_REASON_NONE;
	struct bpf_sock *listener;

	if (reason == WR_REASON_CAPTURED_OUT) {
		listener = agent_listener(skb, p, WR_PORT_OUTBOUND, WR_SOCK_LISTEN_OUT, &gone);
		if (listener)
			bpf_sk_release(listener);
		else if (cfg->flags & WR_POD_OPEN)
			reason = WR_REASON_BYPASS_AGENT_GONE;
		else
			return drop(gone);
	}
	if (reason != WR_REASON_CAPTURED_OUT) {
		if (app && known != WR_SOCK_APP_BYPASS && !sock_remember(app, WR_SOCK_APP_BYPASS))
			return drop(WR_REASON_DROP_ASSIGN_FAILED);
		return bypass(reason);
	}
	if (app && known != WR_SOCK_APP_CAPTURED) {
		/* Without the verdict later packets would pass in clear. */
		if (!sock_remember(app, WR_SOCK_APP_CAPTURED))
			return drop(WR_REASON_DROP_ASSIGN_FAILED);
		count(WR_REASON_CAPTURED_OUT);
	}
	return to_lo(skb);
}

/* Whether the other end of this packet's connection is the agent's, here in the pod: only a transparent
 * socket has an address that is not the pod's, so a request or TIME_WAIT socket there is the agent's too. */
static __always_inline _Bool agent_holds_other_end(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk = socket_at(skb, p, p->sport, p->dport);
	_Bool yes = 0;
	__u32 kind;

	if (!sk)
		return 0;
	if (sk->state != STATE_LISTEN) {
		kind = sock_kind(sk);
		yes = kind == WR_SOCK_TO_APP || kind == WR_SOCK_LISTEN_OUT ||
		      (kind == WR_SOCK_NONE && !bpf_sk_fullsock(sk));
	}
	bpf_sk_release(sk);
	return yes;
}

/* SYN-ACKs (request sockets), answers of TIME_WAIT and RSTs of nobody: the tuple tells whose they are. */
static __always_inline int without_socket(struct __sk_buff *skb, const struct packet *p,
					  const struct wr_pod_config *cfg)
{
	enum wr_reason gone = WR_REASON_NONE;
	struct bpf_sock *listener;

	if (agent_holds_other_end(skb, p))
		return to_lo(skb);
	if (!(p->flags & TCP_SYN) || cfg->mode == WR_POD_DRAINING ||
	    (cfg->flags & (WR_POD_OPEN | WR_POD_RESTRICTED)) == WR_POD_OPEN || answers_probe(p))
		return TC_PASS;
	/* The SYN-ACK is 15006's or 15008's, unless they are gone: then the app answers a SYN that the agent
	 * brought it. */
	listener = agent_listener(skb, p, WR_PORT_INBOUND, WR_SOCK_LISTEN_IN, &gone);
	if (!listener)
		return drop(gone);
	bpf_sk_release(listener);
	return TC_PASS;
}

static __always_inline int of_app(struct __sk_buff *skb, const struct packet *p, struct bpf_sock *app, __u32 kind)
{
	if (kind == WR_SOCK_APP_CAPTURED || kind == WR_SOCK_APP_INBOUND)
		return to_lo(skb);
	if (kind == WR_SOCK_APP_BYPASS)
		return TC_PASS;
	if (agent_holds_other_end(skb, p)) {
		sock_remember(app, WR_SOCK_APP_INBOUND);
		return to_lo(skb);
	}
	sock_remember(app, WR_SOCK_APP_BYPASS);
	return answers_probe(p) ? TC_PASS : bypass(WR_REASON_BYPASS_OLD);
}

SEC("tc")
int pod_out(struct __sk_buff *skb)
{
	struct wr_pod_config *cfg = pod_config();
	struct bpf_sock *sk = skb->sk;
	struct packet p;
	__u32 kind = WR_SOCK_NONE;
	int verdict;

	if (!cfg)
		return TC_PASS;
	if (skb->tc_index == WR_STAMP_ANSWER) {
		skb->tc_index = 0;
		return TC_PASS;
	}
	if (!is_tcp(skb, &p, &verdict))
		return verdict;
	if (sk)
		sk = bpf_sk_fullsock(sk);
	/* The kernel's control socket (RST, ACK of TIME_WAIT) is a raw one; a listener owns the SYN-ACK of
	 * fast open. */
	if (sk && (sk->type != SOCK_STREAM || sk->state == STATE_LISTEN))
		kind = sock_kind(sk), sk = 0;
	else if (sk)
		kind = sock_kind(sk);

	switch (kind) {
	case WR_SOCK_TUNNEL:
	case WR_SOCK_LISTEN_IN:
	case WR_SOCK_LISTEN_HBONE:
		return TC_PASS;
	case WR_SOCK_LISTEN_OUT:
	case WR_SOCK_TO_APP:
		/* These talk to the pod itself, over lo: here only once the pod has lost the address. */
		return drop(WR_REASON_DROP_CONN_LOST);
	}
	if ((p.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return new_connection(skb, &p, cfg, sk, kind);
	return sk ? of_app(skb, &p, sk, kind) : without_socket(skb, &p, cfg);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
