/* SPDX-License-Identifier: Apache-2.0 */
/* Manifest files. Private to source/. */
#pragma once
#include <stddef.h>
#include <sys/stat.h>

/* The text of a regular file of at most YAML_FILE_MAX bytes, malloc'd and not terminated. 0, -EFBIG, -EISDIR, -EINVAL
 * (no regular file either) or -errno. `dir` is as of openat(2); *ret_st (may be NULL) is what
 * fstat(2) said before the first byte. */
int file_read(int dir, const char *name, char **ret, size_t *ret_len, struct stat *ret_st);
/* The same of what can be read from fd until its end, which may take its time. */
int file_read_stream(int fd, char **ret, size_t *ret_len);
