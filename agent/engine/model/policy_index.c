/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of many policies, compiled so that few of them are compared. Called by policy_set.c. */
#include "policy_private.h"
#include "engine/base/cleanup.h"

struct policy_index {
	struct policy *const *policies;
	size_t n;
	enum l7_effect l7;
};

int policy_index_new(struct policy *const *policies, size_t n, enum l7_effect l7, struct policy_index **ret)
{
	struct policy_index *ix = calloc(1, sizeof(*ix));
	struct policy **copy = calloc(n + 1, sizeof(*copy));

	if (!ix || !copy) {
		free(ix);
		free(copy);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		copy[i] = policies[i];
	ix->policies = copy;
	ix->n = n;
	ix->l7 = l7;
	*ret = ix;
	return 0;
}

struct policy_index *policy_index_free(struct policy_index *ix)
{
	if (ix)
		free((void *)ix->policies);
	free(ix);
	return NULL;
}

bool policy_index_find(const struct policy_index *ix, const struct policy_view *v, struct policy_near *ret)
{
	struct policy_near best = {.rule = -1};

	for (size_t i = 0; i < ix->n; i++) {
		for (size_t r = 0; r < ix->policies[i]->n_rules; r++) {
			struct policy_near near = {.policy = ix->policies[i], .rule = (int)r};

			if (policy_rule_matches(&ix->policies[i]->rules[r], ix->l7, v, &near)) {
				*ret = near;
				return true;
			}
			if (!best.policy || near.groups > best.groups)
				best = near;
		}
	}
	*ret = best;
	return false;
}
