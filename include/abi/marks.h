/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every mark, port, table and pin path that Warren uses in a pod or in bpffs. Marks only route: a pod can set
 * them too (SO_MARK needs CAP_NET_RAW alone), so no decision about who sent a packet rests on one.
 */
#pragma once

/* skb->mark, one masked rule for all kinds: `fwmark 0x57000000/0xff000000 lookup 22354`. */
#define WR_MARK_MASK 0xff000000u /* bits 24..31: Warren's */
#define WR_MARK_BASE 0x57000000u
#define WR_MARK_KIND_MASK 0xfff00000u /* with bits 20..23: which way */
#define WR_MARK_CAPTURED 0x57100000u  /* from the app to the agent, put on by pod_out; the rest of the bits are 0 */
#define WR_MARK_TO_APP 0x57200000u    /* from the agent to the app: SO_MARK of the agent's dial */
#define WR_MARK_ANSWER 0x57300000u    /* from the agent to the app: SO_MARK of 15001 and what it accepts */

/* skb->tc_index, put on together with WR_MARK_CAPTURED: no socket option reaches it, so on lo it proves
 * pod_out. */
#define WR_STAMP 0x5752u
/* The same for a SYN that comes a second time, after its TIME_WAIT socket was removed. */
#define WR_STAMP_AGAIN 0x5753u
/* pod_in's own answer on its way out: pod_out takes the stamp off and lets it go. */
#define WR_STAMP_ANSWER 0x5754u

/* Route table of `local default dev lo`, the rule's priority, and the protocol that tags both as ours. */
#define WR_ROUTE_TABLE 22354
#define WR_RULE_PRIORITY 87 /* before whatever rules the pod has: ours names its marks */
#define WR_ROUTE_PROTOCOL 87

/* clsact fallback: our filters' priority and handle. */
#define WR_TC_PRIORITY 22354
#define WR_TC_HANDLE 1
/* The same on the node's end, where a filter that runs before ours could send the packet on. */
#define WR_TC_LINK_PRIORITY 1
#define WR_TC_LINK_HANDLE 0x5752
/* Behind it: the witness of `warrenctl prove`. */
#define WR_TC_WITNESS_PRIORITY 2

#define WR_PORT_OUTBOUND 15001
#define WR_PORT_INBOUND 15006
#define WR_PORT_HBONE 15008

/* <bpffs>/warren/<node>/v<abi>/: maps by name, app_socket (link), pods/<number>/<ifindex>_<in|out|lo|link> (links).
 */
#define WR_PIN_ROOT "warren"
#define WR_ABI_VERSION 1
