/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From packet to struct packet: addresses in one form, ports, TCP flags. Reads relative to the network
 * header, so that it works on devices with and without a link header. IPv4 options and IPv6 extension headers
 * are walked (RFC 8200 4.1).
 */
#pragma once

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define OFFSET_ETHERTYPE 12
#define IPPROTO_TCP 6
#define IP_DONT_FRAGMENT 0x4000
#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff
#define BPF_HDR_START_NET 1
#define MAX_EXTENSIONS 8

#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct packet {
	struct wr_addr src, dst;
	__u16 sport, dport; /* host order */
	__u16 tcp;	    /* offset of the TCP header from the network header */
	__u8 flags;	    /* TCP's */
	_Bool v6;
};

enum parsed {
	PARSED_TCP,
	PARSED_OTHER, /* not TCP: never ours */
	PARSED_FRAGMENT,
	PARSED_MALFORMED,
};

static __always_inline int load(struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes_relative(skb, off, to, len, BPF_HDR_START_NET);
}

static __always_inline enum parsed parse_tcp(struct __sk_buff *skb, __u32 off, struct packet *p)
{
	__u8 h[14];

	if (load(skb, off, h, sizeof(h)))
		return PARSED_MALFORMED;
	p->sport = (__u16)(h[0] << 8 | h[1]);
	p->dport = (__u16)(h[2] << 8 | h[3]);
	p->tcp = (__u16)off;
	p->flags = h[13];
	return PARSED_TCP;
}

static __always_inline enum parsed parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr h;

	if (load(skb, 0, &h, sizeof(h)))
		return PARSED_MALFORMED;
	if (h.protocol != IPPROTO_TCP)
		return PARSED_OTHER;
	if (h.frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET))
		return PARSED_FRAGMENT;
	if (h.ihl < 5)
		return PARSED_MALFORMED;
	p->src.b[10] = p->src.b[11] = p->dst.b[10] = p->dst.b[11] = 0xff;
	__builtin_memcpy(&p->src.b[12], &h.saddr, 4);
	__builtin_memcpy(&p->dst.b[12], &h.daddr, 4);
	return parse_tcp(skb, h.ihl * 4u, p);
}

/* Whether a true fragment may be one of TCP's, right away or behind further headers. What the first one names is what
 * the receiver believes (RFC 8200 4.5). */
static __always_inline _Bool may_be_tcp(__u8 next)
{
	switch (next) {
	case IPPROTO_TCP:
	case 0:
	case 43:
	case 44:
	case 51:
	case 60:
	case 135:
	case 139:
	case 140:
		return 1;
	}
	return 0;
}

static __always_inline enum parsed parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr h;
	__u32 off = sizeof(h);
	__u8 next;

	if (load(skb, 0, &h, sizeof(h)))
		return PARSED_MALFORMED;
	p->v6 = 1;
	__builtin_memcpy(&p->src, &h.saddr, 16);
	__builtin_memcpy(&p->dst, &h.daddr, 16);
	next = h.nexthdr;
#pragma unroll
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		__u8 e[4];

		if (next == IPPROTO_TCP)
			return parse_tcp(skb, off, p);
		switch (next) {
		case 0:	  /* hop-by-hop */
		case 43:  /* routing */
		case 60:  /* destination options */
		case 135: /* mobility */
		case 139: /* HIP */
		case 140: /* shim6 */
			if (load(skb, off, e, sizeof(e)))
				return PARSED_MALFORMED;
			next = e[0];
			off += (e[1] + 1u) * 8;
			break;
		case 51: /* authentication header counts in 4 bytes */
			if (load(skb, off, e, sizeof(e)))
				return PARSED_MALFORMED;
			next = e[0];
			off += (e[1] + 2u) * 4;
			break;
		case 44:
			if (load(skb, off, e, sizeof(e)))
				return PARSED_MALFORMED;
			next = e[0];
			off += 8;
			/* An atomic fragment (RFC 6946) is whole. */
			if (!((e[2] << 8 | e[3]) & 0xfff9))
				break;
			return may_be_tcp(next) ? PARSED_FRAGMENT : PARSED_OTHER;
		default:
			return PARSED_OTHER;
		}
	}
	return PARSED_MALFORMED;
}

/* skb->protocol of a packet socket's frame is what its sender says; the receiver goes by the frame (IEEE 802.3). */
static __always_inline _Bool is_ip_in_disguise(struct __sk_buff *skb)
{
	__be16 type;

	return !bpf_skb_load_bytes(skb, OFFSET_ETHERTYPE, &type, sizeof(type)) &&
	       (type == bpf_htons(ETH_P_IP) || type == bpf_htons(ETH_P_IPV6));
}

static __always_inline enum parsed parse(struct __sk_buff *skb, struct packet *p)
{
	__builtin_memset(p, 0, sizeof(*p));
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(skb, p);
	return is_ip_in_disguise(skb) ? PARSED_MALFORMED : PARSED_OTHER;
}
