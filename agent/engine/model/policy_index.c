/* SPDX-License-Identifier: Apache-2.0 */
/* Compiles the rules of many policies into an index. Policies come in, struct policy_index leaves; called by
 * policy_set.c. */
#include "policy_index.h"
#include "engine/base/cleanup.h"

#include <string.h>

/* Values that a group of several clauses may have to count as a constraint: they are noted again for each entry. */
#define SHARED_VALUES_MAX 16

/* An entry in the making: the clause that is taken of one group; the others stay whole. */
struct choice {
	const struct policy *policy;
	size_t number;
	const struct policy_rule *rule; /* of the policy, by that number */
	enum l7_effect l7;
	size_t group, clause; /* group n_groups: nothing to choose */
};

/* What is done with each value of a constraint. */
typedef int (*value_fn)(struct policy_index *ix, struct index_value *v, void *arg);

static bool names(const struct policy_field *f, int attribute, bool negate)
{
	return (int)f->attribute == attribute && f->negate == negate;
}

/* Values of a clause for an attribute; 0 also stands for no such field. */
static size_t count_values(const struct policy_clause *c, int attribute, bool negate)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_fields; i++)
		if (names(&c->fields[i], attribute, negate))
			n += policy_field_count(&c->fields[i]);
	return n;
}

/* The clauses of a group that are part of the entry, dead ones among them. */
static void taken(const struct choice *c, size_t g, size_t *from, size_t *end)
{
	*from = g == c->group ? c->clause : 0;
	*end = g == c->group ? c->clause + 1 : c->rule->groups[g].n_clauses;
}

/* Whether the entry has this constraint: every clause taken of the group has such a field. Of several negations each
 * must fail: only those of a single clause are constraints. */
static bool constrains(const struct choice *c, size_t g, int attribute, bool negate)
{
	bool repeated = c->group < c->rule->n_groups && c->group != g;
	size_t from, end, clauses = 0, values = 0;

	for (taken(c, g, &from, &end); from < end; from++) {
		const struct policy_clause *clause = &c->rule->groups[g].clauses[from];
		size_t n = count_values(clause, attribute, negate);

		if (!policy_clause_alive(clause, c->l7))
			continue;
		values += n;
		if (!n || (repeated && values > SHARED_VALUES_MAX))
			return false;
		clauses++;
	}
	return clauses == 1 || (clauses && !negate);
}

static int each_value_of_field(struct policy_index *ix, const struct policy_field *f, value_fn fn, void *arg)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < policy_field_count(f); i++) {
		struct value *v =
			value_lookup_add(&ix->attributes[f->attribute].lookup, f, i, sizeof(struct index_value));

		r = v ? fn(ix, container_of(v, struct index_value, value), arg) : -ENOMEM;
	}
	return r;
}

static int each_value(struct policy_index *ix, const struct choice *c, size_t g, int attribute, bool negate,
		      value_fn fn, void *arg)
{
	size_t from, end;
	int r = 0;

	for (taken(c, g, &from, &end); r == 0 && from < end; from++) {
		const struct policy_clause *clause = &c->rule->groups[g].clauses[from];

		for (size_t f = 0; r == 0 && policy_clause_alive(clause, c->l7) && f < clause->n_fields; f++)
			if (names(&clause->fields[f], attribute, negate))
				r = each_value_of_field(ix, &clause->fields[f], fn, arg);
	}
	return r;
}

/* --- what is done with a value --- */

static int count_use(struct policy_index *ix, struct index_value *v, void *arg)
{
	(void)ix;
	(void)arg;
	v->uses++;
	return 0;
}

static int most_used(struct policy_index *ix, struct index_value *v, void *arg)
{
	uint32_t *most = arg;

	(void)ix;
	if (v->uses > *most)
		*most = v->uses;
	return 0;
}

/* Lists grow by doubling at powers of two: the count alone says how much room there is. */
static int append(struct posting *p, uint32_t number)
{
	if (p->n && p->numbers[p->n - 1] == number)
		return 0;
	if (!(p->n & (p->n - 1))) {
		uint32_t *grown = realloc(p->numbers, (p->n ? p->n * 2 : 1) * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		p->numbers = grown;
	}
	p->numbers[p->n++] = number;
	return 0;
}

static int add_narrow(struct policy_index *ix, struct index_value *v, void *arg)
{
	(void)ix;
	return append(&v->narrow, *(const uint32_t *)arg);
}

static int add_wanted(struct policy_index *ix, struct index_value *v, void *arg)
{
	(void)arg;
	return append(&v->wanted, (uint32_t)ix->n_wide);
}

static int add_refused(struct policy_index *ix, struct index_value *v, void *arg)
{
	(void)arg;
	return append(&v->refused, (uint32_t)ix->n_wide);
}

/* --- what is done with an entry --- */

static int count_uses(struct policy_index *ix, const struct choice *c, uint32_t entry)
{
	int r = 0;

	(void)entry;
	for (size_t g = 0; g < c->rule->n_groups; g++)
		for (int a = 0; r == 0 && a < ATTRIBUTE_L7; a++)
			if (constrains(c, g, a, false))
				r = each_value(ix, c, g, a, false, count_use, NULL);
	return r;
}

/* Hangs the entry on its most selective constraint; 1: none is selective enough. */
static int place_narrow(struct policy_index *ix, const struct choice *c, uint32_t entry)
{
	uint32_t least = NARROW_MAX + 1;
	size_t group = 0;
	int attribute = 0, r;

	for (size_t g = 0; g < c->rule->n_groups; g++) {
		for (int a = 0; a < ATTRIBUTE_L7; a++) {
			uint32_t most = 0;

			if (!constrains(c, g, a, false))
				continue;
			r = each_value(ix, c, g, a, false, most_used, &most);
			if (r < 0)
				return r;
			if (most < least) {
				least = most;
				group = g;
				attribute = a;
			}
		}
	}
	return least > NARROW_MAX ? 1 : each_value(ix, c, group, attribute, false, add_narrow, &entry);
}

static int place_wide(struct policy_index *ix, const struct choice *c, uint32_t entry)
{
	int r = 0;

	for (size_t g = 0; g < c->rule->n_groups; g++) {
		for (int a = 0; r == 0 && a < ATTRIBUTE_L7; a++) {
			if (constrains(c, g, a, false))
				r = each_value(ix, c, g, a, false, add_wanted, NULL);
			if (r == 0 && constrains(c, g, a, true))
				r = each_value(ix, c, g, a, true, add_refused, NULL);
		}
	}
	ix->wide[ix->n_wide++] = entry;
	return r;
}

static int place(struct policy_index *ix, const struct choice *c, uint32_t entry)
{
	int r = place_narrow(ix, c, entry);

	return r == 1 ? place_wide(ix, c, entry) : r;
}

typedef int (*choice_fn)(struct policy_index *ix, const struct choice *c, uint32_t entry);

static size_t alive_clauses(const struct policy_group *g, enum l7_effect l7)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n_clauses; i++)
		n += policy_clause_alive(&g->clauses[i], l7);
	return n;
}

/* Calls fn for each entry of a rule; the entries are numbered from *entry on. */
static int each_choice(struct policy_index *ix, const struct policy *p, size_t number, choice_fn fn, uint32_t *entry)
{
	const struct policy_rule *rule = &p->rules[number];
	struct choice c = {p, number, rule, ix->l7, rule->n_groups, 0};
	const struct policy_group *split = NULL;
	int r = 0;

	if (!policy_rule_alive(rule, ix->l7))
		return 0;
	for (size_t g = 0; g < rule->n_groups; g++) {
		size_t n = alive_clauses(&rule->groups[g], ix->l7);

		if (!n)
			return 0;
		if (n > 1 && !split) {
			split = &rule->groups[g];
			c.group = g;
		}
	}
	if (!split)
		return fn(ix, &c, (*entry)++);
	for (; r == 0 && c.clause < split->n_clauses; c.clause++)
		if (policy_clause_alive(&split->clauses[c.clause], ix->l7))
			r = fn(ix, &c, (*entry)++);
	return r;
}

static int each_rule(struct policy_index *ix, struct policy *const *policies, size_t n, choice_fn fn)
{
	uint32_t entry = 0;
	int r = 0;

	for (size_t p = 0; p < n; p++)
		for (size_t i = 0; r == 0 && i < policies[p]->n_rules; i++)
			r = each_choice(ix, policies[p], i, fn, &entry);
	return r;
}

static int fill_entry(struct policy_index *ix, const struct choice *c, uint32_t entry)
{
	ix->entries[entry] =
		(struct index_entry){c->policy, (uint32_t)c->number, {(uint32_t)c->group, (uint32_t)c->clause}};
	return 0;
}

static int count_entry(struct policy_index *ix, const struct choice *c, uint32_t entry)
{
	(void)c;
	(void)entry;
	ix->n_entries++;
	return 0;
}

static int make_entries(struct policy_index *ix, struct policy *const *policies, size_t n)
{
	(void)each_rule(ix, policies, n, count_entry);
	if (ix->n_entries > UINT32_MAX - 1)
		return -ENOMEM;
	ix->entries = calloc(ix->n_entries + 1, sizeof(*ix->entries));
	ix->wide = calloc(ix->n_entries + 1, sizeof(*ix->wide));
	return ix->entries && ix->wide ? each_rule(ix, policies, n, fill_entry) : -ENOMEM;
}

/* The first rules that are small enough to be compared for a name alone. */
static void note_first(struct policy_index *ix, const struct policy *p, uint32_t rule)
{
	size_t clauses = 0;

	for (size_t g = 0; g < p->rules[rule].n_groups; g++)
		clauses += p->rules[rule].groups[g].n_clauses;
	if (ix->n_first < NEAR_RULES && clauses <= NEAR_CLAUSES)
		ix->first[ix->n_first++] = (struct index_entry){.policy = p, .rule = rule};
}

/* --- fields with many values --- */

static int add_big(struct policy_index *ix, const struct policy_field *f)
{
	struct big_field *b;

	if (policy_field_count(f) <= FIELD_COMPARE_MAX)
		return 0;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->field = f;
	if (table_put(&ix->big, &b->field, sizeof(b->field), b, NULL)) {
		free(b);
		return -ENOMEM;
	}
	for (size_t i = 0; i < policy_field_count(f); i++)
		if (!value_lookup_add(&b->lookup, f, i, sizeof(struct value)))
			return -ENOMEM;
	return 0;
}

static int add_big_fields(struct policy_index *ix, const struct policy_rule *rule)
{
	int r = 0;

	for (size_t g = 0; g < rule->n_groups; g++) {
		for (size_t i = 0; i < rule->groups[g].n_clauses; i++) {
			const struct policy_clause *c = &rule->groups[g].clauses[i];

			for (size_t f = 0; r == 0 && f < c->n_fields; f++)
				r = add_big(ix, &c->fields[f]);
		}
	}
	return r;
}

/* What is said once of each rule, whatever its entries. */
static int prepare(struct policy_index *ix, struct policy *const *policies, size_t n)
{
	int r = 0;

	for (size_t p = 0; p < n; p++) {
		for (size_t i = 0; r == 0 && i < policies[p]->n_rules; i++) {
			note_first(ix, policies[p], (uint32_t)i);
			r = add_big_fields(ix, &policies[p]->rules[i]);
		}
	}
	return r;
}

/* --- lists that are better a bitmap --- */

static int make_dense(struct posting *p, size_t n_wide)
{
	uint64_t *bits;

	/* A bitmap takes n_wide / 8 bytes, the list 4 each: at most four times as much. */
	if (!p->n || (size_t)p->n * 128 < n_wide)
		return 0;
	bits = calloc(bitmap_words(n_wide), sizeof(*bits));
	if (!bits)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n; i++)
		bits[p->numbers[i] / 64] |= 1ull << p->numbers[i] % 64;
	free(p->numbers);
	p->bits = bits;
	p->dense = true;
	return 0;
}

/* The wide entries that want no value of the attribute are those that no value's list holds. */
static int make_unbound(struct index_attribute *at, size_t n_wide)
{
	bool any = false;

	for (struct value *v = at->lookup.all; v && !any; v = v->next)
		any = container_of(v, struct index_value, value)->wanted.n;
	if (!any)
		return 0;
	at->unbound = malloc(bitmap_words(n_wide) * sizeof(*at->unbound));
	if (!at->unbound)
		return -ENOMEM;
	memset(at->unbound, 0xff, bitmap_words(n_wide) * sizeof(*at->unbound));
	for (struct value *v = at->lookup.all; v; v = v->next) {
		const struct posting *p = &container_of(v, struct index_value, value)->wanted;

		for (uint32_t i = 0; i < p->n; i++)
			at->unbound[p->numbers[i] / 64] &= ~(1ull << p->numbers[i] % 64);
	}
	return 0;
}

static int finish(struct policy_index *ix)
{
	int r = 0;

	for (int a = 0; a < ATTRIBUTE_L7 && r == 0; a++) {
		struct index_attribute *at = &ix->attributes[a];

		r = make_unbound(at, ix->n_wide);
		for (struct value *v = at->lookup.all; v && r == 0; v = v->next) {
			struct index_value *iv = container_of(v, struct index_value, value);

			r = make_dense(&iv->wanted, ix->n_wide);
			if (r == 0)
				r = make_dense(&iv->refused, ix->n_wide);
		}
	}
	return r;
}

int policy_index_new(struct policy *const *policies, size_t n, enum l7_effect l7, struct policy_index **ret)
{
	struct policy_index *ix = calloc(1, sizeof(*ix));
	int r;

	if (!ix)
		return -ENOMEM;
	ix->l7 = l7;
	r = make_entries(ix, policies, n);
	if (r == 0)
		r = prepare(ix, policies, n);
	if (r == 0)
		r = each_rule(ix, policies, n, count_uses);
	if (r == 0)
		r = each_rule(ix, policies, n, place);
	if (r == 0)
		r = finish(ix);
	if (r < 0) {
		policy_index_free(ix);
		return r;
	}
	*ret = ix;
	return 0;
}

struct policy_index *policy_index_free(struct policy_index *ix)
{
	struct table_iter it = {0};
	struct big_field *b;

	if (!ix)
		return NULL;
	for (int a = 0; a < ATTRIBUTE_L7; a++) {
		struct index_attribute *at = &ix->attributes[a];

		for (struct value *v = at->lookup.all; v; v = v->next) {
			struct index_value *iv = container_of(v, struct index_value, value);

			free(iv->narrow.numbers);
			free(iv->wanted.numbers);
			free(iv->refused.numbers);
		}
		value_lookup_done(&at->lookup);
		free(at->unbound);
	}
	while ((b = table_next(&ix->big, &it))) {
		value_lookup_done(&b->lookup);
		free(b);
	}
	table_done(&ix->big);
	free(ix->entries);
	free(ix->wide);
	free(ix);
	return NULL;
}
