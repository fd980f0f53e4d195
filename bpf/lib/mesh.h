/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which destinations are the mesh's. One rule for what a pod sends, on its own end of the link and on the node's. */
#pragma once

static __always_inline _Bool is_link_local(const struct wr_addr *a)
{
	return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

static __always_inline _Bool in_mesh(const struct wr_addr *dst)
{
	struct wr_mesh_key key = {.prefixlen = 128, .addr = *dst};

	return bpf_map_lookup_elem(&wr_mesh, &key) != 0;
}

/* WR_REASON_CAPTURED_OUT, or why not. Link-local IPv6 has no meaning without its interface: nobody can carry
 * it on. */
static __always_inline enum wr_reason mesh_rule(const struct packet *p)
{
	__u32 port = p->dport, *flags;

	if (bpf_map_lookup_elem(&wr_excl, &port))
		return WR_REASON_BYPASS_EXCLUDED;
	if (p->v6 ? is_link_local(&p->dst) : p->dst.b[12] == 127)
		return WR_REASON_BYPASS_OUTSIDE;
	flags = bpf_map_lookup_elem(&wr_dest, &p->dst);
	if (flags && *flags & WR_DEST_VIP)
		return WR_REASON_CAPTURED_OUT;
	if (flags && *flags & WR_DEST_UNENROLLED)
		return WR_REASON_BYPASS_UNENROLLED;
	return in_mesh(&p->dst) ? WR_REASON_CAPTURED_OUT : WR_REASON_BYPASS_OUTSIDE;
}
