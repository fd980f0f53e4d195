/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Keys and values of the maps that BPF programs and user space share, with their limits. All are pinned per
 * node and outlive the agent; a change of a layout needs a new WR_ABI_VERSION. Addresses are 16 bytes, IPv4
 * as v4-mapped IPv6. Included by bpf/ after vmlinux.h, by user space after <linux/types.h>.
 */
#pragma once

/* Numbers 1..511; 0 is no pod. */
#define CAPTURE_MAX_PODS 512
#define CAPTURE_MAX_MESH_RANGES 256
/* VIPs and un-enrolled pod addresses together. */
#define CAPTURE_MAX_DESTINATIONS 65536
#define CAPTURE_MAX_EXCLUDED_PORTS 128
/* Ports whose mode differs from their pod's, of all pods. */
#define CAPTURE_MAX_PORT_MODES 16384
/* Declared probe ports, times the addresses of their pods. */
#define CAPTURE_MAX_PROBE_PORTS 8192
/* Connections of the node to probe ports at one time; beyond, the oldest goes the way of everybody. */
#define CAPTURE_MAX_PROBE_FLOWS 8192
/* Callers that are told apart when refusals are reported; beyond, the oldest counts as new. */
#define CAPTURE_MAX_DENIED 16384
/* The ring of reports to the agent: a power of two. A report that does not fit stays counted as suppressed. */
#define CAPTURE_EVENTS_BYTES (256 * 1024)
/* Interfaces of one pod that get programs. */
#define CAPTURE_MAX_INTERFACES 16
/* Room for reasons in one counter row; more than enum wr_reason has, so that appended codes keep the layout.
 */
#define WR_COUNT_SLOTS 96

struct wr_addr {
	__u8 b[16];
};

/* Read-only data of a pod's programs, written by the loader. */
struct wr_pod_constants {
	__u32 number;
	__u32 tw_rcv_nxt; /* offset of what a TIME_WAIT socket expects next, in struct sock_common */
	__s32 netns_id;	  /* pod_link only: the pod's network namespace as the node's calls it */
};

/* wr_podcfg: array by pod number. */
enum wr_pod_mode {
	WR_POD_OFF,	 /* everything passes: being attached, or detached */
	WR_POD_ENROLLED, /* capture, fail closed */
	WR_POD_DRAINING, /* new connections pass, captured ones go on */
};
/* Flags. */
#define WR_POD_OPEN 1u	       /* new connections pass while no agent listens */
#define WR_POD_RESTRICTED 2u   /* but not inbound: policy covers the pod */
#define WR_POD_STRICT 4u       /* plaintext is refused, except on the ports that wr_mode names */
#define WR_POD_LINK_COUNT 256u /* --anti-spoof=count: pod_link counts and lets pass */
#define WR_POD_LINK_OFF 512u   /* --anti-spoof=off: pod_link is not attached */
struct wr_pod_config {
	__u32 mode;
	__u32 flags;
};

/* wr_mode: hash; a port that differs from WR_POD_STRICT of its pod. */
struct wr_port {
	__u32 pod;
	__u16 port, zero;
};
enum wr_port_mode {
	WR_PORT_PLAIN, /* plaintext reaches the agent, which decides */
	WR_PORT_STRICT,
};

/* wr_denied: LRU hash; who was refused plaintext, as it was last reported. */
#define WR_DENIED_QUIET_NS 10000000000ull /* a caller is reported once in this time */
struct wr_denied_key {
	struct wr_addr src;
	__u32 pod;
	__u16 port, zero;
};
struct wr_denied {
	__u64 at;	  /* bpf_ktime_get_ns of the report */
	__u64 suppressed; /* refused since, without a report */
};

/* wr_events: ring buffer, from BPF to the agent. */
struct wr_event {
	struct wr_addr src, dst;
	__u16 sport, dport; /* host order, both */
	__u32 pod;
	__u32 reason, zero;
	__u64 suppressed; /* of the same caller, pod and port, since the last report */
};

/* wr_probe_ports: hash, to the pod's number; where the kubelet may connect past policy. */
struct wr_probe_port {
	struct wr_addr addr;
	__u16 port; /* 0: every port */
	__u16 zero;
};

/* wr_probe_flows: LRU hash by connection; written when a process of the node's own connects to a probe port, deleted
 * when its socket closes. */
#define WR_PROBE_OPENING_NS 20000000000ull /* a handshake that takes longer is nobody's */
struct wr_flow {
	struct wr_addr src, dst;
	__u16 sport, dport; /* host order, both */
};
struct wr_probe_flow {
	__u64 at; /* bpf_ktime_get_ns */
	__u32 pod, zero;
};

/* Read-only data of the node's sockops program, written by the loader. */
struct wr_node_constants {
	__u64 netns_cookie; /* the node's own; 0: no probes are recognised */
	__u64 cgroup;	    /* id of the cgroup at which it is attached */
};

/* wr_sock: sk_storage by socket, cloned to accepted children. Only the agent (by descriptor) and our programs
 * write it. */
enum wr_sock_kind {
	WR_SOCK_NONE,
	WR_SOCK_APP_CAPTURED, /* app's end of a captured outbound connection */
	WR_SOCK_APP_INBOUND,  /* app's end of a connection that the agent made to it */
	WR_SOCK_APP_BYPASS,   /* app's connection that is not captured: decided once */
	WR_SOCK_LISTEN_OUT,   /* 15001 and its children */
	WR_SOCK_LISTEN_IN,    /* 15006 and its children */
	WR_SOCK_LISTEN_HBONE, /* 15008 and its children */
	WR_SOCK_TUNNEL,	      /* agent's dial to another pod */
	WR_SOCK_TO_APP,	      /* agent's dial to the pod's own app */
};
struct wr_sock {
	__u32 kind;
};

/* wr_mesh: LPM trie. */
struct wr_mesh_key {
	__u32 prefixlen; /* of the 16 bytes */
	struct wr_addr addr;
};

/* wr_dest: hash by address. */
#define WR_DEST_VIP 1u	      /* a Service's: captured even outside the mesh ranges */
#define WR_DEST_UNENROLLED 2u /* a pod outside the mesh: never captured */

/* wr_podip: hash of the addresses that each pod may send from; all pods together. */
#define CAPTURE_MAX_ADDRESSES 16384
struct wr_podip_key {
	__u32 number;
	struct wr_addr addr;
};

/* wr_count: per-CPU hash by pod number. */
struct wr_count {
	__u64 n[WR_COUNT_SLOTS];
};

/* wr_hint: per-CPU, from pod_lo to app_socket, which runs next for the same packet: an ACK that the agent
 * sends the app. */
struct wr_hint {
	struct wr_addr remote;
	__u16 remote_port; /* host order, both */
	__u16 local_port;
	__u32 pod; /* number; 0: no hint */
};

/* wr_podrec: hash by pod number; what a later agent or warrenctl needs to find and undo a pod. User space
 * only. */
#define WR_MADE_RULE4 1u
#define WR_MADE_RULE6 2u
#define WR_MADE_ROUTE4 4u
#define WR_MADE_ROUTE6 8u
#define WR_MADE_ACCEPT_LOCAL 16u
#define WR_MADE_SRC_VALID_MARK 32u
struct wr_pod_record {
	__u64 netns_dev, netns_ino, netns_cookie;
	__u32 made;			      /* WR_MADE_* */
	__u32 clsact[CAPTURE_MAX_INTERFACES]; /* ifindexes whose clsact qdisc is ours; 0: free */
	char uid[256];
	char namespace_[64];
	char name[256];
	char netns_path[256];
};

/* wr_linkrec: hash by pod number; the same of the node's end of its link. User space only. */
struct wr_link_record {
	__u32 addresses;		      /* of this pod in wr_podip */
	__u32 clsact[CAPTURE_MAX_INTERFACES]; /* ifindexes on the node whose clsact qdisc is ours; 0: free */
};

/* link_witness: read-only data, and how many probes it can tell apart. */
#define CAPTURE_MAX_PROBES 64
struct wr_witness_constants {
	__u16 first_port, to_port; /* host order */
};
