/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML documents as cJSON trees, the same form the API server's JSON has. The line of an object, array or string is
 * kept in its `valueint` (free in those types), so that an error can name its place.
 */
#pragma once
#include <cjson/cJSON.h>
#include <stddef.h>

/* Room for a thousand pods as `kubectl get -o yaml` writes them, managedFields and all. */
#define YAML_FILE_MAX (16 * 1024 * 1024)
#define YAML_DEPTH_MAX 64
#define YAML_NODES_MAX 1000000
#define YAML_ANCHORS_MAX 256

struct yaml_error {
	int line;
	char reason[200];
	const char *text; /* all of the document, borrowed; NULL: not to be had */
	size_t len;
};

struct yaml_handlers {
	/* Each tree in order, owned by the callee; empty documents are left out. */
	void (*document)(void *arg, cJSON *tree, int line);
	/* A document that cannot be parsed: where and why. Those behind it are read all the same. */
	void (*broken)(void *arg, const struct yaml_error *error);
};

/* Parses all documents of a text (JSON is a subset of YAML). 0, -EINVAL when one was broken, or -ENOMEM.
 * Aliases and merge keys are resolved into copies that count against the limits: a small file does not become a large
 * tree. */
int yaml_parse(const char *text, size_t len, const struct yaml_handlers *to, void *arg);
