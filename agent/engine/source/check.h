/* SPDX-License-Identifier: Apache-2.0 */
/* What the checks of all kinds of resources share: the findings, and the common shapes of fields. Private to source/.
 */
#pragma once
#include "resource.h"

#include <stddef.h>

/* Of one document. */
struct check {
	bool refused, warned;
	char reason[500]; /* the refusal, else the first warning */
	cJSON *warnings;  /* all of them: [{"line","reason"}]; NULL: only the first is wanted */
};

/* The first refusal is the one reported, with the line of `at` where that is known. Always false, for use as a
 * return value. */
bool check_refuse(struct check *c, const cJSON *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, always -EINVAL. */
int check_invalid(struct check *c, const cJSON *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void check_warn(struct check *c, const cJSON *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The one of the two whose line is known: a value, and what holds it. */
const cJSON *check_at(const cJSON *v, const cJSON *o);
/* The document is in order, and does nothing here: -ENOSYS. */
int check_unused(struct check *c, const char *why);

/* Warns of fields that are not among the names (NULL ends them). */
void check_known(struct check *c, const char *where, const cJSON *o, const char *const names[]);
/* Where the API has many more fields than Warren uses: warns of those alone that may be one of these. */
void check_hint(struct check *c, const char *where, const cJSON *o, const char *const used[]);
/* Refuses them, and fields without a value: what is unknown here could change who may talk to whom. */
bool check_only(struct check *c, const char *where, const cJSON *o, const char *const names[]);
/* Warns of them, and refuses those that look like a misspelt name. */
bool check_misspelt(struct check *c, const char *where, const cJSON *o, const char *const names[]);
/* The same, and refuses known ones without a value: a selector that is not one widens a policy. */
bool check_near(struct check *c, const char *where, const cJSON *o, const char *const names[]);
/* ", did you mean X?" for the name that a word is one slip away from, or "": into buf, which is returned. */
const char *check_suggest(const char *word, const char *const names[], char *buf, size_t size);

/* Each says whether the field `name` of o, whose own path is `path`, has that shape; an absent one has it unless it
 * is required. */
bool check_string(struct check *c, const cJSON *o, const char *path, const char *name, bool required);
bool check_bool(struct check *c, const cJSON *o, const char *path, const char *name);
bool check_list(struct check *c, const cJSON *o, const char *path, const char *name);
bool check_object(struct check *c, const cJSON *o, const char *path, const char *name, bool required);
/* Names become part of identities: RFC 1123 characters only. */
bool check_name(struct check *c, const cJSON *o, const char *path, const char *name, bool required);
/* Every member is a text (or null). */
bool check_texts(struct check *c, const cJSON *o, const char *path, bool nulls);
/* Of a value itself; `at` has the line. */
bool check_port(struct check *c, const cJSON *v, const cJSON *at, const char *path);
bool check_address(struct check *c, const cJSON *v, const char *path);
