/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes away what a node keeps pinned when its last pod is out of capture: the sockops link, the maps, the
 * folders. In: a node without an agent, whose locks the caller holds. Out: the names of what went. Called by local.c.
 */
#include "ctl.h"
#include "abi/marks.h"
#include "engine/base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void add(cJSON *removed, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(cJSON *removed, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cJSON_AddItemToArray(removed, cJSON_CreateString(text));
}

/* Only what Warren itself pins there, so that a stranger's pin keeps the folder. */
static void unlink_pins(int dir, cJSON *removed)
{
	_cleanup_close_ int copy = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	int maps = 0;

	if (!unlinkat(dir, "app_socket", 0))
		add(removed, "sockops link");
	if (!d)
		return;
	(void)take_fd(copy);
	while ((e = readdir(d)))
		maps += !strncmp(e->d_name, "wr_", 3) && !unlinkat(dir, e->d_name, 0);
	closedir(d);
	if (maps)
		add(removed, "%d map%s", maps, maps == 1 ? "" : "s");
}

int unpin_node(struct ctl *c, cJSON *removed)
{
	_cleanup_close_ int dir = -1;
	char folder[4096], path[4200], holder[4200];

	client_pin_path(c, c->node, folder, sizeof(folder));
	snprintf(path, sizeof(path), "%s/v%d", folder, WR_ABI_VERSION);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return ctl_error(c, CTL_MISSING, "the node's pins stay: %s: %s", path, strerror(errno));
	unlink_pins(dir, removed);
	(void)unlinkat(dir, "pods", AT_REMOVEDIR);
	/* The last agent's name at the folder's lock. */
	snprintf(holder, sizeof(holder), "%s/holder", folder);
	(void)unlink(holder);
	if (rmdir(path) < 0 || rmdir(folder) < 0)
		return ctl_error(c, CTL_MISSING, "%s: cannot be removed: %s", folder, strerror(errno));
	add(removed, "%s", folder);
	return CTL_OK;
}
