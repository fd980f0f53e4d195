/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kubelet's probes, known by the node's own socket that opened them: in pod_in and pod_out a packet is looked up
 * among the connections that app_socket recorded. An address proves nothing: others are masqueraded as the node.
 */
#pragma once

/* The packet opens a probe of this pod: its SYN, or the last ACK of a SYN cookie's handshake. */
static __always_inline _Bool opens_probe(const struct packet *p)
{
	struct wr_flow key = {.src = p->src, .dst = p->dst, .sport = p->sport, .dport = p->dport};
	struct wr_probe_flow *f = bpf_map_lookup_elem(&wr_probe_flows, &key);

	return f && f->pod == pod.number && bpf_ktime_get_ns() - f->at < WR_PROBE_OPENING_NS;
}

/* The packet answers a probe of this pod. */
static __always_inline _Bool answers_probe(const struct packet *p)
{
	struct wr_flow key = {.src = p->dst, .dst = p->src, .sport = p->dport, .dport = p->sport};
	struct wr_probe_flow *f = bpf_map_lookup_elem(&wr_probe_flows, &key);

	return f && f->pod == pod.number;
}
