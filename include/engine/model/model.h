/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mesh as data: workloads, services and their endpoints. Objects are immutable and reference-counted (atomic), so
 * they are shared between threads; each thread owns its own `struct model` (the index) and applies the same deltas to
 * it. An update costs in proportion to what changed. Data and pure functions only.
 */
#pragma once
#include "engine/base/addr.h"
#include "engine/base/table.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct policy_set; /* model/policy.h */

enum tunnel_protocol { TUNNEL_NONE, TUNNEL_HBONE };

struct workload {
	atomic_uint refs;
	char *uid; /* "<cluster>//Pod/<namespace>/<name>" */
	char *name, *namespace_, *service_account;
	char *node, *network, *cluster_id, *trust_domain;
	char *identity; /* spiffe://<td>/ns/<ns>/sa/<sa>: the exact name a peer must present */
	char *canonical_name, *canonical_revision;
	char *workload_name, *workload_type; /* type: deployment, cronjob, job, pod */
	char *region, *zone;		     /* of its node; NULL when not known */
	char *netns_path;		     /* annotation warren.dev/netns; NULL when absent */
	struct ip_addr *addrs;
	size_t n_addrs;
	uint16_t *probe_ports; /* of a local pod: where the kubelet connects, by its manifest */
	size_t n_probe_ports;
	bool addrs_in_status;	       /* else they were found in its network namespace, where they may change */
	bool labelled;		       /* into the mesh, whether or not it can be enrolled */
	enum tunnel_protocol protocol; /* HBONE: labelled and fit for it */
	bool ready;		       /* pod readiness: usable as an endpoint */
	bool host_network;
	bool local;	     /* spec.nodeName is this node */
	bool has_sidecar;    /* an injector added one */
	bool terminated;     /* phase Succeeded/Failed: its address may be another pod's by now */
	bool deleting;	     /* deletionTimestamp set: it still runs for its grace period, but no more as an endpoint */
	bool addrs_disputed; /* another live pod claims one of its addresses: they prove nothing about who calls */
	uint32_t capacity;   /* weight, default 1 */
	/* Of this node's workloads: all policies that are for it, compiled; counted. NULL: none is. */
	struct policy_set *policy;
};

struct service_port {
	uint16_t port;
	char *name; /* "" when unnamed */
};

/* One endpoint of one service. target_ports[i] belongs to service->ports[i]; 0: this endpoint does not serve it. */
struct service_endpoint {
	struct ip_addr addr;
	struct workload *workload; /* counted; NULL: an address no pod owns, reached by plain TCP */
	uint16_t *target_ports;
	uint32_t weight;
	bool healthy;
};

struct service {
	atomic_uint refs;
	char *name, *namespace_, *hostname; /* hostname: <name>.<ns>.svc.<cluster domain> */
	struct ip_addr *vips;		    /* none: headless */
	size_t n_vips;
	struct service_port *ports;
	size_t n_ports;
	struct service_endpoint *endpoints;
	size_t n_endpoints;
	bool publish_not_ready;
};

/* What changed: new or replaced objects (counted references) and removed keys (owned strings). */
struct model_delta {
	struct workload **workloads;
	size_t n_workloads;
	char **removed_workloads; /* uids */
	size_t n_removed_workloads;
	struct service **services;
	size_t n_services;
	char **removed_services; /* hostnames */
	size_t n_removed_services;
	uint64_t generation;
};

struct model {
	struct table workloads_by_uid;
	struct table workload_by_addr;
	struct table services_by_hostname;
	struct table service_by_vip;
	struct table targets; /* addresses of this node's pods -> services that they are endpoints of */
	uint64_t generation;
};

struct workload *workload_new(void); /* zeroed, refs 1; NULL: out of memory */
struct workload *workload_ref(struct workload *w);
struct workload *workload_unref(struct workload *w); /* returns NULL; accepts NULL */
/* What in its manifest keeps a pod out of the mesh, so that no connection to it is judged; NULL: nothing. */
const char *workload_outside(const struct workload *w);
struct service *service_new(void);
struct service *service_ref(struct service *s);
struct service *service_unref(struct service *s);

struct model_delta *model_delta_new(void);
struct model_delta *model_delta_free(struct model_delta *d);
/* A second delta holding references to the same objects, for another thread's model. NULL: out of memory. */
struct model_delta *model_delta_clone(const struct model_delta *d);
/* Each takes over one reference (or the string). -ENOMEM leaves ownership with the caller. */
int model_delta_add_workload(struct model_delta *d, struct workload *w);
int model_delta_remove_workload(struct model_delta *d, const char *uid);
int model_delta_add_service(struct model_delta *d, struct service *s);
int model_delta_remove_service(struct model_delta *d, const char *hostname);

struct model *model_new(void);
struct model *model_free(struct model *m);
/* Applies a delta; the delta is not consumed. 0 or -ENOMEM (the model is then partly updated and still consistent). */
int model_apply(struct model *m, const struct model_delta *d);

/* Look-ups return borrowed pointers, valid until the next model_apply on this model: take a reference to keep one.
 * hostNetwork workloads are never found by address. */
struct workload *model_workload_by_addr(const struct model *m, const struct ip_addr *a);
struct workload *model_workload_by_uid(const struct model *m, const char *uid);
struct service *model_service_by_vip(const struct model *m, const struct ip_addr *vip);
/* A service that sends connections to this port of a pod of this node; of several the one that came first. */
struct service *model_service_by_target(const struct model *m, const struct ip_port *target);
struct service *model_service_by_hostname(const struct model *m, const char *hostname);
