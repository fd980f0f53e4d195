/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A new connection on the addresses and ports of one in TIME_WAIT. The kernel would hand its SYN to whoever
 * listens on the original port, around the agent; and a SYN assigned to the agent's listener is refused while
 * the TIME_WAIT socket exists. So the SYN is sent around again (a clone, to the same ingress), and the packet
 * at hand becomes the RST that removes the TIME_WAIT socket first (RFC 1337's assassination, for which this
 * SYN is the reason).
 */
#pragma once

#define ETH_HLEN 14
#define TCP_SEQ_OFFSET 4
#define TCP_FLAGS_OFFSET 12
#define TCP_CHECK_OFFSET 16

static __always_inline int replace(struct __sk_buff *skb, __u32 tcp, __u32 field, __u32 value, __u32 size)
{
	__u32 old = 0;

	if (bpf_skb_load_bytes(skb, tcp + field, &old, size) ||
	    bpf_l4_csum_replace(skb, tcp + TCP_CHECK_OFFSET, old, value, size))
		return -1;
	return (int)bpf_skb_store_bytes(skb, tcp + field, &value, size, 0);
}

/* `sk` is in TIME_WAIT. TC_PASS: the packet is now the RST. */
static __always_inline int restart_connection(struct __sk_buff *skb, struct bpf_sock *sk, const struct packet *p)
{
	void *tw = bpf_skc_to_tcp_timewait_sock(sk);
	__u32 tcp = ETH_HLEN + p->tcp, header = 0, expected = 0;
	__u16 protocol = 0;

	/* A second time: the system refuses RSTs in TIME_WAIT (tcp_rfc1337). */
	if (!tw || skb->tc_index == WR_STAMP_AGAIN ||
	    bpf_probe_read_kernel(&expected, sizeof(expected), tw + pod.tw_rcv_nxt))
		return drop(WR_REASON_DROP_ASSIGN_FAILED);
	/* Only with an Ethernet header are the offsets right. */
	if (bpf_skb_load_bytes(skb, ETH_HLEN - 2, &protocol, sizeof(protocol)) || protocol != skb->protocol ||
	    bpf_skb_load_bytes(skb, tcp + TCP_FLAGS_OFFSET, &header, 2))
		return drop(WR_REASON_DROP_ASSIGN_FAILED);
	skb->tc_index = WR_STAMP_AGAIN;
	if (bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS))
		return drop(WR_REASON_DROP_ASSIGN_FAILED);
	skb->tc_index = 0;
	header = (header & bpf_htons(0xff00)) | bpf_htons(TCP_RST);
	if (replace(skb, tcp, TCP_SEQ_OFFSET, bpf_htonl(expected), 4) || replace(skb, tcp, TCP_FLAGS_OFFSET, header, 2))
		return drop(WR_REASON_DROP_ASSIGN_FAILED);
	return TC_PASS;
}
