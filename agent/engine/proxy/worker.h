/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the L4 engine, private to proxy/. A worker is one thread: its loop, its model index, its replica of each
 * pod, and the connections and tunnels it accepted or dialled. Nothing here is shared between workers but `struct
 * engine`, whose fields are constant after the start or atomic.
 */
#pragma once
#include "engine/base/cleanup.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/io/congestion.h"
#include "engine/io/loop.h"
#include "engine/io/sock.h"
#include "engine/io/tls_stream.h"
#include "engine/proto/h2.h"
#include "engine/model/policy.h"
#include "engine/proto/hbone.h"
#include "engine/proxy/engine.h"
#include "engine/telemetry/accesslog.h"
#include "engine/telemetry/reason.h"
#include "local.h"
#include "tally.h"
#include "trace.h"

#include <pthread.h>

struct worker;
struct pod;
struct conn;
struct tunnel;

struct engine {
	struct engine_config cfg;
	struct worker *workers;
	unsigned n_workers;
	int home_netns_fd;
	uint64_t max_fds;	     /* for connections and tunnels, from the descriptor limit */
	atomic_ulong conns;	     /* open over all workers */
	atomic_ulong fds;	     /* of connections, some of which have two, and of pods */
	atomic_ulong tunnels;	     /* a descriptor each */
	struct table pods;	     /* control thread: number -> struct pod_shared */
	struct list removing;	     /* control thread: pod_shared of removed pods whose end has not been reported */
	atomic_ulong trace_until_ms; /* verdicts are traced until then */
	struct list dumps;	     /* control thread: under way */
	unsigned n_started;	     /* workers that have a thread */
};

struct worker {
	struct engine *e;
	unsigned index;
	pthread_t thread;
	struct loop *loop;
	struct model *model;
	struct trust *trust; /* what is believed of peers' certificates now */
	struct list pods;
	uint64_t random[2];
	size_t budget;		  /* backlog bytes this worker may hold */
	unsigned window_level;	  /* 0 full windows, 1 and 2 reduced */
	size_t window_grown;	  /* window promised to streams beyond the start value */
	struct timer trim;	  /* gives memory back to the system some time after a peak */
	uint8_t *plaintext;	  /* LIMIT_PLAINTEXT_BYTES, shared by all tunnels */
	struct list conns_doomed; /* to close, and to free at the end of the round: events may still name them */
	struct list tunnels_doomed;
	struct list tunnels_left; /* closed, but apps have not taken all that came over them */
	struct task reap;
	unsigned turns, turns_round; /* left of LIMIT_TURNS_A_ROUND, in which round */
	struct task recheck;	     /* of connections whose pod's policies have changed */
	uint16_t source_port;	     /* next to try for inbound dials */
	struct policy_cache *verdicts;
	struct tally tally;	 /* of what policies decided */
	struct trace *trace;	 /* of verdicts; NULL until somebody asks */
	unsigned awaiting_owner; /* connections with `awaiting_owner` */
	bool ending;		 /* the agent ends: what is still open goes with it */
};

/* What all workers' replicas of a pod share: the descriptors, closed with the last reference. */
struct pod_shared {
	atomic_uint refs;
	atomic_ulong fds;      /* of this pod's connections, over all workers */
	atomic_uint acceptors; /* workers that still accept: the last closes the listeners */
	struct engine *e;
	struct congestion congestion; /* of its tunnels */
	uint32_t number;
	int netns_fd;
	int listeners[3];
	struct list removing; /* control thread: engine->removing while `done` is owed */
	void (*done)(void *arg, uint32_t number);
	void *done_arg;
	struct loop_msg done_msg;
};

enum listener_kind { LISTEN_OUTBOUND, LISTEN_INBOUND, LISTEN_HBONE, LISTENERS };

/* What a pod needs without any connection: listeners, and its namespace twice, the engine's and that of whoever
 * enrolled it. */
#define POD_DESCRIPTORS (LISTENERS + 2)

struct listener {
	struct watch watch;
	struct pod *pod;
	enum listener_kind kind;
};

struct pod {
	struct list node; /* worker->pods */
	struct worker *w;
	struct pod_shared *shared;
	uint32_t number;
	struct workload *workload;
	struct tls_identity *identity;
	char *baggage;
	struct listener listeners[LISTENERS];
	struct timer accept_retry;
	struct sock_cache sockets4, sockets6;
	struct table pool;   /* pool key -> struct pool_entry */
	struct list tunnels; /* all, both roles */
	struct list conns;   /* all */
	unsigned unchecked;  /* of them, from the front: admitted by policies that have changed since */
	uint64_t recheck_by_ms;
	unsigned handshakes; /* unfinished inbound ones */
	bool draining, accepting;
	bool vanishes; /* its namespace goes: nothing may hold it for long, not even what the kernel closes */
	struct timer drain;
};

enum conn_kind { CONN_OUT_HBONE, CONN_OUT_TCP, CONN_IN_HBONE, CONN_IN_PLAIN };
enum conn_state { CONN_SETUP, CONN_OPEN, CONN_DEAD };

/* One proxied connection. `app` is the pod's own side, but the caller's of plaintext inbound; the other side is a
 * stream of a tunnel, or `struct relay`'s far. */
struct conn {
	struct list node;	 /* pod->conns; after conn_end worker->conns_doomed */
	struct list tunnel_node; /* tunnel->conns */
	struct pod *pod;
	uint8_t kind, state, reason;
	bool early : 1;	      /* refused before set-up: short log form */
	bool stream_open : 1; /* the HTTP/2 stream exists */
	bool end_received : 1, end_sent : 1;
	bool established : 1; /* 200 or both TCP sides up */
	bool retrying : 1;
	bool relay : 1;		 /* embedded in a struct relay */
	bool awaiting_owner : 1; /* inbound: its address is another identity's, as far as is known */
	int32_t stream_id;
	uint32_t window;	    /* this stream's receive window */
	uint32_t window_run;	    /* bytes the app took at once since the window last grew */
	uint32_t uncredited;	    /* bytes taken by the app since the last credit */
	struct ip_port client, dst; /* original caller and destination */
	struct ip_port target;	    /* endpoint or authority address */
	struct ip_port next_hop;    /* of outbound: what is dialled for it */
	struct workload *peer;	    /* destination of outbound, source of inbound; counted, may be NULL */
	struct service *service;    /* counted, may be NULL */
	char *authority;	    /* of an inbound CONNECT by host name, for the log */
	struct tunnel *tunnel;
	uint64_t start_us, bytes_sent, bytes_recv; /* as the local app sees them */
	uint64_t deadline_ms, ended_ms;
	struct pod_shared *closing; /* ended, its descriptors still open and counted there; a reference */
	struct timer timer;
	uint16_t retry_ms;
	int16_t status;			      /* CONNECT status for the log */
	const struct policy_verdict *verdict; /* while a denial is logged; borrowed */
	struct local app;
};

/* A plain TCP connection has a second socket and a task to go on with later. */
struct relay {
	struct conn conn;
	struct local far;
	struct task more;
};

static inline struct relay *relay_of(struct conn *c)
{
	return container_of(c, struct relay, conn);
}

enum tunnel_state { TUNNEL_DIALING, TUNNEL_HANDSHAKE, TUNNEL_SETTINGS, TUNNEL_READY, TUNNEL_CLOSED };

/* One mutual-TLS HTTP/2 connection of a pod, either role. */
struct tunnel {
	struct list node; /* pod->tunnels; closed: worker->tunnels_left or tunnels_doomed */
	struct pod *pod;
	struct pool_entry *pool; /* client role while it takes new streams */
	struct list pool_node;
	struct tls_identity *identity; /* the SSL's contexts must outlive it */
	struct trust *trust;	       /* what was believed at the handshake */
	struct tls_verify verify;
	struct tls_stream tls;
	struct h2 *h2;
	struct watch watch;
	struct task flush;
	struct timer timer; /* handshake deadline, then keepalive and idle */
	struct timer life;  /* when it takes no more streams */
	struct list conns;
	uint32_t n_conns;
	uint8_t state;
	uint8_t knocks; /* SYNs after the first that were not the kernel's */
	bool server, goaway, retiring, ping_sent, paused, read_more;
	bool lost;		      /* its socket takes nothing any more */
	bool left;		      /* in worker->tunnels_left: its last connection takes it along */
	struct ip_port local, remote; /* while it is dialled `local` is where the client is */
	char *expected;		      /* client role: identity that the server must prove */
	uint64_t created_ms, heard_ms, idle_since_ms;
	uint8_t *rest; /* read, but not parsed in the same round */
	size_t rest_len, rest_off;
	uint64_t flushed;	  /* bytes emitted in the present flush */
	struct conn *gather_conn; /* whose DATA is being collected */
	struct iovec gather[32];
	int n_gather;
};

#define POOL_KEY_MAX 512
struct pool_entry {
	struct list tunnels;
	size_t key_len;
	char key[];
};

/* worker.c */
int worker_init(struct worker *w, struct engine *e, unsigned index);
void worker_close_all(struct worker *w);
void worker_done(struct worker *w);
uint64_t worker_random(struct worker *w);
static inline uint64_t worker_now_ms(const struct worker *w)
{
	return loop_now_ms(w->loop);
}
/* Follows the backlog of all streams: smaller windows as the budget fills, larger again when it empties. */
void worker_check_budget(struct worker *w);
/* What stream windows start at now, in bytes. */
uint32_t worker_stream_window(const struct worker *w);
/* Beyond the budget the tunnel that holds most pays, by its slowest streams: not whoever happens to come last. */
void worker_enforce_budget(struct worker *w);
void worker_trim_soon(struct worker *w);
/* A TCP socket in the pod's namespace, claimed for its role; -errno. `v6` chooses the family. */
int pod_socket(struct pod *p, bool v6, enum socket_role role);
struct pod *worker_pod(struct worker *w, uint32_t number);

/* pod.c */
/* Takes over the references. 0 or -ENOMEM (nothing taken). */
int pod_open(struct worker *w, struct pod_shared *shared, struct workload *wl, struct tls_identity *id);
void pod_stop_accepting(struct pod *p);
/* The listeners are a successor's now: accepts no more, asks callers to open their tunnels anew. */
void pod_hand_over(struct pod *p);
void pod_drain(struct pod *p, unsigned drain_ms);
/* Ends a drain that has nothing left to wait for. After each end of a connection or tunnel. */
void pod_check_drained(struct pod *p);
void pod_set_workload(struct pod *p, struct workload *w);
struct pod_shared *pod_shared_unref(struct pod_shared *s);

/* conn.c */
/* Counted against the connection limit and the pod's share of it: -EMFILE beyond. */
int conn_new(struct pod *p, enum conn_kind kind, struct conn **ret);
/* Lets go of everything but the app's descriptor, which is returned, without a log line. For CONN_OUT_HBONE. */
int conn_take_fd(struct conn *c);
void conn_set_route(struct conn *c, struct workload *peer, struct service *service);
/* It waits for the owner of its address no longer. */
void conn_owner_known(struct conn *c);
/* Writes the short log line of something refused before a connection existed, and counts it. */
void conn_log_refused(enum accesslog_direction direction, const struct ip_port *src, const struct ip_port *dst,
		      enum wr_reason reason);
/* Both of its sides are up: bytes may move. Says so at the log level debug. */
void conn_opened(struct conn *c);
/* One side's socket has failed, by a reset mostly; `heard`: the other can still be told something. What it said before
 * is heard before the end, as with TCP, if there is room for it within LIMIT_LAST_WORDS_MS. True, once: there is such,
 * and the caller sees to its being read; otherwise the connection has ended for `reason`, or is at it. */
bool conn_side_failed(struct conn *c, const struct local *side, enum wr_reason reason, bool heard);
/* The one way a connection ends: `reset` ends the pod's side by RST. Logs and releases; the reaper closes after a
 * reset, and frees. */
void conn_end(struct conn *c, enum wr_reason reason, bool reset);
/* For the reaper: what is still open is closed, and the memory goes. The number of descriptors closed. */
unsigned conn_free(struct conn *c);

/* outbound.c, inbound.c */
/* Routes an accepted connection; takes the descriptor. */
void outbound_accept(struct pod *p, int fd, const struct ip_port *client, const struct ip_port *dst);
/* The tunnel of c failed before its CONNECT was answered: try again against the present model until the deadline. */
void outbound_retry(struct conn *c, enum wr_reason reason);
void outbound_opened(struct conn *c);
void inbound_accept_plain(struct pod *p, int fd, const struct ip_port *client, const struct ip_port *dst);
void inbound_request(struct tunnel *t, int32_t id, const struct h2_headers *h, bool end_stream);
void inbound_app_event(struct watch *w, uint32_t events);
/* The model of c's worker has changed: those that wait for an address's owner look again. */
void inbound_model_changed(struct worker *w);
/* The policies of the pod have changed: what is no longer allowed is reset, some at a time, so that others are served.
 */
void inbound_recheck(struct pod *p);
/* fn of the worker's recheck task. */
void inbound_recheck_due(struct task *task);
/* The kernel refused plaintext in our place, `times` since it last said so: the same line, counters and trace. */
void inbound_denied_early(struct pod *p, const struct ip_port *src, const struct ip_port *dst, uint64_t times);
/* What a failed dial (-errno) of a next hop, or of the app, is called in log and counters. */
enum wr_reason outbound_dial_reason(int error);
enum wr_reason inbound_dial_reason(int error);
/* Dials dst in the pod with the caller's address (own ports first): a connecting socket or -errno. */
int inbound_dial(struct pod *p, const struct ip_port *client, const struct ip_port *dst);

/* admission.c */
/* Whether the caller's address bears out the identity it has proven, or need not. */
bool admission_bound(const struct conn *c);
/* The verdict on one whose address does not. */
void admission_unbound(const struct conn *c, struct policy_verdict *ret);
/* Asks the pod's policies. `first`: not when an open connection is looked at again. */
bool admission_check(const struct conn *c, bool first, struct policy_verdict *ret);
/* The same of a plaintext connection that never was one here. */
void admission_refused(struct pod *p, const struct ip_port *src, const struct ip_port *dst, uint64_t times,
		       struct policy_verdict *ret);
/* Tunnels whose far address has another owner now take no new streams. */
void admission_drain_former_owners(struct worker *w);

/* relay.c */
/* c->app is watched already; takes the connecting far socket. 0 or -errno (not taken). */
int relay_start(struct conn *c, int far_fd);
/* The app's socket became ready: fn of its watch. */
void relay_app_event(struct watch *w, uint32_t events);
/* As local_stop and local_close. */
void relay_stop(struct conn *c);
void relay_close(struct conn *c, bool reset);

/* stream.c: the pump between app and stream */
void stream_open(struct conn *c);
void stream_app_event(struct watch *w, uint32_t events);
ssize_t stream_pull(struct conn *c, uint8_t *buf, size_t max, bool *ret_eof);
void stream_data(struct conn *c, struct iovec *iov, int n);
void stream_end(struct conn *c);
void stream_closed(struct conn *c, uint32_t error);
/* Announces what the app has taken as far as the windows now in force ask for it. */
void stream_credit_due(struct conn *c);

/* tunnel.c */
/* Connects from the client's address (when the families agree) to next_hop:15008, expecting exactly this identity. */
int tunnel_dial(struct pod *p, const struct ip_port *client, const struct ip_port *next_hop, const char *expected,
		struct tunnel **ret);
void tunnel_accept(struct pod *p, int fd, const struct ip_port *client, const struct ip_port *dst);
void tunnel_attach(struct tunnel *t, struct conn *c);
void tunnel_detach(struct conn *c);
/* Takes no new streams from here on; connections that have none yet are tried elsewhere. */
void tunnel_close_to_new(struct tunnel *t);
/* The same, and the peer is told; a tunnel without streams ends. */
void tunnel_goaway(struct tunnel *t);
/* That with a notice first (server role): nothing that is on its way is refused, as peers may not try again. */
void tunnel_retire(struct tunnel *t);
/* Frees a tunnel that tunnel_fail has ended; for the reaper at the end of the round. */
void tunnel_free(struct tunnel *t);
/* Ends the tunnel and everything on it with this reason. */
void tunnel_fail(struct tunnel *t, enum wr_reason reason);
/* TCP is up: makes the SSL of the tunnel's role, on its socket. 0 or -ENOMEM. */
int tunnel_start_tls(struct tunnel *t);
/* The peer's SETTINGS have come: the set-up is over, keepalive begins. */
void tunnel_settled(struct tunnel *t);

/* tunnel_life.c */
/* Before the handshake: what the peer must prove. */
void tunnel_life_prepare(struct tunnel *t);
/* After the handshake; may end the tunnel. */
void tunnel_life_begin(struct tunnel *t);
void tunnel_life_free(struct tunnel *t);
/* One of the two certificates has expired: no stream may begin. */
bool tunnel_life_over(const struct tunnel *t);
/* Ends the tunnels whose peers do not pass by what the worker believes now. */
void tunnel_life_judge_all(struct worker *w);

/* session.c */
/* fn of the tunnel's watch: drives handshake, reading and writing; may end the tunnel. */
void session_event(struct watch *w, uint32_t events);
/* fn of the tunnel's flush task. */
void session_flush_due(struct task *task);
/* Frames that were queued leave at the end of this round, in one write. */
void session_flush_soon(struct tunnel *t);
/* The same now; may end the tunnel. */
void session_flush(struct tunnel *t);

/* pool.c */
/* A tunnel that takes one more stream, dialled if needed; or one whose server allows none at present, as another would
 * hear the same. 0, -errno. */
int pool_get(struct pod *p, const struct workload *dst, const struct ip_port *next_hop, const struct ip_port *client,
	     struct tunnel **ret);
void pool_remove(struct tunnel *t);
/* The worker whose tunnel a connection accepted by p's is to use: it moves there before any byte moved. The owner of
 * the tunnel key, or p's own while the owner is saturated. */
unsigned pool_worker(const struct pod *p, const struct workload *dst, const struct ip_port *next_hop,
		     const struct ip_port *client);

/* dump.c */
struct cJSON *dump_worker(struct worker *w, const char *what);
