/* SPDX-License-Identifier: Apache-2.0 */
/* Manifest files. Private to source/. */
#pragma once
#include <stddef.h>

/* The text of a regular file of at most YAML_FILE_MAX bytes, malloc'd and not terminated. 0, -EFBIG, -EINVAL (no
 * regular file) or -errno. `dir` is as of openat(2). */
int file_read(int dir, const char *name, char **ret, size_t *ret_len);
