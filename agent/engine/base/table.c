/* SPDX-License-Identifier: Apache-2.0 */
/* Hash table from byte-string keys to pointers; see the header. Called by model, source, pool, admin. */
#include "engine/base/table.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define TABLE_MIN_BUCKETS 16

static uint64_t hash_key[2];
static pthread_once_t hash_key_once = PTHREAD_ONCE_INIT;

static void hash_key_make(void)
{
	if (getrandom(hash_key, sizeof(hash_key), 0) != (ssize_t)sizeof(hash_key))
		abort();
}

static inline uint64_t rotl(uint64_t x, int b)
{
	return (x << b) | (x >> (64 - b));
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", with the reduced rounds used for tables). */
uint32_t table_hash(const void *key, size_t len)
{
	const uint8_t *p = key;
	uint64_t m, v[4];
	size_t left = len;

	pthread_once(&hash_key_once, hash_key_make);
	v[0] = hash_key[0] ^ 0x736f6d6570736575ull;
	v[1] = hash_key[1] ^ 0x646f72616e646f6dull;
	v[2] = hash_key[0] ^ 0x6c7967656e657261ull;
	v[3] = hash_key[1] ^ 0x7465646279746573ull;
	for (; left >= 8; left -= 8, p += 8) {
		memcpy(&m, p, 8);
		v[3] ^= m;
		sip_round(v);
		v[0] ^= m;
	}
	m = (uint64_t)len << 56;
	for (size_t i = 0; i < left; i++)
		m |= (uint64_t)p[i] << (8 * i);
	v[3] ^= m;
	sip_round(v);
	v[0] ^= m;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	m = v[0] ^ v[1] ^ v[2] ^ v[3];
	return (uint32_t)(m ^ (m >> 32));
}

void table_done(struct table *t)
{
	for (size_t i = 0; i < t->n_buckets; i++) {
		struct table_node *n = t->buckets[i];

		while (n) {
			struct table_node *next = n->next;

			free(n);
			n = next;
		}
	}
	free(t->buckets);
	*t = (struct table){0};
}

/* The link that points at the node with this key, or the NULL link at the end of its chain. */
static struct table_node **find(const struct table *t, const void *key, size_t len, uint32_t hash)
{
	struct table_node **link = &t->buckets[hash & (t->n_buckets - 1)];

	while (*link && ((*link)->hash != hash || (*link)->key_len != len || memcmp((*link)->key, key, len)))
		link = &(*link)->next;
	return link;
}

void *table_get(const struct table *t, const void *key, size_t key_len)
{
	struct table_node *n;

	if (!t->n)
		return NULL;
	n = *find(t, key, key_len, table_hash(key, key_len));
	return n ? n->value : NULL;
}

static int resize(struct table *t, size_t n_buckets)
{
	struct table_node **buckets = calloc(n_buckets, sizeof(*buckets));

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < t->n_buckets; i++) {
		struct table_node *n = t->buckets[i];

		while (n) {
			struct table_node *next = n->next;

			n->next = buckets[n->hash & (n_buckets - 1)];
			buckets[n->hash & (n_buckets - 1)] = n;
			n = next;
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->n_buckets = n_buckets;
	return 0;
}

int table_put(struct table *t, const void *key, size_t key_len, void *value, void **ret_old)
{
	uint32_t hash = table_hash(key, key_len);
	struct table_node **link, *n;

	if (ret_old)
		*ret_old = NULL;
	if (t->n >= t->n_buckets && resize(t, t->n_buckets ? t->n_buckets * 2 : TABLE_MIN_BUCKETS) && !t->n_buckets)
		return -ENOMEM;
	link = find(t, key, key_len, hash);
	if (*link) {
		if (ret_old)
			*ret_old = (*link)->value;
		/* The old key lives in the old value, which the caller may now free. */
		(*link)->key = key;
		(*link)->value = value;
		return 0;
	}
	n = malloc(sizeof(*n));
	if (!n)
		return -ENOMEM;
	*n = (struct table_node){.key = key, .key_len = (uint32_t)key_len, .hash = hash, .value = value};
	*link = n;
	t->n++;
	return 0;
}

void *table_del(struct table *t, const void *key, size_t key_len)
{
	struct table_node **link, *n;
	void *value;

	if (!t->n)
		return NULL;
	link = find(t, key, key_len, table_hash(key, key_len));
	n = *link;
	if (!n)
		return NULL;
	*link = n->next;
	value = n->value;
	free(n);
	t->n--;
	return value;
}

void *table_next(const struct table *t, struct table_iter *it)
{
	struct table_node *n = it->next;

	while (!n && it->bucket < t->n_buckets)
		n = t->buckets[it->bucket++];
	if (!n)
		return NULL;
	it->next = n->next;
	return n->value;
}
