/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verdicts that one worker has seen: the same peer asks for the same port again and again. The whole key is kept and
 * compared, a hash alone would let peers collide on purpose. Called by proxy/inbound.
 */
#include "policy_private.h"
#include "engine/base/cleanup.h"
#include "engine/base/table.h"

#include <string.h>

/* Places an entry may take: few enough to be compared, enough that a cache half full hardly ever loses one. */
#define WAYS 8
/* Longer identities are evaluated each time. */
#define CACHED_IDENTITY_MAX 160

/* All bytes count, so there are none between the members. */
struct cache_key {
	uint64_t set; /* 0: an empty entry */
	const void *source_class;
	struct ip_addr destination;
	uint16_t port;
	uint16_t identity_len; /* UINT16_MAX: plaintext */
	uint32_t established;
	char identity[CACHED_IDENTITY_MAX];
};

struct cache_entry {
	struct cache_key key;
	struct policy_verdict verdict;
};

struct policy_cache {
	size_t n_buckets; /* a power of two */
	unsigned next_way;
	struct cache_entry entries[];
};

struct policy_cache *policy_cache_new(size_t entries)
{
	struct policy_cache *c;
	size_t n = 1;

	while (n * WAYS < entries)
		n *= 2;
	c = calloc(1, sizeof(*c) + n * WAYS * sizeof(*c->entries));
	if (c)
		c->n_buckets = n;
	return c;
}

struct policy_cache *policy_cache_free(struct policy_cache *c)
{
	free(c);
	return NULL;
}

/* The bytes of the key that count: all up to the identity's end. 0: not to be cached. */
static size_t make_key(struct cache_key *k, const struct policy_set *s, const struct policy_subject *subject)
{
	size_t len = subject->identity ? strlen(subject->identity) : 0;

	if (len > CACHED_IDENTITY_MAX)
		return 0;
	k->set = s->number;
	k->source_class = policy_set_source_class(s, &subject->source);
	k->destination = subject->destination.ip;
	k->port = subject->destination.port;
	k->identity_len = subject->identity ? (uint16_t)len : UINT16_MAX;
	k->established = subject->established;
	if (len)
		memcpy(k->identity, subject->identity, len);
	return offsetof(struct cache_key, identity) + len;
}

void policy_cache_evaluate(struct policy_cache *c, const struct policy_set *s, const struct policy_subject *subject,
			   struct policy_verdict *ret)
{
	struct cache_entry *bucket;
	struct cache_key key;
	size_t len = s ? make_key(&key, s, subject) : 0;

	if (!len) {
		policy_evaluate(s, subject, ret);
		return;
	}
	bucket = &c->entries[(table_hash(&key, len) & (c->n_buckets - 1)) * WAYS];
	for (size_t i = 0; i < WAYS; i++) {
		if (!memcmp(&bucket[i].key, &key, len)) {
			*ret = bucket[i].verdict;
			return;
		}
	}
	bucket += c->next_way++ % WAYS;
	policy_evaluate(s, subject, &bucket->verdict);
	memcpy(&bucket->key, &key, len);
	*ret = bucket->verdict;
}
