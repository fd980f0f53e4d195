/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server and clients of the benchmark: one thread each, epoll, JSON on stdout.
 * load serve ECHO_PORT HTTP_PORT             echo, and a keep-alive HTTP responder
 * load ping IP PORT COUNT                    64-byte round trips: {"p50_us","p99_us"}
 * load connect IP PORT COUNT AT_ONCE [apart] connect, one byte each way, close: {"per_second","p50_us","p99_us"}; with
 *                                            apart each goes to the next IP
 * load hold IP PORT COUNT SECONDS            COUNT connections, each used once, held open: prints "open" when all are
 * load watch IP[,IP...] PORT COUNT           the same, until all have been ended: {"reset","last_s"}, on the monotonic
 *                                            clock as Python's is
 * load witness IP PORT SECONDS               one connection, a round trip each 500 us: {"worst_us"}
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
#include <time.h>
#include <unistd.h>

#define LOAD_FDS_MAX 65536

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static struct sockaddr_in target;

static int dial(bool blocking)
{
	int fd = socket(AF_INET, SOCK_STREAM | (blocking ? 0 : SOCK_NONBLOCK), 0), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (fd < 0 || (connect(fd, (struct sockaddr *)&target, sizeof(target)) < 0 && errno != EINPROGRESS)) {
		perror("load: connect");
		exit(1);
	}
	return fd;
}

static int listener(int port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 || listen(fd, 4096) < 0) {
		perror("load: listen");
		exit(1);
	}
	return fd;
}

static void answer(int fd, bool http)
{
	static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nhello, world\n";
	char buf[65536];
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);

	if (n <= 0) {
		if (!n || errno != EAGAIN)
			close(fd);
		return;
	}
	buf[n] = 0;
	if (!http) {
		(void)!send(fd, buf, (size_t)n, MSG_NOSIGNAL);
		return;
	}
	for (char *p = buf; (p = strstr(p, "\r\n\r\n")); p += 4)
		(void)!send(fd, response, sizeof(response) - 1, MSG_NOSIGNAL);
}

__attribute__((noreturn)) static void serve(int echo_port, int http_port)
{
	int ep = epoll_create1(0), ports[2] = {listener(echo_port), listener(http_port)}, one = 1;

	for (int i = 0; i < 2; i++) {
		struct epoll_event ev = {.events = EPOLLIN, .data.u64 = (uint64_t)ports[i] | (uint64_t)(i + 1) << 32};

		epoll_ctl(ep, EPOLL_CTL_ADD, ports[i], &ev);
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct epoll_event evs[256];
		int n = epoll_wait(ep, evs, 256, -1);

		for (int i = 0; i < n; i++) {
			int fd = (int)(uint32_t)evs[i].data.u64, kind = (int)(evs[i].data.u64 >> 32), c;

			if (!(kind & 3)) {
				answer(fd, kind & 4);
				continue;
			}
			while ((c = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				struct epoll_event ev = {.events = EPOLLIN,
							 .data.u64 = (uint64_t)c | (uint64_t)(kind == 2 ? 4 : 8) << 32};

				setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev);
			}
		}
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int ping(int count)
{
	double *t = calloc((size_t)count, sizeof(*t));
	char buf[64] = {0};
	int fd = dial(true);

	for (int i = -200; i < count; i++) {
		double start = now_us();

		if (send(fd, buf, 64, 0) != 64 || recv(fd, buf, 64, MSG_WAITALL) != 64) {
			perror("load: ping");
			return 1;
		}
		if (i >= 0)
			t[i] = now_us() - start;
	}
	qsort(t, (size_t)count, sizeof(*t), by_value);
	printf("{\"p50_us\": %.1f, \"p99_us\": %.1f}\n", t[count / 2], t[count * 99 / 100]);
	free(t);
	return 0;
}

/* `at_once` connections are always under way. */
static int connects(int count, int at_once, bool apart)
{
	double start = now_us(), *began = calloc(LOAD_FDS_MAX, sizeof(*began)), *t = calloc((size_t)count, sizeof(*t));
	int ep = epoll_create1(0), started = 0, done = 0;

	while (done < count) {
		struct epoll_event evs[64];
		int n;

		while (started < count && started - done < at_once) {
			double now = now_us();
			int fd = dial(false);
			struct epoll_event ev = {.events = EPOLLOUT, .data.fd = fd};

			began[fd] = now;
			epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
			started++;
			if (apart)
				target.sin_addr.s_addr = htonl(ntohl(target.sin_addr.s_addr) + 1);
		}
		n = epoll_wait(ep, evs, 64, 10000);
		if (n <= 0) {
			fprintf(stderr, "load: no progress\n");
			return 1;
		}
		for (int i = 0; i < n; i++) {
			int fd = evs[i].data.fd;
			char b = 'x';

			if (evs[i].events & EPOLLOUT && !(evs[i].events & EPOLLIN)) {
				struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

				if (send(fd, &b, 1, MSG_NOSIGNAL) != 1) {
					perror("load: send");
					return 1;
				}
				epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);
			} else {
				if (recv(fd, &b, 1, 0) != 1) {
					perror("load: recv");
					return 1;
				}
				close(fd);
				t[done++] = now_us() - began[fd];
			}
		}
	}
	start = (now_us() - start) / 1e6;
	qsort(t, (size_t)count, sizeof(*t), by_value);
	printf("{\"per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", count / start, t[count / 2],
	       t[count * 99 / 100]);
	free(t);
	free(began);
	return 0;
}

static int dial_used(void)
{
	int fd = dial(true);
	char b = 'x';

	if (send(fd, &b, 1, 0) != 1 || recv(fd, &b, 1, 0) != 1) {
		perror("load: first byte");
		exit(1);
	}
	return fd;
}

static void say_open(void)
{
	printf("open\n");
	fflush(stdout);
}

static int hold(int count, int seconds)
{
	for (int i = 0; i < count; i++)
		dial_used();
	say_open();
	sleep((unsigned)seconds);
	return 0;
}

static int watch(char *ips, int count)
{
	struct in_addr to[16];
	int ep = epoll_create1(0), n_to = 0, left = count, reset = 0;

	for (char *ip = strtok(ips, ","); ip && n_to < 16; ip = strtok(NULL, ","))
		inet_pton(AF_INET, ip, &to[n_to++]);
	for (int i = 0; i < count; i++) {
		struct epoll_event ev = {.events = EPOLLIN};

		target.sin_addr = to[i % n_to];
		ev.data.fd = dial_used();
		epoll_ctl(ep, EPOLL_CTL_ADD, ev.data.fd, &ev);
	}
	say_open();
	while (left) {
		struct epoll_event evs[256];
		int n = epoll_wait(ep, evs, 256, 60000);
		char b;

		if (n <= 0) {
			fprintf(stderr, "load: %d of %d connections are still open\n", left, count);
			return 1;
		}
		for (int i = 0; i < n; i++, left--) {
			reset += recv(evs[i].data.fd, &b, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET;
			close(evs[i].data.fd);
		}
	}
	printf("{\"reset\": %d, \"last_s\": %.6f}\n", reset, now_us() / 1e6);
	return 0;
}

static int witness(int seconds)
{
	double worst = 0, end = now_us() + seconds * 1e6, start;
	int fd = dial_used();
	char b = 'x';

	say_open();
	while ((start = now_us()) < end) {
		if (send(fd, &b, 1, MSG_NOSIGNAL) != 1 || recv(fd, &b, 1, 0) != 1) {
			perror("load: witness");
			return 1;
		}
		if (now_us() - start > worst)
			worst = now_us() - start;
		/* Often enough to see a stall, seldom enough not to be the load itself. */
		usleep(500);
	}
	printf("{\"worst_us\": %.1f}\n", worst);
	return 0;
}

int main(int argc, char **argv)
{
	struct rlimit rl;

	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	if (argc == 4 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]), atoi(argv[3]));
	if (argc < 5) {
		fprintf(stderr, "usage: see the head of load.c\n");
		return 2;
	}
	target.sin_family = AF_INET;
	target.sin_port = htons((uint16_t)atoi(argv[3]));
	if (!strcmp(argv[1], "watch"))
		return watch(argv[2], atoi(argv[4]));
	inet_pton(AF_INET, argv[2], &target.sin_addr);
	if (!strcmp(argv[1], "witness"))
		return witness(atoi(argv[4]));
	if (!strcmp(argv[1], "ping"))
		return ping(atoi(argv[4]));
	if (!strcmp(argv[1], "connect") && argc >= 6)
		return connects(atoi(argv[4]), atoi(argv[5]), argc > 6 && !strcmp(argv[6], "apart"));
	if (!strcmp(argv[1], "hold") && argc == 6)
		return hold(atoi(argv[4]), atoi(argv[5]));
	fprintf(stderr, "usage: see the head of load.c\n");
	return 2;
}
