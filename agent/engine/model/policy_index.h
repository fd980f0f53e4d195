/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiled rules of many policies. A rule enters as one entry for each clause of its first group that has several.
 * An entry has constraints: the fields of the chosen clause and of groups of one; of another group what all its clauses
 * name, with the values of all of them, if these are few. What is no constraint is left to the comparison.
 *
 * Narrow entries hang on the values of their most selective constraint, which few entries share; a subject that has the
 * value compares them. All others are wide: each value carries the wide entries that want it and those that it rules
 * out, and a subject's values together leave a bitmap of candidates. So the cost is bounded by the number of values a
 * subject has and by one pass over the bitmaps, whatever the rules are. Every list is either of numbers or a bitmap,
 * whichever is smaller (within a factor of four): memory is linear in the number of values written in the policies.
 *
 * Private to model/: made by policy_index.c, read by policy_find.c.
 */
#pragma once
#include "value_lookup.h"

/* Entries that one value's narrow list may hold: beyond, a bitmap is cheaper than comparing them. */
#define NARROW_MAX 16
/* Rules, each of few clauses, that are compared to name the one that came near when no candidate did. */
#define NEAR_RULES 4
#define NEAR_CLAUSES 8

struct posting {
	union {
		uint32_t *numbers; /* ascending */
		uint64_t *bits;
	};
	uint32_t n;
	bool dense;
};

struct index_value {
	struct value value;
	uint32_t uses;			/* entries with a constraint that names it */
	struct posting narrow;		/* numbers of entries */
	struct posting wanted, refused; /* numbers among the wide */
};

struct index_entry {
	const struct policy *policy;
	uint32_t rule;
	struct policy_choice choice;
};

struct index_attribute {
	struct value_lookup lookup;
	uint64_t *unbound; /* wide entries that want no value of this attribute; NULL: all of them */
};

/* One field with many values. */
struct big_field {
	const struct policy_field *field; /* the key */
	struct value_lookup lookup;
};

struct policy_index {
	enum l7_effect l7;
	struct index_entry *entries; /* in order of policy and rule */
	size_t n_entries;
	uint32_t *wide; /* entries by their number among the wide; ascending */
	size_t n_wide;
	struct index_attribute attributes[ATTRIBUTE_L7];
	struct table big; /* struct big_field by the address of the field */
	struct index_entry first[NEAR_RULES];
	size_t n_first;
};

static inline size_t bitmap_words(size_t n)
{
	return (n + 63) / 64;
}
