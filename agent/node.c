/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wiring of the node agent: options come in; lock, CA, admin and readiness, capture, engine, pods and
 * source start in that order and stop in reverse. Called by main.c. Control thread.
 */
#include "node.h"
#include "node_private.h"
#include "option_values.h"
#include "engine/base/clock.h"
#include "engine/telemetry/accesslog.h"
#include "privileges.h"
#include "takeover.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

int node_fail(int error, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("agent", "%s", text);
	return error;
}

/* --- the parts' callbacks --- */

static void found_addresses(void *arg, const char *uid, const struct ip_addr *addrs, size_t count)
{
	struct node *n = arg;

	if (n->source)
		(void)source_set_pod_addresses(n->source, uid, addrs, count);
}

void node_notify(const char *text)
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

static bool ready(void *arg, const char **ret_why)
{
	return node_is_up(arg, ret_why);
}

static void pods_changed(void *arg)
{
	struct node *n = arg;
	const char *why;

	if (n->said_up || !n->pods || !node_is_up(n, &why))
		return;
	n->said_up = true;
	log_info("agent", "up: node %s, %u pods enrolled", n->o.node, pods_count(n->pods).enrolled);
	node_notify("READY=1\n");
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
	bool was_behind = capture_alarm(n->capture);
	int r;

	/* The workers know a pod before its first connection arrives, capture knows before a label takes
	 * effect. */
	if (model_apply(n->model, d) < 0)
		log_error("agent", "out of memory while applying configuration");
	if (!n->handed_over)
		pods_relax(n->pods, d);
	engine_model_apply(n->engine, d);
	if (n->handed_over) {
		pods_apply(n->pods, d);
		return; /* pods and pins are the successor's */
	}
	r = capture_apply_model(n->capture, n->model, d);
	if (r < 0 && !was_behind)
		log_error("agent", "ALARM: %s", capture_alarm(n->capture));
	n->source_read = true;
	node_hint_name(n);
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
	return r < 0 ? node_fail(r, "--access-log: %s: %s", target, strerror(-r)) : 0;
}

static int bind_readiness(struct node *n)
{
	int fd = n->o.readiness_port ? readiness_bind((uint16_t)n->o.readiness_port, n->o.takeover) : -1;

	if (n->o.readiness_port && fd < 0)
		return node_fail(fd, "--readiness-port: %u: %s; choose one with --readiness-port, 0 for none",
				 (unsigned)n->o.readiness_port, strerror(-fd));
	n->readiness_fd = fd;
	return 0;
}

static int inherit(struct node *n)
{
	int r = takeover_ask(n->socket_path, &n->inherited);

	if (r == -ENOENT) {
		log_info("agent", "--takeover: no agent of node %s runs in %s, starting anew", n->o.node, n->dir);
		return 0;
	}
	if (r < 0)
		return node_fail(r, "--takeover: the running agent does not hand over: %s", strerror(-r));
	n->n_inherited = (size_t)r;
	log_info("agent", "taking over from the running agent: the listeners of %d pods", r);
	return 0;
}

static enum anti_spoof anti_spoof(const struct options *o)
{
	if (!strcmp(o->anti_spoof, "off"))
		return ANTI_SPOOF_OFF;
	return !strcmp(o->anti_spoof, "count") ? ANTI_SPOOF_COUNT : ANTI_SPOOF_ENFORCE;
}

static int start_capture(struct node *n)
{
	uint16_t excluded[VALUE_PORTS_MAX];
	struct capture_config cc = {.node = n->o.node,
				    .pin_dir = n->o.pin_dir,
				    .mesh_cidrs = n->o.mesh_cidrs,
				    .n_mesh_cidrs = n->o.n_mesh_cidrs,
				    .excluded_ports = excluded,
				    .n_excluded_ports = (size_t)value_ports(n->o.exclude_ports, excluded),
				    .on_agent_loss_open = !strcmp(n->o.on_agent_loss, "open"),
				    .exempt_node_sockets = !strcmp(n->o.probe_exemption, "node-sockets"),
				    .anti_spoof = anti_spoof(&n->o),
				    .assume_missing = *n->o.assume_missing ? n->o.assume_missing : NULL};
	_cleanup_free_ char *error = NULL;
	int r = capture_open(&cc, &n->capture, &error);

	if (r < 0)
		return node_fail(r, "%s", error ? error : strerror(-r));
	n->without = capture_without(n->capture);
	return 0;
}

enum source_binding node_source_binding(const struct node *n)
{
	if (!strcmp(n->o.source_binding, "off"))
		return BINDING_OFF;
	return !strcmp(n->o.source_binding, "enforce") ? BINDING_ENFORCE : BINDING_KNOWN;
}

static int start_engine(struct node *n)
{
	struct engine_config ec = {.workers = (unsigned)n->o.workers,
				   .busy_poll_us = (unsigned)n->o.busy_poll,
				   .buffer_limit = n->o.buffer_limit,
				   .tunnel_congestion = n->o.tunnel_congestion,
				   .dial_timeout_ms = (unsigned)n->o.dial_timeout_ms,
				   .tunnel_max_age_ms = n->o.tunnel_max_age_ms,
				   .trust = trust_keeper_trust(n->keeper),
				   .cluster_id = n->o.cluster_id,
				   .network = n->o.network,
				   .source_binding = node_source_binding(n),
				   .control = n->loop,
				   .claim_socket = capture_claim_socket,
				   .claim_arg = n->capture};
	int r = engine_new(&ec, &n->engine);

	r = r < 0 ? r : engine_start(n->engine);
	return r < 0 ? node_fail(r, "cannot start the workers: %s", strerror(-r)) : 0;
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

	return r < 0 ? node_fail(r, "cannot read what an earlier agent left: %s", strerror(-r)) : 0;
}

static struct source_config source_settings(struct node *n)
{
	const struct options *o = &n->o;

	return (struct source_config){.spec = o->source,
				      .node = o->node,
				      .cluster_id = o->cluster_id,
				      .network = o->network,
				      .cluster_domain = o->cluster_domain,
				      .trust_domain = o->trust_domain,
				      .trust_domain_aliases =
					      o->trust_domain_aliases_given ? o->trust_domain_aliases : NULL,
				      .root_namespace = o->root_namespace_given ? o->root_namespace : NULL,
				      .trust_domain_given = o->trust_domain_given,
				      .bad_mesh_policy_deny = !strcmp(o->bad_mesh_policy, "deny"),
				      .l7_deny = !strcmp(o->l7_deny, "ignore") ? L7_DENY_IGNORED : L7_DENY_MATCHES,
				      .state_dir = n->state_dir,
				      .changed = model_changed,
				      .aliases = node_aliases_changed,
				      .arg = n};
}

/* Identities and certificates rest on this name, and keep it: it is settled before the first of them. */
static int choose_trust_domain(struct node *n)
{
	struct source_config sc = source_settings(n);
	int r = source_read_trust_domain(&sc, &n->trust_domain);

	if (n->trust_domain && !n->o.trust_domain_given)
		n->o.trust_domain = n->trust_domain;
	return r < 0 ? node_fail(r, "%s: cannot look for the trust domain: %s", n->o.source, strerror(-r)) : 0;
}

static int start_source(struct node *n)
{
	struct source_config sc = source_settings(n);
	_cleanup_free_ char *error = NULL;
	int r = source_open(&sc, n->loop, &n->source, &error);

	return r < 0 ? node_fail(r, "%s", error ? error : strerror(-r)) : 0;
}

static int start_doors(struct node *n)
{
	int r = admin_new(n->loop, n->socket_path, &n->admin);

	if (r < 0)
		return node_fail(r, "%s: %s", n->socket_path, strerror(-r));
	r = node_register_commands(n);
	r = r < 0 ? r : node_register_policy_commands(n);
	r = r < 0 ? r : node_register_certificate_commands(n);
	if (r < 0 || n->readiness_fd < 0)
		return r;
	r = readiness_new(n->loop, take_fd(n->readiness_fd), ready, n, &n->readiness);
	return r < 0 ? node_fail(r, "--readiness-port: %u: %s", (unsigned)n->o.readiness_port, strerror(-r)) : 0;
}

static int reduce_privileges(void)
{
	const char *missing = NULL;
	int r = privileges_reduce(&missing);

	if (missing)
		return node_fail(r, "not privileged enough, %s is needed: run the agent as root, or grant it", missing);
	return r < 0 ? node_fail(r, "cannot give up privileges that are not needed: %s", strerror(-r)) : 0;
}

/* What others may hold, port and CA, is had before a predecessor is asked to let go: its pods would be
 * without an agent. Without one, the lock comes first: an agent that runs is a better reason than its port.
 */
static int become_the_agent(struct node *n)
{
	int r = n->o.takeover ? 0 : node_lock(n);

	r = r < 0 ? r : bind_readiness(n);
	r = r < 0 ? r : node_start_identities(n);
	if (!n->o.takeover)
		return r;
	r = r < 0 ? r : inherit(n);
	return r < 0 ? r : node_lock(n);
}

int node_start(const struct options *o, struct node **ret)
{
	struct node *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	n->o = *o;
	n->lock_fd = n->pins_fd = n->readiness_fd = n->signals.fd = -1;
	n->start_ms = clock_now_ms();
	raise_descriptor_limit();
	r = reduce_privileges();
	r = r < 0 ? r : loop_new(&n->loop);
	r = r < 0 ? r : node_watch_signals(n);
	r = r < 0 ? r : start_logs(o);
	r = r < 0 ? r : node_make_dirs(n);
	r = r < 0 ? r : choose_trust_domain(n);
	r = r < 0 ? r : become_the_agent(n);
	r = r < 0 ? r : start_doors(n);
	r = r < 0 ? r : start_capture(n);
	n->model = model_new();
	r = r < 0 ? r : n->model ? 0 : -ENOMEM;
	r = r < 0 ? r : start_engine(n);
	r = r < 0 ? r : node_watch_denials(n);
	r = r < 0 ? r : start_pods(n);
	if (r == 0)
		node_say_start(n);
	r = r < 0 ? r : start_source(n);
	if (r < 0) {
		node_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

int node_run(struct node *n)
{
	int r = loop_run(n->loop);

	node_say_left(n);
	return r;
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
	/* First, while those who wait for a dump are there to take it. */
	engine_free(n->engine);
	admin_free(n->admin);
	source_free(n->source);
	pods_free(n->pods);
	node_stop_identities(n);
	capture_close(n->capture);
	model_free(n->model);
	accesslog_close();
	if (n->signals.fd >= 0)
		close(n->signals.fd);
	loop_free(n->loop);
	if (n->readiness_fd >= 0)
		close(n->readiness_fd);
	node_unlock(n);
	for (size_t i = 0; i < n->n_inherited; i++)
		for (int k = 0; k < 3; k++)
			close(n->inherited[i].fds[k]);
	free(n->inherited);
	cJSON_Delete(n->without);
	free(n->pins);
	free(n->trust_domain);
	free(n->dir);
	free(n->state_dir);
	free(n->socket_path);
	free(n->lock_path);
	free(n);
	return NULL;
}
