/* SPDX-License-Identifier: Apache-2.0 */
/* YAML to cJSON by libyaml's events, with limits. Bytes come in, trees and errors leave, a document at a time; called
 * by source.c, lint.c and mesh_config.c. */
#include "yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* A value that may be named again in the same document. */
struct anchor {
	char *name;
	const cJSON *value;
};

struct reader {
	yaml_parser_t parser;
	struct yaml_error error;
	const char *text; /* of the piece being parsed */
	size_t len;
	int first; /* its first line in the file */
	int nodes;
	struct anchor anchors[YAML_ANCHORS_MAX];
	int n_anchors;
	cJSON *merged; /* values of merge keys */
};

/* Lines are counted from 1, those of libyaml from 0. */
static int line_of(const struct reader *r, const yaml_mark_t *mark)
{
	return r->first + (int)mark->line + 1;
}

static int fail(struct reader *r, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(struct reader *r, int line, const char *fmt, ...)
{
	va_list ap;

	r->error.line = line;
	va_start(ap, fmt);
	vsnprintf(r->error.reason, sizeof(r->error.reason), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* The commonest slip of all, which libyaml has no name for: the line where the parser stopped is indented by a tab. */
static bool is_indented_by_tab(const struct reader *r)
{
	const char *at = r->text, *end = r->text + r->len;

	for (size_t line = r->parser.problem_mark.line; line && at; line--) {
		at = memchr(at, '\n', (size_t)(end - at));
		at = at ? at + 1 : NULL;
	}
	while (at && at < end && *at == ' ')
		at++;
	return at && at < end && *at == '\t';
}

static int next(struct reader *r, yaml_event_t *ev)
{
	int line;

	if (yaml_parser_parse(&r->parser, ev))
		return 0;
	line = line_of(r, &r->parser.problem_mark);
	/* Of bytes that are no text libyaml knows the offset only. */
	if (r->parser.error == YAML_READER_ERROR) {
		line = r->first + 1;
		for (size_t i = 0; i < r->parser.problem_offset && i < r->len; i++)
			line += r->text[i] == '\n';
	}
	if (r->parser.error == YAML_SCANNER_ERROR && is_indented_by_tab(r))
		return fail(r, line, "not YAML: indented by a tab, where only blanks may be");
	return fail(r, line, "not YAML: %s", r->parser.problem ? r->parser.problem : "it cannot be read");
}

/* Plain scalars follow YAML's core schema; quoted ones are strings. */
static cJSON *scalar(const yaml_event_t *ev)
{
	const char *v = (const char *)ev->data.scalar.value;
	size_t len = ev->data.scalar.length;
	char *end;

	if (strlen(v) != len)
		return NULL;
	if (ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !ev->data.scalar.tag) {
		if (!len || !strcmp(v, "~") || !strcmp(v, "null") || !strcmp(v, "Null") || !strcmp(v, "NULL"))
			return cJSON_CreateNull();
		if (!strcmp(v, "true") || !strcmp(v, "True") || !strcmp(v, "TRUE"))
			return cJSON_CreateTrue();
		if (!strcmp(v, "false") || !strcmp(v, "False") || !strcmp(v, "FALSE"))
			return cJSON_CreateFalse();
		if (strspn(v, "0123456789+-.eE") == len && strpbrk(v, "0123456789")) {
			double d = strtod(v, &end);

			if (!*end)
				return cJSON_CreateNumber(d);
		}
	}
	return cJSON_CreateString(v);
}

static int node(struct reader *r, yaml_event_t *ev, int depth, cJSON **ret);

/* --- anchors and aliases --- */

static void anchors_forget(struct reader *r)
{
	while (r->n_anchors)
		free(r->anchors[--r->n_anchors].name);
	cJSON_Delete(r->merged);
	r->merged = NULL;
}

/* Remembered when complete, so that no value can hold itself. */
static int anchor_keep(struct reader *r, const char *name, const cJSON *value, int line)
{
	char *copy;

	if (r->n_anchors == YAML_ANCHORS_MAX)
		return fail(r, line, "too many anchors in one document");
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	r->anchors[r->n_anchors++] = (struct anchor){copy, value};
	return 0;
}

/* Counts the values that a copy would add; false when they are too many or too deep. */
static bool may_copy(struct reader *r, const cJSON *value, int depth)
{
	const cJSON *i;

	if (++r->nodes > YAML_NODES_MAX || depth > YAML_DEPTH_MAX)
		return false;
	cJSON_ArrayForEach(i, value) {
		if (!may_copy(r, i, depth + 1))
			return false;
	}
	return true;
}

/* An alias is a copy: the limits on values and depth hold for what it stands for, not for how it is written. */
static int alias(struct reader *r, const char *name, int line, int depth, cJSON **ret)
{
	/* The last one of that name (YAML 1.2, 7.1). */
	for (int i = r->n_anchors - 1; i >= 0; i--) {
		if (strcmp(r->anchors[i].name, name))
			continue;
		if (!may_copy(r, r->anchors[i].value, depth))
			return fail(r, line, "the alias *%s: too many values in one file, or nested too deeply", name);
		*ret = cJSON_Duplicate(r->anchors[i].value, true);
		return *ret ? 0 : -ENOMEM;
	}
	return fail(r, line, "the alias *%s names no anchor before it in this document", name);
}

/* Copies of the children of `from` that `object` has not got. */
static int merge_one(struct reader *r, cJSON *object, const cJSON *from, int line, int depth)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, from) {
		if (cJSON_GetObjectItemCaseSensitive(object, i->string))
			continue;
		if (!may_copy(r, i, depth))
			return fail(r, line, "<<: too many values in one file, or nested too deeply");
		cJSON_AddItemToObject(object, i->string, cJSON_Duplicate(i, true));
	}
	return 0;
}

/* `<<` (YAML 1.1 merge key, which kubectl and Helm read): a mapping, or a list of them of which the first counts. */
static int merge(struct reader *r, cJSON *object, const cJSON *from, int line, int depth)
{
	const cJSON *i;
	int e = 0;

	if (cJSON_IsObject(from))
		return merge_one(r, object, from, line, depth);
	if (!cJSON_IsArray(from))
		return fail(r, line, "<<: must be a mapping or a list of mappings");
	cJSON_ArrayForEach(i, from) {
		if (!e)
			e = cJSON_IsObject(i) ? merge_one(r, object, i, line, depth)
					      : fail(r, line, "<<: must be a mapping or a list of mappings");
	}
	return e;
}

/* --- values --- */

static int sequence(struct reader *r, int line, int depth, cJSON **ret)
{
	cJSON *array = cJSON_CreateArray();
	int e = array ? 0 : -ENOMEM;

	while (!e) {
		yaml_event_t ev;
		cJSON *item = NULL;

		e = next(r, &ev);
		if (e)
			break;
		if (ev.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&ev);
			array->valueint = line;
			*ret = array;
			return 0;
		}
		e = node(r, &ev, depth, &item);
		yaml_event_delete(&ev);
		if (!e)
			cJSON_AddItemToArray(array, item);
	}
	cJSON_Delete(array);
	return e;
}

static int mapping(struct reader *r, int line, int depth, cJSON **ret)
{
	cJSON *object = cJSON_CreateObject(), *merged = NULL;
	int e = object ? 0 : -ENOMEM, merged_line = 0;

	while (!e) {
		yaml_event_t key, ev;
		cJSON *item = NULL;
		const char *name;

		e = next(r, &key);
		if (e)
			break;
		if (key.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&key);
			object->valueint = line;
			/* Last: what the mapping says itself counts, wherever it stands. */
			e = merged ? merge(r, object, merged, merged_line, depth) : 0;
			if (e)
				break;
			*ret = object;
			return 0;
		}
		if (key.type != YAML_SCALAR_EVENT) {
			e = fail(r, line_of(r, &key.start_mark),
				 "a key must be a plain name; a template must be filled in first");
			yaml_event_delete(&key);
			break;
		}
		name = (const char *)key.data.scalar.value;
		bool is_merge = key.data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !strcmp(name, "<<");
		/* Which of two equal keys counts differs between parsers: somebody would be surprised. */
		if (cJSON_GetObjectItemCaseSensitive(object, name) || (is_merge && merged))
			e = fail(r, line_of(r, &key.start_mark), "the same key twice: %s", name);
		if (!e)
			e = next(r, &ev);
		if (!e) {
			e = node(r, &ev, depth, &item);
			yaml_event_delete(&ev);
		}
		if (!e && is_merge) {
			/* Kept to the end of the document: what is inside may have an anchor. */
			merged = item;
			merged_line = line_of(r, &key.start_mark);
			cJSON_AddItemToArray(r->merged, merged);
		} else if (!e) {
			cJSON_AddItemToObject(object, name, item);
		}
		yaml_event_delete(&key);
	}
	cJSON_Delete(object);
	return e;
}

static int node(struct reader *r, yaml_event_t *ev, int depth, cJSON **ret)
{
	int line = line_of(r, &ev->start_mark), e = 0;
	const yaml_char_t *anchor = NULL;

	if (++r->nodes > YAML_NODES_MAX)
		return fail(r, line, "too many values in one file");
	if (depth >= YAML_DEPTH_MAX)
		return fail(r, line, "nested too deeply");
	switch (ev->type) {
	case YAML_SCALAR_EVENT:
		anchor = ev->data.scalar.anchor;
		*ret = scalar(ev);
		if (!*ret)
			return fail(r, line, "a value holds a NUL character");
		if (cJSON_IsString(*ret))
			(*ret)->valueint = line;
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = ev->data.sequence_start.anchor;
		e = sequence(r, line, depth + 1, ret);
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = ev->data.mapping_start.anchor;
		e = mapping(r, line, depth + 1, ret);
		break;
	case YAML_ALIAS_EVENT:
		return alias(r, (const char *)ev->data.alias.anchor, line, depth, ret);
	default:
		return fail(r, line, "not a value");
	}
	if (e || !anchor)
		return e;
	e = anchor_keep(r, (const char *)anchor, *ret, line);
	if (e) {
		cJSON_Delete(*ret);
		*ret = NULL;
	}
	return e;
}

static int piece(struct reader *r, const struct yaml_handlers *to, void *arg)
{
	bool end = false;
	int e = 0;

	if (!yaml_parser_initialize(&r->parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&r->parser, (const unsigned char *)r->text, r->len);
	while (!e && !end) {
		yaml_event_t ev;
		cJSON *tree = NULL;

		e = next(r, &ev);
		if (e)
			break;
		if (ev.type == YAML_STREAM_END_EVENT) {
			end = true;
		} else if (ev.type != YAML_STREAM_START_EVENT && ev.type != YAML_DOCUMENT_START_EVENT &&
			   ev.type != YAML_DOCUMENT_END_EVENT) {
			int line = line_of(r, &ev.start_mark);

			r->merged = cJSON_CreateArray();
			e = r->merged ? node(r, &ev, 0, &tree) : -ENOMEM;
			anchors_forget(r);
			if (!e && cJSON_IsNull(tree))
				cJSON_Delete(tree);
			else if (!e)
				to->document(arg, tree, line);
		}
		yaml_event_delete(&ev);
	}
	yaml_parser_delete(&r->parser);
	return e;
}

static bool is_marker(const char *line, size_t len, const char *marker)
{
	return len >= 3 && !memcmp(line, marker, 3) && (len == 3 || strchr(" \t\r\n", line[3]));
}

/* The length of the first document with all that precedes it: no line inside one may start with "---" or "..."
 * (YAML 1.2, 9.1.2), so that what is broken inside cannot hide where the next begins. *ret_lines: the lines in it. */
static size_t first_document(const char *text, size_t len, int *ret_lines)
{
	bool begun = false;
	size_t at = 0;
	int lines = 0;

	while (at < len) {
		const char *line = text + at, *stop = memchr(line, '\n', len - at);
		size_t n = stop ? (size_t)(stop - line) + 1 : len - at, blank = 0;

		if (begun && is_marker(line, n, "---"))
			break;
		at += n;
		lines++;
		if (is_marker(line, n, "..."))
			break;
		while (blank < n && strchr(" \t\r\n", line[blank]))
			blank++;
		/* Comments and directives belong to the document that follows. */
		begun |= blank < n && line[blank] != '#' && line[0] != '%';
	}
	*ret_lines = lines;
	return at;
}

static bool is_utf16(const char *text, size_t len)
{
	return len >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2));
}

int yaml_parse(const char *text, size_t len, const struct yaml_handlers *to, void *arg)
{
	struct reader r = {0};
	int bad = 0;

	for (size_t at = 0; at < len; at += r.len) {
		int lines = 0, e;

		r.text = text + at;
		r.len = is_utf16(text, len) ? len : first_document(r.text, len - at, &lines);
		e = piece(&r, to, arg);
		if (e == -ENOMEM)
			return e;
		if (e) {
			r.error.text = r.text;
			r.error.len = r.len;
			to->broken(arg, &r.error);
			bad = e;
		}
		r.first += lines;
	}
	return bad;
}
