/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an inbound connection may be. In: who calls, as the certificate proves it and as the address says; the pod's
 * policies. Out: a verdict, counted and, while somebody watches, traced. Called by inbound.c and engine.c.
 */
#include "worker.h"

#include <string.h>

/* The one workload that an address belongs to; NULL: none, or it is not certain which. hostNetwork pods own none. */
static const struct workload *owner_of(const struct worker *w, const struct ip_addr *a)
{
	const struct workload *o = model_workload_by_addr(w->model, a);

	return o && !o->addrs_disputed ? o : NULL;
}

/* Whether two SPIFFE IDs name the same account: in one trust domain, which the handshake has accepted, its aliases mean
 * the same. */
static bool same_account(const char *a, const char *b)
{
	static const size_t scheme = sizeof("spiffe://") - 1;
	const char *x = strlen(a) > scheme ? strchr(a + scheme, '/') : NULL;
	const char *y = strlen(b) > scheme ? strchr(b + scheme, '/') : NULL;

	return x && y && !strcmp(x, y);
}

enum wr_reason admission_binding(const struct conn *c)
{
	const struct worker *w = c->pod->w;
	const struct workload *owner = owner_of(w, &c->client.ip);

	if (w->e->cfg.source_binding == BINDING_OFF)
		return WR_REASON_NONE;
	if (owner)
		return same_account(owner->identity, c->tunnel->verify.peer) ? WR_REASON_NONE
									     : WR_REASON_SRC_IDENTITY_MISMATCH;
	if (w->e->cfg.source_binding == BINDING_ENFORCE)
		return WR_REASON_SOURCE_UNBOUND;
	reason_count(WR_REASON_SOURCE_UNBOUND);
	return WR_REASON_NONE;
}

static bool traced(const struct worker *w)
{
	return worker_now_ms(w) < atomic_load_explicit(&w->e->trace_until_ms, memory_order_relaxed);
}

bool admission_check(const struct conn *c, bool first, struct policy_verdict *ret)
{
	struct pod *p = c->pod;
	struct worker *w = p->w;
	struct policy_subject s = {.identity = c->kind == CONN_IN_HBONE ? c->tunnel->verify.peer : NULL,
				   .source = c->client.ip,
				   .destination = c->dst,
				   .established = !first};

	policy_cache_evaluate(w->verdicts, p->workload->policy, &s, ret);
	if (!ret->allow || (first && (ret->would_deny || ret->would_allow)))
		tally_count(&w->tally, ret, 1);
	if ((!ret->allow || first) && traced(w))
		trace_add(&w->trace, p->workload, &s, c->client.port, ret);
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
		trace_add(&w->trace, p->workload, &s, src->port, ret);
}

void admission_drain_former_owners(struct worker *w)
{
	list_foreach(pn, &w->pods) {
		struct pod *p = list_entry(pn, struct pod, node);

		list_foreach(tn, &p->tunnels) {
			struct tunnel *t = list_entry(tn, struct tunnel, node);
			const char *identity = t->server ? t->verify.peer : t->expected;
			const struct workload *owner = owner_of(w, &t->remote.ip);

			if (owner && identity && !t->goaway && !same_account(owner->identity, identity))
				tunnel_retire(t);
		}
	}
}
