/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an AuthorizationPolicy comes to at this point where its author may not expect it. The policy as it was read
 * comes in, warnings leave. Called by policy_decode.c.
 */
#include "policy_decode.h"

static const struct policy_field *find_identity(const struct policy_clause *c, bool negate)
{
	for (size_t i = 0; i < c->n_fields; i++)
		if (policy_is_identity(c->fields[i].attribute) && c->fields[i].negate == negate)
			return &c->fields[i];
	return NULL;
}

/* The first field of a rule of which all are negated; NULL: there are others, or none. */
static const struct policy_field *find_only_negated(const struct policy_rule *rule)
{
	const struct policy_field *first = NULL;

	for (size_t g = 0; g < rule->n_groups; g++) {
		for (size_t c = 0; c < rule->groups[g].n_clauses; c++) {
			const struct policy_clause *clause = &rule->groups[g].clauses[c];

			for (size_t f = 0; f < clause->n_fields; f++) {
				if (!clause->fields[f].negate)
					return NULL;
				first = first ? first : &clause->fields[f];
			}
		}
	}
	return first;
}

/* Nobody's name is on no list: a rule that only says who may not come lets in whoever shows no identity. */
static void warn_plaintext(struct check *check, const struct policy_rule *rule, const cJSON *at)
{
	const struct policy_field *negated = NULL;

	for (size_t g = 0; g < rule->n_groups; g++) {
		bool always = true;

		for (size_t c = 0; c < rule->groups[g].n_clauses; c++) {
			const struct policy_clause *clause = &rule->groups[g].clauses[c];
			bool named = find_identity(clause, false) != NULL;

			always &= named;
			if (!negated && !named)
				negated = find_identity(clause, true);
		}
		if (always)
			return;
	}
	negated = negated ? negated : find_only_negated(rule);
	if (negated)
		check_warn(check, at,
			   "spec.%s: only says what is not allowed: plaintext, which has no identity, matches",
			   negated->path);
}

static size_t count_l7(const struct policy_clause *clause)
{
	size_t n = 0;

	for (size_t i = 0; i < clause->n_fields; i++)
		n += clause->fields[i].attribute == ATTRIBUTE_L7;
	return n;
}

static bool has_l7(const struct policy_rule *rule)
{
	for (size_t g = 0; g < rule->n_groups; g++)
		for (size_t c = 0; c < rule->groups[g].n_clauses; c++)
			if (count_l7(&rule->groups[g].clauses[c]))
				return true;
	return false;
}

/* Whether it matches every connection once its L7 fields are taken as matched. */
static bool is_l7_alone(const struct policy_rule *rule)
{
	for (size_t g = 0; g < rule->n_groups; g++) {
		const struct policy_group *group = &rule->groups[g];
		bool any = false;

		for (size_t c = 0; c < group->n_clauses; c++)
			any |= count_l7(&group->clauses[c]) == group->clauses[c].n_fields;
		if (!any)
			return false;
	}
	return has_l7(rule);
}

static void warn_allow(struct check *c, const struct policy *p, const cJSON *rules)
{
	const cJSON *at = rules ? rules->child : NULL;
	size_t possible = 0;

	for (size_t i = 0; i < p->n_rules; i++, at = at ? at->next : NULL) {
		if (has_l7(&p->rules[i]))
			continue;
		possible++;
		warn_plaintext(c, &p->rules[i], at);
	}
	if (p->n_rules && !possible)
		check_warn(c, rules, "spec.rules: none can match here: this policy allows nobody");
}

static void warn_deny(struct check *c, const struct policy *p, const cJSON *rules)
{
	const cJSON *at = rules ? rules->child : NULL;

	for (size_t i = 0; i < p->n_rules; i++, at = at ? at->next : NULL)
		if (is_l7_alone(&p->rules[i]))
			check_warn(c, at,
				   "spec.rules[%zu]: nothing but what only an HTTP proxy can check: here every "
				   "connection %s denied (see --l7-deny)",
				   i, p->dry_run ? "would be" : "is");
}

void policy_effect_warn(struct check *c, const struct policy *p, const cJSON *rules)
{
	if (p->target_ref)
		return;
	if (p->action == POLICY_ALLOW)
		warn_allow(c, p, rules);
	else if (p->action != POLICY_AUDIT)
		warn_deny(c, p, rules);
}
