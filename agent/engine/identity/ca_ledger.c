/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all agents on one CA folder have issued, a line for each certificate: serial, end of validity, signer, identity.
 * Revoking an identity needs its serials, and a rotation must know when the last leaf of the old root is over. Called
 * by ca.c (add), ca_revoke.c and ca_rotation.c (read).
 */
#include "ca_private.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define LEDGER "issued"
#define LINE_MAX_BYTES 700
/* Rewritten without what has expired when it has doubled, but not while it is small. */
#define PRUNE_FROM (64 * 1024)

static bool parse(char *line, struct ledger_entry *ret)
{
	char *end = strchr(line, '\n'), *space;
	struct ledger_entry e = {0};
	int used = 0;

	if (!end)
		return false;
	*end = 0;
	if (sscanf(line, "%63[0-9] %" SCNd64 " %16[0-9a-f] %n", e.serial, &e.not_after, e.signer, &used) != 3 || !used)
		return false;
	space = strchr(line + used, ' ');
	e.spiffe = line + used;
	*ret = e;
	return *e.spiffe && !space;
}

static void each_line(char *text, void (*fn)(void *arg, const struct ledger_entry *e), void *arg)
{
	int64_t now = time(NULL);
	char *next;

	for (char *line = text; line && *line; line = next) {
		struct ledger_entry e;

		next = strchr(line, '\n');
		next = next ? next + 1 : NULL;
		if (parse(line, &e) && e.not_after > now)
			fn(arg, &e);
	}
}

int ca_ledger_each(int dir, const char *path, void (*fn)(void *arg, const struct ledger_entry *e), void *arg,
		   char **ret_error)
{
	_cleanup_free_ char *text = NULL;
	int r = ca_read(dir, path, LEDGER, false, &text, ret_error);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		each_line(text, fn, arg);
	return r;
}

static int format(const struct ledger_entry *e, char line[LINE_MAX_BYTES])
{
	return snprintf(line, LINE_MAX_BYTES, "%s %" PRId64 " %s %s\n", e->serial, e->not_after, e->signer, e->spiffe);
}

static void keep(void *arg, const struct ledger_entry *e)
{
	char line[LINE_MAX_BYTES];

	(void)format(e, line);
	(void)fputs(line, arg);
}

/* Under the lock. A failure leaves the file as it was: it only grows. */
static void prune(struct ca *ca, int dir)
{
	_cleanup_free_ char *text = NULL, *error = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	(void)ca_ledger_each(dir, ca->path, keep, f, &error);
	if (!fclose(f) && !error)
		(void)ca_write(dir, ca->path, LEDGER, 0600, text, &error);
	ca->ledger_pruned = size;
}

static int append(struct ca *ca, const struct ledger_entry *e, char **ret_error)
{
	_cleanup_close_ int lock = -1, dir = ca_folder_locked(ca->path, &lock, ret_error), fd = -1;
	char line[LINE_MAX_BYTES];
	int n = format(e, line);
	struct stat st;

	if (dir < 0)
		return dir;
	fd = openat(dir, LEDGER, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)n) != n || fstat(fd, &st) < 0)
		return ca_fail(ret_error, -errno, "%s/%s: cannot write: %s", ca->path, LEDGER, strerror(errno));
	if (st.st_size > PRUNE_FROM && (size_t)st.st_size > 2 * ca->ledger_pruned)
		prune(ca, dir);
	return 0;
}

void ca_ledger_add(struct ca *ca, const struct tls_identity *id)
{
	_cleanup_free_ char *error = NULL;
	struct ledger_entry e = {.not_after = id->not_after, .spiffe = id->spiffe};

	snprintf(e.serial, sizeof(e.serial), "%s", id->serial);
	memcpy(e.signer, ca->signer, sizeof(e.signer));
	if (append(ca, &e, &error) == 0 || ca->ledger_warned)
		return;
	ca->ledger_warned = true;
	log_warn("identity", "%s; 'certificate revoke IDENTITY' will not know what this agent issues",
		 error ? error : "out of memory");
}
