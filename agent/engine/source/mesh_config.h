/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh's own settings: Istio's ConfigMap `istio`, of which Warren reads three keys. Private to source/. */
#pragma once
#include "check.h"

#define MESH_CONFIG_NAME "istio"

/* What the map says; NULL, and no aliases, where it says nothing. */
struct mesh_config {
	char *trust_domain, *root_namespace;
	char **aliases;
	size_t n_aliases;
};

/* For decode.c's table of kinds. */
bool mesh_config_check(struct check *c, const cJSON *tree);
/* From a tree that was checked. 0 or -ENOMEM. */
int mesh_config_read(const cJSON *tree, struct mesh_config *ret);
/* From a list of names with commas between them. 0 or -ENOMEM. */
int mesh_config_split(const char *list, struct mesh_config *m);
/* The aliases as such a list, malloc'd; NULL: none, or (with *ret_error -ENOMEM) no memory. */
char *mesh_config_join(const struct mesh_config *m, int *ret_error);
void mesh_config_done(struct mesh_config *m);
