/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an inbound connection may be. In: who calls, as the certificate proves it and as the address says; the pod's
 * policies. Out: a verdict, counted and, while somebody watches, traced. Called by inbound.c and engine.c.
 */
#include "worker.h"

static struct binding judge_binding(const struct conn *c)
{
	const struct worker *w = c->pod->w;

	return binding_judge(w->e->cfg.source_binding, w->model, &c->client.ip, c->tunnel->verify.peer);
}

bool admission_bound(const struct conn *c)
{
	return judge_binding(c).allow;
}

static bool traced(const struct worker *w)
{
	return worker_now_ms(w) < atomic_load_explicit(&w->e->trace_until_ms, memory_order_relaxed);
}

static struct policy_subject subject_of(const struct conn *c, bool first)
{
	return (struct policy_subject){.identity = c->kind == CONN_IN_HBONE ? c->tunnel->verify.peer : NULL,
				       .source = c->client.ip,
				       .destination = c->dst,
				       .established = !first};
}

/* Nothing of it is put together while nobody watches. */
static void trace(const struct conn *c, const struct policy_subject *s, const struct policy_verdict *v)
{
	struct worker *w = c->pod->w;
	struct binding b;

	if (!traced(w))
		return;
	if (s->identity)
		b = judge_binding(c);
	trace_add(&w->trace, c->pod->workload, s, c->client.port, s->identity ? &b : NULL, v);
}

void admission_unbound(const struct conn *c, struct policy_verdict *ret)
{
	struct policy_subject s = subject_of(c, true);

	*ret = (struct policy_verdict){.reason = judge_binding(c).reason, .rule = -1};
	tally_count(&c->pod->w->tally, ret, 1);
	trace(c, &s, ret);
}

bool admission_check(const struct conn *c, bool first, struct policy_verdict *ret)
{
	struct pod *p = c->pod;
	struct worker *w = p->w;
	struct policy_subject s = subject_of(c, first);

	if (first && s.identity && judge_binding(c).reason)
		reason_count(WR_REASON_SOURCE_UNBOUND);
	policy_cache_evaluate(w->verdicts, p->workload->policy, &s, ret);
	if (!ret->allow || (first && (ret->would_deny || ret->would_allow)))
		tally_count(&w->tally, ret, 1);
	if (!ret->allow || first)
		trace(c, &s, ret);
	return ret->allow;
}

void admission_refused(struct pod *p, const struct ip_port *src, const struct ip_port *dst, uint64_t times,
		       struct policy_verdict *ret)
{
	struct policy_subject s = {.source = src->ip, .destination = *dst};
	struct worker *w = p->w;

	policy_evaluate(p->workload->policy, &s, ret);
	/* The policy may have changed since the kernel asked: what it said then is what happened. */
	if (ret->reason != WR_REASON_MTLS_REQUIRED)
		*ret = (struct policy_verdict){.reason = WR_REASON_MTLS_REQUIRED, .rule = -1};
	tally_count(&w->tally, ret, times);
	if (traced(w))
		trace_add(&w->trace, p->workload, &s, src->port, NULL, ret);
}

void admission_drain_former_owners(struct worker *w)
{
	list_foreach(pn, &w->pods) {
		struct pod *p = list_entry(pn, struct pod, node);

		list_foreach(tn, &p->tunnels) {
			struct tunnel *t = list_entry(tn, struct tunnel, node);
			const char *identity = t->server ? t->verify.peer : t->expected;

			if (identity && !t->goaway && binding_is_anothers(w->model, &t->remote.ip, identity))
				tunnel_retire(t);
		}
	}
}
