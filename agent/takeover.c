/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hand-over of listeners (SCM_RIGHTS, unix(7)): one fixed record with three descriptors a pod, then a record
 * without. Called by node.c (receives) and commands.c (sends).
 */
#include "takeover.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RECORD_BYTES 512
#define WAIT_MS 5000

int takeover_send(int fd, const char *uid, const int fds[3])
{
	char record[RECORD_BYTES] = {0}, control[CMSG_SPACE(3 * sizeof(int))] = {0};
	struct iovec iov = {record, sizeof(record)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	if (uid) {
		struct cmsghdr *c;

		strncpy(record, uid, sizeof(record) - 1);
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(3 * sizeof(int));
		memcpy(CMSG_DATA(c), fds, 3 * sizeof(int));
	}
	if (poll(&p, 1, WAIT_MS) != 1)
		return -ETIMEDOUT;
	return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)sizeof(record) ? 0 : -EIO;
}

/* One record: 1 a pod, 0 the end mark, -errno. */
static int receive(int fd, struct takeover_pod *ret)
{
	char control[CMSG_SPACE(3 * sizeof(int))];
	struct iovec iov = {ret->uid, RECORD_BYTES};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct cmsghdr *c;

	if (poll(&p, 1, WAIT_MS) != 1)
		return -ETIMEDOUT;
	if (recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL) != RECORD_BYTES)
		return -EPROTO;
	ret->uid[RECORD_BYTES - 1] = 0;
	c = CMSG_FIRSTHDR(&m);
	if (!c)
		return ret->uid[0] ? -EPROTO : 0;
	if (c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(3 * sizeof(int)))
		return -EPROTO;
	memcpy(ret->fds, CMSG_DATA(c), 3 * sizeof(int));
	return 1;
}

int takeover_ask(const char *socket_path, struct takeover_pod **ret)
{
	static const char request[] = "{\"command\": \"takeover\"}\n";
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct takeover_pod *pods = NULL;
	int n = 0, r;

	if (fd < 0)
		return -errno;
	if (strlen(socket_path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, socket_path, strlen(socket_path) + 1);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		return errno == ECONNREFUSED ? -ENOENT : -errno;
	if (write(fd, request, sizeof(request) - 1) != (ssize_t)sizeof(request) - 1)
		return -EIO;
	for (;;) {
		struct takeover_pod *grown = realloc(pods, ((size_t)n + 1) * sizeof(*pods));

		if (!grown) {
			r = -ENOMEM;
			break;
		}
		pods = grown;
		r = receive(fd, &pods[n]);
		if (r != 1)
			break;
		n++;
	}
	if (r < 0) {
		while (n--)
			for (int i = 0; i < 3; i++)
				close(pods[n].fds[i]);
		free(pods);
		return r;
	}
	*ret = pods;
	return n;
}
