/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All policies in force. The store's resources come in; for each workload of this node a compiled set leaves, which is
 * the same object as long as its policies are the same documents. Called by assemble.c and policy_dump.c.
 */
#include "policies.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <string.h>

struct shared_set {
	void **list; /* its key: the policies, NULL, the peer authentications */
	size_t n;
	struct policy_set *set; /* keeps all of them alive, so that no pointer comes back as something else */
	bool used;		/* in this round */
};

/* --- entries --- */

static void entry_free(struct policy_entry *e)
{
	policy_unref(e->policy);
	peer_auth_unref(e->peer_auth);
	free(e->key);
	free(e);
}

static struct policy_entry *find_or_add(struct policies *p, const char *key)
{
	struct policy_entry *e = table_get_str(&p->entries, key);

	if (e)
		return e;
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->key = strdup(key);
	if (e->key && !table_put(&p->entries, e->key, strlen(e->key), e, NULL))
		return e;
	entry_free(e);
	return NULL;
}

/* In the root namespace without a selector that could be read. */
static bool is_bad_mesh_policy(const struct policy *p)
{
	return p->closed && p->scope == SCOPE_MESH;
}

bool policies_is_bad_mesh(const struct policy_entry *e)
{
	return e->policy ? is_bad_mesh_policy(e->policy) : e->peer_auth->closed && e->peer_auth->scope == SCOPE_MESH;
}

static void say_closed(const struct policies *p, const struct resource *r, const struct policy_entry *e)
{
	bool spared = policies_is_bad_mesh(e) && !p->cfg->bad_mesh_policy_deny;

	if (!policies_decides(p, e))
		return;
	log_error("source", "ALARM: %s%s: %s", r->unreadable ? r->reason : e->key,
		  r->unreadable ? "" : " never was valid",
		  spared ? "workloads that have no other policy are left open, the others deny new connections"
			 : "new connections to what it is for are denied");
}

/* A document that was checked, or one that was refused and never valid. */
static int decode(const struct policies *p, const struct resource *r, struct policy_entry *e)
{
	bool policy = r->kind == KIND_AUTHORIZATION_POLICY;
	struct check c = {0};
	int v = -EINVAL;

	if (r->tree)
		v = policy ? policy_decode(&c, r->tree, &p->mesh.names, &e->policy)
			   : peer_auth_decode(&c, r->tree, &p->mesh.names, &e->peer_auth);
	if (v != -EINVAL)
		return v;
	if (r->unreadable)
		e->policy = policy_new_unreadable(r->file, &p->mesh.names);
	else if (policy)
		e->policy = policy_decode_closed(r->tree ? r->tree : r->invalid, &p->mesh.names);
	else
		e->peer_auth = peer_auth_decode_closed(r->tree ? r->tree : r->invalid, &p->mesh.names);
	if (!e->policy && !e->peer_auth)
		return -ENOMEM;
	say_closed(p, r, e);
	return 0;
}

static int refresh(struct policies *p, const struct resource *r)
{
	struct policy_entry *e = find_or_add(p, r->key);
	int v;

	if (!e)
		return -ENOMEM;
	e->seen = true;
	if ((e->policy || e->peer_auth) && e->version == r->version && e->mesh_version == p->mesh.version)
		return 0;
	e->policy = policy_unref(e->policy);
	e->peer_auth = peer_auth_unref(e->peer_auth);
	v = decode(p, r, e);
	if (v == 0) {
		e->version = r->version;
		e->mesh_version = p->mesh.version;
	}
	return v;
}

/* After a round in which memory ran out there may be entries without an object. */
bool policies_decides(const struct policies *p, const struct policy_entry *e)
{
	if (e->policy)
		return !e->policy->target_ref && (e->policy->closed || e->policy->action != POLICY_AUDIT);
	return e->peer_auth && (e->peer_auth->scope != SCOPE_WORKLOAD ||
				strcmp(e->peer_auth->namespace_, p->mesh.names.root_namespace));
}

static int by_name(const char *namespace_a, const char *name_a, const char *namespace_b, const char *name_b)
{
	int r = strcmp(namespace_a, namespace_b);

	return r ? r : strcmp(name_a, name_b);
}

static int by_policy(const void *a, const void *b)
{
	const struct policy *x = *(struct policy *const *)a, *y = *(struct policy *const *)b;

	return by_name(x->namespace_, x->name, y->namespace_, y->name);
}

static int by_auth(const void *a, const void *b)
{
	const struct peer_auth *x = *(struct peer_auth *const *)a, *y = *(struct peer_auth *const *)b;

	return by_name(x->namespace_, x->name, y->namespace_, y->name);
}

/* In one order, so that the same policies are the same list. */
static int list_entries(struct policies *p)
{
	struct policy **list = calloc(p->entries.n + 1, sizeof(*list));
	struct peer_auth **auths = calloc(p->entries.n + 1, sizeof(*auths));
	struct table_iter it = {0};
	struct policy_entry *e;

	if (!list || !auths) {
		free(list);
		free(auths);
		return -ENOMEM;
	}
	p->n_list = p->n_auths = 0;
	while ((e = table_next(&p->entries, &it))) {
		if (policies_decides(p, e) && e->policy)
			list[p->n_list++] = e->policy;
		else if (policies_decides(p, e))
			auths[p->n_auths++] = e->peer_auth;
	}
	qsort(list, p->n_list, sizeof(*list), by_policy);
	qsort(auths, p->n_auths, sizeof(*auths), by_auth);
	free(p->list);
	free(p->auths);
	p->list = list;
	p->auths = auths;
	return 0;
}

static void drop_unseen(struct policies *p)
{
	struct table_iter it = {0};
	struct policy_entry *e;

	while ((e = table_next(&p->entries, &it))) {
		if (e->seen)
			continue;
		table_del(&p->entries, e->key, strlen(e->key));
		entry_free(e);
	}
}

int policies_update(struct policies *p, const struct policies_config *cfg, const char *trust_domain,
		    const struct store *s)
{
	struct table_iter it = {0};
	const struct resource *r;
	struct policy_entry *e;
	int v;

	p->cfg = cfg;
	while ((e = table_next(&p->entries, &it)))
		e->seen = false;
	it = (struct table_iter){0};
	v = mesh_settings_update(&p->mesh, &cfg->mesh, trust_domain, s);
	while (v == 0 && (r = table_next(&s->resources, &it)))
		if (is_policy_kind(r->kind) && (r->tree || r->invalid || r->unreadable))
			v = refresh(p, r);
	if (v < 0)
		return v;
	drop_unseen(p);
	return list_entries(p);
}

/* --- sets --- */

/* A workload's labels as the model compares them: borrowed texts in an array to be freed. NULL: out of memory. */
static struct policy_label *labels_of(const cJSON *labels, size_t *ret_n)
{
	struct policy_label *list = calloc((size_t)cJSON_GetArraySize(labels) + 1, sizeof(*list));
	const cJSON *i;
	size_t n = 0;

	if (!list)
		return NULL;
	cJSON_ArrayForEach(i, labels) {
		if (cJSON_IsString(i))
			list[n++] = (struct policy_label){i->string, i->valuestring};
	}
	*ret_n = n;
	return list;
}

/* Who has one already: what a policy of the mesh says beside it could only take away from that. */
static bool has_policy(struct policy *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!is_bad_mesh_policy(list[i]) && !list[i]->dry_run)
			return true;
	return false;
}

/* The policies of one namespace: they stand together, as the lists are in the order of namespaces. */
static size_t find_namespace(const struct policies *p, const char *namespace_, size_t *ret_end)
{
	size_t low = 0, high = p->n_list;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(p->list[middle]->namespace_, namespace_) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (high = low; high < p->n_list && !strcmp(p->list[high]->namespace_, namespace_);)
		high++;
	*ret_end = high;
	return low;
}

static size_t choose_of(const struct policies *p, const char *of, const char *namespace_,
			const struct policy_label *labels, size_t n, struct policy **chosen)
{
	size_t end, k = 0;

	for (size_t i = find_namespace(p, of, &end); i < end; i++)
		if (policy_covers(p->list[i], namespace_, labels, n))
			chosen[k++] = p->list[i];
	return k;
}

/* Only those of the workload's own namespace and of the root namespace can be for it. In the order of the list. */
static size_t choose(const struct policies *p, const char *namespace_, const struct policy_label *labels, size_t n,
		     struct policy **chosen)
{
	const char *root = p->mesh.names.root_namespace;
	int order = strcmp(root, namespace_);
	size_t k = choose_of(p, order < 0 ? root : namespace_, namespace_, labels, n, chosen), kept = 0;

	if (order)
		k += choose_of(p, order < 0 ? namespace_ : root, namespace_, labels, n, chosen + k);
	if (p->cfg->bad_mesh_policy_deny || has_policy(chosen, k))
		return k;
	for (size_t i = 0; i < k; i++)
		if (!is_bad_mesh_policy(chosen[i]))
			chosen[kept++] = chosen[i];
	return kept;
}

static size_t choose_auths(const struct policies *p, const char *namespace_, const struct policy_label *labels,
			   size_t n, bool bad_mesh, struct peer_auth **chosen)
{
	size_t k = 0;

	for (size_t i = 0; i < p->n_auths; i++) {
		const struct peer_auth *a = p->auths[i];

		if (peer_auth_covers(a, namespace_, labels, n) && (bad_mesh || !a->closed || a->scope != SCOPE_MESH))
			chosen[k++] = p->auths[i];
	}
	return k;
}

static struct shared_set *set_free(struct shared_set *s)
{
	if (!s)
		return NULL;
	policy_set_unref(s->set);
	free(s->list);
	free(s);
	return NULL;
}

/* Compiles what is not there yet. `list` is policies, NULL, peer authentications. */
static struct shared_set *find_or_compile(struct policies *p, void **list, size_t n_policies, size_t n_auths)
{
	size_t n = n_policies + 1 + n_auths, size = n * sizeof(*list);
	struct shared_set *s = table_get(&p->sets, list, size);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->list = malloc(size);
	s->n = n;
	if (!s->list)
		return set_free(s);
	memcpy(s->list, list, size);
	if (policy_set_new((struct policy *const *)(void *)list, n_policies,
			   (struct peer_auth *const *)(void *)(list + n_policies + 1), n_auths, p->cfg->l7_deny,
			   &s->set) < 0 ||
	    table_put(&p->sets, s->list, size, s, NULL) < 0)
		return set_free(s);
	return s;
}

int policies_set_of(struct policies *p, const char *namespace_, const cJSON *labels, struct policy_set **ret)
{
	_cleanup_free_ void **list = calloc(p->n_list + p->n_auths + 1, sizeof(*list));
	size_t n_labels = 0, n, n_auths;
	_cleanup_free_ struct policy_label *have = labels_of(labels, &n_labels);
	struct shared_set *s;

	if (!list || !have)
		return -ENOMEM;
	n = choose(p, namespace_, have, n_labels, (struct policy **)(void *)list);
	list[n] = NULL;
	n_auths = choose_auths(p, namespace_, have, n_labels,
			       p->cfg->bad_mesh_policy_deny || has_policy((struct policy *const *)(void *)list, n),
			       (struct peer_auth **)(void *)(list + n + 1));
	if (!n && !n_auths) {
		*ret = NULL;
		return 0;
	}
	s = find_or_compile(p, list, n, n_auths);
	if (!s)
		return -ENOMEM;
	s->used = true;
	*ret = policy_set_ref(s->set);
	return 0;
}

static void drop_sets(struct policies *p, bool all)
{
	struct table_iter it = {0};
	struct shared_set *s;

	while ((s = table_next(&p->sets, &it))) {
		if (all || !s->used) {
			table_del(&p->sets, s->list, s->n * sizeof(*s->list));
			set_free(s);
		} else {
			s->used = false;
		}
	}
}

void policies_end(struct policies *p, bool commit)
{
	struct table_iter it = {0};
	struct shared_set *s;

	/* Of a round that failed those in force are not known: all stay until the next one. */
	if (commit)
		drop_sets(p, false);
	else
		while ((s = table_next(&p->sets, &it)))
			s->used = false;
}

void policies_done(struct policies *p)
{
	struct table_iter it = {0};
	struct policy_entry *e;

	drop_sets(p, true);
	while ((e = table_next(&p->entries, &it))) {
		table_del(&p->entries, e->key, strlen(e->key));
		entry_free(e);
	}
	table_done(&p->entries);
	table_done(&p->sets);
	mesh_settings_done(&p->mesh);
	free(p->list);
	free(p->auths);
	*p = (struct policies){0};
}

/* --- for policy_dump.c --- */

const struct policy_entry *policies_find(const struct policies *p, const char *key)
{
	return table_get_str(&p->entries, key);
}

bool policies_covers(const struct policy_entry *e, const char *namespace_, const cJSON *labels)
{
	size_t n = 0;
	_cleanup_free_ struct policy_label *have = labels_of(labels, &n);

	if (!have)
		return false;
	return e->policy ? policy_covers(e->policy, namespace_, have, n)
			 : peer_auth_covers(e->peer_auth, namespace_, have, n);
}
