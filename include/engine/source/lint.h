/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent would make of manifests, found without one. */
#pragma once
#include <stddef.h>

struct cJSON;

/* Judges every document of the files, as one folder: what source_dump() lists under "resources". 0; or -errno, with the
 * index of the file that cannot be read in *ret_bad. "-" is the standard input. */
int source_lint(const char *const *files, size_t n, size_t *ret_bad, struct cJSON **ret);
