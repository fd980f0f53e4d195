/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plain TCP relay: the floor of what any proxy costs, copying alone. One thread, epoll, 128 KiB buffers.
 * relay LISTEN_PORT:TARGET_IP:TARGET_PORT ...
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (128 * 1024)

struct end {
	struct end *peer, *next_dead;
	struct sockaddr_in *target; /* listener when not NULL */
	int fd;
	bool readable, eof, shut, dead;
	char *held;
	size_t held_len, held_off;
};

static int ep;
static char buffer[BUFFER];
static struct end *dead_list;

static void drop(struct end *e)
{
	struct end *both[2] = {e, e->peer};

	for (int i = 0; i < 2; i++) {
		if (both[i]->dead)
			continue;
		both[i]->dead = true;
		close(both[i]->fd);
		free(both[i]->held);
		both[i]->next_dead = dead_list;
		dead_list = both[i];
	}
}

static bool flush(struct end *e)
{
	while (e->held_len > e->held_off) {
		ssize_t n = send(e->fd, e->held + e->held_off, e->held_len - e->held_off, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN;
		e->held_off += (size_t)n;
	}
	free(e->held);
	e->held = NULL;
	e->held_len = e->held_off = 0;
	return true;
}

static bool pump(struct end *from)
{
	struct end *to = from->peer;

	while (from->readable && !from->eof && !to->held) {
		ssize_t n = recv(from->fd, buffer, sizeof(buffer), 0), w;

		if (n < 0) {
			from->readable = false;
			return errno == EAGAIN;
		}
		if (n == 0) {
			from->eof = true;
			break;
		}
		w = send(to->fd, buffer, (size_t)n, MSG_NOSIGNAL);
		if (w < 0 && errno != EAGAIN)
			return false;
		if (w < n) {
			w = w < 0 ? 0 : w;
			to->held_len = (size_t)(n - w);
			to->held = malloc(to->held_len);
			memcpy(to->held, buffer + w, to->held_len);
		}
		if (n < (ssize_t)sizeof(buffer))
			from->readable = false;
	}
	if (from->eof && !to->held && !to->shut) {
		to->shut = true;
		shutdown(to->fd, SHUT_WR);
	}
	return true;
}

static void watch(struct end *e)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = e};
	int one = 1;

	setsockopt(e->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev);
}

static void take(struct end *listener)
{
	int fd;

	while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		struct end *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));

		a->fd = fd;
		b->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		a->peer = b;
		b->peer = a;
		connect(b->fd, (struct sockaddr *)listener->target, sizeof(*listener->target));
		watch(a);
		watch(b);
	}
}

static void ready(struct end *e, unsigned events)
{
	if (e->dead)
		return;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		e->readable = true;
	if (events & EPOLLERR || (events & EPOLLOUT && !flush(e)) || !pump(e) || !pump(e->peer) ||
	    (e->shut && e->peer->shut && e->eof && e->peer->eof))
		drop(e);
}

static struct end *open_listener(char *spec)
{
	struct end *e = calloc(1, sizeof(*e));
	struct sockaddr_in in = {.sin_family = AF_INET};
	char *ip = strchr(spec, ':'), *port = ip ? strrchr(spec, ':') : NULL;
	int one = 1;

	if (!port || ip == port)
		return NULL;
	*port++ = 0;
	*ip++ = 0;
	in.sin_port = htons((uint16_t)atoi(spec));
	e->target = calloc(1, sizeof(*e->target));
	e->target->sin_family = AF_INET;
	e->target->sin_port = htons((uint16_t)atoi(port));
	inet_pton(AF_INET, ip, &e->target->sin_addr);
	e->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(e->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(e->fd, (struct sockaddr *)&in, sizeof(in)) < 0 || listen(e->fd, 4096) < 0)
		return NULL;
	return e;
}

int main(int argc, char **argv)
{
	struct rlimit rl;

	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	ep = epoll_create1(0);
	for (int i = 1; i < argc; i++) {
		struct end *e = open_listener(argv[i]);
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = e};

		if (!e) {
			perror("relay");
			return 1;
		}
		epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev);
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct epoll_event evs[256];
		int n = epoll_wait(ep, evs, 256, -1);

		for (int i = 0; i < n; i++) {
			struct end *e = evs[i].data.ptr;

			if (e->target)
				take(e);
			else
				ready(e, evs[i].events);
		}
		while (dead_list) {
			struct end *next = dead_list->next_dead;

			free(dead_list);
			dead_list = next;
		}
	}
}
