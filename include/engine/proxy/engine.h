/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The L4 engine: worker threads, each with its own event loop and its own copy of the model's index. The agent (or the
 * sidecar) hands it pods with their listeners; it accepts, tunnels and delivers. All functions here are for the control
 * thread; they post messages to the workers and never block on them.
 */
#pragma once
#include "engine/identity/tls_identity.h"
#include "engine/model/binding.h"
#include "engine/model/model.h"

struct engine;
struct trust;
struct loop;
struct cJSON;

/* What a socket that the engine opens is for; the hook marks it in the kernel before it is used. */
enum socket_role {
	SOCKET_TUNNEL, /* dial of a pod's agent to another pod: HBONE or plain TCP, leaves by the pod's interface */
	SOCKET_TO_APP, /* dial to the app of the pod itself, with the caller's address */
};

struct engine_config {
	unsigned workers;
	unsigned busy_poll_us; /* loop_set_busy_poll */
	uint64_t buffer_limit; /* bytes of stream data that all workers together may hold */
	/* Of the tunnels' sockets, as congestion_choose() takes it. Borrowed. */
	const char *tunnel_congestion;
	unsigned dial_timeout_ms;   /* deadline of a whole outbound set-up: dial, TLS, SETTINGS, CONNECT, retries */
	uint64_t tunnel_max_age_ms; /* then a tunnel is replaced; 0: never for its age */
	struct trust *trust;	    /* at the start; engine_new takes references of its own */
	const char *cluster_id, *network;
	enum source_binding source_binding;
	struct loop *control; /* completions are posted here */
	/* Called on a worker, inside the pod's namespace not required: writes the agent's ownership of `fd` into the
	 * kernel (sk_storage) and sets mark and options that belong to the role. 0 or -errno: the socket is then not
	 * used. */
	int (*claim_socket)(void *arg, int fd, enum socket_role role);
	void *claim_arg;
};

/* One enrolled pod. Descriptors are taken over on success: listeners are bound and listening in the pod's namespace,
 * non-blocking. */
struct engine_pod_config {
	uint32_t number; /* the pod's number in BPF read-only data */
	struct workload *workload;
	struct tls_identity *identity;
	int netns_fd;
	int listen_outbound, listen_inbound, listen_hbone; /* 15001, 15006, 15008 */
};

int engine_new(const struct engine_config *cfg, struct engine **ret);
/* Starts the worker threads. 0, or -errno: engine_free ends those that were started. */
int engine_start(struct engine *e);
/* Closes everything, joins the threads, and answers the dumps under way with what they have. */
struct engine *engine_free(struct engine *e);

/* Adds a pod; accepting begins at once. 0 or -errno (nothing is taken over then). */
int engine_pod_add(struct engine *e, const struct engine_pod_config *cfg);
/* A renewed certificate: for new tunnels, open ones keep theirs. */
void engine_pod_set_identity(struct engine *e, uint32_t number, struct tls_identity *id);
/* What is believed of peers' certificates from now on; live tunnels that do not pass by it are ended. */
void engine_set_trust(struct engine *e, struct trust *t);
/* Its policies apply from then on to open connections as well, also to those that run on after engine_pod_remove. */
void engine_pod_set_workload(struct engine *e, uint32_t number, struct workload *w);
/* The kernel refused a plaintext connection to the pod, `times` since it last said so: logged, counted and traced as
 * though the engine had. */
void engine_pod_denied_early(struct engine *e, uint32_t number, const struct ip_port *src, const struct ip_port *dst,
			     uint64_t times);
/* Verdicts are traced for so long from now: engine_dump "trace". */
void engine_trace(struct engine *e, unsigned ms);
/* Ends a pod: GOAWAY on its tunnels, listeners closed, streams run on for drain_ms, then RST; 0 closes at once.
 * `done(arg, number)` is called on the control thread when no socket and no descriptor of the pod is left. */
void engine_pod_remove(struct engine *e, uint32_t number, unsigned drain_ms, void (*done)(void *arg, uint32_t number),
		       void *arg);
/* Ends the drains that are still under way for this number: its namespace is gone. */
void engine_pod_expire(struct engine *e, uint32_t number);
/* Duplicates of the pod's listeners for a successor, in the order 15001, 15006, 15008. 0 or -ENOENT. */
int engine_pod_listeners(struct engine *e, uint32_t number, int ret_fds[3]);
/* A successor has the listeners: accepts on no pod any more and sends callers' tunnels a GOAWAY, in two steps that lose
 * no stream (LIMIT_GOAWAY_NOTICE_MS); connections run on. */
void engine_hand_over(struct engine *e);
/* Copies the delta to every worker. */
void engine_model_apply(struct engine *e, const struct model_delta *d);

/* Open connections and tunnels over all workers, as of now (approximate, relaxed). */
uint64_t engine_open_connections(const struct engine *e);
/* Collects from all workers, then calls done on the control thread. what: "connections", "tunnels", "pods", "memory",
 * "verdicts" (counters by policy, rule and field), "trace" (the latest verdicts, by ascending "seq").
 * The array is the callee's. */
void engine_dump(struct engine *e, const char *what, void (*done)(void *arg, struct cJSON *array), void *arg);
