/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of agent/enroll share: the set of this node's pods and one pod's enrolment. Everything here
 * belongs to the control thread.
 */
#pragma once
#include "pods.h"
#include "engine/base/table.h"
#include "engine/io/loop.h"

#include <sys/stat.h>

enum pod_state { POD_PENDING, POD_ENROLLED, POD_DRAINING, POD_REFUSED };
extern const char *const enrolment_states[];

struct enrolment {
	struct pods *all;
	char *uid;
	struct workload *workload;
	enum pod_state state;
	char *reason;
	uint32_t number;
	int netns_fd;
	char *netns_path; /* as enrolled */
	struct stat netns;
	char *spiffe; /* reference held in the certificate store */
	bool wanted, released, in_engine, gone;
	unsigned removals; /* engine removals under way */
	struct timer timer;
	unsigned retry_ms;
	int offered[3]; /* a predecessor's listeners, until the pod is enrolled or refused */
};

struct pods {
	struct pods_config cfg;
	struct table by_uid;
	struct enrolment *by_number[CAPTURE_MAX_PODS];
	struct capture_leftover *left;
	size_t n_left;
	bool retired; /* a successor has taken over: capture is its own, only our descriptors are ours */
	struct timer tick;
	unsigned ticks;
};

/* --- enrolment.c: one pod's way into the mesh and out of it --- */
/* Enters the pod into the set, without a workload: enrolment_follow gives it one. */
struct enrolment *enrolment_new(struct pods *p, const char *uid);
/* Out of the set; capture and engine keep what they have of it. */
void enrolment_free(struct enrolment *e);
/* Its connections, also those from before it left and came back, are under the policies of this manifest. */
void enrolment_judge(struct enrolment *e, struct workload *w);
/* The pod is wanted and its manifest says this now. */
void enrolment_follow(struct enrolment *e, struct workload *w);
/* Not wanted any more: drains, and is freed when nothing of it is left, which may be at once. */
void enrolment_unwant(struct enrolment *e, const char *why);
/* A tick: lets go of a namespace that its path no longer names; a slow one also has capture attach to
 * interfaces that came since, and reads the namespace's addresses again. */
void enrolment_look(struct enrolment *e, bool slow);
/* Listeners passed on by a predecessor; takes the descriptors. */
void enrolment_offer(struct enrolment *e, const int fds[3]);
/* Out of capture at once, and kept out until enrolment_readmit. */
void enrolment_release(struct enrolment *e);
void enrolment_readmit(struct enrolment *e);

/* --- objection.c: what keeps a pod out; NULL: nothing --- */
/* What in its manifest. */
const char *objection_manifest(const struct workload *w);
/* Whether what keeps it out is how the pod is meant to be: nobody has made a mistake. */
bool objection_by_design(const struct workload *w);
/* What in the namespace st, which may be another later; buf may hold the answer. */
const char *objection_namespace(const struct enrolment *e, const struct stat *st, char *buf, size_t size);

/* --- unmanaged.c --- */
/* Warns of connections that are older than this enrolment and that policy forbids. */
void unmanaged_warn(const struct enrolment *e);

/* --- kernel.c: what capture must know of a pod beside where it is --- */
struct capture_modes kernel_modes(const struct workload *w);
/* The pod's modes and probes, as its workload says now. */
void kernel_follow(struct enrolment *e);
/* Lifts what the workload that is to come no longer forbids. */
void kernel_relax(const struct enrolment *e, const struct workload *next);

/* --- leftover.c: what earlier agents left in capture --- */
/* A number that no pod and no leftover has, or the pod's own leftover's; 0 when there is none. */
uint32_t leftover_number(const struct enrolment *e);
/* A pod has this number again: it is left over no longer. */
void leftover_forget(struct pods *p, uint32_t number);
/* Out of capture: pods that the model does not want any more or that are refused, and those whose namespace
 * went. After each change, as a pod may still wait for its return. */
void leftover_settle(struct pods *p);
