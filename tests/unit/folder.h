/* SPDX-License-Identifier: Apache-2.0 */
/* Folders of a test program: made under /tmp from a template, gone with all they hold when the program ends. */
#pragma once
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folders[32][64];
static int n_folders;

static inline int folder_unlink(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static inline void folders_remove(void)
{
	while (n_folders > 0)
		(void)nftw(folders[--n_folders], folder_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

/* `path` ends with XXXXXX, as for mkdtemp(3), and is written over with the name of a new folder. */
static inline void folder_make(char *path)
{
	if (n_folders == 32 || strlen(path) >= sizeof(folders[0]) || !mkdtemp(path)) {
		fprintf(stderr, "%s: no such folder can be made\n", path);
		exit(1);
	}
	if (!n_folders)
		atexit(folders_remove);
	strcpy(folders[n_folders++], path);
}

/* A file with this text, in one step, as a new version should come. */
static inline void folder_put(const char *path, const char *text)
{
	char next[256];
	FILE *f;

	snprintf(next, sizeof(next), "%s.next", path);
	f = fopen(next, "we");
	if (!f || fputs(text, f) < 0 || fclose(f) || rename(next, path)) {
		fprintf(stderr, "%s: cannot be written\n", path);
		exit(1);
	}
}
