/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All policies and peer authentications of one workload as one set: made by source/ when they change, asked by
 * proxy/inbound for every connection. A subject comes in, a verdict leaves.
 */
#include "policy_private.h"
#include "engine/base/cleanup.h"

#include <string.h>

static atomic_uint_fast64_t last_number;

enum policy_class policy_class_of(const struct policy *p)
{
	if (p->closed || p->target_ref || p->action == POLICY_AUDIT)
		return CLASS_COUNT;
	if (p->action == POLICY_ALLOW)
		return p->dry_run ? CLASS_DRY_ALLOW : CLASS_ALLOW;
	return p->dry_run ? CLASS_DRY_DENY : CLASS_DENY;
}

static int by_name(const void *a, const void *b)
{
	const struct policy *p = *(struct policy *const *)a, *q = *(struct policy *const *)b;
	int order = strcmp(p->namespace_, q->namespace_);

	return order ? order : strcmp(p->name, q->name);
}

/* Copies both lists with references; policies in an order of their own, whatever order they came in. */
static int hold(struct policy_set *s, struct policy *const *policies, size_t n_policies,
		struct peer_auth *const *peer_auths, size_t n_peer_auths)
{
	s->policies = calloc(n_policies + 1, sizeof(*s->policies));
	s->peer_auths = calloc(n_peer_auths + 1, sizeof(*s->peer_auths));
	if (!s->policies || !s->peer_auths)
		return -ENOMEM;
	for (; s->n_policies < n_policies; s->n_policies++)
		s->policies[s->n_policies] = policy_ref(policies[s->n_policies]);
	for (; s->n_peer_auths < n_peer_auths; s->n_peer_auths++)
		s->peer_auths[s->n_peer_auths] = peer_auth_ref(peer_auths[s->n_peer_auths]);
	qsort(s->policies, n_policies, sizeof(*s->policies), by_name);
	return 0;
}

static int compile_class(struct policy_set *s, enum policy_class class)
{
	_cleanup_free_ struct policy **chosen = calloc(s->n_policies + 1, sizeof(*chosen));
	bool allow = class == CLASS_ALLOW || class == CLASS_DRY_ALLOW;
	size_t n = 0;

	if (!chosen)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_policies; i++)
		if (policy_class_of(s->policies[i]) == class)
			chosen[n++] = s->policies[i];
	if (!n)
		return 0;
	return policy_index_new(chosen, n, policy_l7_effect(allow ? POLICY_ALLOW : POLICY_DENY, s->l7_deny),
				&s->index[class]);
}

static int add_sources(struct policy_set *s, const struct policy_clause *c)
{
	void **slot;

	for (size_t f = 0; f < c->n_fields; f++) {
		for (size_t i = 0; c->fields[f].attribute == ATTRIBUTE_SOURCE_IP && i < c->fields[f].n_ranges; i++) {
			struct ip_range *range = &c->fields[f].ranges[i];

			if (trie_slot(&s->sources, range->net.b, range->bits, &slot))
				return -ENOMEM;
			*slot = range;
		}
	}
	return 0;
}

static int compile_sources(struct policy_set *s)
{
	int r = 0;

	for (size_t p = 0; p < s->n_policies; p++) {
		for (size_t i = 0; r == 0 && i < s->policies[p]->n_rules; i++) {
			const struct policy_rule *rule = &s->policies[p]->rules[i];

			for (size_t g = 0; g < rule->n_groups; g++)
				for (size_t c = 0; r == 0 && c < rule->groups[g].n_clauses; c++)
					r = add_sources(s, &rule->groups[g].clauses[c]);
		}
	}
	return r;
}

/* The policies that count without their rules. */
static void note_firsts(struct policy_set *s)
{
	for (size_t i = s->n_policies; i-- > 0;) {
		const struct policy *p = s->policies[i];

		/* One that is bound to a waypoint is the waypoint's affair, valid or not. */
		if (p->closed && !p->target_ref)
			*(p->dry_run ? &s->dry_closed : &s->closed) = p;
		else if (policy_class_of(p) == CLASS_ALLOW)
			s->allow = p;
		else if (policy_class_of(p) == CLASS_DRY_ALLOW)
			s->dry_allow = p;
	}
}

int policy_set_new(struct policy *const *policies, size_t n_policies, struct peer_auth *const *peer_auths,
		   size_t n_peer_auths, enum l7_deny l7_deny, struct policy_set **ret)
{
	struct policy_set *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->refs = 1;
	s->number = atomic_fetch_add(&last_number, 1) + 1;
	s->l7_deny = l7_deny;
	r = hold(s, policies, n_policies, peer_auths, n_peer_auths);
	if (r == 0)
		r = peer_auth_resolve(s->peer_auths, s->n_peer_auths, &s->auth);
	for (int c = 0; r == 0 && c < CLASS_COUNT; c++)
		r = compile_class(s, c);
	if (r == 0)
		r = compile_sources(s);
	if (r < 0) {
		policy_set_unref(s);
		return r;
	}
	note_firsts(s);
	*ret = s;
	return 0;
}

struct policy_set *policy_set_ref(struct policy_set *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

struct policy_set *policy_set_unref(struct policy_set *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (int c = 0; c < CLASS_COUNT; c++)
		policy_index_free(s->index[c]);
	trie_done(&s->sources);
	for (size_t i = 0; i < s->n_policies; i++)
		policy_unref(s->policies[i]);
	for (size_t i = 0; i < s->n_peer_auths; i++)
		peer_auth_unref(s->peer_auths[i]);
	free(s->policies);
	free(s->peer_auths);
	free(s->auth.ports);
	free(s);
	return NULL;
}

static int port_order(const void *key, const void *element)
{
	return (int)*(const uint16_t *)key - (int)((const struct mtls_port *)element)->port;
}

enum mtls_mode policy_set_mode(const struct policy_set *s, uint16_t port)
{
	const struct mtls_port *p = NULL;

	if (!s)
		return MTLS_PERMISSIVE;
	if (s->auth.n_ports)
		p = bsearch(&port, s->auth.ports, s->auth.n_ports, sizeof(*p), port_order);
	return p ? p->mode : s->auth.mode;
}

enum mtls_mode policy_set_modes(const struct policy_set *s, const struct mtls_port **ret_ports, size_t *ret_n)
{
	*ret_ports = s ? s->auth.ports : NULL;
	*ret_n = s ? s->auth.n_ports : 0;
	return s ? s->auth.mode : MTLS_PERMISSIVE;
}

bool policy_set_restricts(const struct policy_set *s)
{
	if (!s)
		return false;
	for (size_t i = 0; i < s->auth.n_ports; i++)
		if (s->auth.ports[i].mode == MTLS_STRICT)
			return true;
	return s->auth.mode == MTLS_STRICT || s->auth.closed || s->closed || s->index[CLASS_DENY] ||
	       s->index[CLASS_ALLOW];
}

const struct peer_auth *policy_set_strict(const struct policy_set *s, const struct policy_view *v,
					  const char **ret_field)
{
	uint16_t port = v->subject->destination.port;
	const struct peer_auth *w = s->auth.workload;

	if (v->texts[ATTRIBUTE_PRINCIPAL].text || policy_set_mode(s, port) != MTLS_STRICT)
		return NULL;
	for (size_t i = 0; w && i < w->n_ports; i++)
		if (w->ports[i].port == port && w->ports[i].mode != MTLS_UNSET) {
			*ret_field = "spec.portLevelMtls";
			return w;
		}
	*ret_field = "spec.mtls.mode";
	return s->auth.mode_from;
}

const void *policy_set_source_class(const struct policy_set *s, const struct ip_addr *source)
{
	bool v4 = ip_addr_is_v4(source);
	const void *class = NULL;
	const struct ip_range *range;
	struct trie_walk w;

	/* Ranges contain one another or are apart: the narrowest one stands for all that contain the address. */
	trie_walk_init(&w, &s->sources);
	while ((range = trie_walk_next(&w, &s->sources, source->b, 128)))
		if (!v4 || range->bits >= 96)
			class = range;
	return class;
}

static void deny(struct policy_verdict *d, enum wr_reason reason, const struct policy *policy,
		 const struct peer_auth *auth)
{
	d->allow = false;
	d->reason = reason;
	d->policy = policy;
	d->peer_auth = auth;
}

static void name_rule(struct policy_verdict *d, const struct policy_near *near)
{
	d->policy = near->policy;
	d->rule = near->rule;
	d->field = near->field ? near->field->path : NULL;
}

static void decide(const struct policy_set *s, struct policy_view *v, struct policy_verdict *d)
{
	const char *field;
	const struct peer_auth *strict = policy_set_strict(s, v, &field);
	struct policy_near near = {.rule = -1};
	bool allow = true;

	if (strict) {
		deny(d, WR_REASON_MTLS_REQUIRED, NULL, strict);
		d->field = field;
	} else if ((s->auth.closed || s->closed) && !v->subject->established) {
		deny(d, WR_REASON_POLICY_INVALID, s->auth.closed ? NULL : s->closed, s->auth.closed);
	} else if (s->index[CLASS_DENY] && policy_index_find(s->index[CLASS_DENY], v, &near)) {
		deny(d, WR_REASON_POLICY_DENY, NULL, NULL);
		name_rule(d, &near);
	} else if (s->allow) {
		allow = policy_index_find(s->index[CLASS_ALLOW], v, &near);
		if (!allow)
			deny(d, WR_REASON_POLICY_NO_ALLOW, NULL, NULL);
		name_rule(d, &near);
		if (allow)
			d->field = NULL;
		else if (!d->policy)
			d->policy = s->allow;
	}
}

void policy_dry_run(const struct policy_set *s, const struct policy *deny_, const struct policy *allow,
		    struct policy_verdict *d)
{
	if (d->allow)
		d->would_deny = deny_ ? deny_ : !s->allow && s->dry_allow && !allow ? s->dry_allow : NULL;
	else if (d->reason == WR_REASON_POLICY_NO_ALLOW && !deny_)
		d->would_allow = allow;
}

void policy_evaluate(const struct policy_set *s, const struct policy_subject *subject, struct policy_verdict *ret)
{
	struct policy_verdict d = {.allow = true, .rule = -1};
	struct policy_near dry_deny = {0}, dry_allow = {0};
	struct policy_view v;

	if (s) {
		policy_view_init(&v, subject);
		decide(s, &v, &d);
		if (!s->index[CLASS_DRY_DENY] || !policy_index_find(s->index[CLASS_DRY_DENY], &v, &dry_deny))
			dry_deny.policy = subject->established ? NULL : s->dry_closed;
		if (!s->dry_allow || !policy_index_find(s->index[CLASS_DRY_ALLOW], &v, &dry_allow))
			dry_allow.policy = NULL;
		policy_dry_run(s, dry_deny.policy, dry_allow.policy, &d);
	}
	*ret = d;
}
