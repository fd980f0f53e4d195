// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tc ingress on a pod's interfaces. In: what comes to the pod. Out: HBONE to its listener, connections that
 * exist to their sockets, every other TCP packet to the agent's plaintext listener 15006 (also the last ACK
 * of a SYN cookie's handshake, which belongs to no socket yet). Without an agent: dropped, so that the peer
 * tries again. Agent or none: the kubelet's probes to the app, and a RST to plaintext where mutual TLS is
 * demanded.
 */
#include "lib/common.h"
#include "lib/parse.h"
#include "lib/tuple.h"
#include "lib/verdict.h"
#include "lib/timewait.h"
#include "lib/probe.h"
#include "lib/refuse.h"

/* What the socket that was found for a packet says. */
enum found {
	FOUND_NONE, /* no connection: a listener or nothing */
	FOUND_CONNECTION,
	FOUND_LOCAL_ONLY, /* a connection between app and agent: nothing from outside belongs to it */
	FOUND_RESTARTED,  /* it was in TIME_WAIT and will be gone when the SYN comes again */
	FOUND_FAILED,
};

/* A handshake that ends here comes from outside, whatever the agent's last one on this CPU was. */
static __always_inline void forget_hint(void)
{
	__u32 zero = 0;
	struct wr_hint *hint = bpf_map_lookup_elem(&wr_hint, &zero);

	if (hint)
		hint->pod = 0;
}

static __always_inline enum found find(struct __sk_buff *skb, const struct packet *p, _Bool syn)
{
	struct bpf_sock *sk = socket_at(skb, p, p->sport, p->dport);
	enum found f = FOUND_CONNECTION;
	__u32 kind, state;

	if (!sk) {
		forget_hint();
		return FOUND_NONE;
	}
	state = sk->state;
	/* Else the compiler computes the field's address by hand, which the verifier refuses. */
	barrier_var(state);
	kind = sock_kind(sk);
	if (state == STATE_LISTEN || state == STATE_NEW_SYN_RECV)
		forget_hint();
	if (state == STATE_LISTEN)
		f = FOUND_NONE;
	else if (syn && state == STATE_TIME_WAIT)
		f = restart_connection(skb, sk, p) == TC_PASS ? FOUND_RESTARTED : FOUND_FAILED;
	else if (kind == WR_SOCK_APP_CAPTURED || kind == WR_SOCK_APP_INBOUND)
		f = FOUND_LOCAL_ONLY;
	bpf_sk_release(sk);
	return f;
}

static __always_inline int to_agent(struct __sk_buff *skb, const struct packet *p, const struct wr_pod_config *cfg,
				    _Bool syn)
{
	_Bool hbone = p->dport == WR_PORT_HBONE;
	enum wr_reason gone = WR_REASON_NONE;
	struct bpf_sock *listener;

	if (cfg->mode == WR_POD_DRAINING && !hbone)
		return syn ? bypass(WR_REASON_BYPASS_DRAINING) : TC_PASS;
	listener = hbone ? agent_listener(skb, p, WR_PORT_HBONE, WR_SOCK_LISTEN_HBONE, &gone)
			 : agent_listener(skb, p, WR_PORT_INBOUND, WR_SOCK_LISTEN_IN, &gone);
	if (listener) {
		if (syn && !hbone)
			count(WR_REASON_CAPTURED_IN);
		return to_listener(skb, listener);
	}
	if ((cfg->flags & (WR_POD_OPEN | WR_POD_RESTRICTED)) == WR_POD_OPEN && !hbone)
		return bypass(WR_REASON_BYPASS_AGENT_GONE);
	return drop(gone);
}

/* The agent's own ports never are the app's: the agent itself answers there. */
static __always_inline _Bool is_agents(__u16 port)
{
	return port == WR_PORT_HBONE || port == WR_PORT_INBOUND || port == WR_PORT_OUTBOUND;
}

static __always_inline int new_connection(struct __sk_buff *skb, const struct packet *p,
					  const struct wr_pod_config *cfg, _Bool syn)
{
	if (is_agents(p->dport) || cfg->mode == WR_POD_DRAINING)
		return to_agent(skb, p, cfg, syn);
	if (opens_probe(p))
		return syn ? bypass(WR_REASON_PROBE) : TC_PASS;
	if (syn && demands_mtls(cfg, p->dport))
		return refuse(skb, p);
	return to_agent(skb, p, cfg, syn);
}

SEC("tc")
int pod_in(struct __sk_buff *skb)
{
	struct wr_pod_config *cfg = pod_config();
	struct packet p;
	int verdict;
	_Bool syn;

	if (!cfg)
		return TC_PASS;
	if (!is_tcp(skb, &p, &verdict))
		return verdict;
	syn = (p.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	switch (find(skb, &p, syn)) {
	case FOUND_CONNECTION:
	case FOUND_RESTARTED:
		return TC_PASS;
	case FOUND_FAILED:
		return TC_DROP;
	case FOUND_LOCAL_ONLY:
		return drop(WR_REASON_DROP_NOT_FROM_AGENT);
	case FOUND_NONE:
		break;
	}
	return new_connection(skb, &p, cfg, syn);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
