/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pods of this node that belong into the mesh, each with a small state machine:
 * pending (why) -> enrolled -> draining -> gone; refused (why) stays out. Control thread; called by
 * agent/node.c and agent/commands.c.
 */
#pragma once
#include "agent/capture/capture.h"
#include "engine/identity/cert_store.h"
#include "engine/model/model.h"
#include "engine/proxy/engine.h"

struct pods;
struct loop;
struct cJSON;

struct pods_config {
	struct loop *loop;
	struct capture *capture;
	struct engine *engine;
	struct cert_store *certs;
	unsigned drain_ms;
	/* Addresses found in the namespace of a pod whose manifest names none; again and again, same or
	 * not. */
	void (*found_addresses)(void *arg, const char *uid, const struct ip_addr *addrs, size_t n);
	/* Something changed that status or readiness shows. */
	void (*changed)(void *arg);
	void *arg;
};

struct pods_counts {
	unsigned enrolled, pending, draining, refused;
};

int pods_new(const struct pods_config *cfg, struct pods **ret);
/* Lets go of all without taking pods out of capture: they stay closed until an agent is back. */
struct pods *pods_free(struct pods *p);
/* Before the workers know: what policy no longer forbids, the kernel no longer refuses. */
void pods_relax(struct pods *p, const struct model_delta *d);
/* What the model says now; enrols and un-enrols accordingly, also what an earlier agent left. Once retired: only what
 * policy says of the connections that are left. */
void pods_apply(struct pods *p, const struct model_delta *d);
/* Listeners passed on by a predecessor; used when this pod is enrolled. Takes the descriptors. */
void pods_offer_listeners(struct pods *p, const char *uid, const int fds[3]);
/* A successor has taken over: from now on nothing is enrolled, and capture is left alone; descriptors of a
 * namespace that goes are still closed. */
void pods_retire(struct pods *p);
/* A renewed certificate goes to every pod of its identity. */
void pods_set_identity(struct pods *p, struct tls_identity *id);
struct pods_counts pods_count(const struct pods *p);
struct cJSON *pods_dump(const struct pods *p);
/* Connections of enrolled pods that the agent does not carry although it would if they were opened now:
 * [{"pod","direction","src","dst","allowed","reason"?,"policy"?}], "allowed" as plaintext by today's policies. */
struct cJSON *pods_unmanaged(const struct pods *p);
/* Ends them all by a reset. How many. */
unsigned pods_close_unmanaged(const struct pods *p);
/* Appends to an array of strings a line for each pod that is refused by a mistake that somebody must put
 * right: no annotation, a namespace that is another's, a foreign socket. Not for hostNetwork and injected
 * sidecars, which stay out by design, nor for what was released by hand. */
void pods_alarms(const struct pods *p, struct cJSON *list);
/* Why no connection to this pod of the node is judged here: its manifest, or how far its enrolment got; NULL: it is
 * enrolled. buf may hold the answer. */
const char *pods_outside(const struct pods *p, const struct workload *w, char *buf, size_t size);
/* Pods that capture holds closed if the agent ends now: enrolled, or left over and not back yet. */
unsigned pods_held(const struct pods *p);
/* Names of pods that are still pending, for readiness; static buffer. "" when none is. A refused pod is not.
 */
const char *pods_pending(const struct pods *p);
/* Takes a pod ("ns/name", name, uid, or NULL for all) out of capture at once and keeps it out until
 * pods_readmit. How many. */
int pods_release(struct pods *p, const char *name);
int pods_readmit(struct pods *p, const char *name);
/* Calls fn for each enrolled pod. */
void pods_each(struct pods *p, void (*fn)(void *arg, uint32_t number, const char *uid), void *arg);
