/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capture: loads the BPF programs, attaches one instance per pod inside its network namespace, keeps the maps
 * and pins, and makes the listeners. Control thread, except capture_claim_socket (any thread). Called by
 * agent/enroll (pods), agent/node.c (open, claim hook) and, read-only and without an agent, by warrenctl
 * through the pins.
 */
#pragma once
#include "engine/model/model.h"
#include "engine/model/policy.h"
#include "engine/proxy/engine.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* As in abi/maps.h: numbers are 1..CAPTURE_MAX_PODS-1. */
#define CAPTURE_MAX_PODS 512

struct capture;
struct cJSON;
struct loop;

/* What becomes of a packet that has left the pod and should not have: wrong source, or to the mesh around the agent. */
enum anti_spoof { ANTI_SPOOF_ENFORCE, ANTI_SPOOF_COUNT, ANTI_SPOOF_OFF };

struct capture_config {
	const char *node;
	const char *pin_dir;	 /* default /sys/fs/bpf */
	const char **mesh_cidrs; /* none: every address */
	size_t n_mesh_cidrs;
	const uint16_t *excluded_ports; /* destination ports never captured */
	size_t n_excluded_ports;
	bool on_agent_loss_open;
	/* Every port of a pod counts as declared, and to every process of the node: see capture_pod_set_probes. */
	bool exempt_node_sockets;
	enum anti_spoof anti_spoof;
	const char *assume_missing; /* comma list: "tcx,sockops,..." forces each fallback; NULL */
};

/* Probes, mounts or checks bpffs, opens or adopts the pinned maps, attaches sockops at the cgroup v2 root. On
 * failure *ret_error (malloc'd) names what is missing and the command that would fix it. */
int capture_open(const struct capture_config *cfg, struct capture **ret, char **ret_error);
/* The node's own folder of pins, above that of each ABI version: made when it is missing, bpffs checked or
 * mounted, nothing else touched. Only one agent may write below it; *ret_path (malloc'd) is what they lock.
 * 0, or -errno with *ret_error (malloc'd). */
int capture_pin_folder(const char *node, const char *pin_dir, char **ret_path, char **ret_error);
/* The same node's pins for reading and for capture_pod_detach, without an agent: changes nothing, attaches
 * nothing. pin_dir NULL: the default. -ENOENT: no agent of that node ever ran since boot. */
int capture_open_readonly(const char *node, const char *pin_dir, struct capture **ret, char **ret_error);
/* Releases descriptors only; programs, maps and pins stay in force (fail closed) for the successor. */
struct capture *capture_close(struct capture *c);

/* Attaches everything to the namespace `netns_fd` and opens the three listeners there (or uses `listeners`
 * when their first is >= 0: passed on by a predecessor). The steps are undone in reverse on failure. number:
 * unique per node, 1..CAPTURE_MAX_PODS-1, the same again when the same pod is re-enrolled after a restart. */
struct capture_pod {
	uint32_t number;
	const char *uid, *namespace_, *name;
	int netns_fd;
	/* In force before the pod is; NULL: those that a predecessor left, or none. */
	const struct capture_modes *modes;
	const struct ip_addr *addrs; /* that it may send from */
	size_t n_addrs;
};
int capture_pod_attach(struct capture *c, const struct capture_pod *pod, const int listeners[3], int ret_listeners[3],
		       char **ret_error);
/* Attaches to interfaces that came since (call it now and then, it is cheap: a listing when nothing is new)
 * and puts back what somebody took away. The number of attachments made, or -errno. */
int capture_pod_refresh(struct capture *c, uint32_t number, int netns_fd);
/* From now on the pod may send from exactly these addresses; cheap when nothing changed. -E2BIG: the node's
 * pods have more than CAPTURE_MAX_ADDRESSES. */
int capture_pod_set_addresses(struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n);
/* Whether the node's end of the pod's link is watched: "enforced", "counted", "off", or "none: ..." and "partly: ..."
 * with the reason; buf may hold the answer. */
const char *capture_pod_link(const struct capture *c, uint32_t number, int netns_fd, char *buf, size_t size);
/* New connections bypass from now on; captured ones go on. */
int capture_pod_drain(struct capture *c, uint32_t number);
/* Takes a drain back: they are captured again. */
int capture_pod_resume(struct capture *c, uint32_t number);
/* Detaches programs, removes rules, routes, sysctls that still have our value, map entries, pins. netns_fd
 * may be -1 when the namespace is gone: then only pins and entries go. Idempotent; continues on errors and
 * returns the first. */
int capture_pod_detach(struct capture *c, uint32_t number, int netns_fd);

/*
 * What the kernel itself does for policy, in pinned maps, so with the agent gone too: a SYN to a port whose mode is
 * STRICT is answered by RST, and --on-agent-loss=open is not for inbound of a restricted pod. Ports go from the old
 * modes to the new ones one by one, none ever takes a mode that neither of both has. Where policy changes, call
 * capture_pod_relax before and capture_pod_set_modes after the workers have been told: so that an allowance never
 * reaches them before the kernel, nor a prohibition the kernel before them.
 * 0, or -errno, -E2BIG when CAPTURE_MAX_PORT_MODES is reached: then the kernel refuses nothing to this pod, and the
 * agent alone does.
 */
struct capture_modes {
	enum mtls_mode mode; /* of ports that are not listed; see policy_set_modes */
	const struct mtls_port *ports;
	size_t n_ports;
	bool restricted; /* see policy_set_restricts */
};
int capture_pod_set_modes(struct capture *c, uint32_t number, const struct capture_modes *m);
/* Lifts what `m` no longer demands, and demands nothing new. */
int capture_pod_relax(struct capture *c, uint32_t number, const struct capture_modes *m);
/* The whole set of a pod's addresses and probe ports. What the node's own processes connect to there, other than those
 * of hostNetwork pods, is told by its socket and goes to the app without agent or policy. 0, or -errno, -E2BIG when
 * CAPTURE_MAX_PROBE_PORTS is reached: then its other probes go the way of everybody. */
int capture_pod_set_probes(struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n_addrs,
			   const uint16_t *ports, size_t n_ports);

/* One caller whom the kernel has refused. */
struct capture_denial {
	uint32_t number; /* of the pod */
	struct ip_port src, dst;
	enum wr_reason reason;
	uint64_t suppressed; /* refusals of the same caller, pod and port before this one that were not told */
};
/* Calls fn on the loop's thread for the first refusal of each (source address, pod, port) in 10 s, at most
 * CAPTURE_DENIALS_PER_ROUND at a time. 0 or -errno. */
#define CAPTURE_DENIALS_PER_ROUND 256
int capture_watch_denials(struct capture *c, struct loop *loop, void (*fn)(void *arg, const struct capture_denial *d),
			  void *arg);
/* What is told from here on is a successor's. Harmless when nothing is watched. */
void capture_unwatch_denials(struct capture *c);

/* Numbers with pins left by earlier agents, with the uid and namespace recorded for each. */
struct capture_leftover {
	uint32_t number;
	char uid[256];
	uint64_t netns_cookie;
	char netns_path[256];
};
/* Whether the descriptor is the namespace with this cookie, which, unlike its inode number, no later one gets
 * again. */
bool capture_is_netns(int netns_fd, uint64_t netns_cookie);
int capture_leftovers(struct capture *c, struct capture_leftover **ret, size_t *ret_n);

/* `m`: the model after `d` was applied to it. The first call after capture_open also removes what an earlier
 * agent left and `m` does not know: its delta is the whole first state. 0, or -E2BIG when
 * CAPTURE_MAX_DESTINATIONS is reached; what had no room is tried again with each later change. Known VIPs (captured
 * even outside the mesh ranges) and known un-enrolled pod addresses (never captured). */
int capture_apply_model(struct capture *c, const struct model *m, const struct model_delta *d);
/* What it means that some of them are not in the kernel since the last call, or NULL: all are. Static. */
const char *capture_alarm(const struct capture *c);

/* One TCP socket of a pod's namespace: a listener, or one end of a connection. */
struct capture_socket {
	struct ip_port local, remote;
	uint32_t kind; /* enum wr_sock_kind: what our programs or the agent know it as */
	uint32_t interface;
	uint32_t cookie[2];
	uint8_t family;
	bool listening;
};
/* All of them (to be freed). 0, or -errno: -E2BIG when there are too many. */
int capture_pod_sockets(struct capture *c, int netns_fd, struct capture_socket **ret, size_t *ret_n);
/* Ends the connection by a reset, for both ends. 0, or -ENOENT: it is gone already. */
int capture_close_socket(int netns_fd, const struct capture_socket *s);
/* Whether the connection is a probe of this pod, which goes to the app past the agent. */
bool capture_is_probe(const struct capture *c, uint32_t number, const struct capture_socket *s);
/* Whether a connection to this address would be captured if it were opened now. */
bool capture_wants(const struct capture *c, const struct ip_addr *dst);

/* Engine hook: writes ownership into the socket's sk_storage, sets marks, IP_TRANSPARENT and congestion
 * control by role. */
int capture_claim_socket(void *arg, int fd, enum socket_role role);

/* A program right behind pod_link on the node's end of the pod's first link that has one: it counts TCP packets to
 * `to_port` from the port first_port + i as probe i and lets none of them go on. From the node's network namespace;
 * -ENODEV with *ret_error when the link has no end there. */
struct capture_witness;
struct capture_link {
	unsigned ifindex; /* in the pod */
	char name[16], end_name[16];
	uint8_t mac[6], end_mac[6];
};
int capture_witness_open(struct capture *c, uint32_t number, int netns_fd, uint16_t first_port, uint16_t to_port,
			 struct capture_link *ret_link, struct capture_witness **ret, char **ret_error);
uint64_t capture_witness_seen(const struct capture_witness *w, uint32_t probe);
/* Takes it away. */
struct capture_witness *capture_witness_close(struct capture_witness *w);

/* What is wanted, attached, in the maps; counters by pod and reason; the kernel features found. */
struct cJSON *capture_dump(struct capture *c);
/* The optional features that this capture does without, and why: [{"name","why"}]. */
struct cJSON *capture_without(const struct capture *c);
/* The probe report; also callable without an open capture (c NULL). */
struct cJSON *capture_probe(const char *assume_missing);
