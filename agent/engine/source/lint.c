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

	store_keep_file(r->store, r->file, error->line, error->reason);
}

static int judge(struct store *s, const char *file)
{
	static const struct yaml_handlers handlers = {document, broken};
	_cleanup_free_ char *text = NULL;
	struct reading r = {s, file};
	size_t len = 0;
	struct stat st;
	int e = strcmp(file, "-") ? file_read(AT_FDCWD, file, &text, &len, &st)
				  : file_read_stream(STDIN_FILENO, &text, &len);

	if (e < 0)
		return e;
	return yaml_parse(text, len, &handlers, &r) == -ENOMEM ? -ENOMEM : 0;
}

/* Nothing is in force here. */
static cJSON *dump(const struct store *s)
{
	cJSON *list = store_dump(s), *i;

	cJSON_ArrayForEach(i, list) {
		cJSON_DeleteItemFromObjectCaseSensitive(i, STORE_KEPT);
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
