/* SPDX-License-Identifier: Apache-2.0 */
/* `traffic serve`: a thread for each connection, which does what the port's mode says. Called by main.c. */
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
	pthread_mutex_t lock;
	uint64_t bytes, hash;
	int error;
	unsigned count;
} last = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void last_set(uint64_t bytes, uint64_t hash, int error)
{
	pthread_mutex_lock(&last.lock);
	last.bytes = bytes;
	last.hash = hash;
	last.error = error;
	last.count++;
	pthread_mutex_unlock(&last.lock);
}

struct served {
	const char *mode;
	int fd;
};

static void text_addr(const struct sockaddr_in6 *sa, char *buf, size_t size)
{
	char ip[INET6_ADDRSTRLEN];

	if (IN6_IS_ADDR_V4MAPPED(&sa->sin6_addr))
		inet_ntop(AF_INET, &sa->sin6_addr.s6_addr[12], ip, sizeof(ip));
	else
		inet_ntop(AF_INET6, &sa->sin6_addr, ip, sizeof(ip));
	snprintf(buf, size, "%s %u", ip, ntohs(sa->sin6_port));
}

static int serve_who(int fd)
{
	struct sockaddr_in6 peer = {0}, local = {0};
	socklen_t n = sizeof(peer), m = sizeof(local);
	char a[64], b[64], line[160];

	if (getpeername(fd, (struct sockaddr *)&peer, &n) < 0 || getsockname(fd, (struct sockaddr *)&local, &m) < 0)
		return -errno;
	text_addr(&peer, a, sizeof(a));
	text_addr(&local, b, sizeof(b));
	snprintf(line, sizeof(line), "%s %s\n", a, b);
	return write_all(fd, line, strlen(line));
}

static int serve_echo(int fd)
{
	struct hash h = {.h = 1};
	uint64_t total = 0;
	uint8_t buf[16384];
	int r = 0;

	while (r == 0) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (n <= 0) {
			r = n < 0 ? -errno : 0;
			break;
		}
		hash_add(&h, buf, (size_t)n);
		total += (uint64_t)n;
		r = write_all(fd, buf, (size_t)n);
	}
	last_set(total, hash_end(&h), -r);
	return r;
}

static int serve_duplex(int fd)
{
	struct flow f = {.fd = fd, .got.h = 1, .want = UINT64_MAX};
	char head[HEADER_MAX], tail[HEADER_MAX];
	uint64_t bytes, seed;
	int pause_ms, mixed, r = read_line(fd, head, sizeof(head));

	if (r < 0)
		return r;
	if (sscanf(head, "D %" SCNu64 " %" SCNu64 " %d %d", &bytes, &seed, &pause_ms, &mixed) != 4)
		return -EINVAL;
	f.mixed = mixed;
	if (pause_ms)
		usleep((useconds_t)pause_ms * 1000);
	r = source_init(&f.src, bytes, seed);
	if (r == 0)
		r = flow_run(&f, 120000);
	last_set(f.received, hash_end(&f.got), -r);
	if (r == 0) {
		snprintf(tail, sizeof(tail), "%" PRIu64 " %016" PRIx64 " %016" PRIx64 "\n", f.received,
			 hash_end(&f.got), hash_end(&f.src.hash));
		r = write_all(fd, tail, strlen(tail));
	}
	free(f.src.block);
	return r;
}

static int serve_finfirst(int fd)
{
	struct flow f = {.fd = fd, .got.h = 1, .want = UINT64_MAX};
	int r;

	shutdown(fd, SHUT_WR);
	r = flow_run(&f, 60000);
	last_set(f.received, hash_end(&f.got), -r);
	return r;
}

static int serve_last(int fd)
{
	char line[HEADER_MAX];

	pthread_mutex_lock(&last.lock);
	snprintf(line, sizeof(line), "%u %" PRIu64 " %016" PRIx64 " %d\n", last.count, last.bytes, last.hash,
		 last.error);
	pthread_mutex_unlock(&last.lock);
	return write_all(fd, line, strlen(line));
}

static void *serve_connection(void *arg)
{
	struct served *s = arg;
	struct linger lin = {.l_onoff = 1};
	int one = 1;
	char c;

	(void)setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!strcmp(s->mode, "echo"))
		serve_echo(s->fd);
	else if (!strcmp(s->mode, "duplex"))
		serve_duplex(s->fd);
	else if (!strcmp(s->mode, "who")) {
		if (serve_who(s->fd) == 0)
			serve_echo(s->fd);
	} else if (!strcmp(s->mode, "finfirst"))
		serve_finfirst(s->fd);
	else if (!strcmp(s->mode, "last"))
		serve_last(s->fd);
	else if (!strcmp(s->mode, "rst") && read_all(s->fd, &c, 1) == 0)
		(void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &lin, sizeof(lin));
	close(s->fd);
	free(s);
	return NULL;
}

static int listen_on(const char *port)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, zero = 0;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 4096) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int serve(char **specs, int n)
{
	struct pollfd p[32];
	const char *modes[32];
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	if (n > 32)
		return -E2BIG;
	for (int i = 0; i < n; i++) {
		char *colon = strchr(specs[i], ':');

		if (!colon)
			return -EINVAL;
		*colon = '\0';
		modes[i] = specs[i];
		p[i] = (struct pollfd){.fd = listen_on(colon + 1), .events = POLLIN};
		if (p[i].fd < 0)
			return p[i].fd;
	}
	printf("{\"ready\": true}\n");
	fflush(stdout);
	while (!stop && (poll(p, (nfds_t)n, -1) >= 0 || errno == EINTR)) {
		for (int i = 0; i < n; i++) {
			struct served *s;
			pthread_t t;
			int fd;

			if (!(p[i].revents & POLLIN) || (fd = accept4(p[i].fd, NULL, NULL, SOCK_CLOEXEC)) < 0)
				continue;
			s = malloc(sizeof(*s));
			if (s)
				*s = (struct served){.mode = modes[i], .fd = fd};
			if (!s || pthread_create(&t, &attr, serve_connection, s)) {
				close(fd);
				free(s);
			}
		}
	}
	return 0;
}
