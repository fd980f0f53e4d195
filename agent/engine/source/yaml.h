/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML documents as cJSON trees, the same form the API server's JSON has. The line of an object, array or string is kept in
 * its `valueint` (free in those types), so that an error can name its place.
 */
#pragma once
#include <cjson/cJSON.h>
#include <stddef.h>

#define YAML_FILE_MAX (4 * 1024 * 1024)
#define YAML_DEPTH_MAX 64
#define YAML_NODES_MAX 200000

struct yaml_error {
	int line;
	char reason[200];
};

/* Parses all documents of a text (JSON is a subset of YAML). `doc` receives each tree (owned by the callee) in order; empty documents
 * are left out. 0, or -EINVAL at the first that cannot be parsed: *ret_error says where; what follows it is not read.
 * Aliases are refused: Kubernetes manifests do without, and they are how small files become large trees. */
int yaml_parse(const char *text, size_t len, void (*doc)(void *arg, cJSON *tree, int line), void *arg,
	       struct yaml_error *ret_error);
