/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arbitrary frames through the BPF programs' packet parser, compiled for user space. Whatever a plain walk over the
 * headers finds to be TCP must not be taken for anything else: it would pass capture in clear.
 */
#include <linux/types.h>
#include "abi/maps.h"
#include "abi/marks.h"

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#undef __always_inline
#define __always_inline inline
#define bpf_htons(v) __builtin_bswap16(v) /* as the programs are built: little-endian */
#define LINK_BYTES 14

/* What the parser reads of the kernel's. */
struct __sk_buff {
	__be16 protocol;
	const __u8 *frame;
	size_t len;
};

static int bpf_skb_load_bytes(const struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	if (off > skb->len || len > skb->len - off)
		return -1;
	memcpy(to, skb->frame + off, len);
	return 0;
}

static int bpf_skb_load_bytes_relative(const struct __sk_buff *skb, __u32 off, void *to, __u32 len, __u32 start)
{
	(void)start; /* the network header, here always behind a link header */
	return off > 0xffff ? -1 : bpf_skb_load_bytes(skb, off + LINK_BYTES, to, len);
}

#include "bpf/lib/parse.h"

/* Where a walk without any limit finds TCP; 0: nowhere. `fragment`: behind a fragment header that is a true one. */
static size_t find_tcp(const __u8 *ip, size_t len, _Bool v6, _Bool *fragment)
{
	size_t off = v6 ? 40 : 0;
	__u8 next;

	if (len < (v6 ? 40 : 20))
		return 0;
	if (!v6) {
		*fragment = ((ip[6] << 8 | ip[7]) & 0x3fff) != 0;
		return ip[9] == 6 && (ip[0] & 15) >= 5 ? (ip[0] & 15u) * 4 : 0;
	}
	for (next = ip[6]; next != 6;) {
		__u8 kind = next;

		if (len - off < 8)
			return 0;
		if (kind == 44 && (ip[off + 2] << 8 | ip[off + 3]) & 0xfff9)
			*fragment = 1;
		if (kind != 0 && kind != 43 && kind != 44 && kind != 51 && kind != 60 && kind != 135 && kind != 139 &&
		    kind != 140)
			return 0;
		next = ip[off];
		off += kind == 44 ? 8 : kind == 51 ? (ip[off + 1] + 2u) * 4 : (ip[off + 1] + 1u) * 8;
		if (off > len)
			return 0;
	}
	return off;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct __sk_buff skb = {.frame = data, .len = size};
	_Bool fragment = 0, v6;
	struct packet p;
	enum parsed r;
	size_t tcp;

	if (size < LINK_BYTES)
		return 0;
	memcpy(&skb.protocol, data + OFFSET_ETHERTYPE, sizeof(skb.protocol));
	v6 = skb.protocol == bpf_htons(ETH_P_IPV6);
	r = parse(&skb, &p);
	if (!v6 && skb.protocol != bpf_htons(ETH_P_IP))
		return 0;
	tcp = find_tcp(data + LINK_BYTES, size - LINK_BYTES, v6, &fragment);
	if (tcp && r == PARSED_OTHER)
		abort();
	if (r == PARSED_TCP && (fragment || p.tcp != tcp || p.v6 != v6 || p.flags != data[LINK_BYTES + tcp + 13] ||
				p.dport != (data[LINK_BYTES + tcp + 2] << 8 | data[LINK_BYTES + tcp + 3])))
		abort();
	return 0;
}
