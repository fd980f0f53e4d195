/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the CA's folder: read whole, written whole or not at all, one writer at a time over all agents. Called by
 * the other files of the CA and by trust_keeper.c.
 */
#include "ca_private.h"
#include "engine/base/cleanup.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define FILE_BYTES (16 * 1024 * 1024)

int ca_fail(char **ret_error, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(ret_error, fmt, ap) < 0)
		*ret_error = NULL;
	va_end(ap);
	ERR_clear_error();
	return error;
}

int ca_folder(const char *path, char **ret_error)
{
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return dir < 0 ? ca_fail(ret_error, -errno, "%s: cannot open: %s", path, strerror(errno)) : dir;
}

int ca_lock(int dir, const char *path, char **ret_error)
{
	_cleanup_close_ int lock = openat(dir, ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return ca_fail(ret_error, -errno, "%s/.lock: cannot lock: %s; make the folder writable", path,
			       strerror(errno));
	return take_fd(lock);
}

int ca_folder_locked(const char *path, int *ret_lock, char **ret_error)
{
	_cleanup_close_ int dir = ca_folder(path, ret_error);
	int lock;

	if (dir < 0)
		return dir;
	lock = ca_lock(dir, path, ret_error);
	if (lock < 0)
		return lock;
	*ret_lock = lock;
	return take_fd(dir);
}

int ca_read(int dir, const char *path, const char *name, bool private, char **ret, char **ret_error)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT
			       ? -ENOENT
			       : ca_fail(ret_error, -errno, "%s/%s: cannot open: %s", path, name, strerror(errno));
	if (fstat(fd, &st) < 0)
		return ca_fail(ret_error, -errno, "%s/%s: cannot read: %s", path, name, strerror(errno));
	if (private && (st.st_mode & 077))
		return ca_fail(ret_error, -EPERM,
			       "%s/%s: mode %04o lets others read a private key; run: chmod 600 %s/%s", path, name,
			       st.st_mode & 0777, path, name);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES)
		return ca_fail(ret_error, -EFBIG, "%s/%s: not a file of at most %d bytes", path, name, FILE_BYTES);
	text = calloc(1, (size_t)st.st_size + 1);
	n = text ? read(fd, text, (size_t)st.st_size) : -1;
	if (n != st.st_size)
		return ca_fail(ret_error, -EIO, "%s/%s: cannot read", path, name);
	*ret = take_ptr(text);
	return 0;
}

int ca_write(int dir, const char *path, const char *name, mode_t mode, const char *text, char **ret_error)
{
	size_t len = strlen(text);
	char tmp[128];
	_cleanup_close_ int fd = -1;

	snprintf(tmp, sizeof(tmp), ".%s.tmp", name);
	(void)unlinkat(dir, tmp, 0);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) < 0 || renameat(dir, tmp, dir, name) < 0) {
		int e = errno ? errno : EIO;

		(void)unlinkat(dir, tmp, 0);
		return ca_fail(ret_error, -e, "%s/%s: cannot write: %s; free space or make the folder writable", path,
			       name, strerror(e));
	}
	(void)fsync(dir);
	return 0;
}

void ca_wipe(char *text)
{
	if (text)
		OPENSSL_cleanse(text, strlen(text));
	free(text);
}
