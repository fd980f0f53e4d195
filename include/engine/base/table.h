/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash table from byte-string keys to pointers: chained, grows by doubling, keyed hash (SipHash-1-3 with a random key
 * per process) so that a peer cannot choose colliding keys. Keys are borrowed: they must live in the value and not
 * change while it is in the table. Not thread-safe.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct table_node {
	struct table_node *next;
	const void *key;
	uint32_t key_len;
	uint32_t hash;
	void *value;
};

struct table {
	struct table_node **buckets;
	size_t n_buckets, n;
};

/* An all-zero struct table is a valid, empty one. Frees the nodes, never the values. */
void table_done(struct table *t);
void *table_get(const struct table *t, const void *key, size_t key_len);
/* Adds or replaces; *ret_old (may be NULL) receives the value that was there before, or NULL. -ENOMEM. */
int table_put(struct table *t, const void *key, size_t key_len, void *value, void **ret_old);
/* Removes and returns the value, NULL when there was none. */
void *table_del(struct table *t, const void *key, size_t key_len);
/* Iteration: the iterator starts at zeroes; returns the next value or NULL at the end. The value just returned may be
 * deleted. */
struct table_iter {
	size_t bucket;
	struct table_node *next;
};
void *table_next(const struct table *t, struct table_iter *it);
/* The process-keyed hash itself. */
uint32_t table_hash(const void *key, size_t len);

static inline void *table_get_str(const struct table *t, const char *key)
{
	return table_get(t, key, __builtin_strlen(key));
}
