/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A SYN to a port that demands mutual TLS becomes its own answer: RST,ACK (RFC 9293 3.10.7.2), sent back out of the
 * interface that it came in by. The first of each caller in a while is reported to the agent. Called by pod_in.
 */
#pragma once

#define BPF_F_RECOMPUTE_CSUM 1
#define BPF_ADJ_ROOM_NET 0
#define TCP_HLEN 20
#define IPV4_HLEN 20
#define IPV6_HLEN 40
#define HOP_LIMIT 64

/* A change moves a port between entry and flag (agent/capture/policy.c). Caught in the middle of one, the packet is
 * left to the agent, which decides for itself. */
static __always_inline _Bool demands_mtls(const struct wr_pod_config *cfg, __u16 port)
{
	const volatile __u32 *flags = &cfg->flags;
	struct wr_port key = {.pod = pod.number, .port = port};
	__u32 before = *flags, *mode = bpf_map_lookup_elem(&wr_mode, &key);

	return mode ? *mode == WR_PORT_STRICT : !!(before & *flags & WR_POD_STRICT);
}

/* --- the report --- */

static __always_inline void report(const struct packet *p, enum wr_reason reason)
{
	struct wr_denied_key key = {.src = p->src, .pod = pod.number, .port = p->dport};
	struct wr_denied *known = bpf_map_lookup_elem(&wr_denied, &key), entry = {.at = bpf_ktime_get_ns()};
	struct wr_event *e;

	if (known && entry.at - known->at < WR_DENIED_QUIET_NS) {
		__sync_fetch_and_add(&known->suppressed, 1);
		return;
	}
	if (known) {
		entry.suppressed = known->suppressed;
		/* Only one of several CPUs gets to delete it, and so to report. */
		if (bpf_map_delete_elem(&wr_denied, &key))
			return;
	}
	e = bpf_ringbuf_reserve(&wr_events, sizeof(*e), 0);
	if (!e)
		entry.suppressed++;
	else {
		*e = (struct wr_event){.src = p->src,
				       .dst = p->dst,
				       .sport = p->sport,
				       .dport = p->dport,
				       .pod = pod.number,
				       .reason = reason,
				       .suppressed = entry.suppressed};
		entry.suppressed = 0;
		bpf_ringbuf_submit(e, 0);
	}
	bpf_map_update_elem(&wr_denied, &key, &entry, 1 /* BPF_NOEXIST */);
}

/* --- the answer --- */

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)((sum & 0xffff) + (sum >> 16));
}

/* Sum over the pseudo-header of an answer: both addresses, protocol and length (RFC 9293 3.1, RFC 8200 8.1). */
static __always_inline __u64 pseudo_header(const struct packet *p)
{
	const __u32 *src = (const void *)p->src.b, *dst = (const void *)p->dst.b;
	__u64 sum = (__u64)bpf_htons(IPPROTO_TCP) + bpf_htons(TCP_HLEN);

	if (p->v6)
		sum += (__u64)src[0] + src[1] + src[2] + dst[0] + dst[1] + dst[2];
	return sum + src[3] + dst[3];
}

/* Whether the checksum is left to the sender's or our interface: then the kernel does not touch it either. */
static __always_inline _Bool checksum_is_offloaded(struct __sk_buff *skb, __u32 at)
{
	__u16 probe = 0;

	if (bpf_skb_store_bytes(skb, at, &probe, sizeof(probe), 0) || bpf_l4_csum_replace(skb, at, 0, 1, 2) ||
	    bpf_skb_load_bytes(skb, at, &probe, sizeof(probe)))
		return 0;
	return !probe;
}

static __always_inline int swap_link_addresses(struct __sk_buff *skb)
{
	__u8 a[12], b[12];

	if (bpf_skb_load_bytes(skb, 0, a, sizeof(a)))
		return -1;
	__builtin_memcpy(b, a + 6, 6);
	__builtin_memcpy(b + 6, a, 6);
	return (int)bpf_skb_store_bytes(skb, 0, b, sizeof(b), 0);
}

/* The headers are put together word by word: an initializer would become data of the program's, whose only data is
 * struct wr_pod_constants. */

static __always_inline int write_ipv4(struct __sk_buff *skb, const struct packet *p)
{
	__u32 h[5], check;

	h[0] = bpf_htonl(4u << 28 | (IPV4_HLEN / 4) << 24 | (IPV4_HLEN + TCP_HLEN));
	h[1] = bpf_htonl(IP_DONT_FRAGMENT);
	h[2] = bpf_htonl(HOP_LIMIT << 24 | IPPROTO_TCP << 16);
	__builtin_memcpy(&h[3], &p->dst.b[12], 4);
	__builtin_memcpy(&h[4], &p->src.b[12], 4);
	check = (__u16)~fold(bpf_csum_diff(0, 0, h, sizeof(h), 0));
	h[2] |= check << 16;
	return (int)bpf_skb_store_bytes(skb, ETH_HLEN, h, sizeof(h), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int write_ipv6(struct __sk_buff *skb, const struct packet *p)
{
	__u32 h[10];

	h[0] = bpf_htonl(6u << 28);
	h[1] = bpf_htonl(TCP_HLEN << 16 | IPPROTO_TCP << 8 | HOP_LIMIT);
	__builtin_memcpy(&h[2], &p->dst, 16);
	__builtin_memcpy(&h[6], &p->src, 16);
	return (int)bpf_skb_store_bytes(skb, ETH_HLEN, h, sizeof(h), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int write_tcp(struct __sk_buff *skb, const struct packet *p, __be32 seq)
{
	__u32 at = ETH_HLEN + (p->v6 ? IPV6_HLEN : IPV4_HLEN), h[5], check;
	__u64 sum = pseudo_header(p);

	h[0] = bpf_htonl((__u32)p->dport << 16 | p->sport);
	h[1] = 0;
	h[2] = bpf_htonl(bpf_ntohl(seq) + 1);
	h[3] = bpf_htonl((TCP_HLEN / 4) << 28 | (TCP_RST | TCP_ACK) << 16);
	h[4] = 0;
	if (checksum_is_offloaded(skb, at + TCP_CHECK_OFFSET))
		check = fold(sum);
	else
		check = (__u16)~fold(sum + (__u64)bpf_csum_diff(0, 0, h, sizeof(h), 0));
	h[4] = check;
	return (int)bpf_skb_store_bytes(skb, at, h, sizeof(h), BPF_F_RECOMPUTE_CSUM);
}

/* Options, extension headers and payload go; the TCP header stays where it is in memory, which a checksum that is left
 * to an interface relies on. */
static __always_inline int make_answer(struct __sk_buff *skb, const struct packet *p)
{
	__u32 ip = p->v6 ? IPV6_HLEN : IPV4_HLEN;
	__be16 protocol;
	__be32 seq;

	/* Only with an Ethernet header are the offsets right. */
	if (bpf_skb_load_bytes(skb, OFFSET_ETHERTYPE, &protocol, sizeof(protocol)) || protocol != skb->protocol ||
	    load(skb, p->tcp + TCP_SEQ_OFFSET, &seq, sizeof(seq)))
		return -1;
	if (p->tcp > ip && bpf_skb_adjust_room(skb, -(__s32)(p->tcp - ip), BPF_ADJ_ROOM_NET, 0))
		return -1;
	if (bpf_skb_change_tail(skb, ETH_HLEN + ip + TCP_HLEN, 0) || swap_link_addresses(skb))
		return -1;
	if (p->v6 ? write_ipv6(skb, p) : write_ipv4(skb, p))
		return -1;
	return write_tcp(skb, p, seq);
}

/* Without an answer (no Ethernet, no memory) the SYN is dropped all the same. */
static __always_inline int refuse(struct __sk_buff *skb, const struct packet *p)
{
	count(WR_REASON_MTLS_REQUIRED);
	report(p, WR_REASON_MTLS_REQUIRED);
	/* TCP answers no reset, and only what is sent to this host alone (RFC 9293 3.10.7.1, 3.9.2.3). */
	if (p->flags & TCP_RST || skb->pkt_type != PACKET_HOST || make_answer(skb, p))
		return TC_DROP;
	skb->mark = 0;
	skb->tc_index = WR_STAMP_ANSWER;
	return (int)bpf_redirect(skb->ifindex, 0);
}
