/* SPDX-License-Identifier: Apache-2.0 */
/* mkdir -p. A path comes in, folders leave. Called by identity/ca.c and agent/lock.c. */
#include "engine/base/dir.h"
#include "engine/base/cleanup.h"

#include <string.h>
#include <sys/stat.h>

static int make(const char *path, mode_t mode)
{
	struct stat st;

	if (!mkdir(path, mode))
		return 0;
	if (errno != EEXIST)
		return -errno;
	return stat(path, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int dir_make(const char *path, mode_t last)
{
	_cleanup_free_ char *copy = strdup(path);
	char *end;
	int r;

	if (!copy)
		return -ENOMEM;
	/* "a/b/" is "a/b": the last folder, not the parent of one without a name, has the last mode. */
	for (end = copy + strlen(copy); end > copy + 1 && end[-1] == '/';)
		*--end = 0;
	for (char *p = copy + 1; p < end; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		r = make(copy, 0755);
		*p = '/';
		if (r < 0)
			return r;
	}
	return make(copy, last);
}
