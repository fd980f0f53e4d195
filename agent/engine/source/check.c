/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shapes of fields. A document's tree comes in; what is wrong with it, with field and line, is kept in a struct check.
 * Called by decode.c and the decoders of single kinds.
 */
#include "check.h"
#include "engine/base/cleanup.h"
#include "spelling.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_LEN 253
/* A document with more mistakes than this is not read to the end by anybody. */
#define WARNINGS_MAX 20

/* Numbers and truth values have no room for a line. */
static int line_of(const cJSON *at)
{
	return at && (cJSON_IsString(at) || cJSON_IsObject(at) || cJSON_IsArray(at)) && at->valueint > 0 ? at->valueint
													 : 0;
}

const cJSON *check_at(const cJSON *v, const cJSON *o)
{
	return line_of(v) ? v : o;
}

static void refuse(struct check *c, const cJSON *at, const char *fmt, va_list ap)
{
	int line = line_of(at), n;

	if (c->refused)
		return;
	c->refused = true;
	n = vsnprintf(c->reason, sizeof(c->reason), fmt, ap);
	if (line && n > 0 && (size_t)n < sizeof(c->reason))
		snprintf(c->reason + n, sizeof(c->reason) - (size_t)n, " (line %d)", line);
}

bool check_refuse(struct check *c, const cJSON *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	refuse(c, at, fmt, ap);
	va_end(ap);
	return false;
}

int check_invalid(struct check *c, const cJSON *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	refuse(c, at, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

void check_warn(struct check *c, const cJSON *at, const char *fmt, ...)
{
	char text[sizeof(c->reason)];
	va_list ap;
	cJSON *o;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!c->refused && !c->warned)
		memcpy(c->reason, text, sizeof(text));
	c->warned = true;
	if (!c->warnings || cJSON_GetArraySize(c->warnings) >= WARNINGS_MAX)
		return;
	o = cJSON_CreateObject();
	cJSON_AddNumberToObject(o, "line", line_of(at));
	cJSON_AddStringToObject(o, "reason", text);
	cJSON_AddItemToArray(c->warnings, o);
}

int check_unused(struct check *c, const char *why)
{
	snprintf(c->reason, sizeof(c->reason), "%s", why);
	return -ENOSYS;
}

/* An item of a list has no name: that it is no mapping is said elsewhere. */
static bool is_among(const char *word, const char *const names[])
{
	if (!word)
		return true;
	for (const char *const *n = names; *n; n++)
		if (!strcmp(*n, word))
			return true;
	return false;
}

void check_known(struct check *c, const char *where, const cJSON *o, const char *const names[])
{
	const cJSON *i;

	cJSON_ArrayForEach(i, o) {
		if (!cJSON_IsNull(i) && !is_among(i->string, names))
			check_warn(c, check_at(i, o), "%s%s%s: unknown field, ignored", where, *where ? "." : "",
				   i->string);
	}
}

const char *check_suggest(const char *word, const char *const names[], char *buf, size_t size)
{
	*buf = '\0';
	/* Of two rather the one whose capitals alone differ. */
	for (const char *const *n = names; *n; n++)
		if (spelling_near(word, *n) && (!*buf || !strcasecmp(word, *n)))
			snprintf(buf, size, ", did you mean %s?", *n);
	return buf;
}

void check_hint(struct check *c, const char *where, const cJSON *o, const char *const used[])
{
	const cJSON *i;
	char hint[80];

	cJSON_ArrayForEach(i, o) {
		if (!is_among(i->string, used) && *check_suggest(i->string, used, hint, sizeof(hint)))
			check_warn(c, check_at(i, o), "%s.%s: unknown field%s", where, i->string, hint);
	}
}

/* ", did you mean X?", or else what there is to choose from. */
static const char *advice(const char *word, const char *const names[], char *buf, size_t size)
{
	size_t n = 0;

	if (*check_suggest(word, names, buf, size))
		return buf;
	for (size_t i = 0; names[i] && n < size; i++)
		n += (size_t)snprintf(buf + n, size - n, "%s %s", i ? "," : "; known:", names[i]);
	return buf;
}

enum strictness { MISSPELT, MISSPELT_OR_EMPTY, UNKNOWN_OR_EMPTY };

static bool fields_of(struct check *c, const char *where, const cJSON *o, const char *const names[],
		      enum strictness refused)
{
	const char *dot = *where ? "." : "";
	const cJSON *i;
	char hint[320];

	cJSON_ArrayForEach(i, o) {
		const cJSON *at = check_at(i, o);

		if (!is_among(i->string, names)) {
			if (refused == UNKNOWN_OR_EMPTY || *check_suggest(i->string, names, hint, sizeof(hint)))
				return check_refuse(c, at, "%s%s%s: unknown field%s", where, dot, i->string,
						    advice(i->string, names, hint, sizeof(hint)));
			check_warn(c, at, "%s%s%s: unknown field, ignored", where, dot, i->string);
		} else if (cJSON_IsNull(i) && i->string && refused != MISSPELT) {
			return check_refuse(c, at,
					    "%s%s%s: has no value: give it one, indent what belongs to it deeper, "
					    "or leave it out",
					    where, dot, i->string);
		}
	}
	return true;
}

bool check_misspelt(struct check *c, const char *where, const cJSON *o, const char *const names[])
{
	return fields_of(c, where, o, names, MISSPELT);
}

bool check_near(struct check *c, const char *where, const cJSON *o, const char *const names[])
{
	return fields_of(c, where, o, names, MISSPELT_OR_EMPTY);
}

bool check_only(struct check *c, const char *where, const cJSON *o, const char *const names[])
{
	return fields_of(c, where, o, names, UNKNOWN_OR_EMPTY);
}

bool check_string(struct check *c, const cJSON *o, const char *path, const char *name, bool required)
{
	const cJSON *v = get(o, name);

	if (!v)
		return !required || check_refuse(c, o, "%s.%s: missing", path, name);
	return cJSON_IsString(v) || check_refuse(c, check_at(v, o), "%s.%s: must be a text", path, name);
}

bool check_bool(struct check *c, const cJSON *o, const char *path, const char *name)
{
	const cJSON *v = get(o, name);

	return !v || cJSON_IsBool(v) || check_refuse(c, check_at(v, o), "%s.%s: must be true or false", path, name);
}

bool check_list(struct check *c, const cJSON *o, const char *path, const char *name)
{
	const cJSON *v = get(o, name);

	return !v || cJSON_IsArray(v) || check_refuse(c, check_at(v, o), "%s.%s: must be a list", path, name);
}

bool check_object(struct check *c, const cJSON *o, const char *path, const char *name, bool required)
{
	const cJSON *v = get(o, name);

	if (!v)
		return !required || check_refuse(c, o, "%s%s%s: missing", path, *path ? "." : "", name);
	return cJSON_IsObject(v) ||
	       check_refuse(c, check_at(v, o), "%s%s%s: must be a mapping", path, *path ? "." : "", name);
}

bool check_port(struct check *c, const cJSON *v, const cJSON *at, const char *path)
{
	return (cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= 65535 &&
		v->valuedouble == (double)(int)v->valuedouble) ||
	       check_refuse(c, at, "%s: must be a port from 1 to 65535", path);
}

bool check_address(struct check *c, const cJSON *v, const char *path)
{
	struct ip_addr a;

	return (cJSON_IsString(v) && !ip_addr_parse(v->valuestring, &a)) ||
	       check_refuse(c, v, "%s: not an IP address: %s", path, cJSON_IsString(v) ? v->valuestring : "?");
}

bool check_name(struct check *c, const cJSON *o, const char *path, const char *name, bool required)
{
	const char *v;

	if (!check_string(c, o, path, name, required))
		return false;
	v = decode_string(o, name, NULL);
	if (!v)
		return true;
	if (!*v || strlen(v) > NAME_MAX_LEN || strspn(v, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(v))
		return check_refuse(c, get(o, name), "%s.%s: not a valid name: %s", path, name, v);
	return true;
}

bool check_texts(struct check *c, const cJSON *o, const char *path, bool nulls)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, o) {
		if (!cJSON_IsString(i) && !(nulls && cJSON_IsNull(i)))
			return check_refuse(c, o, "%s.%s: must be a text; put it in quotes", path, i->string);
	}
	return true;
}
