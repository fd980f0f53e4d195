/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy semantics written a second time, as plainly as the reference pages of Istio say them, and sets made of
 * chance. Shares no code with agent/engine/model; used by the property test and by the fuzz target.
 */
#pragma once
#include "engine/model/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the reference --- */

struct reference {
	bool allow;
	enum wr_reason reason;
	const struct policy *policy; /* the first one that denies or allows by a rule */
	int rule;
};

struct reference_case {
	struct policy **policies; /* in order of their names */
	size_t n_policies;
	struct peer_auth **auths;
	size_t n_auths;
	enum l7_deny l7;
	struct policy_subject subject;
	bool with_dry_run;		 /* dry-run policies decide as well */
	const struct policy_field *flip; /* its answer is turned round: does it matter? */
};

static inline bool reference_text(const struct string_match *m, const char *text)
{
	const char *at;

	switch (m->kind) {
	case MATCH_EXACT:
		return strcmp(text, m->text) == 0;
	case MATCH_PREFIX:
		return strstr(text, m->text) == text;
	case MATCH_SUFFIX:
		at = strlen(text) < strlen(m->text) ? NULL : text + strlen(text) - strlen(m->text);
		return at && strcmp(at, m->text) == 0;
	default:
		return text[0] != 0;
	}
}

static inline bool reference_range(const struct ip_range *range, const struct ip_addr *a)
{
	bool v4 = true;

	for (int i = 0; i < 12; i++)
		v4 = v4 && a->b[i] == (i < 10 ? 0 : 0xff);
	if (v4 && range->bits < 96)
		return false; /* an IPv6 range is about IPv6 */
	for (unsigned i = 0; i < range->bits; i++)
		if ((range->net.b[i / 8] >> (7 - i % 8) & 1) != (a->b[i / 8] >> (7 - i % 8) & 1))
			return false;
	return true;
}

/* The subject's text for an attribute; false: it has none. */
static inline bool reference_subject_text(const struct policy_subject *s, enum policy_attribute attribute, char *buf,
					  size_t size)
{
	char td[64], ns[64], sa[64];

	if (!s->identity || sscanf(s->identity, "spiffe://%63[^/]/ns/%63[^/]/sa/%63[^/]", td, ns, sa) != 3)
		return false;
	if (attribute == ATTRIBUTE_PRINCIPAL)
		snprintf(buf, size, "%s/ns/%s/sa/%s", td, ns, sa);
	else if (attribute == ATTRIBUTE_NAMESPACE)
		snprintf(buf, size, "%s", ns);
	else if (attribute == ATTRIBUTE_SERVICE_ACCOUNT)
		snprintf(buf, size, "%s/%s", ns, sa);
	else
		snprintf(buf, size, "%s", td);
	return true;
}

static inline bool reference_field(const struct reference_case *c, const struct policy_field *f)
{
	bool any = false, answer;
	char text[256];

	switch (f->attribute) {
	case ATTRIBUTE_L7:
		answer = true;
		break;
	case ATTRIBUTE_SOURCE_IP:
	case ATTRIBUTE_DESTINATION_IP:
		for (size_t i = 0; i < f->n_ranges; i++)
			any |= reference_range(&f->ranges[i], f->attribute == ATTRIBUTE_SOURCE_IP
								      ? &c->subject.source
								      : &c->subject.destination.ip);
		answer = f->negate ? !any : any;
		break;
	case ATTRIBUTE_DESTINATION_PORT:
		for (size_t i = 0; i < f->n_ports; i++)
			any |= f->ports[i] == c->subject.destination.port;
		answer = f->negate ? !any : any;
		break;
	default:
		if (reference_subject_text(&c->subject, f->attribute, text, sizeof(text)))
			for (size_t i = 0; i < f->n_strings; i++)
				any |= reference_text(&f->strings[i], text);
		answer = f->negate ? !any : any;
	}
	return f == c->flip ? !answer : answer;
}

static inline bool reference_clause(const struct reference_case *c, const struct policy_clause *clause, bool l7_drops)
{
	bool all = true;

	for (size_t i = 0; i < clause->n_fields; i++) {
		if (clause->fields[i].attribute == ATTRIBUTE_L7 && l7_drops)
			return false;
		all &= reference_field(c, &clause->fields[i]);
	}
	return all;
}

static inline bool reference_has_l7(const struct policy_rule *r)
{
	bool has = false;

	for (size_t g = 0; g < r->n_groups; g++)
		for (size_t i = 0; i < r->groups[g].n_clauses; i++)
			for (size_t f = 0; f < r->groups[g].clauses[i].n_fields; f++)
				has |= r->groups[g].clauses[i].fields[f].attribute == ATTRIBUTE_L7;
	return has;
}

static inline bool reference_rule(const struct reference_case *c, const struct policy *p, const struct policy_rule *r)
{
	bool all = true;

	if (p->action == POLICY_ALLOW && reference_has_l7(r))
		return false;
	for (size_t g = 0; g < r->n_groups; g++) {
		bool any = false;

		for (size_t i = 0; i < r->groups[g].n_clauses; i++)
			any |= reference_clause(c, &r->groups[g].clauses[i],
						p->action != POLICY_ALLOW && c->l7 == L7_DENY_IGNORED);
		all &= any;
	}
	return all;
}

/* What decides nothing here: bound to a waypoint, AUDIT unless it closes, dry-run unless it is asked for. */
static inline bool reference_idle(const struct reference_case *c, const struct policy *p)
{
	return p->target_ref || (p->action == POLICY_AUDIT && !p->closed) || (p->dry_run && !c->with_dry_run);
}

static inline bool reference_any_rule(const struct reference_case *c, bool allow, struct reference *ret)
{
	for (size_t i = 0; i < c->n_policies; i++) {
		const struct policy *p = c->policies[i];

		if (reference_idle(c, p) || p->closed || (p->action == POLICY_ALLOW) != allow)
			continue;
		for (size_t r = 0; r < p->n_rules; r++) {
			if (reference_rule(c, p, &p->rules[r])) {
				ret->policy = p;
				ret->rule = (int)r;
				return true;
			}
		}
	}
	return false;
}

/* The oldest, then the first by name, of those of one level. `created` is always "2020-..-..T..:..:..Z" or NULL here.
 */
static inline const struct peer_auth *reference_winner(const struct reference_case *c, enum policy_scope scope)
{
	const struct peer_auth *best = NULL;

	for (size_t i = 0; i < c->n_auths; i++) {
		const struct peer_auth *a = c->auths[i];
		char mine[160], other[160];

		if (a->scope != scope || a->closed)
			continue;
		/* '~' is after every digit: what has no date is the newest. */
		snprintf(mine, sizeof(mine), "%s %s %s", a->created ? a->created : "~", a->namespace_, a->name);
		if (best)
			snprintf(other, sizeof(other), "%s %s %s", best->created ? best->created : "~",
				 best->namespace_, best->name);
		if (!best || strcmp(mine, other) < 0)
			best = a;
	}
	return best;
}

static inline enum mtls_mode reference_mode(const struct reference_case *c, uint16_t port)
{
	const struct peer_auth *w = reference_winner(c, SCOPE_WORKLOAD);
	enum policy_scope scopes[] = {SCOPE_WORKLOAD, SCOPE_NAMESPACE, SCOPE_MESH};
	enum mtls_mode mode = MTLS_UNSET;

	for (size_t i = 0; w && i < w->n_ports; i++)
		if (w->ports[i].port == port)
			mode = w->ports[i].mode;
	for (size_t i = 0; i < 3 && mode == MTLS_UNSET; i++) {
		const struct peer_auth *a = reference_winner(c, scopes[i]);

		mode = a ? a->mode : MTLS_UNSET;
	}
	return mode == MTLS_STRICT ? MTLS_STRICT : MTLS_PERMISSIVE;
}

static inline struct reference reference_evaluate(const struct reference_case *c)
{
	struct reference v = {.rule = -1};
	bool closed = false, allows = false;

	for (size_t i = 0; i < c->n_auths; i++)
		closed |= c->auths[i]->closed;
	for (size_t i = 0; i < c->n_policies; i++) {
		bool idle = reference_idle(c, c->policies[i]);

		closed |= c->policies[i]->closed && !idle;
		allows |= c->policies[i]->action == POLICY_ALLOW && !c->policies[i]->closed && !idle;
	}
	if (!c->subject.identity && reference_mode(c, c->subject.destination.port) == MTLS_STRICT)
		v.reason = WR_REASON_MTLS_REQUIRED;
	else if (closed && !c->subject.established)
		v.reason = WR_REASON_POLICY_INVALID;
	else if (reference_any_rule(c, false, &v))
		v.reason = WR_REASON_POLICY_DENY;
	else if (allows && !reference_any_rule(c, true, &v))
		v.reason = WR_REASON_POLICY_NO_ALLOW;
	v.allow = v.reason == WR_REASON_NONE;
	return v;
}

/* --- sets made of chance --- */

/* Where chance comes from: a number below `limit`. */
struct chance {
	uint32_t (*below)(struct chance *c, uint32_t limit);
	uint64_t state;
	const uint8_t *bytes;
	size_t n_bytes;
};

/* Few values, so that they meet often. */
static const char *const chance_tds[] = {"cluster.local", "other.org"};
static const char *const chance_namespaces[] = {"prod", "prod-eu", "dev", "a"};
static const char *const chance_accounts[] = {"web", "web-admin", "db", "b"};
static const char *const chance_addrs[] = {"10.0.0.1", "10.0.0.9", "10.1.2.3", "192.168.7.7", "fd00::1", "fd00:1::1"};
static const uint16_t chance_ports[] = {80, 443, 8080};

#define CHANCE(c, array) ((array)[(c)->below(c, sizeof(array) / sizeof((array)[0]))])

static inline void *chance_array(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		abort();
	return p;
}

static inline char *chance_text(const char *text)
{
	char *s = strdup(text);

	if (!s)
		abort();
	return s;
}

static inline struct ip_addr chance_addr(struct chance *c)
{
	struct ip_addr a;

	if (ip_addr_parse(CHANCE(c, chance_addrs), &a))
		abort();
	return a;
}

static inline void chance_principal(struct chance *c, char *buf, size_t size)
{
	const char *td = CHANCE(c, chance_tds), *ns = CHANCE(c, chance_namespaces);

	snprintf(buf, size, "%s/ns/%s/sa/%s", td, ns, CHANCE(c, chance_accounts));
}

static inline struct string_match chance_match(struct chance *c, enum policy_attribute attribute)
{
	static const enum match_kind kinds[] = {MATCH_EXACT,  MATCH_EXACT,  MATCH_EXACT,   MATCH_EXACT,
						MATCH_PREFIX, MATCH_SUFFIX, MATCH_PRESENCE};
	struct string_match m = {.kind = CHANCE(c, kinds)};
	char identity[160], text[256], principal[128];
	struct policy_subject s = {.identity = identity};
	size_t cut;

	chance_principal(c, principal, sizeof(principal));
	snprintf(identity, sizeof(identity), "spiffe://%s", principal);
	if (!reference_subject_text(&s, attribute, text, sizeof(text)))
		abort();
	cut = c->below(c, (uint32_t)strlen(text) + 1);
	if (m.kind == MATCH_PREFIX)
		text[cut] = 0;
	m.text = chance_text(m.kind == MATCH_PRESENCE ? "" : m.kind == MATCH_SUFFIX ? text + cut : text);
	return m;
}

static inline struct ip_range chance_range(struct chance *c)
{
	static const unsigned bits[] = {0, 16, 96, 100, 104, 120, 124, 125, 128, 128};
	struct ip_range r = {.net = chance_addr(c), .bits = CHANCE(c, bits)};

	return r;
}

static inline void chance_field(struct chance *c, struct policy_field *f)
{
	uint32_t many = c->below(c, 16);
	size_t n = 1 + (many ? c->below(c, 3) : c->below(c, 30));

	f->attribute = c->below(c, 24) / 3;
	f->negate = c->below(c, 2);
	f->path = chance_text("field");
	if (f->attribute <= ATTRIBUTE_TRUST_DOMAIN) {
		f->strings = chance_array(n, sizeof(*f->strings));
		for (f->n_strings = 0; f->n_strings < n; f->n_strings++)
			f->strings[f->n_strings] = chance_match(c, f->attribute);
	} else if (f->attribute == ATTRIBUTE_DESTINATION_PORT) {
		f->ports = chance_array(n, sizeof(*f->ports));
		for (f->n_ports = 0; f->n_ports < n; f->n_ports++)
			f->ports[f->n_ports] = many ? CHANCE(c, chance_ports) : (uint16_t)c->below(c, 100);
	} else if (f->attribute != ATTRIBUTE_L7) {
		f->ranges = chance_array(n, sizeof(*f->ranges));
		for (f->n_ranges = 0; f->n_ranges < n; f->n_ranges++)
			f->ranges[f->n_ranges] = chance_range(c);
	}
}

static inline void chance_rule(struct chance *c, struct policy_rule *r)
{
	r->n_groups = c->below(c, 4);
	r->groups = chance_array(r->n_groups, sizeof(*r->groups));
	for (size_t g = 0; g < r->n_groups; g++) {
		struct policy_group *group = &r->groups[g];

		group->n_clauses = 1 + c->below(c, 4) / 2;
		group->clauses = chance_array(group->n_clauses, sizeof(*group->clauses));
		for (size_t i = 0; i < group->n_clauses; i++) {
			struct policy_clause *clause = &group->clauses[i];

			clause->n_fields = 1 + c->below(c, 5) / 3 - !c->below(c, 30);
			clause->fields = chance_array(clause->n_fields, sizeof(*clause->fields));
			for (size_t f = 0; f < clause->n_fields; f++)
				chance_field(c, &clause->fields[f]);
		}
	}
}

static inline struct policy *chance_policy(struct chance *c, unsigned number, uint32_t max_rules)
{
	static const enum policy_action actions[] = {POLICY_ALLOW, POLICY_ALLOW, POLICY_ALLOW,	POLICY_ALLOW,
						     POLICY_DENY,  POLICY_DENY,	 POLICY_CUSTOM, POLICY_AUDIT};
	struct policy *p = policy_new();
	char name[16];

	if (!p)
		abort();
	snprintf(name, sizeof(name), "p%u", number);
	p->name = chance_text(name);
	p->namespace_ = chance_text("prod");
	p->action = CHANCE(c, actions);
	p->dry_run = !c->below(c, 6);
	p->target_ref = !c->below(c, 12);
	p->closed = !c->below(c, 60);
	if (p->closed)
		return p;
	p->n_rules = c->below(c, max_rules);
	p->rules = chance_array(p->n_rules, sizeof(*p->rules));
	for (size_t i = 0; i < p->n_rules; i++)
		chance_rule(c, &p->rules[i]);
	return p;
}

static inline struct peer_auth *chance_auth(struct chance *c, unsigned number)
{
	struct peer_auth *a = peer_auth_new();
	char name[16], created[32];

	if (!a)
		abort();
	snprintf(name, sizeof(name), "a%u", c->below(c, 3) * 10 + number);
	snprintf(created, sizeof(created), "2020-0%u-01T00:00:00Z", 1 + c->below(c, 4));
	a->name = chance_text(name);
	a->namespace_ = chance_text(CHANCE(c, chance_namespaces));
	a->created = c->below(c, 4) ? chance_text(created) : NULL;
	a->scope = c->below(c, 3);
	a->mode = c->below(c, 4);
	a->closed = !c->below(c, 80);
	if (a->scope == SCOPE_WORKLOAD && c->below(c, 2)) {
		a->n_ports = 1 + c->below(c, 2);
		a->ports = chance_array(a->n_ports, sizeof(*a->ports));
		for (size_t i = 0; i < a->n_ports; i++)
			a->ports[i] = (struct mtls_port){chance_ports[i], c->below(c, 4)};
	}
	return a;
}

static inline void chance_subject(struct chance *c, struct policy_subject *s, char *identity, size_t size)
{
	char principal[128];

	chance_principal(c, principal, sizeof(principal));
	snprintf(identity, size, "spiffe://%s", principal);
	s->identity = c->below(c, 5) ? identity : NULL;
	s->source = chance_addr(c);
	s->destination.ip = chance_addr(c);
	s->destination.port = CHANCE(c, chance_ports);
	s->established = !c->below(c, 4);
}

/* Fills the lists of a case; at most max_policies of at most max_rules. */
static inline void chance_case(struct chance *c, struct reference_case *ret, uint32_t max_policies, uint32_t max_rules)
{
	*ret = (struct reference_case){.l7 = c->below(c, 2)};
	ret->n_policies = c->below(c, max_policies + 1);
	ret->policies = chance_array(ret->n_policies, sizeof(*ret->policies));
	/* Names of one width: their order is that of the numbers. */
	for (size_t i = 0; i < ret->n_policies; i++)
		ret->policies[i] = chance_policy(c, 100 + (unsigned)i, max_rules + 1);
	ret->n_auths = c->below(c, 3) ? 0 : c->below(c, 5);
	ret->auths = chance_array(ret->n_auths, sizeof(*ret->auths));
	for (size_t i = 0; i < ret->n_auths; i++)
		ret->auths[i] = chance_auth(c, (unsigned)i);
}

static inline void reference_case_done(struct reference_case *c)
{
	for (size_t i = 0; i < c->n_policies; i++)
		policy_unref(c->policies[i]);
	for (size_t i = 0; i < c->n_auths; i++)
		peer_auth_unref(c->auths[i]);
	free(c->policies);
	free(c->auths);
}

/* The set of the case, its policies handed over in another order. */
static inline struct policy_set *reference_case_set(const struct reference_case *c)
{
	struct policy **turned = chance_array(c->n_policies, sizeof(*turned));
	struct policy_set *s = NULL;

	for (size_t i = 0; i < c->n_policies; i++)
		turned[i] = c->policies[c->n_policies - 1 - i];
	if (policy_set_new(turned, c->n_policies, c->auths, c->n_auths, c->l7, &s))
		abort();
	free(turned);
	return s;
}

/* What differs between the reference and a verdict; NULL: nothing. */
static inline const char *reference_differs(const struct reference_case *c, const struct policy_verdict *got)
{
	struct reference_case dry = *c;
	struct reference want = reference_evaluate(c);
	bool with_dry_run;

	dry.with_dry_run = true;
	with_dry_run = reference_evaluate(&dry).allow;
	if (got->allow != want.allow)
		return "allow";
	if (got->reason != want.reason)
		return "reason";
	if (want.policy && (got->policy != want.policy || got->rule != want.rule))
		return "policy or rule";
	if (want.reason == WR_REASON_MTLS_REQUIRED && !got->peer_auth)
		return "peer_auth";
	if (!want.allow && want.reason != WR_REASON_MTLS_REQUIRED && !got->policy && !got->peer_auth)
		return "no name";
	if ((got->would_deny != NULL) != (want.allow && !with_dry_run))
		return "would_deny";
	if ((got->would_allow != NULL) != (!want.allow && with_dry_run))
		return "would_allow";
	return NULL;
}
