/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's end: a signal or a successor comes in; the loop stops when there is nothing left to wait for,
 * or --drain is over. Called by node.c and, for the hand-over, commands.c.
 */
#include "node_private.h"
#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/telemetry/accesslog.h"

#include <signal.h>
#include <sys/signalfd.h>

#define IDLE_LOOK_MS 50

static void drain_over(struct timer *t)
{
	struct node *n = container_of(t, struct node, drain);

	loop_stop(n->loop);
}

/* Nothing is left to wait for: callers or a successor have what they need, no connection is open, and without
 * a successor there is no pod that one could still serve without a gap. */
static bool idle(const struct node *n)
{
	struct pods_counts pods = pods_count(n->pods);

	if (engine_open_connections(n->engine))
		return false;
	if (n->handed_over)
		return clock_now_ms() - n->handed_over_ms > 2 * LIMIT_GOAWAY_NOTICE_MS;
	return !pods.enrolled && !pods.draining;
}

static void look_idle(struct timer *t)
{
	struct node *n = container_of(t, struct node, idle);

	if (idle(n))
		loop_stop(n->loop);
	else
		loop_timer_set(n->loop, &n->idle, IDLE_LOOK_MS);
}

static void say_stopping(const struct node *n)
{
	struct pods_counts pods = pods_count(n->pods);
	unsigned long long conns = engine_open_connections(n->engine);
	unsigned ms = (unsigned)n->o.drain_ms;

	if (n->handed_over)
		log_info("agent",
			 "a successor has taken over: finishing %llu connections, at most %u ms; SIGTERM ends them now",
			 conns, ms);
	else if (idle(n))
		log_info("agent", "stopping: no pod and no connection to wait for");
	else if (!pods.enrolled)
		log_info("agent",
			 "stopping: finishing %llu connections of %u pods that leave, at most %u ms; SIGTERM "
			 "again ends them now",
			 conns, pods.draining, ms);
	else
		log_info("agent",
			 "stopping: serving %u pods (%llu connections) until a successor takes over "
			 "(--takeover), at most %u ms; SIGTERM again ends them now",
			 pods.enrolled, conns, ms);
}

static void node_stop(struct node *n)
{
	if (n->stopping) {
		loop_stop(n->loop);
		return;
	}
	n->stopping = true;
	say_stopping(n);
	node_notify("STOPPING=1\n");
	loop_timer_set(n->loop, &n->drain, n->o.drain_ms);
	loop_timer_set(n->loop, &n->idle, 0);
}

void node_hand_over(struct node *n)
{
	n->handed_over = true;
	n->handed_over_ms = clock_now_ms();
	pods_retire(n->pods);
	source_retire(n->source);
	capture_unwatch_denials(n->capture);
	engine_hand_over(n->engine);
	n->readiness = readiness_free(n->readiness);
	node_unlock(n);
	if (n->stopping)
		say_stopping(n);
	else
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

int node_watch_signals(struct node *n)
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
	n->drain.fn = drain_over;
	n->idle.fn = look_idle;
	return fd < 0 ? -errno : loop_watch_add(n->loop, &n->signals, fd, EPOLLIN);
}
