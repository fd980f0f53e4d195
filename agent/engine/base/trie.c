/* SPDX-License-Identifier: Apache-2.0 */
/* Binary trie with compressed paths; see the header. Called by model/policy. */
#include "engine/base/trie.h"

#include <errno.h>
#include <stdlib.h>

/* Where reading a key starts. */
static inline const uint8_t *first_byte(const struct trie *t, const void *key, size_t bits)
{
	return t->backwards && bits ? (const uint8_t *)key + bits / 8 - 1 : key;
}

static inline uint8_t byte_at(const struct trie *t, const uint8_t *first, size_t i)
{
	return t->backwards ? *(first - i) : first[i];
}

static inline bool bit_at(const struct trie *t, const uint8_t *first, size_t i)
{
	return byte_at(t, first, i / 8) >> (7 - i % 8) & 1;
}

/* How many bits two keys share from their start, at most `max`; the first `from` are known to be equal. */
static size_t common(const struct trie *t, const uint8_t *a, const uint8_t *b, size_t from, size_t max)
{
	for (size_t i = from / 8; i * 8 < max; i++) {
		uint8_t differ = byte_at(t, a, i) ^ byte_at(t, b, i);

		if (differ) {
			size_t at = i * 8 + (size_t)__builtin_clz(differ) - 24;

			return at < max ? at : max;
		}
	}
	return max;
}

static void free_below(struct trie_node *n)
{
	/* Chains of nodes that have one child, such as nested ranges, are followed without recursion. */
	while (n) {
		struct trie_node *next = n->child[0] ? n->child[0] : n->child[1];

		if (n->child[0])
			free_below(n->child[1]);
		free(n);
		n = next;
	}
}

void trie_done(struct trie *t)
{
	free_below(t->root);
	t->root = NULL;
}

static struct trie_node *node_new(const uint8_t *first, size_t bits)
{
	struct trie_node *n = calloc(1, sizeof(*n));

	if (n) {
		n->first = first;
		n->bits = bits;
	}
	return n;
}

/* Puts a node of `bits` bits where *link leads to a longer key that shares just these. */
static struct trie_node *branch(const struct trie *t, struct trie_node **link, size_t bits)
{
	struct trie_node *n = node_new((*link)->first, bits);

	if (n) {
		n->child[bit_at(t, (*link)->first, bits)] = *link;
		*link = n;
	}
	return n;
}

int trie_slot(struct trie *t, const void *key, size_t bits, void ***ret_value)
{
	const uint8_t *first = first_byte(t, key, bits);
	struct trie_node **link = &t->root, *n;
	size_t same = 0;

	while ((n = *link)) {
		same = common(t, first, n->first, same, bits < n->bits ? bits : n->bits);
		if (same < n->bits)
			n = branch(t, link, same);
		if (!n)
			return -ENOMEM;
		if (same == bits)
			break;
		link = &n->child[bit_at(t, first, same)];
	}
	if (!n)
		n = *link = node_new(first, bits);
	if (!n)
		return -ENOMEM;
	*ret_value = &n->value;
	return 0;
}

void trie_walk_init(struct trie_walk *w, const struct trie *t)
{
	*w = (struct trie_walk){.node = t->root};
}

void *trie_walk_next(struct trie_walk *w, const struct trie *t, const void *text, size_t bits)
{
	const uint8_t *first = first_byte(t, text, bits);

	while (w->node && w->node->bits <= bits) {
		const struct trie_node *n = w->node;

		w->node = n->bits < bits ? n->child[bit_at(t, first, n->bits)] : NULL;
		/* Branches are passed on one bit's word; the key of a value tells whether the way was right. */
		if (!n->value)
			continue;
		if (common(t, first, n->first, w->checked, n->bits) < n->bits)
			break;
		w->checked = n->bits;
		return n->value;
	}
	w->node = NULL;
	return NULL;
}
