/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The resources in force. Documents come in from folder.c, lint.c and store_file.c, are judged by decode.c and kept;
 * trees are read by assemble.c and its neighbours, and lists leave for people.
 */
#include "store_private.h"
#include "engine/base/array.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const state_names[] = {"applied", "warned", "refused", "ignored", "not enforced"};

static struct resource *resource_free(struct resource *r)
{
	if (!r)
		return NULL;
	cJSON_Delete(r->tree);
	cJSON_Delete(r->invalid);
	cJSON_Delete(r->warnings);
	free(r->key);
	free(r->kind_name);
	free(r->namespace_);
	free(r->name);
	free(r->file);
	free(r->reason);
	free(r);
	return NULL;
}

char *resource_key(const char *kind, const char *namespace_, const char *name)
{
	char *key = NULL;

	return asprintf(&key, "%s/%s/%s", kind, namespace_, name) < 0 ? NULL : key;
}

char *store_unreadable_key(const char *file)
{
	return resource_key("unreadable", "", file);
}

static const char *namespace_of(const cJSON *tree, const char *kind)
{
	const cJSON *meta = cJSON_GetObjectItemCaseSensitive(tree, "metadata");

	return !strcmp(kind, "Namespace") || !strcmp(kind, "Node") ? "" : decode_string(meta, "namespace", "default");
}

void store_begin(struct store *s)
{
	struct table_iter it = {0};
	struct resource *r;

	while ((r = table_next(&s->resources, &it)))
		r->seen = false;
	cJSON_Delete(s->before);
	s->before = s->problems;
	s->problems = cJSON_CreateArray();
	s->changed = s->disturbed = s->outlived = false;
	store_forget_unreadable(s);
}

static const char *consequence(const struct resource *r)
{
	return r->tree ? "; its last good version stays in force" : r->invalid ? "; it closes what it is for" : "";
}

static void say(const struct store *s, const struct resource *r)
{
	if (s->quiet)
		return;
	if (r->state == RESOURCE_REFUSED)
		log_error("source", "%s%s:%d: %s refused: %s%s", is_refused_update(r) ? "ALARM: " : "", r->file,
			  r->line, r->key, r->reason ? r->reason : "?", consequence(r));
	else if (r->state == RESOURCE_WARNED || r->state == RESOURCE_NOT_ENFORCED)
		log_warn("source", "%s:%d: %s: %s", r->file, r->line, r->key, r->reason ? r->reason : "?");
}

static const struct names unnamed = {"", "", ""};

static struct names names_of(const cJSON *tree)
{
	const cJSON *meta = cJSON_GetObjectItemCaseSensitive(tree, "metadata");
	const char *kind = decode_string(tree, "kind", "");

	return (struct names){kind, cJSON_IsObject(tree) ? namespace_of(tree, kind) : "",
			      decode_string(meta, "name", "")};
}

/* Takes the key over. NULL: out of memory. */
static struct resource *find_or_add(struct store *s, char *key, const struct names *names)
{
	struct resource *r = table_get_str(&s->resources, key);

	if (r) {
		free(key);
		return r;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		free(key);
		return NULL;
	}
	r->key = key;
	r->kind_name = strdup(names->kind);
	r->namespace_ = strdup(names->namespace_);
	r->name = strdup(names->name);
	r->state = RESOURCE_APPLIED;
	if (!r->kind_name || !r->namespace_ || !r->name || table_put(&s->resources, key, strlen(key), r, NULL))
		return resource_free(r);
	return r;
}

static void replace(char **to, char *value)
{
	free(*to);
	*to = value;
}

static enum resource_state state_of(int verdict, const struct judgement *j)
{
	return verdict == -EINVAL    ? RESOURCE_REFUSED
	       : verdict == -ENOTSUP ? RESOURCE_IGNORED
	       : verdict == -ENOSYS  ? RESOURCE_NOT_ENFORCED
	       : j->reason	     ? RESOURCE_WARNED
				     : RESOURCE_APPLIED;
}

/* Takes over a tree in the place of another, which stays when it is the same. */
static void exchange(struct store *s, struct resource *r, cJSON **place, cJSON *tree)
{
	if (*place && cJSON_Compare(*place, tree, true)) {
		cJSON_Delete(tree);
		return;
	}
	cJSON_Delete(*place);
	*place = tree;
	r->version = ++s->version;
	s->changed = true;
}

/* --- what a file held --- */

void store_hold(struct store *s, struct store_held *held)
{
	s->holding = held;
	if (held) {
		store_held_done(held);
		held->whole = true;
	}
}

void store_held_done(struct store_held *held)
{
	free(held->list);
	*held = (struct store_held){0};
}

static void note(struct store *s, struct resource *r)
{
	struct resource **place = s->holding ? array_grow(&s->holding->list, &s->holding->n, sizeof(*place)) : NULL;

	if (place)
		*place = r;
	else if (s->holding)
		s->holding->whole = false;
}

/* Memory ran out over a document: what it was before stays, and another read is due. */
static void forgo(struct store *s)
{
	store_disturbed(s);
	if (s->holding)
		s->holding->whole = false;
}

bool store_see_again(const struct store_held *held)
{
	if (!held->whole)
		return false;
	for (size_t i = 0; i < held->n; i++)
		if (held->list[i]->seen)
			return false;
	for (size_t i = 0; i < held->n; i++)
		held->list[i]->seen = true;
	return true;
}

/* --- documents --- */

/* Takes over tree and judgement. */
static void settle(struct store *s, struct resource *r, const char *file, int line, cJSON *tree, int verdict,
		   struct judgement *j)
{
	enum resource_state state = state_of(verdict, j);
	bool news = r->state != state || !r->reason != !j->reason || (j->reason && strcmp(r->reason, j->reason)) ||
		    !r->file;

	note(s, r);
	r->seen = true;
	r->stray = false;
	r->line = line;
	r->state = state;
	replace(&r->file, strdup(file));
	replace(&r->reason, j->reason);
	cJSON_Delete(r->warnings);
	r->warnings = j->warnings;
	if (state != RESOURCE_REFUSED) {
		r->kind = j->kind;
		cJSON_Delete(r->invalid);
		r->invalid = NULL;
		exchange(s, r, &r->tree, tree);
	} else if (!r->tree && is_policy_kind(j->kind)) {
		r->kind = j->kind;
		exchange(s, r, &r->invalid, tree);
	} else {
		cJSON_Delete(tree);
	}
	if (news)
		say(s, r);
}

int store_add_unreadable(struct store *s, const char *file, int line, const char *reason)
{
	_cleanup_free_ char *why = NULL;
	char *key = store_unreadable_key(file);
	struct resource *r = key ? find_or_add(s, key, &unnamed) : NULL;

	if (!r || asprintf(&why, "%s:%d: %s; it may be a policy, and never was read well", file, line, reason) < 0)
		return -ENOMEM;
	r->seen = r->unreadable = true;
	r->kind = KIND_AUTHORIZATION_POLICY;
	r->state = RESOURCE_REFUSED;
	if (r->reason && !strcmp(r->reason, why))
		return 0;
	r->line = line;
	replace(&r->file, strdup(file));
	replace(&r->reason, take_ptr(why));
	r->version = ++s->version;
	s->changed = true;
	return r->file ? 0 : -ENOMEM;
}

/* The items of a list such as the API server and kubectl give out; those of a PodList say no kind of their own. */
static bool put_list(struct store *s, const char *file, int line, const cJSON *tree, const char *kind)
{
	const cJSON *items = cJSON_GetObjectItemCaseSensitive(tree, "items"), *i;
	size_t n = strlen(kind);

	if (n < 4 || strcmp(kind + n - 4, "List") || !cJSON_IsArray(items))
		return false;
	cJSON_ArrayForEach(i, items) {
		_cleanup_free_ char *of = strndup(kind, n - 4);
		cJSON *item = cJSON_Duplicate(i, true);

		if (of && *of && cJSON_IsObject(item) && !cJSON_GetObjectItemCaseSensitive(item, "kind")) {
			cJSON_AddStringToObject(item, "kind", of);
			cJSON_DeleteItemFromObjectCaseSensitive(item, "apiVersion");
			cJSON_AddStringToObject(item, "apiVersion", decode_string(tree, "apiVersion", ""));
		}
		store_put(s, file, i->valueint > 0 && !cJSON_IsNumber(i) ? i->valueint : line, item);
	}
	return true;
}

/* Of what Warren does not use only the name is kept: Secrets are not copied to the state file, nor large CRDs
 * held in memory. Resources of the mesh are kept whole, for the version that will use them. */
static cJSON *name_only(cJSON *tree)
{
	const cJSON *meta = cJSON_GetObjectItemCaseSensitive(tree, "metadata");
	const char *api = decode_string(tree, "apiVersion", "");
	cJSON *o, *m;

	o = cJSON_CreateObject();
	m = cJSON_CreateObject();
	cJSON_AddStringToObject(o, "apiVersion", api);
	cJSON_AddStringToObject(o, "kind", decode_string(tree, "kind", ""));
	cJSON_AddStringToObject(m, "name", decode_string(meta, "name", ""));
	if (decode_string(meta, "namespace", NULL))
		cJSON_AddStringToObject(m, "namespace", decode_string(meta, "namespace", ""));
	cJSON_AddItemToObject(o, "metadata", m);
	cJSON_Delete(tree);
	return o;
}

cJSON *store_add_problem(struct store *s, const struct names *names, enum resource_state state, const char *file,
			 int line, const char *reason)
{
	cJSON *p = cJSON_CreateObject();

	names = names ? names : &unnamed;
	cJSON_AddStringToObject(p, "kind", names->kind);
	cJSON_AddStringToObject(p, "namespace", names->namespace_);
	cJSON_AddStringToObject(p, "name", names->name);
	cJSON_AddStringToObject(p, "file", file);
	cJSON_AddNumberToObject(p, "line", line);
	cJSON_AddStringToObject(p, "state", state_names[state]);
	cJSON_AddStringToObject(p, "reason", reason);
	cJSON_AddItemToArray(s->problems, p);
	if (s->holding)
		s->holding->whole = false;
	return p;
}

bool store_is_news(const struct store *s, const cJSON *problem)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, s->before) {
		if (cJSON_Compare(i, problem, true))
			return false;
	}
	return true;
}

/* The first of two with one name counts. */
static void put_twice(struct store *s, const struct resource *r, const struct names *names, const char *file, int line)
{
	_cleanup_free_ char *reason = NULL;
	const cJSON *p;

	if (asprintf(&reason, "%s is already defined in %s:%d, which counts", r->key, r->file, r->line) < 0)
		reason = NULL;
	p = store_add_problem(s, names, RESOURCE_REFUSED, file, line, reason ? reason : "already defined");
	if (!s->quiet && store_is_news(s, p))
		log_error("source", "%s:%d: refused: %s", file, line, reason ? reason : r->key);
}

void store_put(struct store *s, const char *file, int line, cJSON *tree)
{
	struct names names = names_of(tree);
	_cleanup_free_ char *place = NULL;
	struct judgement j;
	struct resource *r;
	int verdict;
	char *key;

	if (put_list(s, file, line, tree, names.kind)) {
		cJSON_Delete(tree);
		return;
	}
	verdict = decode_check(tree, &j);
	/* A document without a name is known by its place. */
	if (asprintf(&place, "%s:%d", file, line) < 0)
		place = NULL;
	key = !place ? NULL
		     : resource_key(*names.kind ? names.kind : "?", names.namespace_, *names.name ? names.name : place);
	r = key ? find_or_add(s, key, &names) : NULL;
	if (r && !r->seen) {
		/* Who wrote which field last: the larger part of many a resource, and nobody's business here.
		 */
		cJSON_DeleteItemFromObjectCaseSensitive(cJSON_GetObjectItemCaseSensitive(tree, "metadata"),
							"managedFields");
		settle(s, r, file, line, verdict == -ENOTSUP ? name_only(tree) : tree, verdict, &j);
		return;
	}
	if (r)
		put_twice(s, r, &names, file, line);
	else
		forgo(s);
	cJSON_Delete(tree);
	cJSON_Delete(j.warnings);
	free(j.reason);
}

void store_pass_over(struct store *s, const char *folder, const char *reason)
{
	const cJSON *p = store_add_problem(s, NULL, RESOURCE_IGNORED, folder, 0, reason);

	if (!s->quiet && store_is_news(s, p))
		log_debug("source", "%s: %s", folder, reason);
}

void store_disturbed(struct store *s)
{
	s->disturbed = true;
}

/* Whether it is in force though the folder does not say it any more: nobody but the store knows it then. */
static bool outlives(const struct resource *r)
{
	return r->tree && (!r->seen || r->state == RESOURCE_REFUSED);
}

/* Whether this read leaves it in force. */
static bool stays(const struct store *s, struct resource *r)
{
	if (r->seen || (!r->unreadable && store_may_be_unreadable(s, r))) {
		r->missed = 0;
		return true;
	}
	return !r->unreadable && s->disturbed && ++r->missed < STORE_MISSES;
}

void store_end(struct store *s)
{
	struct table_iter it = {0};
	struct resource *r;

	store_settle_unreadable(s);
	store_forget_unreadable(s);
	while ((r = table_next(&s->resources, &it))) {
		if (stays(s, r)) {
			s->outlived |= outlives(r) && !r->alone;
			r->alone = outlives(r);
			continue;
		}
		s->changed = true;
		table_del(&s->resources, r->key, strlen(r->key));
		resource_free(r);
	}
}

void store_done(struct store *s)
{
	struct table_iter it = {0};
	struct resource *r;

	while ((r = table_next(&s->resources, &it))) {
		table_del(&s->resources, r->key, strlen(r->key));
		resource_free(r);
	}
	table_done(&s->resources);
	store_forget_unreadable(s);
	cJSON_Delete(s->problems);
	cJSON_Delete(s->before);
	*s = (struct store){0};
}

size_t store_count(const struct store *s)
{
	return s->resources.n;
}

/* --- for people --- */

cJSON *resource_row(const struct resource *r, const char *state, const char *reason)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "kind", r->kind_name);
	cJSON_AddStringToObject(o, "namespace", r->namespace_);
	cJSON_AddStringToObject(o, "name", r->name);
	cJSON_AddStringToObject(o, "file", r->file ? r->file : "");
	cJSON_AddNumberToObject(o, "line", r->line);
	cJSON_AddStringToObject(o, "state", state);
	if (reason)
		cJSON_AddStringToObject(o, "reason", reason);
	if (r->state == RESOURCE_REFUSED)
		cJSON_AddBoolToObject(o, STORE_KEPT, r->tree != NULL);
	return o;
}

static int by_place(const void *a, const void *b)
{
	const cJSON *const *left = a, *const *right = b;
	const cJSON *line = get(*left, "line"), *other = get(*right, "line");
	int r = strcmp(decode_string(*left, "file", ""), decode_string(*right, "file", ""));

	return r || !line || !other ? r : line->valueint - other->valueint;
}

/* As it came when memory is short. */
void store_sort(cJSON *array)
{
	size_t n = (size_t)cJSON_GetArraySize(array), i = 0;
	_cleanup_free_ cJSON **items = calloc(n + 1, sizeof(*items));
	cJSON *item;

	if (!items)
		return;
	while ((item = cJSON_DetachItemFromArray(array, 0)))
		items[i++] = item;
	qsort(items, i, sizeof(*items), by_place);
	for (n = 0; n < i; n++)
		cJSON_AddItemToArray(array, items[n]);
}

cJSON *store_dump(const struct store *s)
{
	cJSON *array = cJSON_CreateArray(), *i;
	struct table_iter it = {0};
	struct resource *r;

	while ((r = table_next(&s->resources, &it))) {
		cJSON *o;

		/* Listed with the problems, by its place. */
		if (r->unreadable)
			continue;
		o = resource_row(r, state_names[r->state], r->reason);
		if (r->warnings)
			cJSON_AddItemToObject(o, "warnings", cJSON_Duplicate(r->warnings, true));
		cJSON_AddItemToArray(array, o);
	}
	cJSON_ArrayForEach(i, s->problems) {
		cJSON_AddItemToArray(array, cJSON_Duplicate(i, true));
	}
	store_sort(array);
	return array;
}
