/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a folder: names and texts come in, documents leave to the store. A file whose identity or content is as
 * it was is not parsed again; the store is told that its documents were seen. Called by source.c.
 */
#include "folder.h"
#include "engine/base/cleanup.h"
#include "file.h"
#include "yaml.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* A change within one tick of a file system's clock leaves the times as they are: 2 s is the coarsest there is (FAT).
 */
#define TICK_S 2

/* A file as it was last read. */
struct entry {
	char *name;
	struct stat st;
	bool settled; /* it was older than a tick of the clock when it was read: a later change shows in its times */
	unsigned char digest[SHA256_DIGEST_LENGTH];
	struct store_held held; /* what it brought */
	uint64_t round;		/* of the last read that saw it */
};

/* One read. */
struct reading {
	struct folder *folder;
	struct store *store;
	int dir;
	const char *path; /* of the file being parsed */
};

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* A rename over it, or a link that leads elsewhere (as a ConfigMap's do), is another inode. */
static bool is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       is_same_time(&a->st_mtim, &b->st_mtim) && is_same_time(&a->st_ctim, &b->st_ctim);
}

static void entry_free(struct entry *e)
{
	if (!e)
		return;
	store_held_done(&e->held);
	free(e->name);
	free(e);
}

static struct entry *find_or_add(struct folder *f, const char *name)
{
	struct entry *e = table_get_str(&f->files, name);

	if (e)
		return e;
	e = calloc(1, sizeof(*e));
	if (e)
		e->name = strdup(name);
	if (e && e->name && !table_put(&f->files, e->name, strlen(e->name), e, NULL))
		return e;
	entry_free(e);
	return NULL;
}

static void drop(struct folder *f, struct entry *e)
{
	table_del(&f->files, e->name, strlen(e->name));
	entry_free(e);
}

/* --- one file --- */

static void document(void *arg, cJSON *tree, int line)
{
	struct reading *r = arg;

	store_put(r->store, r->path, line, tree);
}

static void broken(void *arg, const struct yaml_error *error)
{
	struct reading *r = arg;

	store_put_broken(r->store, r->path, error);
}

static void parse(struct reading *r, const char *text, size_t len, struct store_held *held)
{
	static const struct yaml_handlers handlers = {document, broken};

	r->folder->parsed++;
	store_hold(r->store, held);
	if (yaml_parse(text, len, &handlers, r) == -ENOMEM)
		store_keep_file(r->store, r->path, -ENOMEM);
	store_hold(r->store, NULL);
}

/* A file that is not as it was, or may not be: by its text. */
static void read_text(struct reading *r, struct entry *e)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	_cleanup_free_ char *text = NULL;
	struct timespec began;
	struct stat st;
	size_t len = 0;
	int v;

	/* Of the clock that the times of files are from, and before the look at them. */
	clock_gettime(CLOCK_REALTIME_COARSE, &began);
	v = file_read(r->dir, e->name, &text, &len, &st);
	if (v < 0) {
		/* Deleted between listing and reading is a deletion. */
		if (v != -ENOENT)
			store_keep_file(r->store, r->path, v);
		e->round = 0;
		return;
	}
	SHA256((const unsigned char *)text, len, digest);
	if (memcmp(e->digest, digest, sizeof(digest)) || !store_see_again(&e->held))
		parse(r, text, len, &e->held);
	memcpy(e->digest, digest, sizeof(digest));
	e->st = st;
	e->settled = st.st_ctim.tv_sec + TICK_S < began.tv_sec;
}

static void read_file(struct reading *r, const char *name)
{
	struct entry *e = find_or_add(r->folder, name);
	_cleanup_free_ char *path = NULL;
	struct stat st;

	if (!e || asprintf(&path, "%s/%s", r->folder->path, name) < 0) {
		/* Not to be told from a change that cannot be read: what it held stays. */
		store_disturbed(r->store);
		return;
	}
	r->path = path;
	e->round = r->folder->round;
	if (e->settled && !fstatat(r->dir, name, &st, 0) && is_same_file(&e->st, &st) && store_see_again(&e->held))
		return;
	read_text(r, e);
}

/* --- all of them --- */

static int is_visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static bool is_manifest(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml") || !strcmp(dot, ".json"));
}

static int count_manifests(struct dirent *const *names, int n)
{
	int manifests = 0;

	for (int i = 0; i < n; i++)
		manifests += is_manifest(names[i]->d_name);
	return manifests;
}

/* One line for all that is passed over, whatever else is kept in the folder: a manifest may be among it. */
static void pass_over(const struct reading *r, struct dirent *const *names, int n)
{
	int others = n - count_manifests(names, n), said = 0;
	char text[300];
	size_t len = (size_t)snprintf(text, sizeof(text), "not read, as only *.yaml, *.yml and *.json are:");

	for (int i = 0; i < n && said < 3; i++)
		if (!is_manifest(names[i]->d_name) && len < sizeof(text))
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s %.60s", said++ ? "," : "",
						names[i]->d_name);
	if (others > said)
		snprintf(text + len, sizeof(text) - len, " and %d more", others - said);
	if (others)
		store_pass_over(r->store, r->folder->path, text);
}

/* Whether something has happened to the folder that has not been looked at yet. */
static bool is_disturbed(int watch)
{
	struct pollfd p = {.fd = watch, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static void forget_gone(struct folder *f)
{
	struct table_iter it = {0};
	struct entry *e;

	while ((e = table_next(&f->files, &it)))
		if (e->round != f->round)
			drop(f, e);
}

static void read_files(struct reading *r, struct dirent *const *names, int n, int watch)
{
	r->folder->round++;
	r->folder->parsed = 0;
	store_begin(r->store);
	for (int i = 0; i < n; i++)
		if (is_manifest(names[i]->d_name))
			read_file(r, names[i]->d_name);
	pass_over(r, names, n);
	/* Before the store lets go of what they held. */
	forget_gone(r->folder);
	/* Names that change meanwhile may be missing from the list, or lead nowhere by now: another read is due. */
	if (is_disturbed(watch))
		store_disturbed(r->store);
	store_end(r->store);
}

static int fail(int e, char **ret_why, const char *path, const char *what, const char *detail)
{
	if (asprintf(ret_why, "%s %s%s", path, what, detail) < 0)
		*ret_why = NULL;
	return e;
}

int folder_read(struct folder *f, struct store *s, int watch, char **ret_why)
{
	_cleanup_close_ int dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct reading r = {.folder = f, .store = s, .dir = dir};
	struct dirent **names = NULL;
	int n, manifests, v = 0;

	if (dir < 0)
		return fail(-EIO, ret_why, f->path, "cannot be read: ", strerror(errno));
	n = scandirat(dir, ".", &names, is_visible, alphasort);
	if (n < 0)
		return fail(-EIO, ret_why, f->path, "cannot be listed: ", strerror(errno));
	manifests = count_manifests(names, n);
	if (manifests == 0 && store_count(s))
		v = fail(-ENOENT, ret_why, f->path, "is empty all at once", "");
	else if (manifests > FOLDER_FILES_MAX)
		v = fail(-EFBIG, ret_why, f->path, "holds too many files", "");
	else
		read_files(&r, names, n, watch);
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return v;
}

void folder_done(struct folder *f)
{
	struct table_iter it = {0};
	struct entry *e;

	while ((e = table_next(&f->files, &it)))
		drop(f, e);
	table_done(&f->files);
}
