/* SPDX-License-Identifier: Apache-2.0 */
/* Manifest files: a name comes in, its text leaves. Called by folder.c and lint.c. */
#include "file.h"
#include "engine/base/cleanup.h"
#include "yaml.h"

#include <fcntl.h>

int file_read(int dir, const char *name, char **ret, size_t *ret_len, struct stat *ret_st)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	_cleanup_free_ char *text = NULL;
	struct stat st;
	size_t len = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (st.st_size > YAML_FILE_MAX)
		return -EFBIG;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	while (len < (size_t)st.st_size) {
		ssize_t n = read(fd, text + len, (size_t)st.st_size - len);

		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += (size_t)n;
	}
	*ret = take_ptr(text);
	*ret_len = len;
	if (ret_st)
		*ret_st = st;
	return 0;
}

int file_read_stream(int fd, char **ret, size_t *ret_len)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0, size = 0;

	for (;;) {
		ssize_t n;

		if (len == size) {
			char *more = size > YAML_FILE_MAX ? NULL : realloc(text, size = size ? 2 * size : 65536);

			if (!more)
				return size > YAML_FILE_MAX ? -EFBIG : -ENOMEM;
			text = more;
		}
		n = read(fd, text + len, size - len);
		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += (size_t)n;
	}
	*ret = take_ptr(text);
	*ret_len = len;
	return 0;
}
