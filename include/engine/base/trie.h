/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Binary trie with compressed paths: finds every key that a text begins (or, built backwards, ends) with, in as many
 * steps as keys branch on the way. Keys are borrowed and count in bits, so that address ranges fit too. At most two
 * nodes a key. Not thread-safe while keys are added.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trie_node {
	struct trie_node *child[2];
	const uint8_t *first; /* byte of a key: of this node or of one below it */
	void *value;	      /* NULL: a branch only */
	size_t bits;
};

/* All zero is a valid, empty one, reading forwards. */
struct trie {
	struct trie_node *root;
	bool backwards; /* keys and texts are read from their last byte on; set it while empty */
};

/* Frees the nodes, never the values. */
void trie_done(struct trie *t);
/* Finds the place of a key or makes it, empty: the caller sets *ret_value, never back to NULL. 0 or -ENOMEM. */
int trie_slot(struct trie *t, const void *key, size_t bits, void ***ret_value);

/* Walks the values whose keys the text begins with, the shortest key first. */
struct trie_walk {
	const struct trie_node *node;
	size_t checked;
};
void trie_walk_init(struct trie_walk *w, const struct trie *t);
/* The next value or NULL at the end; the text must stay the same from call to call. */
void *trie_walk_next(struct trie_walk *w, const struct trie *t, const void *text, size_t bits);
