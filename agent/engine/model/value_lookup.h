/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values that fields of one attribute name, and which of them a subject has: exact texts and ports by hash,
 * prefixes and suffixes by trie, address ranges by longest prefix. Private to model/.
 */
#pragma once
#include "policy_private.h"
#include "engine/base/table.h"

/* The start of what the owner keeps for each value. */
struct value {
	struct value *next;
	unsigned bits; /* of a range */
};

struct value_lookup {
	struct table exact;
	struct trie prefixes; /* and ranges */
	struct trie suffixes;
	struct value *present; /* the value "any" */
	struct value *all;
};

/* The value number i of a field, made when it is new: `size` bytes, zeroed but for its start. Its key stays the
 * field's. NULL: out of memory. */
struct value *value_lookup_add(struct value_lookup *l, const struct policy_field *f, size_t i, size_t size);
/* Frees the values too. */
void value_lookup_done(struct value_lookup *l);

/* The values of a lookup that a subject has; ranges from the widest to the narrowest. */
struct value_walk {
	const struct value_lookup *lookup;
	const void *bytes; /* NULL: nothing to look up */
	size_t len;
	int stage;
	bool text, v4;
	struct trie_walk trie;
};
void value_walk_init(struct value_walk *w, const struct value_lookup *l, enum policy_attribute attribute,
		     const struct policy_view *v);
struct value *value_walk_next(struct value_walk *w);
