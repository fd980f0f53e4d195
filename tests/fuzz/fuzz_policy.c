/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary bytes as a policy set and its subjects: the compiled set, the cache and the explanation say what the plain
 * reference says. */
#include "tests/unit/policy_reference.h"

#include <cjson/cJSON.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two bytes a choice; zeroes once they are used up. */
static uint32_t below(struct chance *c, uint32_t limit)
{
	uint32_t v = 0;

	for (int i = 0; i < 2 && c->n_bytes; i++, c->n_bytes--)
		v = v << 8 | *c->bytes++;
	return v % limit;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct chance chance = {.below = below, .bytes = data, .n_bytes = size};
	struct policy_cache *cache = policy_cache_new(1);
	struct reference_case c;
	struct policy_verdict v;
	struct policy_set *s;
	char identity[160];
	cJSON *o;

	chance_case(&chance, &c, 40, 6);
	s = reference_case_set(&c);
	for (int i = 0; i < 3; i++) {
		chance_subject(&chance, &c.subject, identity, sizeof(identity));
		policy_evaluate(s, &c.subject, &v);
		if (reference_differs(&c, &v))
			abort();
		policy_cache_evaluate(cache, s, &c.subject, &v);
		if (reference_differs(&c, &v))
			abort();
		o = policy_explain(s, &c.subject);
		if (cJSON_IsTrue(cJSON_GetObjectItem(o, "allow")) != v.allow)
			abort();
		cJSON_Delete(o);
	}
	policy_set_unref(s);
	reference_case_done(&c);
	policy_cache_free(cache);
	return 0;
}
