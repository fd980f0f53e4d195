/* SPDX-License-Identifier: Apache-2.0 */
/* Life and scope of an AuthorizationPolicy. Made by source/, held by policy_set.c. */
#include "engine/model/policy.h"

#include <stdlib.h>
#include <string.h>

struct policy *policy_new(void)
{
	struct policy *p = calloc(1, sizeof(*p));

	if (p)
		p->refs = 1;
	return p;
}

struct policy *policy_ref(struct policy *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

static void free_field(struct policy_field *f)
{
	for (size_t i = 0; i < f->n_strings; i++)
		free(f->strings[i].text);
	free(f->strings);
	free(f->ranges);
	free(f->ports);
	free(f->path);
}

static void free_clause(struct policy_clause *c)
{
	for (size_t i = 0; i < c->n_fields; i++)
		free_field(&c->fields[i]);
	free(c->fields);
}

static void free_rule(struct policy_rule *r)
{
	for (size_t g = 0; g < r->n_groups; g++) {
		for (size_t c = 0; c < r->groups[g].n_clauses; c++)
			free_clause(&r->groups[g].clauses[c]);
		free(r->groups[g].clauses);
	}
	free(r->groups);
}

static void free_labels(struct policy_label *labels, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(labels[i].key);
		free(labels[i].value);
	}
	free(labels);
}

struct policy *policy_unref(struct policy *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (size_t i = 0; i < p->n_rules; i++)
		free_rule(&p->rules[i]);
	free(p->rules);
	free_labels(p->labels, p->n_labels);
	free(p->namespace_);
	free(p->name);
	free(p->created);
	free(p);
	return NULL;
}

struct peer_auth *peer_auth_new(void)
{
	struct peer_auth *p = calloc(1, sizeof(*p));

	if (p)
		p->refs = 1;
	return p;
}

struct peer_auth *peer_auth_ref(struct peer_auth *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

struct peer_auth *peer_auth_unref(struct peer_auth *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	free_labels(p->labels, p->n_labels);
	free(p->ports);
	free(p->namespace_);
	free(p->name);
	free(p->created);
	free(p);
	return NULL;
}

/* Every label of the selector is on the workload. */
static bool selects(const struct policy_label *want, size_t n_want, const struct policy_label *have, size_t n_have)
{
	for (size_t w = 0; w < n_want; w++) {
		size_t h = 0;

		while (h < n_have && (strcmp(want[w].key, have[h].key) || strcmp(want[w].value, have[h].value)))
			h++;
		if (h == n_have)
			return false;
	}
	return true;
}

bool policy_covers(const struct policy *p, const char *namespace_, const struct policy_label *labels, size_t n_labels)
{
	if (p->scope == SCOPE_MESH)
		return true;
	if (!p->every_namespace && strcmp(p->namespace_, namespace_))
		return false;
	return p->scope != SCOPE_WORKLOAD || selects(p->labels, p->n_labels, labels, n_labels);
}

bool peer_auth_covers(const struct peer_auth *p, const char *namespace_, const struct policy_label *labels,
		      size_t n_labels)
{
	if (p->scope == SCOPE_MESH)
		return true;
	/* Other than a policy's, a selector in the root namespace reaches no further than that namespace. */
	if (strcmp(p->namespace_, namespace_))
		return false;
	return p->scope != SCOPE_WORKLOAD || selects(p->labels, p->n_labels, labels, n_labels);
}
