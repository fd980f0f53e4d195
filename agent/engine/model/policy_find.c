/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the first rule of an index that matches a subject: values, candidates, comparison. Called by policy_set.c. */
#include "policy_index.h"
#include "engine/base/cleanup.h"

#include <string.h>

/* Words of the two bitmaps of a search that fit the stack: 64 * 512 wide entries. */
#define STACK_WORDS 512

struct search {
	const struct policy_index *ix;
	const struct policy_view *view;
	uint64_t *left;	  /* wide entries that are still candidates */
	uint64_t *wanted; /* those that have what they want of the attribute that is looked at */
	size_t words;
	uint32_t best; /* the first entry that matches so far */
	struct policy_near match, near;
};

static bool compare(struct search *s, const struct index_entry *e, const struct policy_choice *choice)
{
	struct policy_near near = {.policy = e->policy, .rule = (int)e->rule};

	if (policy_rule_matches(&e->policy->rules[e->rule], s->ix->l7, s->view, choice, &near)) {
		s->match = near;
		return true;
	}
	if (!s->near.policy || near.groups > s->near.groups)
		s->near = near;
	return false;
}

static bool compare_entry(struct search *s, uint32_t number)
{
	const struct index_entry *e = &s->ix->entries[number];

	return compare(s, e, &e->choice);
}

static void add(uint64_t *to, const struct posting *p, size_t words)
{
	if (p->dense)
		for (size_t i = 0; i < words; i++)
			to[i] |= p->bits[i];
	else
		for (uint32_t i = 0; i < p->n; i++)
			to[p->numbers[i] / 64] |= 1ull << p->numbers[i] % 64;
}

static void take_away(uint64_t *from, const struct posting *p, size_t words)
{
	if (p->dense)
		for (size_t i = 0; i < words; i++)
			from[i] &= ~p->bits[i];
	else
		for (uint32_t i = 0; i < p->n; i++)
			from[p->numbers[i] / 64] &= ~(1ull << p->numbers[i] % 64);
}

/* The subject has this value. */
static void meet(struct search *s, const struct index_value *v)
{
	for (uint32_t i = 0; i < v->narrow.n && v->narrow.numbers[i] < s->best; i++)
		if (compare_entry(s, v->narrow.numbers[i]))
			s->best = v->narrow.numbers[i];
	if (v->wanted.n)
		add(s->wanted, &v->wanted, s->words);
	if (v->refused.n)
		take_away(s->left, &v->refused, s->words);
}

static void look_up(struct search *s, int attribute)
{
	const struct index_attribute *at = &s->ix->attributes[attribute];
	struct value_walk w;
	struct value *v;

	if (at->unbound)
		memcpy(s->wanted, at->unbound, s->words * sizeof(*s->wanted));
	value_walk_init(&w, &at->lookup, attribute, s->view);
	while ((v = value_walk_next(&w)))
		meet(s, container_of(v, struct index_value, value));
	for (size_t i = 0; at->unbound && i < s->words; i++)
		s->left[i] &= s->wanted[i];
}

/* Compares the wide entries that are left, up to the first that matches. */
static void compare_left(struct search *s)
{
	for (size_t i = 0; i < s->words; i++) {
		for (uint64_t word = s->left[i]; word; word &= word - 1) {
			uint32_t entry = s->ix->wide[i * 64 + (size_t)__builtin_ctzll(word)];

			if (entry >= s->best)
				return;
			if (compare_entry(s, entry)) {
				s->best = entry;
				return;
			}
		}
	}
}

/* Without memory for the bitmaps: every rule, slow and right. */
static bool compare_all(struct search *s)
{
	for (size_t i = 0; i < s->ix->n_entries; i++)
		if (compare_entry(s, (uint32_t)i))
			return true;
	return false;
}

static bool find(struct search *s)
{
	uint64_t stack[2 * STACK_WORDS];
	_cleanup_free_ uint64_t *heap = NULL;

	s->words = bitmap_words(s->ix->n_wide);
	if (s->words > STACK_WORDS) {
		heap = malloc(2 * s->words * sizeof(*heap));
		if (!heap)
			return compare_all(s);
	}
	s->left = heap ? heap : stack;
	s->wanted = s->left + s->words;
	memset(s->left, 0xff, s->words * sizeof(*s->left));
	if (s->ix->n_wide % 64)
		s->left[s->words - 1] = (1ull << s->ix->n_wide % 64) - 1;
	for (int a = 0; a < ATTRIBUTE_L7; a++)
		look_up(s, a);
	compare_left(s);
	return s->best != UINT32_MAX;
}

bool policy_index_find(const struct policy_index *ix, struct policy_view *v, struct policy_near *ret)
{
	struct search s = {.ix = ix, .view = v, .best = UINT32_MAX};
	bool found;

	v->index = ix;
	found = find(&s);
	for (size_t i = 0; !found && !s.near.policy && i < ix->n_first; i++)
		(void)compare(&s, &ix->first[i], NULL);
	v->index = NULL;
	if (!found && !s.near.policy)
		s.near.rule = -1;
	*ret = found ? s.match : s.near;
	return found;
}

bool policy_index_field(const struct policy_index *ix, const struct policy_field *f, const struct policy_view *v)
{
	const struct big_field *b = table_get(&ix->big, &f, sizeof(f));
	struct value_walk w;

	value_walk_init(&w, &b->lookup, f->attribute, v);
	return value_walk_next(&w);
}
