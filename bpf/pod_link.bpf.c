// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tc ingress on the node's end of a pod's interface, out of the pod's reach. In: what has left the pod, whatever
 * became of the programs inside. Out: only what is sent from the pod's own addresses, and of TCP to the mesh only
 * what a socket sent that may: the agent's, or one whose connection the mesh does not carry. skb->sk is lost on
 * the way, so the socket is looked up in the pod's namespace: what the agent wrote there cannot be forged.
 */
#include "lib/common.h"
#include "lib/parse.h"
#include "lib/tuple.h"
#include "lib/verdict.h"
#include "lib/mesh.h"

#define ETH_P_ARP 0x0806
#define ETH_HLEN 14
#define ARP_PROTOCOL 2
#define ARP_SENDER_IP 14
#define TCP_OFFSET_BYTE 12

static __always_inline int refuse(const struct wr_pod_config *cfg, enum wr_reason reason)
{
	count(reason);
	return cfg->flags & WR_POD_LINK_COUNT ? TC_PASS : TC_DROP;
}

static __always_inline _Bool is_own(const struct wr_addr *a)
{
	struct wr_podip_key key = {.number = pod.number, .addr = *a};

	return bpf_map_lookup_elem(&wr_podip, &key) != 0;
}

static __always_inline _Bool own4(const __u8 ip[4])
{
	struct wr_addr a = {};

	a.b[10] = a.b[11] = 0xff;
	__builtin_memcpy(&a.b[12], ip, 4);
	return is_own(&a);
}

static __always_inline _Bool is_zero(const __u8 *b, __u32 n)
{
	__u8 any = 0;

	for (__u32 i = 0; i < n; i++)
		any |= b[i];
	return !any;
}

/* Without an address yet: DHCP, which asks everybody. */
static __always_inline _Bool source4_ok(struct __sk_buff *skb)
{
	__u8 a[8]; /* source, destination */

	if (load(skb, 12, a, sizeof(a)))
		return 0;
	if (is_zero(a, 4))
		return a[4] == 255 && a[5] == 255 && a[6] == 255 && a[7] == 255;
	return own4(a);
}

/* Link-local is the interface's own and goes no further; from :: come duplicate address detection and MLD (RFC
 * 4862, RFC 3590), to groups only. A v4-mapped source is nobody's on a wire. */
static __always_inline _Bool source6_ok(struct __sk_buff *skb)
{
	struct wr_addr a[2]; /* source, destination */

	if (load(skb, 8, a, sizeof(a)))
		return 0;
	if (is_link_local(&a[0]))
		return 1;
	if (is_zero(a[0].b, 10))
		return is_zero(a[0].b, 16) && a[1].b[0] == 0xff;
	return is_own(&a[0]);
}

/* Who says to have an address by ARP must have it; 0.0.0.0 asks whether somebody has it (RFC 5227). */
static __always_inline _Bool arp_ok(struct __sk_buff *skb)
{
	__u8 sender[4];
	__be16 protocol;

	if (load(skb, ARP_PROTOCOL, &protocol, sizeof(protocol)) || load(skb, ARP_SENDER_IP, sender, sizeof(sender)))
		return 0;
	return protocol != bpf_htons(ETH_P_IP) || is_zero(sender, 4) || own4(sender);
}

static __always_inline _Bool source_ok(struct __sk_buff *skb)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return source4_ok(skb);
	case bpf_htons(ETH_P_IPV6):
		return source6_ok(skb);
	case bpf_htons(ETH_P_ARP):
		return arp_ok(skb);
	}
	return 1;
}

static __always_inline _Bool agent_gone(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk = socket_in(skb, p, 0, WR_PORT_OUTBOUND, pod.netns_id);
	_Bool there;

	if (!sk)
		return 1;
	there = sk->state == STATE_LISTEN && sock_kind(sk) == WR_SOCK_LISTEN_OUT;
	bpf_sk_release(sk);
	return !there;
}

/* A link between two veths has an Ethernet header and no padding of its own. */
static __always_inline _Bool has_payload(struct __sk_buff *skb, const struct packet *p)
{
	__u8 offset = 0;

	if (load(skb, p->tcp + TCP_OFFSET_BYTE, &offset, 1))
		return 1;
	return skb->len > ETH_HLEN + p->tcp + (offset >> 4) * 4u;
}

/* What a packet to the mesh may be that belongs to this socket, or to none: state and kind are 0 then. */
static __always_inline _Bool may_leave(struct __sk_buff *skb, const struct packet *p, __u32 state, __u32 kind)
{
	/* Only a dial sends a SYN, also again. */
	if ((p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return kind == WR_SOCK_TUNNEL && state == STATE_SYN_SENT;
	switch (kind) {
	case WR_SOCK_APP_CAPTURED:
	case WR_SOCK_APP_INBOUND:
	case WR_SOCK_LISTEN_OUT:
	case WR_SOCK_TO_APP:
		/* Both ends of these are in the pod. */
		return 0;
	}
	/* Bytes are a connection's: the agent's, one older than enrolment, or one that bypassed. RST, SYN-ACK
	 * with a cookie and late ACKs are sent for no socket. */
	return (state && state != STATE_LISTEN && state != STATE_TIME_WAIT) || !has_payload(skb, p);
}

static __always_inline int to_mesh(struct __sk_buff *skb, const struct packet *p, const struct wr_pod_config *cfg)
{
	struct packet back = {.src = p->dst, .dst = p->src, .v6 = p->v6};
	struct bpf_sock *sk = socket_in(skb, &back, p->dport, p->sport, pod.netns_id);
	__u32 state = 0, kind = WR_SOCK_NONE;
	_Bool captured;

	if (sk) {
		state = sk->state;
		/* Else the compiler computes the field's address by hand, which the verifier refuses. */
		barrier_var(state);
		kind = sock_kind(sk);
		bpf_sk_release(sk);
	}
	if (may_leave(skb, p, state, kind))
		return TC_PASS;
	captured = kind == WR_SOCK_APP_CAPTURED || kind == WR_SOCK_APP_INBOUND;
	if (!captured && (cfg->mode == WR_POD_DRAINING || (cfg->flags & WR_POD_OPEN && agent_gone(skb, p))))
		return TC_PASS;
	return refuse(cfg, WR_REASON_DROP_BYPASS);
}

SEC("tc")
int pod_link(struct __sk_buff *skb)
{
	struct wr_pod_config *cfg = pod_config();
	struct packet p;

	if (!cfg)
		return TC_PASS;
	if (!source_ok(skb))
		return refuse(cfg, WR_REASON_DROP_SOURCE);
	switch (parse(skb, &p)) {
	case PARSED_TCP:
		return mesh_rule(&p) == WR_REASON_CAPTURED_OUT ? to_mesh(skb, &p, cfg) : TC_PASS;
	case PARSED_FRAGMENT:
		return refuse(cfg, WR_REASON_DROP_FRAGMENT);
	case PARSED_MALFORMED:
		return refuse(cfg, WR_REASON_DROP_MALFORMED);
	case PARSED_OTHER:
		break;
	}
	return TC_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
