/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of agent/capture share. Nothing about a pod is kept in memory: the pinned maps and links are
 * the state, so an agent that starts, and warrenctl without one, see the same.
 */
#pragma once
#include "abi/marks.h"
#include <linux/types.h>
#include "abi/maps.h"
#include "capture.h"
#include "engine/base/table.h"

enum wr_map {
	MAP_PODS,
	MAP_PODCFG,
	MAP_MESH,
	MAP_DEST,
	MAP_EXCL,
	MAP_SOCK,
	MAP_COUNT,
	MAP_HINT,
	MAP_PODREC,
	MAP_MODE, /* from here on: what an older agent with the same layout does not have */
	MAP_DENIED,
	MAP_EVENTS,
	MAP_PROBE_PORTS,
	MAP_PROBE_FLOWS,
	MAP_PODIP,
	MAP_LINKREC,
	MAP_MAX_,
};
extern const char *const map_names[MAP_MAX_];

struct capture {
	char *node;
	char dir[512]; /* <bpffs>/warren/<node, with a colon for each dot>/v<abi> */
	int maps[MAP_MAX_];
	uint32_t tw_rcv_nxt; /* see struct wr_pod_constants; found at the first load */
	bool open_on_loss, every_probe, tcx, sockops, readonly, swept;
	int behind; /* why not all of the model's destinations are in the kernel: -errno */
	enum anti_spoof anti_spoof;
	char *assume_missing;
	/* Objects as last applied, for what their successors no longer have: by uid and by hostname. */
	struct table workloads, services;
	struct denials *denials;
};

/* --- fail.c --- */
/* Writes an error text for the caller's user and returns r. */
int capture_fail(char **ret_error, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- pins.c: bpffs, maps --- */
#define PINS_FOLDER_MAX 254
/* The node's name as a folder's, where bpffs refuses dots: a colon stands for each, as no node's name has one. False
 * for a name that cannot be one. */
bool pins_folder(const char *node, char ret[PINS_FOLDER_MAX]);
int pins_check_bpffs(const char *pin_dir, char **ret_error);
int pins_make_dir(const char *path);
int pins_open_maps(struct capture *c, char **ret_error);
/* Puts the program under the link pinned at path. 0; -ENOENT when there is none, or none any more, as one that cannot
 * be updated is unlinked; or -errno of that. */
int pins_update_link(const char *path, int prog_fd);
/* Loads the node's object: creates and pins what is missing; attaches or updates sockops unless it is off. */
int pins_load_node(struct capture *c, char **ret_error);
/* A config map's content becomes exactly these keys (value 1). */
int pins_sync_keys(int map_fd, const void *keys, size_t key_size, size_t n);

/* --- policy.c --- */
/* Ports and modes of a number go. */
void policy_forget(const struct capture *c, uint32_t number);

/* --- dump_links.c; each program that is found goes into `programs` once --- */
/* Adds "links", "netns_there" and "link" of a pod to `o`; node_ends: its links should have pod_link. */
void dump_links(const struct capture *c, __u32 number, const struct wr_pod_record *rec, bool node_ends, struct cJSON *o,
		struct cJSON *programs);
struct cJSON *dump_sockops(const struct capture *c, struct cJSON *programs);

/* --- dump_maps.c --- */
/* Adds to an object each map's content under a name of its own, and "maps": what the maps themselves are. */
void dump_maps(const struct capture *c, struct cJSON *o);

/* --- pod.c --- */
/* Flags of wr_podcfg: `now`, with the command line's part as it is given. */
__u32 pod_flags(const struct capture *c, __u32 now);

/* --- program.c: one instance for one pod --- */
enum place {
	PLACE_OUT,
	PLACE_IN,
	PLACE_LO,
	PLACE_LINK, /* the node's end of an interface, outside the pod's namespace */
	PLACE_MAX_,
};
extern const char *const place_names[PLACE_MAX_];
/* Programs loaded so far for one attach or refresh: each place once, whatever the number of interfaces. */
struct instances {
	struct capture *c;
	uint32_t number;
	int32_t netns_id; /* of the pod as the node's namespace calls it; for PLACE_LINK alone */
	int fds[PLACE_MAX_];
};
#define INSTANCES(capture, pod) ((struct instances){.c = (capture), .number = (pod), .fds = {-1, -1, -1, -1}})
/* The place's program with the pod's number: a descriptor that stays the instances', or -errno. */
int instances_get(struct instances *s, enum place where);
void instances_done(struct instances *s);

/* --- link.c: a program at an interface of the current network namespace --- */
/* struct bpf_link_info of a TCX link, whose part is newer than the kernel headers of Debian 12. */
struct tcx_info {
	__u32 type, id, prog_id, pad, ifindex, attach_type, rest[32];
};
struct attachment {
	const struct capture *c;
	uint32_t number;
	unsigned ifindex;
	enum place where;
};
/* There, in whichever of the two ways this capture attaches. */
bool link_attached(const struct attachment *a);
/* There in either way: for whoever reads what another process attached. */
bool link_there(const struct attachment *a);
/* Attaches or replaces. *ret_made_clsact is set when the qdisc was made for it. */
int link_attach(const struct attachment *a, int prog_fd, bool *ret_made_clsact);
/* Our clsact filter's program, whatever the capture uses otherwise; 0: there is none. */
__u32 link_filter(unsigned ifindex, enum place where);
/* Removes our clsact filters from a pod's interface, and the qdisc if `made` and nobody else uses it. */
void link_remove_clsact(unsigned ifindex, bool made);
/* Removes our filter or pinned link from the node's end, and the qdisc likewise. */
void link_remove_node_end(const struct attachment *a, bool made);
/* The witness right behind pod_link: an unpinned TCX link's descriptor, or a filter; 0 or -errno for that. */
int link_witness_tcx(const struct attachment *watched, int prog_fd);
int link_witness_filter(unsigned ifindex, int prog_fd, bool *ret_made_clsact);
void link_remove_witness(unsigned ifindex, bool made);
/* Removes the pod's pinned links and its folder. */
void link_remove_pins(const struct capture *c, uint32_t number);
bool link_tcx_supported(void);

/* --- netns.c --- */
struct netns_guard {
	int home;
};
/* Switches the calling thread; netns_leave (also as cleanup) brings it back, and never fails silently. */
int netns_enter(int netns_fd, struct netns_guard *ret);
void netns_leave(struct netns_guard *g);
/* The cookie of the current namespace. */
int netns_cookie(uint64_t *ret);
int netns_identify(int netns_fd, struct wr_pod_record *ret);
/* Current namespace: rules, routes and sysctls; *made says what is ours, and is updated. */
int netns_prepare(uint32_t *made, char **ret_error);
int netns_restore(uint32_t *made);

/* --- rtnetlink.c: rule and route in the current namespace --- */
int route_rule(bool add, int family);
int route_local(bool add, int family);

/* --- interfaces.c: those of the current network namespace --- */
struct interface {
	unsigned ifindex;
	unsigned link;	    /* of what it hangs on, such as a veth's other end; 0: nothing */
	int32_t link_netns; /* where that is, as this namespace calls it; -1: here */
	bool ethernet;
	uint8_t mac[6];
	char name[16], kind[16]; /* kind "": not a virtual one */
};
int interfaces_list(struct interface **ret, size_t *ret_n);
/* Those of another one. */
int interfaces_of(int netns_fd, struct interface **ret, size_t *ret_n);
int interface_get(unsigned ifindex, struct interface *ret);
/* What this namespace calls another one; -ENOENT: it has no name for it. */
int interfaces_netns_id(int netns_fd, int32_t *ret);

/* --- node_end.c: in the node's network namespace; `list` are the pod's interfaces --- */
/* Attaches to every node's end that lacks the program, to all with `replace`; takes it away with --anti-spoof=off. The
 * number of attachments made, or -errno. */
int node_end_attach(struct instances *s, int netns_fd, const struct interface *list, size_t n, bool replace,
		    char **ret_error);
/* Removes filters, and qdiscs that are ours by the record. */
void node_end_detach(struct capture *c, uint32_t number, int netns_fd, const struct interface *list, size_t n,
		     const struct wr_link_record *rec);
/* What is known of the pod's link; all zero when nothing is. */
void link_record(const struct capture *c, uint32_t number, struct wr_link_record *ret);
int link_record_store(const struct capture *c, uint32_t number, const struct wr_link_record *rec);
/* The node's end of the pod's interface, or NULL with *ret_why: none, "" when the interface does not lead out of the
 * pod by itself. */
const struct interface *node_end_of(const struct interface *i, int netns_fd, struct interface *buf,
				    const char **ret_why);

/* --- addresses.c --- */
/* Exactly these are the pod's from now on. -E2BIG: the map is full. */
int addresses_sync(const struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n);
void addresses_each(const struct capture *c, uint32_t number, void (*fn)(void *arg, const struct ip_addr *a),
		    void *arg);

/* --- listener.c --- */
int listener_open(const struct capture *c, uint16_t port, char **ret_error);
/* Makes a listener that a predecessor passed on this agent's: ownership, and nothing of the other's options. Called in
 * the pod's namespace. */
int listener_adopt(const struct capture *c, int fd, uint16_t port);

/* --- probe.c --- */
bool probe_assumed_missing(const char *list, const char *name);
/* -EOPNOTSUPP, naming it, when a feature is missing that nothing replaces. bpffs is pins_check_bpffs's. */
int probe_required(const char *assume_missing, char **ret_error);
/* Mount point of cgroup v2 (malloc'd), NULL when there is none. */
char *probe_cgroup2(void);
