/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests judged without an agent: files come in, what an agent would say of each document leaves. Called by
 * warrenctl.
 */
#include "engine/source/lint.h"
#include "engine/base/cleanup.h"
#include "file.h"
#include "store.h"
#include "yaml.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct reading {
	struct store *store;
	const char *file;
};

static void document(void *arg, cJSON *tree, int line)
{
	struct reading *r = arg;

	store_put(r->store, r->file, line, tree);
}

static void broken(void *arg, const struct yaml_error *error)
{
	struct reading *r = arg;

	store_put_broken(r->store, r->file, error);
}

static int judge(struct store *s, const char *file)
{
	static const struct yaml_handlers handlers = {document, broken};
	_cleanup_free_ char *text = NULL;
	struct reading r = {s, file};
	size_t len = 0;
	int e = strcmp(file, "-") ? file_read(AT_FDCWD, file, &text, &len, NULL)
				  : file_read_stream(STDIN_FILENO, &text, &len);

	if (e < 0)
		return e;
	return yaml_parse(text, len, &handlers, &r) == -ENOMEM ? -ENOMEM : 0;
}

static void add_consequence(cJSON *problem)
{
	char text[400];

	snprintf(text, sizeof(text),
		 "%.200s; it names a policy: unless it was read well before, it closes as one of "
		 "the whole mesh that never was valid",
		 decode_string(problem, "reason", "?"));
	cJSON_ReplaceItemInObjectCaseSensitive(problem, "reason", cJSON_CreateString(text));
}

/* Nothing was read before, and nothing is in force here. */
static cJSON *dump(const struct store *s)
{
	cJSON *list = store_dump(s), *i;

	cJSON_ArrayForEach(i, list) {
		cJSON_DeleteItemFromObjectCaseSensitive(i, STORE_KEPT);
		if (get(i, STORE_MAY_BE_POLICY))
			add_consequence(i);
	}
	return list;
}

int source_lint(const char *const *files, size_t n, size_t *ret_bad, struct cJSON **ret)
{
	struct store s = {.quiet = true};
	int r = 0;

	store_begin(&s);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = judge(&s, files[i]);
		if (r < 0)
			*ret_bad = i;
	}
	if (r == 0)
		*ret = dump(&s);
	store_done(&s);
	return r;
}
