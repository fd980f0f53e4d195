/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of a source `dir:PATH`, read into a store. What did not change since the last read is not parsed again,
 * with the same outcome as if it were. Private to source/. */
#pragma once
#include "store.h"

/* With the policies of a large mesh one a file. */
#define FOLDER_FILES_MAX 50000

/* All zeroes but for the path is a valid one that has not been read. About 400 bytes are kept for each file. */
struct folder {
	const char *path;   /* borrowed */
	struct table files; /* name -> what is known of it */
	uint64_t round;
	size_t parsed; /* files that the last read had to parse */
};

/* Reads it whole, as one round of the store. `watch` is an inotify descriptor of the folder, or -1: what happens during
 * the read makes it a disturbed one. 0; or -EIO, -ENOENT (empty, while the store is not) and -EFBIG (too many files)
 * with the reason in *ret_why (malloc'd, NULL: no memory), and nothing has changed. */
int folder_read(struct folder *f, struct store *s, int watch, char **ret_why);
/* The next read parses every file. */
void folder_done(struct folder *f);
