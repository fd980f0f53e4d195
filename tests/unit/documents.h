/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documents of one kind from the text of their spec, and the names of a mesh: for the tests of the decoders in
 * agent/engine/source.
 */
#pragma once
#include "agent/engine/source/policy_decode.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static char *aliases[] = {(char *)"old.org", (char *)"older.org"};
static const struct mesh_names mesh = {"example.org", aliases, 2, "istio-system"};

static cJSON *parsed;

static inline void document(void *arg, cJSON *tree, int line)
{
	(void)arg;
	(void)line;
	parsed = tree;
}

static inline void broken(void *arg, const struct yaml_error *error)
{
	(void)arg;
	fail_msg("line %d: %s", error->line, error->reason);
}

/* A document of which `text` is the spec, in flow style, or NULL for none. */
static inline cJSON *tree_of(const char *kind, const char *namespace_, const char *annotations, const char *text)
{
	static const struct yaml_handlers handlers = {document, broken};
	_cleanup_free_ char *doc = NULL;
	int n = asprintf(&doc,
			 "apiVersion: security.istio.io/v1\nkind: %s\nmetadata: {name: p, namespace: %s%s}\n%s%s\n",
			 kind, namespace_, annotations, text ? "spec: " : "", text ? text : "");

	assert_true(n > 0);
	parsed = NULL;
	assert_int_equal(yaml_parse(doc, (size_t)n, &handlers, NULL), 0);
	return parsed;
}
