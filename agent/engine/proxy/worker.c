/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's own matters: randomness, sockets in pods' namespaces, the buffer budget, closing and freeing at the end of
 * a round. Called by the rest of proxy/. */
#include "worker.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "engine/identity/trust.h"

#include <errno.h>
#include <malloc.h>
#include <sys/random.h>
#include <sys/socket.h>

#define TRIM_AFTER_MS 5000

/* xorshift128+ (Vigna): unpredictability is not needed, for trace ids and endpoint choice. */
uint64_t worker_random(struct worker *w)
{
	uint64_t a = w->random[0], b = w->random[1];

	w->random[0] = b;
	a ^= a << 23;
	w->random[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
	return w->random[1] + b;
}

int pod_socket(struct pod *p, bool v6, enum socket_role role)
{
	struct engine *e = p->w->e;
	struct sock_cache *c = v6 ? &p->sockets6 : &p->sockets4;
	int fd, r;

	/* Nobody counts the sockets made ahead: none where descriptors are scarce. */
	if (atomic_load_explicit(&e->fds, memory_order_relaxed) > e->max_fds / 2)
		c->batch = 0;
	fd = sock_cache_take(c, e->home_netns_fd, v6 ? AF_INET6 : AF_INET, worker_now_ms(p->w));
	if (fd < 0)
		return fd;
	r = e->cfg.claim_socket(e->cfg.claim_arg, fd, role);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* --- buffer budget --- */

static const uint32_t level_window[] = {LIMIT_STREAM_WINDOW_START, 64 * 1024, 16 * 1024};

uint32_t worker_stream_window(const struct worker *w)
{
	return level_window[w->window_level];
}

static void set_level(struct worker *w, unsigned level)
{
	w->window_level = level;
	log_info("proxy", "worker %u: %zu bytes wait for slow readers, stream windows start at %u bytes now", w->index,
		 local_backlog_bytes(), level_window[level]);
	list_foreach(pn, &w->pods) {
		struct pod *p = list_entry(pn, struct pod, node);

		list_foreach(tn, &p->tunnels) {
			struct tunnel *t = list_entry(tn, struct tunnel, node);

			if (!t->h2 || t->state == TUNNEL_CLOSED)
				continue;
			h2_set_initial_window(t->h2, level_window[level]);
			session_flush_soon(t);
		}
	}
}

void worker_check_budget(struct worker *w)
{
	size_t held = local_backlog_bytes();
	unsigned level = w->window_level;

	if (held > w->budget / 2)
		level = 2;
	else if (held > w->budget / 4 && level < 1)
		level = 1;
	else if (held < w->budget / 8)
		level = 0;
	if (level != w->window_level)
		set_level(w, level);
}

static struct conn *largest(const struct tunnel *t, size_t *ret_sum)
{
	struct conn *most = NULL;

	*ret_sum = 0;
	list_foreach(n, &t->conns) {
		struct conn *c = list_entry(n, struct conn, tunnel_node);

		*ret_sum += c->app.backlog;
		if (c->app.backlog && (!most || c->app.backlog > most->app.backlog))
			most = c;
	}
	return most;
}

static void find_victim(const struct list *tunnels, size_t *most, struct conn **victim)
{
	list_foreach(n, tunnels) {
		size_t sum;
		struct conn *c = largest(list_entry(n, struct tunnel, node), &sum);

		if (c && sum > *most) {
			*most = sum;
			*victim = c;
		}
	}
}

void worker_enforce_budget(struct worker *w)
{
	while (local_backlog_bytes() > w->budget) {
		struct conn *victim = NULL;
		size_t most = 0;

		list_foreach(pn, &w->pods)
			find_victim(&list_entry(pn, struct pod, node)->tunnels, &most, &victim);
		find_victim(&w->tunnels_left, &most, &victim);
		if (!victim)
			return;
		conn_end(victim, WR_REASON_LIMIT_BUFFER, true);
	}
}

/* --- memory --- */

static void trim(struct timer *t)
{
	struct worker *w = container_of(t, struct worker, trim);

	/* Sockets made ahead hold descriptors and the pod's namespace: they go with the burst that wanted them. */
	list_foreach(n, &w->pods) {
		struct pod *p = list_entry(n, struct pod, node);

		sock_cache_done(&p->sockets4);
		sock_cache_done(&p->sockets6);
	}
	malloc_trim(0);
}

void worker_trim_soon(struct worker *w)
{
	if (!timer_armed(&w->trim))
		loop_timer_set(w->loop, &w->trim, TRIM_AFTER_MS);
}

static struct conn *first_doomed(const struct worker *w)
{
	return list_empty(&w->conns_doomed) ? NULL : list_entry(w->conns_doomed.next, struct conn, node);
}

/* How many descriptors this round may close. */
static unsigned closes_of_round(const struct worker *w, const struct conn *first)
{
	uint64_t doublings = (worker_now_ms(w) - first->ended_ms) / LIMIT_CLOSE_MS;

	return LIMIT_CLOSES_A_ROUND << (doublings < 16 ? doublings : 16);
}

static void reap(struct task *t)
{
	struct worker *w = container_of(t, struct worker, reap);
	struct conn *c = first_doomed(w);
	unsigned most = c ? closes_of_round(w, c) : 0;

	for (unsigned closed = 0; c && closed < most; c = first_doomed(w)) {
		list_remove(&c->node);
		closed += conn_free(c);
	}
	if (c)
		loop_defer(w->loop, t);
	list_foreach_safe(n, tmp, &w->tunnels_doomed)
		tunnel_free(list_entry(n, struct tunnel, node));
	list_init(&w->tunnels_doomed);
}

int worker_init(struct worker *w, struct engine *e, unsigned index)
{
	int r;

	w->e = e;
	w->index = index;
	w->budget = e->cfg.buffer_limit / e->n_workers;
	w->source_port = (uint16_t)(LIMIT_SOURCE_PORT_FIRST + index * 512);
	w->trim.fn = trim;
	list_init(&w->pods);
	list_init(&w->conns_doomed);
	list_init(&w->tunnels_doomed);
	list_init(&w->tunnels_left);
	task_init(&w->reap, reap);
	task_init(&w->recheck, inbound_recheck_due);
	if (getrandom(w->random, sizeof(w->random), 0) != (ssize_t)sizeof(w->random))
		return -EIO;
	w->plaintext = malloc(LIMIT_PLAINTEXT_BYTES);
	w->model = model_new();
	w->trust = trust_ref(e->cfg.trust);
	w->verdicts = policy_cache_new(LIMIT_VERDICTS_CACHED);
	if (!w->plaintext || !w->model || !w->verdicts)
		return -ENOMEM;
	r = loop_new(&w->loop);
	if (r < 0)
		return r;
	loop_set_busy_poll(w->loop, e->cfg.busy_poll_us);
	return 0;
}

/* On the worker's own thread, after its loop ended: what is open is reset. */
void worker_close_all(struct worker *w)
{
	w->ending = true;
	while (!list_empty(&w->pods)) {
		struct pod *p = list_entry(w->pods.next, struct pod, node);

		pod_stop_accepting(p);
		p->draining = true;
		loop_timer_cancel(w->loop, &p->drain);
		p->drain.fn(&p->drain);
	}
	task_cancel(&w->recheck);
	while (!list_empty(&w->conns_doomed) || !list_empty(&w->tunnels_doomed))
		reap(&w->reap);
	task_cancel(&w->reap);
	tls_stream_thread_done();
	h2_thread_done();
}

void worker_done(struct worker *w)
{
	model_free(w->model);
	trust_unref(w->trust);
	policy_cache_free(w->verdicts);
	tally_done(&w->tally);
	trace_free(w->trace);
	loop_free(w->loop);
	free(w->plaintext);
}
