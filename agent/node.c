/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wiring of the node agent: options come in; lock, CA, capture, engine, pods, source, admin and readiness
 * start in that order and stop in reverse. Control thread.
 */
#include "node.h"
#include "node_private.h"
#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/telemetry/accesslog.h"
#include "privileges.h"
#include "takeover.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define TAKEOVER_LOCK_MS 15000

static int fail(int error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(int error, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("agent", "%s", text);
	return error;
}

/* --- run directory, lock, take-over --- */

static int make_dirs(struct node *n)
{
	if (asprintf(&n->dir, "%s/%s", n->o.run_dir, n->o.node) < 0 ||
	    asprintf(&n->state_dir, "%s/state", n->dir) < 0 ||
	    asprintf(&n->socket_path, "%s/agent.sock", n->dir) < 0 ||
	    asprintf(&n->lock_path, "%s/lock", n->dir) < 0)
		return -ENOMEM;
	if ((mkdir(n->o.run_dir, 0755) < 0 && errno != EEXIST) ||
	    (mkdir(n->dir, 0700) < 0 && errno != EEXIST) ||
	    (mkdir(n->state_dir, 0700) < 0 && errno != EEXIST))
		return fail(-errno, "--run-dir: %s: %s", n->dir, strerror(errno));
	if (strlen(n->socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return fail(-ENAMETOOLONG, "--run-dir: %s is too long for a socket's path", n->socket_path);
	return 0;
}

static long lock_holder(struct node *n)
{
	char text[32] = {0};

	return pread(n->lock_fd, text, sizeof(text) - 1, 0) > 0 ? strtol(text, NULL, 10) : 0;
}

/* The lock is the node's: whoever holds it owns pins, socket and listeners. */
static int take_lock(struct node *n)
{
	uint64_t until = clock_now_ms() + TAKEOVER_LOCK_MS;
	char pid[32];
	int len;

	n->lock_fd = open(n->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (n->lock_fd < 0)
		return fail(-errno, "%s: %s", n->lock_path, strerror(errno));
	while (flock(n->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail(-errno, "%s: %s", n->lock_path, strerror(errno));
		if (!n->o.takeover || clock_now_ms() > until)
			return fail(
				-EBUSY,
				"node %s already has an agent, pid %ld; stop it, or start with --takeover",
				n->o.node, lock_holder(n));
		usleep(10000);
	}
	len = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(n->lock_fd, 0) < 0 || pwrite(n->lock_fd, pid, (size_t)len, 0) != len)
		return fail(-EIO, "%s: cannot write: %s", n->lock_path, strerror(errno));
	return 0;
}

static int inherit(struct node *n)
{
	int r;

	if (!n->o.takeover)
		return 0;
	r = takeover_ask(n->socket_path, &n->inherited);
	if (r < 0)
		return fail(r, "--takeover: the running agent does not hand over: %s", strerror(-r));
	n->n_inherited = (size_t)r;
	log_info("agent", "taking over the listeners of %d pods", r);
	return 0;
}

/* --- the parts' callbacks --- */

static void identity_renewed(void *arg, struct tls_identity *id)
{
	struct node *n = arg;

	if (n->pods)
		pods_set_identity(n->pods, id);
}

static void found_addresses(void *arg, const char *uid, const struct ip_addr *addrs, size_t count)
{
	struct node *n = arg;

	if (n->source)
		(void)source_set_pod_addresses(n->source, uid, addrs, count);
}

static void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;

	if (!path || strlen(path) >= sizeof(un.sun_path))
		return;
	memcpy(un.sun_path, path, strlen(path) + 1);
	if (un.sun_path[0] == '@')
		un.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&un,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}

bool node_is_up(struct node *n, const char **ret_why)
{
	const char *pending = pods_pending(n->pods);

	*ret_why = n->handed_over    ? "handed over to a successor"
		   : n->stopping     ? "stopping"
		   : !n->source_read ? "source"
				     : pending;
	return !**ret_why;
}

static void pods_changed(void *arg)
{
	struct node *n = arg;
	const char *why;

	if (n->said_up || !n->pods || !node_is_up(n, &why))
		return;
	n->said_up = true;
	log_info("agent", "up: node %s, %u pods enrolled", n->o.node, pods_count(n->pods).enrolled);
	notify("READY=1\n");
}

static void offer_inherited(struct node *n)
{
	for (size_t i = 0; i < n->n_inherited; i++)
		pods_offer_listeners(n->pods, n->inherited[i].uid, n->inherited[i].fds);
	free(n->inherited);
	n->inherited = NULL;
	n->n_inherited = 0;
}

static void model_changed(void *arg, const struct model_delta *d)
{
	struct node *n = arg;
	int r;

	/* The workers know a pod before its first connection arrives, capture knows before a label takes
	 * effect. */
	if (model_apply(n->model, d) < 0)
		log_error("agent", "out of memory while applying configuration");
	engine_model_apply(n->engine, d);
	if (n->handed_over)
		return; /* pods and pins are the successor's */
	r = capture_apply_model(n->capture, n->model, d);
	if (r < 0)
		log_error("agent", "capture cannot follow the configuration: %s", strerror(-r));
	n->source_read = true;
	pods_apply(n->pods, d);
	offer_inherited(n);
	pods_changed(n);
}

/* --- start --- */

static void raise_descriptor_limit(void)
{
	struct rlimit rl;

	if (!getrlimit(RLIMIT_NOFILE, &rl)) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int start_logs(const struct options *o)
{
	_cleanup_free_ char *log = strdup(o->log), *target = strdup(o->access_log);
	char *comma;
	bool json;
	int r;

	if (!log || !target)
		return -ENOMEM;
	comma = strchr(log, ',');
	if (comma)
		*comma = 0;
	log_set_json(comma != NULL);
	(void)log_set_level(log);
	comma = strrchr(target, ',');
	json = comma && !strcmp(comma, ",json");
	if (json)
		*comma = 0;
	r = accesslog_open(target, json);
	return r < 0 ? fail(r, "--access-log: %s: %s", target, strerror(-r)) : 0;
}

static int start_capture(struct node *n)
{
	static const uint16_t none;
	struct capture_config cc = {.node = n->o.node,
				    .pin_dir = n->o.pin_dir,
				    .mesh_cidrs = n->o.mesh_cidrs,
				    .n_mesh_cidrs = n->o.n_mesh_cidrs,
				    .excluded_ports = &none,
				    .on_agent_loss_open = !strcmp(n->o.on_agent_loss, "open"),
				    .assume_missing = *n->o.assume_missing ? n->o.assume_missing : NULL};
	_cleanup_free_ char *error = NULL;
	int r = capture_open(&cc, &n->capture, &error);

	return r < 0 ? fail(r, "%s", error ? error : strerror(-r)) : 0;
}

static int start_ca(struct node *n)
{
	_cleanup_free_ char *error = NULL;
	int r = ca_open_dir(n->o.ca + 4, n->o.trust_domain, (unsigned)(n->o.cert_ttl_ms / 1000), &n->ca,
			    &error);

	if (r < 0)
		return fail(r, "--ca: %s", error ? error : strerror(-r));
	return cert_store_new(n->ca, n->loop, identity_renewed, n, &n->certs);
}

static int start_engine(struct node *n)
{
	struct engine_config ec = {.workers = (unsigned)n->o.workers,
				   .buffer_limit = n->o.buffer_limit,
				   .dial_timeout_ms = (unsigned)n->o.dial_timeout_ms,
				   .trust_domain = n->o.trust_domain,
				   .cluster_id = n->o.cluster_id,
				   .network = n->o.network,
				   .control = n->loop,
				   .claim_socket = capture_claim_socket,
				   .claim_arg = n->capture};
	int r = engine_new(&ec, &n->engine);

	r = r < 0 ? r : engine_start(n->engine);
	return r < 0 ? fail(r, "cannot start the workers: %s", strerror(-r)) : 0;
}

static int start_pods(struct node *n)
{
	struct pods_config pc = {.loop = n->loop,
				 .capture = n->capture,
				 .engine = n->engine,
				 .certs = n->certs,
				 .drain_ms = (unsigned)n->o.drain_ms,
				 .found_addresses = found_addresses,
				 .changed = pods_changed,
				 .arg = n};
	int r = pods_new(&pc, &n->pods);

	return r < 0 ? fail(r, "cannot read what an earlier agent left: %s", strerror(-r)) : 0;
}

static int start_source(struct node *n)
{
	struct source_config sc = {.spec = n->o.source,
				   .node = n->o.node,
				   .cluster_id = n->o.cluster_id,
				   .network = n->o.network,
				   .cluster_domain = n->o.cluster_domain,
				   .trust_domain = n->o.trust_domain,
				   .state_dir = n->state_dir,
				   .changed = model_changed,
				   .arg = n};
	_cleanup_free_ char *error = NULL;
	int r = source_open(&sc, n->loop, &n->source, &error);

	return r < 0 ? fail(r, "%s", error ? error : strerror(-r)) : 0;
}

static int start_doors(struct node *n)
{
	int r = admin_new(n->loop, n->socket_path, &n->admin);

	if (r < 0)
		return fail(r, "%s: %s", n->socket_path, strerror(-r));
	r = node_register_commands(n);
	if (r < 0 || !n->o.readiness_port)
		return r;
	r = readiness_new(n->loop, (uint16_t)n->o.readiness_port, node_ready, n, &n->readiness);
	return r < 0 ? fail(r, "--readiness-port: %u: %s", (unsigned)n->o.readiness_port, strerror(-r)) : 0;
}

/* --- stop --- */

static void drain_over(struct timer *t)
{
	struct node *n = container_of(t, struct node, drain);

	loop_stop(n->loop);
}

/* Nothing is left to wait for: callers have been told, and no connection is open. */
static void look_idle(struct timer *t)
{
	struct node *n = container_of(t, struct node, idle);

	bool told = clock_now_ms() - n->handed_over_ms > 2 * LIMIT_GOAWAY_NOTICE_MS;

	if (n->handed_over && told && !engine_open_connections(n->engine))
		loop_stop(n->loop);
	else
		loop_timer_set(n->loop, &n->idle, 50);
}

void node_stop(struct node *n)
{
	if (n->stopping) {
		loop_stop(n->loop);
		return;
	}
	n->stopping = true;
	log_info("agent", "stopping: accepting until a successor has taken over, at most %u ms",
		 (unsigned)n->o.drain_ms);
	notify("STOPPING=1\n");
	loop_timer_set(n->loop, &n->drain, n->o.drain_ms);
	loop_timer_set(n->loop, &n->idle, 50);
}

/* The successor has the listeners: lock, doors and new connections are its own from here. */
void node_hand_over(struct node *n)
{
	n->handed_over = true;
	n->handed_over_ms = clock_now_ms();
	pods_retire(n->pods);
	engine_hand_over(n->engine);
	n->readiness = readiness_free(n->readiness);
	close(n->lock_fd);
	n->lock_fd = -1;
	if (!n->stopping)
		node_stop(n);
}

static void signals(struct watch *w, uint32_t events)
{
	struct node *n = container_of(w, struct node, signals);
	struct signalfd_siginfo si;

	(void)events;
	while (read(w->fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			accesslog_reopen();
		else
			node_stop(n);
	}
}

static int start_signals(struct node *n)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	n->signals.fn = signals;
	return fd < 0 ? -errno : loop_watch_add(n->loop, &n->signals, fd, EPOLLIN);
}

static int reduce_privileges(void)
{
	const char *missing = NULL;
	int r = privileges_reduce(&missing);

	if (missing)
		return fail(r, "not privileged enough, %s is needed: run the agent as root, or grant it",
			    missing);
	return r < 0 ? fail(r, "cannot give up privileges that are not needed: %s", strerror(-r)) : 0;
}

int node_start(const struct options *o, struct node **ret)
{
	struct node *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	n->o = *o;
	n->lock_fd = n->signals.fd = -1;
	n->drain.fn = drain_over;
	n->idle.fn = look_idle;
	n->start_ms = clock_now_ms();
	raise_descriptor_limit();
	r = reduce_privileges();
	r = r < 0 ? r : loop_new(&n->loop);
	r = r < 0 ? r : start_signals(n);
	r = r < 0 ? r : start_logs(o);
	r = r < 0 ? r : make_dirs(n);
	r = r < 0 ? r : inherit(n);
	r = r < 0 ? r : take_lock(n);
	r = r < 0 ? r : start_ca(n);
	r = r < 0 ? r : start_capture(n);
	n->model = model_new();
	r = r < 0 ? r : n->model ? 0 : -ENOMEM;
	r = r < 0 ? r : start_engine(n);
	r = r < 0 ? r : start_pods(n);
	r = r < 0 ? r : start_source(n);
	r = r < 0 ? r : start_doors(n);
	if (r < 0) {
		node_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

int node_run(struct node *n)
{
	return loop_run(n->loop);
}

struct node *node_free(struct node *n)
{
	if (!n)
		return NULL;
	n->stopping = true;
	if (n->loop) {
		loop_timer_cancel(n->loop, &n->drain);
		loop_timer_cancel(n->loop, &n->idle);
	}
	readiness_free(n->readiness);
	admin_free(n->admin);
	source_free(n->source);
	engine_free(n->engine);
	pods_free(n->pods);
	cert_store_free(n->certs);
	capture_close(n->capture);
	ca_free(n->ca);
	model_free(n->model);
	accesslog_close();
	if (n->signals.fd >= 0)
		close(n->signals.fd);
	loop_free(n->loop);
	if (n->lock_fd >= 0)
		close(n->lock_fd);
	for (size_t i = 0; i < n->n_inherited; i++)
		for (int k = 0; k < 3; k++)
			close(n->inherited[i].fds[k]);
	free(n->inherited);
	free(n->dir);
	free(n->state_dir);
	free(n->socket_path);
	free(n->lock_path);
	free(n);
	return NULL;
}
