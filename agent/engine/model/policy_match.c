/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain comparison of one rule with one subject: what a rule means is said here and nowhere else. The index asks it
 * about its candidates, the explanation about every rule.
 */
#include "policy_private.h"

#include <string.h>

/* The next piece of an identity, up to '/' or the end. */
static size_t piece(const char *at)
{
	return strcspn(at, "/");
}

/* Takes "<td>/ns/<ns>/sa/<sa>" apart; what has another form gives no texts, as though there were no identity. */
static void split_identity(struct policy_view *v, const char *principal)
{
	const char *namespace_, *account;
	size_t td = piece(principal), ns, sa;

	if (!td || strncmp(principal + td, "/ns/", 4))
		return;
	namespace_ = principal + td + 4;
	ns = piece(namespace_);
	if (!ns || strncmp(namespace_ + ns, "/sa/", 4))
		return;
	account = namespace_ + ns + 4;
	sa = piece(account);
	if (!sa || account[sa] || (size_t)(account - principal) + sa >= POLICY_IDENTITY_MAX)
		return;
	memcpy(v->service_account, namespace_, ns);
	v->service_account[ns] = '/';
	memcpy(v->service_account + ns + 1, account, sa);
	v->texts[ATTRIBUTE_PRINCIPAL].text = principal;
	v->texts[ATTRIBUTE_PRINCIPAL].len = (size_t)(account - principal) + sa;
	v->texts[ATTRIBUTE_NAMESPACE].text = namespace_;
	v->texts[ATTRIBUTE_NAMESPACE].len = ns;
	v->texts[ATTRIBUTE_SERVICE_ACCOUNT].text = v->service_account;
	v->texts[ATTRIBUTE_SERVICE_ACCOUNT].len = ns + 1 + sa;
	v->texts[ATTRIBUTE_TRUST_DOMAIN].text = principal;
	v->texts[ATTRIBUTE_TRUST_DOMAIN].len = td;
}

void policy_view_init(struct policy_view *v, const struct policy_subject *subject)
{
	static const char scheme[] = "spiffe://";

	v->subject = subject;
	v->index = NULL;
	memset(v->texts, 0, sizeof(v->texts));
	if (subject->identity && !strncmp(subject->identity, scheme, sizeof(scheme) - 1))
		split_identity(v, subject->identity + sizeof(scheme) - 1);
}

enum l7_effect policy_l7_effect(enum policy_action action, enum l7_deny l7_deny)
{
	if (action == POLICY_ALLOW)
		return L7_FAILS_RULE;
	return l7_deny == L7_DENY_MATCHES ? L7_MATCHES : L7_FAILS_CLAUSE;
}

static const struct policy_field *l7_field(const struct policy_clause *c)
{
	for (size_t i = 0; i < c->n_fields; i++)
		if (c->fields[i].attribute == ATTRIBUTE_L7)
			return &c->fields[i];
	return NULL;
}

bool policy_clause_alive(const struct policy_clause *c, enum l7_effect l7)
{
	return l7 == L7_MATCHES || !l7_field(c);
}

/* The field for whose sake the whole rule never matches. */
static const struct policy_field *rule_l7_field(const struct policy_rule *r, enum l7_effect l7)
{
	const struct policy_field *f = NULL;

	for (size_t g = 0; l7 == L7_FAILS_RULE && !f && g < r->n_groups; g++)
		for (size_t c = 0; !f && c < r->groups[g].n_clauses; c++)
			f = l7_field(&r->groups[g].clauses[c]);
	return f;
}

bool policy_rule_alive(const struct policy_rule *r, enum l7_effect l7)
{
	return !rule_l7_field(r, l7);
}

static bool string_matches(const struct string_match *m, const char *text, size_t len)
{
	size_t n;

	switch (m->kind) {
	case MATCH_EXACT:
		return !strncmp(m->text, text, len) && !m->text[len];
	case MATCH_PREFIX:
		n = strlen(m->text);
		return n <= len && !memcmp(text, m->text, n);
	case MATCH_SUFFIX:
		n = strlen(m->text);
		return n <= len && !memcmp(text + len - n, m->text, n);
	case MATCH_PRESENCE:
		return len > 0;
	}
	return false;
}

static bool range_contains(const struct ip_range *range, const struct ip_addr *a)
{
	unsigned whole = range->bits / 8, rest = range->bits % 8;

	/* An IPv6 range that reaches beyond the mapped prefix, such as ::/0, is about IPv6 only. */
	if (range->bits < 96 && ip_addr_is_v4(a))
		return false;
	return !memcmp(range->net.b, a->b, whole) && (!rest || !((range->net.b[whole] ^ a->b[whole]) >> (8 - rest)));
}

static bool any_string(const struct policy_field *f, const struct policy_view *v)
{
	const char *text = v->texts[f->attribute].text;

	for (size_t i = 0; text && i < f->n_strings; i++)
		if (string_matches(&f->strings[i], text, v->texts[f->attribute].len))
			return true;
	return false;
}

static bool any_range(const struct policy_field *f, const struct ip_addr *a)
{
	for (size_t i = 0; i < f->n_ranges; i++)
		if (range_contains(&f->ranges[i], a))
			return true;
	return false;
}

static bool any_port(const struct policy_field *f, uint16_t port)
{
	for (size_t i = 0; i < f->n_ports; i++)
		if (f->ports[i] == port)
			return true;
	return false;
}

size_t policy_field_count(const struct policy_field *f)
{
	return f->n_strings + f->n_ranges + f->n_ports;
}

static bool field_matches(const struct policy_field *f, const struct policy_view *v)
{
	if (v->index && policy_field_count(f) > FIELD_COMPARE_MAX)
		return policy_index_field(v->index, f, v) != f->negate;
	switch (f->attribute) {
	case ATTRIBUTE_SOURCE_IP:
		return any_range(f, &v->subject->source) != f->negate;
	case ATTRIBUTE_DESTINATION_IP:
		return any_range(f, &v->subject->destination.ip) != f->negate;
	case ATTRIBUTE_DESTINATION_PORT:
		return any_port(f, v->subject->destination.port) != f->negate;
	case ATTRIBUTE_L7:
		return true; /* where it does not count as matched, its clause or rule is not asked */
	default:
		return any_string(f, v) != f->negate;
	}
}

/* The first field that fails; NULL: the clause matches. */
static const struct policy_field *failing(const struct policy_clause *c, enum l7_effect l7, const struct policy_view *v)
{
	if (!policy_clause_alive(c, l7))
		return l7_field(c);
	for (size_t i = 0; i < c->n_fields; i++)
		if (!field_matches(&c->fields[i], v))
			return &c->fields[i];
	return NULL;
}

/* Whether any clause, of those from..end, matches; *field is set to what made it so: the first field of the clause,
 * else what failed in the last one. */
static bool group_matches(const struct policy_group *g, size_t from, size_t end, enum l7_effect l7,
			  const struct policy_view *v, const struct policy_field **field)
{
	for (size_t i = from; i < end; i++) {
		const struct policy_field *f = failing(&g->clauses[i], l7, v);

		if (f) {
			*field = f;
			continue;
		}
		*field = g->clauses[i].n_fields ? &g->clauses[i].fields[0] : NULL;
		return true;
	}
	return false;
}

bool policy_rule_matches(const struct policy_rule *r, enum l7_effect l7, const struct policy_view *v,
			 const struct policy_choice *choice, struct policy_near *ret)
{
	const struct policy_field *field = choice ? NULL : rule_l7_field(r, l7), *first = NULL;

	ret->groups = 0;
	ret->field = field;
	if (field)
		return false;
	for (; ret->groups < r->n_groups; ret->groups++) {
		const struct policy_group *g = &r->groups[ret->groups];
		bool chosen = choice && choice->group == ret->groups;
		size_t from = chosen ? choice->clause : 0, end = chosen ? from + 1 : g->n_clauses;

		if (!group_matches(g, from, end, l7, v, &field)) {
			ret->field = field;
			return false;
		}
		if (!first)
			first = field;
	}
	ret->field = first;
	return true;
}
