/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a tunnel may live: until half of its certificates' time is over it takes new streams, then it is replaced
 * while the open ones go on; at once when what is believed of its peer's certificate changes. Called by tunnel.c,
 * session.c, pool.c, inbound.c and engine.c.
 */
#include "worker.h"
#include "engine/base/cleanup.h"
#include "engine/identity/trust.h"

#include <sys/socket.h>

/* --- new streams --- */

/* The end of the certificate that expires first. */
static time_t end_of(const struct tunnel *t)
{
	time_t own = t->identity->not_after, peer = t->verify.not_after;

	return peer && peer < own ? peer : own;
}

bool tunnel_life_over(const struct tunnel *t)
{
	return t->state >= TUNNEL_SETTINGS && end_of(t) <= time(NULL);
}

/* Half of what is left of the older certificate, as each renewal is; the caller a little earlier than the server, so
 * that its next tunnel is dialled before this one refuses. */
static uint64_t half_life_ms(struct tunnel *t)
{
	int64_t left = (int64_t)end_of(t) - (int64_t)time(NULL);
	uint64_t ms = left > 0 ? (uint64_t)left * 500 : 0, spread = worker_random(t->pod->w) % (ms / 10 + 1);

	ms = t->server ? ms + spread : ms - spread;
	return ms < LIMIT_TUNNEL_LIFE_MIN_MS ? LIMIT_TUNNEL_LIFE_MIN_MS : ms;
}

static void life_due(struct timer *timer)
{
	struct tunnel *t = container_of(timer, struct tunnel, life);
	uint64_t max_age = t->pod->w->e->cfg.tunnel_max_age_ms;

	if (max_age && worker_now_ms(t->pod->w) - t->created_ms >= max_age)
		reason_count(WR_REASON_TUNNEL_AGE);
	if (!t->goaway)
		tunnel_retire(t);
}

/* --- judged again --- */

/* The peer learns which streams are over and that no new one will do; then nothing that it sends is heard any more. */
static void cut(struct tunnel *t, enum wr_reason reason)
{
	struct linger reset = {.l_onoff = 1};

	log_warn("proxy", "%s/%s: tunnel %s %s ended with %u connections: its certificate %s: %s",
		 t->pod->workload->namespace_, t->pod->workload->name, t->server ? "of" : "to",
		 t->verify.peer ? t->verify.peer : "?", t->n_conns, t->verify.peer_serial ? t->verify.peer_serial : "?",
		 reason_text(reason));
	/* Otherwise each connection counts it. */
	if (list_empty(&t->conns))
		reason_count(reason);
	while (!list_empty(&t->conns))
		conn_end(list_entry(t->conns.next, struct conn, tunnel_node), reason, true);
	(void)setsockopt(t->watch.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	tunnel_goaway(t);
	session_flush(t);
	tunnel_fail(t, WR_REASON_NONE);
}

static void judge(struct tunnel *t)
{
	enum wr_reason reason;

	if (t->state != TUNNEL_SETTINGS && t->state != TUNNEL_READY)
		return; /* what is still shaking hands is judged at the end of that */
	reason = trust_judge_again(t->pod->w->trust, &t->verify);
	if (reason)
		cut(t, reason);
}

void tunnel_life_judge_all(struct worker *w)
{
	list_foreach(pn, &w->pods) {
		struct pod *p = list_entry(pn, struct pod, node);

		list_foreach_safe(n, tmp, &p->tunnels)
			judge(list_entry(n, struct tunnel, node));
	}
}

/* --- from handshake to the end --- */

void tunnel_life_prepare(struct tunnel *t)
{
	t->life.fn = life_due;
	t->trust = trust_ref(t->pod->w->trust);
	t->verify = (struct tls_verify){.trust = t->trust, .expected = t->expected, .server = t->server};
}

void tunnel_life_begin(struct tunnel *t)
{
	uint64_t ms = half_life_ms(t), age = t->pod->w->e->cfg.tunnel_max_age_ms;

	loop_timer_set(t->pod->w->loop, &t->life, age && age < ms ? age : ms);
	if (t->trust != t->pod->w->trust)
		judge(t);
}

void tunnel_life_free(struct tunnel *t)
{
	tls_verify_done(&t->verify);
	trust_unref(t->trust);
}
