/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and documents that cannot be read, and what of the store depends on them: what such a file held before stays in
 * force, and what may be a policy that nobody has read well yet counts as one of the whole mesh that never was valid.
 * Called by folder.c and lint.c as they read, and by store.c at the end of a round.
 */
#include "engine/base/array.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "store_private.h"

#include <ctype.h>
#include <string.h>

/* A document, or a whole file, that may be a policy. */
struct unreadable {
	char *file;
	int line;
	char *reason;
	char *text; /* NULL: it was not to be had */
	size_t len;
	bool news; /* the read before did not find it */
};

/* --- what a text names --- */

/* The length of `word` at the beginning of a text, in any case and also in UTF-16; 0: it does not begin so. */
static size_t begins_with(const char *text, size_t len, const char *word)
{
	size_t at = 0;

	for (; *word; at++) {
		if (at == len)
			return 0;
		if (text[at] && tolower((unsigned char)text[at]) != tolower((unsigned char)*word))
			return 0;
		word += text[at] != '\0';
	}
	return at;
}

static bool is_part_of_name(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '.';
}

static bool contains(const char *text, size_t len, const char *word, bool whole)
{
	for (size_t i = 0; i < len; i++) {
		size_t n = begins_with(text + i, len - i, word);

		if (n && (!whole ||
			  ((!i || !is_part_of_name(text[i - 1])) && (i + n == len || !is_part_of_name(text[i + n])))))
			return true;
	}
	return false;
}

/* What nobody can look at may be one, too. */
static bool may_be_policy(const char *text, size_t len)
{
	return !text || contains(text, len, "AuthorizationPolicy", false) ||
	       contains(text, len, "PeerAuthentication", false) || contains(text, len, "security.istio.io", false);
}

/* --- as they are read --- */

static void unreadable_done(struct unreadable *u)
{
	free(u->file);
	free(u->reason);
	free(u->text);
}

void store_forget_unreadable(struct store *s)
{
	for (size_t i = 0; i < s->n_unreadable; i++)
		unreadable_done(&s->unreadable[i]);
	free(s->unreadable);
	s->unreadable = NULL;
	s->n_unreadable = 0;
}

/* Kept to the end of the round, when it is known what else was seen. */
static void remember(struct store *s, const char *file, const struct yaml_error *error, bool news)
{
	struct unreadable *u = array_grow(&s->unreadable, &s->n_unreadable, sizeof(*u));

	if (u) {
		u->file = strdup(file);
		u->line = error->line;
		u->reason = strdup(error->reason);
		u->text = error->text ? malloc(error->len + 1) : NULL;
		u->len = error->len;
		u->news = news;
		if (u->text)
			memcpy(u->text, error->text, error->len);
	}
	if (u && u->file && u->reason)
		return;
	if (u)
		unreadable_done(&s->unreadable[--s->n_unreadable]);
	store_disturbed(s);
}

static bool holds_any(const struct store *s, const char *file)
{
	struct table_iter it = {0};
	const struct resource *r;

	while ((r = table_next(&s->resources, &it)))
		if (!r->unreadable && r->file && !strcmp(r->file, file))
			return true;
	return false;
}

static void keep(struct store *s, const char *file, const struct yaml_error *error, bool policy)
{
	cJSON *p = store_add_problem(s, NULL, RESOURCE_REFUSED, file, error->line, error->reason);
	bool kept = holds_any(s, file), news;

	cJSON_AddBoolToObject(p, STORE_KEPT, kept);
	if (policy)
		cJSON_AddTrueToObject(p, STORE_MAY_BE_POLICY);
	news = store_is_news(s, p);
	if (policy)
		remember(s, file, error, news);
	if (news && !s->quiet)
		log_error("source", "%s%s:%d: %s; %s", policy ? "ALARM: " : "", file, error->line, error->reason,
			  kept ? "what this file held before stays in force" : "nothing of this document is in force");
}

void store_put_broken(struct store *s, const char *file, const struct yaml_error *error)
{
	keep(s, file, error, may_be_policy(error->text, error->len));
}

void store_keep_file(struct store *s, const char *file, int e)
{
	struct yaml_error error = {0};

	/* Another read, soon, may have it. */
	if (e == -ENOMEM)
		store_disturbed(s);
	snprintf(error.reason, sizeof(error.reason), "%s", e == -EFBIG ? "file is too large" : strerror(-e));
	/* What is no file holds no policy. */
	keep(s, file, &error, e != -EISDIR && e != -EINVAL);
}

/* --- at the end of a round --- */

bool store_may_be_unreadable(const struct store *s, const struct resource *r)
{
	const cJSON *p;

	cJSON_ArrayForEach(p, s->problems) {
		if (r->file && cJSON_GetObjectItemCaseSensitive(p, STORE_KEPT) &&
		    !strcmp(decode_string(p, "file", ""), r->file))
			return true;
	}
	return false;
}

/* The new one that names it, else any new one. */
static const struct unreadable *find_hiding(const struct store *s, const struct resource *r, bool *ret_named)
{
	const struct unreadable *any = NULL;

	for (size_t i = 0; i < s->n_unreadable; i++) {
		const struct unreadable *u = &s->unreadable[i];

		if (!u->news)
			continue;
		any = any ? any : u;
		*ret_named = u->text && *r->name && contains(u->text, u->len, r->name, true);
		if (*ret_named)
			return u;
	}
	*ret_named = false;
	return any;
}

/* A policy that is gone in the same moment may have been renamed and broken in one step. It is that file's from now on,
 * and explains what cannot be read there only if the text names it. */
static void take_in(struct store *s)
{
	struct table_iter it = {0};
	struct resource *r;

	while (s->n_unreadable && (r = table_next(&s->resources, &it))) {
		const struct unreadable *u;
		char *file;
		bool named;

		if (r->seen || r->unreadable || !is_policy_kind(r->kind) || store_may_be_unreadable(s, r))
			continue;
		u = find_hiding(s, r, &named);
		file = u ? strdup(u->file) : NULL;
		if (!file)
			continue;
		if (!s->quiet)
			log_error("source", "ALARM: %s:%d: %s is gone, and may be what cannot be read here: it stays",
				  u->file, u->line, r->key);
		free(r->file);
		r->file = file;
		r->line = u->line;
		r->stray = !named;
	}
}

/* Policies that the file held and that were not seen this time: each explains one document that cannot be read. */
static size_t count_missing(const struct store *s, const char *file)
{
	struct table_iter it = {0};
	const struct resource *r;
	size_t n = 0;

	while ((r = table_next(&s->resources, &it)))
		n += !r->seen && !r->unreadable && !r->stray && is_policy_kind(r->kind) && r->file &&
		     !strcmp(r->file, file);
	return n;
}

void store_settle_unreadable(struct store *s)
{
	take_in(s);
	for (size_t i = 0, n; i < s->n_unreadable; i += n) {
		const struct unreadable *u = &s->unreadable[i];

		/* Those of one file stand together. */
		for (n = 1; i + n < s->n_unreadable && !strcmp(s->unreadable[i + n].file, u->file);)
			n++;
		if (n > count_missing(s, u->file) && store_add_unreadable(s, u->file, u->line, u->reason) < 0)
			store_disturbed(s);
	}
}
