/* SPDX-License-Identifier: Apache-2.0 */
/* YAML to cJSON by libyaml's events, with limits. Bytes come in, trees leave; called by source.c. */
#include "yaml.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	struct yaml_error *error;
	int nodes;
};

static int fail(struct reader *r, int line, const char *reason)
{
	r->error->line = line + 1;
	snprintf(r->error->reason, sizeof(r->error->reason), "%s", reason);
	return -EINVAL;
}

static int next(struct reader *r, yaml_event_t *ev)
{
	if (yaml_parser_parse(&r->parser, ev))
		return 0;
	return fail(r, (int)r->parser.problem_mark.line, r->parser.problem ? r->parser.problem : "not YAML");
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
			array->valueint = line + 1;
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
	cJSON *object = cJSON_CreateObject();
	int e = object ? 0 : -ENOMEM;

	while (!e) {
		yaml_event_t key, ev;
		cJSON *item = NULL;
		const char *name;

		e = next(r, &key);
		if (e)
			break;
		if (key.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&key);
			object->valueint = line + 1;
			*ret = object;
			return 0;
		}
		if (key.type != YAML_SCALAR_EVENT) {
			e = fail(r, (int)key.start_mark.line, "a key must be a plain name");
			yaml_event_delete(&key);
			break;
		}
		name = (const char *)key.data.scalar.value;
		/* Which of two equal keys counts differs between parsers: somebody would be surprised. */
		if (cJSON_GetObjectItemCaseSensitive(object, name))
			e = fail(r, (int)key.start_mark.line, "the same key twice");
		if (!e)
			e = next(r, &ev);
		if (!e) {
			e = node(r, &ev, depth, &item);
			yaml_event_delete(&ev);
		}
		if (!e)
			cJSON_AddItemToObject(object, name, item);
		yaml_event_delete(&key);
	}
	cJSON_Delete(object);
	return e;
}

static int node(struct reader *r, yaml_event_t *ev, int depth, cJSON **ret)
{
	int line = (int)ev->start_mark.line;

	if (++r->nodes > YAML_NODES_MAX)
		return fail(r, line, "too many values in one file");
	if (depth >= YAML_DEPTH_MAX)
		return fail(r, line, "nested too deeply");
	switch (ev->type) {
	case YAML_SCALAR_EVENT:
		*ret = scalar(ev);
		if (!*ret)
			return fail(r, line, "a value holds a NUL character");
		if (cJSON_IsString(*ret))
			(*ret)->valueint = line + 1;
		return 0;
	case YAML_SEQUENCE_START_EVENT:
		return sequence(r, line, depth + 1, ret);
	case YAML_MAPPING_START_EVENT:
		return mapping(r, line, depth + 1, ret);
	case YAML_ALIAS_EVENT:
		return fail(r, line, "YAML aliases are not supported in manifests");
	default:
		return fail(r, line, "not a value");
	}
}

int yaml_parse(const char *text, size_t len, void (*doc)(void *arg, cJSON *tree, int line), void *arg,
	       struct yaml_error *ret_error)
{
	struct reader r = {.error = ret_error};
	bool end = false;
	int e = 0;

	if (!yaml_parser_initialize(&r.parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	while (!e && !end) {
		yaml_event_t ev;
		cJSON *tree = NULL;

		e = next(&r, &ev);
		if (e)
			break;
		if (ev.type == YAML_STREAM_END_EVENT) {
			end = true;
		} else if (ev.type != YAML_STREAM_START_EVENT && ev.type != YAML_DOCUMENT_START_EVENT &&
			   ev.type != YAML_DOCUMENT_END_EVENT) {
			int line = (int)ev.start_mark.line + 1;

			e = node(&r, &ev, 0, &tree);
			if (!e && cJSON_IsNull(tree))
				cJSON_Delete(tree);
			else if (!e)
				doc(arg, tree, line);
		}
		yaml_event_delete(&ev);
	}
	yaml_parser_delete(&r.parser);
	return e;
}
