/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was last good, on disk: a restart keeps in force what the manifests no longer say readably. The resources of a
 * store leave as one file, a line with the hash of the JSON behind it, and come back as documents that are judged anew.
 * A file that is not what was written is not used: half a policy is another policy. Called by source.c.
 */
#include "engine/base/cleanup.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* SHA-256 in hexadecimal digits, and the end of the line. */
#define HASH_LINE (2 * SHA256_DIGEST_LENGTH + 1)

/* One at a time: a copy of all of them would cost more than the writing. */
static bool print_resource(FILE *f, const struct resource *r, const char *before)
{
	/* What was refused is refused again, and so closes what it is for also after a restart. */
	const cJSON *tree = r->tree ? r->tree : r->invalid;
	_cleanup_free_ char *file = NULL, *text = NULL;
	cJSON *name = cJSON_CreateString(r->file);

	file = cJSON_PrintUnformatted(name);
	text = cJSON_PrintBuffered(tree, 1024, false);
	cJSON_Delete(name);
	return file && text &&
	       fprintf(f, "%s{\"file\":%s,\"line\":%d,\"resource\":%s}", before, file, r->line, text) > 0;
}

/* False: out of memory. */
static bool print_all(FILE *f, const struct store *s, const char *source)
{
	cJSON *name = cJSON_CreateString(source);
	_cleanup_free_ char *text = cJSON_PrintUnformatted(name);
	struct table_iter it = {0};
	const struct resource *r;
	const char *before = "";
	bool ok = text && fprintf(f, "{\"source\":%s,\"resources\":[", text) > 0;

	cJSON_Delete(name);
	while (ok && (r = table_next(&s->resources, &it))) {
		if (!r->tree && !r->invalid)
			continue;
		ok = print_resource(f, r, before);
		before = ",\n";
	}
	return ok && fputs("]}\n", f) >= 0;
}

static void hash_line(const char *text, size_t len, char ret[HASH_LINE + 1])
{
	unsigned char hash[SHA256_DIGEST_LENGTH];

	(void)SHA256((const unsigned char *)text, len, hash);
	for (size_t i = 0; i < sizeof(hash); i++)
		snprintf(ret + 2 * i, 3, "%02x", hash[i]);
	memcpy(ret + HASH_LINE - 1, "\n", 2);
}

int store_save(const struct store *s, const char *path, const char *source)
{
	_cleanup_free_ char *tmp = NULL, *text = NULL;
	_cleanup_close_ int fd = -1;
	char hash[HASH_LINE + 1];
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool ok = f && print_all(f, s, source);
	struct iovec iov[2] = {{.iov_base = hash, .iov_len = HASH_LINE}};

	if ((f && fclose(f)) || !ok || asprintf(&tmp, "%s.tmp", path) < 0)
		return -ENOMEM;
	iov[1] = (struct iovec){.iov_base = text, .iov_len = len};
	hash_line(text, iov[1].iov_len, hash);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (writev(fd, iov, 2) != (ssize_t)(HASH_LINE + iov[1].iov_len) || fsync(fd) < 0 || rename(tmp, path) < 0) {
		int e = errno ? -errno : -ENOSPC;

		(void)unlink(tmp);
		return e;
	}
	return 0;
}

static int slurp(const char *path, cJSON **ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	char hash[HASH_LINE + 1];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	if (read(fd, text, (size_t)st.st_size) != st.st_size)
		return -EIO;
	if (st.st_size < HASH_LINE)
		return -EBADMSG;
	hash_line(text + HASH_LINE, (size_t)st.st_size - HASH_LINE, hash);
	if (memcmp(hash, text, HASH_LINE))
		return -EBADMSG;
	*ret = cJSON_Parse(text + HASH_LINE);
	return *ret ? 0 : -EBADMSG;
}

/* Another slash at the end is the same folder. */
static bool same_folder(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);

	while (n > 1 && a[n - 1] == '/')
		n--;
	while (m > 1 && b[m - 1] == '/')
		m--;
	return n == m && !memcmp(a, b, n);
}

static void take_all(struct store *s, const cJSON *array)
{
	cJSON *i;

	store_begin(s);
	cJSON_ArrayForEach(i, array) {
		const cJSON *line = cJSON_GetObjectItemCaseSensitive(i, "line");
		cJSON *tree = cJSON_DetachItemFromObjectCaseSensitive(i, "resource");

		if (tree)
			store_put(s, decode_string(i, "file", "?"), line ? line->valueint : 0, tree);
	}
}

int store_load(struct store *s, const char *path, const char *source)
{
	const cJSON *array, *from;
	cJSON *o = NULL;
	int r = slurp(path, &o);

	if (r < 0)
		return r;
	array = cJSON_GetObjectItemCaseSensitive(o, "resources");
	from = cJSON_GetObjectItemCaseSensitive(o, "source");
	if (!cJSON_IsArray(array) || !cJSON_IsString(from))
		r = -EBADMSG;
	else if (!same_folder(from->valuestring, source))
		r = -ESTALE;
	else
		take_all(s, array);
	cJSON_Delete(o);
	return r;
}
