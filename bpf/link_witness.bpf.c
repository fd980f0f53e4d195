// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tc ingress on the node's end of a pod's link, right behind pod_link, while `warrenctl prove` runs. In: what
 * pod_link lets out. Out: all but the probes, which are counted one by one and end here, so that nobody gets one.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi/maps.h"
#include "lib/parse.h"

#define TC_PASS (-1)
#define TC_DROP 2

/* Set by the loader: probe i comes from port first + i. */
const volatile struct wr_witness_constants witness = {};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CAPTURE_MAX_PROBES);
	__type(key, __u32);
	__type(value, __u64);
} wr_witness SEC(".maps");

SEC("tc")
int link_witness(struct __sk_buff *skb)
{
	struct packet p;
	__u64 *seen;
	__u32 probe;

	if (parse(skb, &p) != PARSED_TCP || p.dport != witness.to_port || p.sport < witness.first_port)
		return TC_PASS;
	probe = (__u32)p.sport - witness.first_port;
	seen = bpf_map_lookup_elem(&wr_witness, &probe);
	if (!seen)
		return TC_PASS;
	__sync_fetch_and_add(seen, 1);
	return TC_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
