/* SPDX-License-Identifier: Apache-2.0 */
/* One plain TCP socket of a proxied connection. Called by stream.c and relay.c on a worker's thread. */
#include "local.h"
#include "engine/base/cleanup.h"
#include "engine/io/sock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define CHUNK_BYTES 16384
#define FLUSH_IOVECS 16

struct chunk {
	struct chunk *next;
	uint32_t off, len, cap;
	uint8_t data[];
};

static __thread size_t backlog_bytes;

size_t local_backlog_bytes(void)
{
	return backlog_bytes;
}

int local_init(struct local *l, struct loop *loop, int fd, void (*fn)(struct watch *w, uint32_t events))
{
	l->watch.fn = fn;
	l->watch.fd = -1;
	return loop_watch_add(loop, &l->watch, fd, EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

static void drop_backlog(struct local *l)
{
	while (l->first) {
		struct chunk *next = l->first->next;

		free(l->first);
		l->first = next;
	}
	l->last = NULL;
	backlog_bytes -= l->backlog;
	l->backlog = 0;
}

/* The kernel tells an error once, and calls what follows the end of the stream. */
static int failed(struct local *l, int error)
{
	uint8_t byte;

	l->error = error;
	drop_backlog(l);
	l->readable = !l->read_done && recv(l->watch.fd, &byte, 1, MSG_PEEK) > 0;
	return error;
}

bool local_was_accepted(int error)
{
	return error == -ECONNRESET || error == -EPIPE;
}

int local_event(struct local *l, uint32_t events)
{
	if (l->error)
		return l->error;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		l->readable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP))
		l->peer_closed = true;
	if (events & EPOLLPRI)
		l->urgent = true;
	if (events & EPOLLERR) {
		int r = sock_error(l->watch.fd);

		if (r < 0)
			return failed(l, r);
	}
	return 0;
}

ssize_t local_read(struct local *l, uint8_t *buf, size_t max)
{
	ssize_t n;

	if (!l->readable || l->read_done)
		return -EAGAIN;
	do
		n = recv(l->watch.fd, buf, max, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		/* A short read emptied the socket; the next byte is a new edge. A FIN that was seen is not. */
		if ((size_t)n < max && !l->peer_closed && !l->error && !l->urgent)
			l->readable = false;
		return n;
	}
	if (!n && !l->error) {
		l->read_done = true;
		return 0;
	}
	l->readable = false;
	return l->error ? l->error : -errno;
}

static int keep(struct local *l, const uint8_t *data, size_t len)
{
	while (len) {
		struct chunk *c = l->last;
		size_t n;

		if (!c || c->len == c->cap) {
			size_t cap = len > CHUNK_BYTES ? len : CHUNK_BYTES;

			c = malloc(sizeof(*c) + cap);
			if (!c)
				return -ENOMEM;
			*c = (struct chunk){.cap = (uint32_t)cap};
			if (l->last)
				l->last->next = c;
			else
				l->first = c;
			l->last = c;
		}
		n = c->cap - c->len < len ? c->cap - c->len : len;
		memcpy(c->data + c->len, data, n);
		c->len += (uint32_t)n;
		l->backlog += (uint32_t)n;
		backlog_bytes += n;
		data += n;
		len -= n;
	}
	return 0;
}

static ssize_t send_iov(int fd, struct iovec *iov, int n)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	ssize_t r;

	do
		r = n == 1 ? send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL) : sendmsg(fd, &m, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

ssize_t local_write(struct local *l, struct iovec *iov, int n)
{
	ssize_t wrote = 0;
	size_t skip;

	if (l->error)
		return l->error;
	if (!l->backlog && l->watch.fd >= 0) {
		wrote = send_iov(l->watch.fd, iov, n);
		if (wrote == -EAGAIN)
			wrote = 0;
		if (wrote < 0)
			return failed(l, (int)wrote);
	}
	skip = (size_t)wrote;
	for (int i = 0; i < n; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		if (keep(l, (uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip))
			return failed(l, -ENOMEM);
		skip = 0;
	}
	return wrote;
}

static void took(struct local *l, size_t n)
{
	l->backlog -= (uint32_t)n;
	backlog_bytes -= n;
	while (n) {
		struct chunk *c = l->first;
		size_t left = c->len - c->off;

		if (n < left) {
			c->off += (uint32_t)n;
			return;
		}
		n -= left;
		l->first = c->next;
		if (!l->first)
			l->last = NULL;
		free(c);
	}
}

ssize_t local_flush(struct local *l)
{
	ssize_t total = 0;

	while (l->backlog) {
		struct iovec iov[FLUSH_IOVECS];
		int n = 0;
		ssize_t r;

		for (struct chunk *c = l->first; c && n < FLUSH_IOVECS; c = c->next)
			iov[n++] = (struct iovec){c->data + c->off, c->len - c->off};
		r = send_iov(l->watch.fd, iov, n);
		if (r == -EAGAIN)
			return total;
		if (r < 0)
			return failed(l, (int)r);
		took(l, (size_t)r);
		total += r;
	}
	if (l->shut_wanted && !l->shut_done) {
		l->shut_done = true;
		if (shutdown(l->watch.fd, SHUT_WR) < 0 && errno != ENOTCONN)
			return failed(l, -errno);
	}
	return total;
}

int local_shutdown(struct local *l)
{
	ssize_t r;

	l->shut_wanted = true;
	if (l->backlog)
		return 0;
	r = local_flush(l);
	return r < 0 ? (int)r : 0;
}

static void not_heard(struct watch *w, uint32_t events)
{
	(void)w;
	(void)events;
}

void local_stop(struct local *l, struct loop *loop)
{
	drop_backlog(l);
	loop_watch_forget(loop, &l->watch);
	l->watch.fn = not_heard;
}

void local_close(struct local *l, bool reset)
{
	int fd = l->watch.fd;

	if (fd < 0)
		return;
	l->watch.fd = -1;
	if (!reset)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 0}, sizeof(struct linger));
	close(fd);
}
