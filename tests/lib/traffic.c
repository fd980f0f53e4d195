/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic for the tests: plain TCP clients and servers that know nothing of the mesh. Enters: a command line; leaves:
 * one JSON line on stdout. Called by tests/lib/mesh.py inside pods' network namespaces.
 *
 *   traffic serve MODE:PORT...             echo, duplex, who, rst, finfirst, last, close
 *   traffic bulk ADDR PORT UP DOWN [mixed|plain] [PAUSE_MS]
 *   traffic ping ADDR PORT COUNT SIZE
 *   traffic burst ADDR PORT COUNT [HOLD_MS] [who]
 *   traffic serial ADDR PORT COUNT
 *   traffic every ADDR PORT INTERVAL_MS SECONDS     a new connection each interval (until SIGTERM)
 *   traffic long ADDR PORT INTERVAL_MS SECONDS      one connection, a numbered message each interval
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK (256 * 1024)
#define HEADER_MAX 128

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A running hash over words; chunk borders do not matter, order does. Fast enough not to be what is measured. */
struct hash {
	uint64_t h, word;
	unsigned fill;
};

static void hash_word(struct hash *s, uint64_t w)
{
	s->h = (s->h ^ w) * 0x9e3779b97f4a7c15ULL;
	s->h ^= s->h >> 29;
}

static void hash_add(struct hash *s, const uint8_t *p, size_t n)
{
	while (n && s->fill) {
		s->word |= (uint64_t)*p++ << (8 * s->fill);
		n--;
		s->fill = (s->fill + 1) % 8;
		if (!s->fill) {
			hash_word(s, s->word);
			s->word = 0;
		}
	}
	for (; n >= 8; n -= 8, p += 8) {
		uint64_t w;

		memcpy(&w, p, 8);
		hash_word(s, w);
	}
	for (; n; n--)
		s->word |= (uint64_t)*p++ << (8 * s->fill++);
}

static uint64_t hash_end(const struct hash *s)
{
	struct hash t = *s;

	hash_word(&t, t.word ^ ((uint64_t)t.fill << 56));
	return t.h;
}

/* The sender's bytes: a pseudo-random block whose first word counts the blocks, so that a lost, doubled or swapped
 * block changes the hash. */
struct source {
	uint8_t *block;
	size_t at;
	uint64_t n, left;
	struct hash hash;
};

static int source_init(struct source *s, uint64_t bytes, uint64_t seed)
{
	uint64_t x = seed * 2862933555777941757ULL + 3037000493ULL;

	*s = (struct source){.left = bytes, .hash.h = 1};
	if (!bytes)
		return 0;
	s->block = malloc(BLOCK);
	if (!s->block)
		return -ENOMEM;
	for (size_t i = 0; i < BLOCK; i += 8) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		memcpy(s->block + i, &x, 8);
	}
	return 0;
}

static size_t source_next(struct source *s, size_t want, const uint8_t **ret)
{
	size_t n = BLOCK - s->at;

	if (!s->at)
		memcpy(s->block, &s->n, 8);
	if (n > want)
		n = want;
	if (n > s->left)
		n = (size_t)s->left;
	*ret = s->block + s->at;
	return n;
}

static void source_took(struct source *s, size_t n)
{
	hash_add(&s->hash, s->block + s->at, n);
	s->left -= n;
	s->at += n;
	if (s->at == BLOCK) {
		s->at = 0;
		s->n++;
	}
}

static int dial(const char *addr, const char *port, double timeout)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
	struct sockaddr_in s4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	bool v4 = inet_pton(AF_INET, addr, &s4.sin_addr) == 1;
	struct pollfd p;
	int fd, r, one = 1, err = 0;
	socklen_t len = sizeof(err);

	if (!v4 && inet_pton(AF_INET6, addr, &sa.sin6_addr) != 1)
		return -EINVAL;
	fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	r = v4 ? connect(fd, (struct sockaddr *)&s4, sizeof(s4)) : connect(fd, (struct sockaddr *)&sa, sizeof(sa));
	if (r < 0 && errno != EINPROGRESS) {
		r = -errno;
		close(fd);
		return r;
	}
	p = (struct pollfd){.fd = fd, .events = POLLOUT};
	do
		r = poll(&p, 1, (int)(timeout * 1000));
	while (r < 0 && errno == EINTR && !stop);
	if (r <= 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = r < 0 ? errno : ETIMEDOUT;
	if (err) {
		close(fd);
		return -err;
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

static int set_timeout(int fd, int seconds)
{
	struct timeval tv = {.tv_sec = seconds};

	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) |
	       setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static int write_all(int fd, const void *buf, size_t n)
{
	for (const char *p = buf; n;) {
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR && !stop)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

/* 0, -errno, or -EPIPE when the peer ended early. */
static int read_all(int fd, void *buf, size_t n)
{
	for (char *p = buf; n;) {
		ssize_t r = recv(fd, p, n, 0);

		if (r < 0 && errno == EINTR && !stop)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EPIPE;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

static int read_line(int fd, char *buf, size_t size)
{
	size_t n = 0;

	while (n + 1 < size) {
		int r = read_all(fd, buf + n, 1);

		if (r < 0)
			return r;
		if (buf[n] == '\n')
			break;
		n++;
	}
	buf[n] = '\0';
	return 0;
}

/* One connection with bytes in both directions at once. The receiver takes `want` bytes into the hash (all of them if
 * want is UINT64_MAX), what follows is the trailer. */
struct flow {
	int fd;
	struct source src;
	bool fin_when_sent, mixed;
	uint64_t want, received;
	struct hash got;
	char trailer[HEADER_MAX];
	size_t n_trailer;
};

static void flow_take(struct flow *f, const uint8_t *p, size_t n)
{
	uint64_t room = f->want - f->received;
	size_t body = n < room ? n : (size_t)room;

	hash_add(&f->got, p, body);
	f->received += body;
	n -= body;
	if (n > sizeof(f->trailer) - 1 - f->n_trailer)
		n = sizeof(f->trailer) - 1 - f->n_trailer;
	memcpy(f->trailer + f->n_trailer, p + body, n);
	f->n_trailer += n;
}

static int flow_send(struct flow *f)
{
	static const size_t sizes[] = {1, 7, 100000, 3, 16384, 2, 65536, 1, 1460, 200000, 13};
	const uint8_t *p;

	for (unsigned round = 0; f->src.left && round < 16; round++) {
		size_t n = source_next(&f->src, f->mixed ? sizes[(f->src.left + round) % 11] : BLOCK, &p);
		ssize_t r = send(f->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		source_took(&f->src, (size_t)r);
		if ((size_t)r < n)
			break;
	}
	return 0;
}

/* Until everything is sent and the peer's end was read. 0 or -errno. */
static int flow_run(struct flow *f, int stall_ms)
{
	uint8_t *buf = malloc(BLOCK);
	bool eof = false, fin = !f->fin_when_sent;
	int r = buf ? 0 : -ENOMEM;

	while (r == 0 && (!eof || f->src.left || !fin)) {
		struct pollfd p = {.fd = f->fd};

		if (!f->src.left && !fin) {
			shutdown(f->fd, SHUT_WR);
			fin = true;
		}
		if (eof && !f->src.left)
			break;
		p.events = (short)((eof ? 0 : POLLIN) | (f->src.left ? POLLOUT : 0));
		r = poll(&p, 1, stall_ms);
		if (r <= 0) {
			r = r < 0 ? -errno : -ETIMEDOUT;
			break;
		}
		r = 0;
		if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
			ssize_t n = recv(f->fd, buf, BLOCK, MSG_DONTWAIT);

			if (n > 0)
				flow_take(f, buf, (size_t)n);
			else if (n == 0)
				eof = true;
			else if (errno != EAGAIN && errno != EINTR)
				r = -errno;
		}
		if (r == 0 && f->src.left && (p.revents & POLLOUT))
			r = flow_send(f);
	}
	free(buf);
	return r;
}

/* --- server --- */

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

static int serve(char **specs, int n)
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

/* --- clients --- */

static int result(int error, double started, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int result(int error, double started, const char *fmt, ...)
{
	va_list ap;

	printf("{\"ok\": %s, \"error\": \"%s\", \"errno\": %d, \"seconds\": %.6f", error ? "false" : "true",
	       error ? strerror(-error) : "", -error, now_s() - started);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("}\n");
	return error ? 1 : 0;
}

static int bulk(char **a, int n)
{
	struct flow f = {.fin_when_sent = true, .got.h = 1};
	uint64_t up = strtoull(a[2], NULL, 10), down = strtoull(a[3], NULL, 10), peer_bytes = 0, peer_got = 0,
		 peer_sent = 0;
	double t = now_s();
	char head[HEADER_MAX];
	int r;

	f.mixed = n > 4 && !strcmp(a[4], "mixed");
	f.want = down;
	f.fd = dial(a[0], a[1], 20);
	r = f.fd < 0 ? f.fd : source_init(&f.src, up, 42);
	if (r == 0) {
		snprintf(head, sizeof(head), "D %" PRIu64 " 7 %d %d\n", down, n > 5 ? atoi(a[5]) : 0, f.mixed);
		r = write_all(f.fd, head, strlen(head));
	}
	if (r == 0)
		r = flow_run(&f, 120000);
	if (r == 0 && (sscanf(f.trailer, "%" SCNu64 " %" SCNx64 " %" SCNx64, &peer_bytes, &peer_got, &peer_sent) != 3 ||
		       peer_bytes != up || peer_got != hash_end(&f.src.hash) || f.received != down ||
		       peer_sent != hash_end(&f.got)))
		r = -EBADMSG;
	free(f.src.block);
	return result(r, t,
		      ", \"up\": %" PRIu64 ", \"down\": %" PRIu64 ", \"peer_received\": %" PRIu64
		      ", \"sent_hash\": \"%016" PRIx64 "\", \"peer_received_hash\": \"%016" PRIx64
		      "\", \"received_hash\": \"%016" PRIx64 "\", \"peer_sent_hash\": \"%016" PRIx64 "\"",
		      up - f.src.left, f.received, peer_bytes, hash_end(&f.src.hash), peer_got, hash_end(&f.got),
		      peer_sent);
}

static int ping(char **a)
{
	unsigned count = (unsigned)atoi(a[2]), i = 0;
	size_t size = (size_t)atoi(a[3]);
	uint8_t *out = malloc(size), *in = malloc(size);
	double t = now_s();
	int fd = dial(a[0], a[1], 20), r = fd < 0 ? fd : 0;

	if (r == 0 && (!out || !in))
		r = -ENOMEM;
	if (r == 0)
		set_timeout(fd, 20);
	for (; r == 0 && i < count; i++) {
		memset(out, (int)(i * 31 + 7), size);
		r = write_all(fd, out, size);
		if (r == 0)
			r = read_all(fd, in, size);
		if (r == 0 && memcmp(in, out, size) != 0)
			r = -EBADMSG;
	}
	free(out);
	free(in);
	return result(r, t, ", \"count\": %u", i);
}

struct tally {
	unsigned ok, failed, errnos[256];
	double slowest;
};

static void tally_print(int error, double started, const struct tally *t, const char *extra)
{
	char list[512] = "";
	size_t n = 0;

	for (unsigned i = 0; i < 256; i++)
		if (t->errnos[i] && n < sizeof(list) - 64)
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s\"%s\": %u", n ? ", " : "",
					      strerror((int)i), t->errnos[i]);
	result(error, started, ", \"done\": %u, \"failed\": %u, \"slowest\": %.6f, \"errors\": {%s}%s", t->ok,
	       t->failed, t->slowest, list, extra);
}

static void tally_add(struct tally *t, int r, double took)
{
	if (took > t->slowest)
		t->slowest = took;
	if (r == 0) {
		t->ok++;
		return;
	}
	t->failed++;
	t->errnos[-r & 255]++;
}

/* Connect, one message, its echo, close. With `who` the line the server says first is read and its address kept. */
static int one_exchange(const char *addr, const char *port, unsigned n, double timeout)
{
	char out[32], in[32];
	int fd = dial(addr, port, timeout), r;

	if (fd < 0)
		return fd;
	set_timeout(fd, (int)timeout);
	memset(out, 0, sizeof(out));
	snprintf(out, sizeof(out), "message %u", n);
	r = write_all(fd, out, sizeof(out));
	if (r == 0)
		r = read_all(fd, in, sizeof(in));
	if (r == 0 && memcmp(in, out, sizeof(in)) != 0)
		r = -EBADMSG;
	close(fd);
	return r;
}

static int serial(char **a)
{
	struct tally t = {0};
	double start = now_s();

	for (unsigned i = 0; i < (unsigned)atoi(a[2]) && !stop; i++) {
		double s = now_s();
		int r = one_exchange(a[0], a[1], i, 10);

		tally_add(&t, r, now_s() - s);
	}
	tally_print(t.failed ? -EIO : 0, start, &t, "");
	return t.failed ? 1 : 0;
}

struct timed {
	char **a;
	struct tally *t;
	pthread_mutex_t *lock;
	unsigned n;
};

static void *every_one(void *arg)
{
	struct timed *w = arg;
	double s = now_s();
	int r = one_exchange(w->a[0], w->a[1], w->n, 20);

	pthread_mutex_lock(w->lock);
	tally_add(w->t, r, now_s() - s);
	pthread_mutex_unlock(w->lock);
	free(w);
	return NULL;
}

static int every(char **a)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct tally t = {0};
	double start = now_s(), interval = atof(a[2]) / 1000, end = start + atof(a[3]), next = start;
	unsigned started = 0;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	for (; !stop && now_s() < end; next += interval) {
		struct timed *w = malloc(sizeof(*w));
		double wait = next - now_s();
		pthread_t th;

		if (wait > 0)
			usleep((useconds_t)(wait * 1e6));
		if (!w)
			break;
		*w = (struct timed){.a = a, .t = &t, .lock = &lock, .n = started};
		if (pthread_create(&th, &attr, every_one, w) == 0)
			started++;
		else
			free(w);
	}
	stop = 0;
	for (double limit = now_s() + 25; now_s() < limit; usleep(10000)) {
		pthread_mutex_lock(&lock);
		bool all = t.ok + t.failed == started;
		pthread_mutex_unlock(&lock);
		if (all)
			break;
	}
	pthread_mutex_lock(&lock);
	if (t.ok + t.failed != started) {
		t.errnos[ETIMEDOUT] += started - t.ok - t.failed;
		t.failed = started - t.ok;
	}
	tally_print(t.failed ? -EIO : 0, start, &t, "");
	pthread_mutex_unlock(&lock);
	return t.failed ? 1 : 0;
}

static int long_lived(char **a)
{
	double start = now_s(), interval = atof(a[2]) / 1000, end = start + atof(a[3]);
	unsigned n = 0;
	int fd = dial(a[0], a[1], 20), r = fd < 0 ? fd : set_timeout(fd, 30);

	printf("{\"connected\": %s}\n", r == 0 ? "true" : "false");
	fflush(stdout);
	while (r == 0 && !stop && now_s() < end) {
		unsigned in = 0;

		r = write_all(fd, &n, sizeof(n));
		if (r == 0)
			r = read_all(fd, &in, sizeof(in));
		if (r == 0 && in != n)
			r = -EBADMSG;
		n++;
		usleep((useconds_t)(interval * 1e6));
	}
	return result(stop && r == -EINTR ? 0 : r, start, ", \"messages\": %u", n);
}

struct burst {
	char **a;
	double hold_until;
	bool who;
	int r;
	char peer[64];
	double took;
	int fd;
};

static void *burst_one(void *arg)
{
	struct burst *b = arg;
	double s = now_s();
	char line[160], out[64], in[64];

	b->fd = dial(b->a[0], b->a[1], 30);
	b->r = b->fd < 0 ? b->fd : set_timeout(b->fd, 30);
	if (b->r == 0 && b->who) {
		b->r = read_line(b->fd, line, sizeof(line));
		if (b->r == 0)
			sscanf(line, "%63s", b->peer);
	}
	memset(out, 0x5a, sizeof(out));
	if (b->r == 0)
		b->r = write_all(b->fd, out, sizeof(out));
	if (b->r == 0)
		b->r = read_all(b->fd, in, sizeof(in));
	if (b->r == 0 && memcmp(in, out, sizeof(in)) != 0)
		b->r = -EBADMSG;
	b->took = now_s() - s;
	return NULL;
}

static int burst(char **a, int n)
{
	unsigned count = (unsigned)atoi(a[2]), odd = 0;
	int hold_ms = n > 3 ? atoi(a[3]) : 0;
	struct burst *b = calloc(count, sizeof(*b));
	pthread_t *th = calloc(count, sizeof(*th));
	struct tally t = {0};
	double start = now_s();
	pthread_attr_t attr;
	char extra[128];

	if (!b || !th)
		return result(-ENOMEM, start, " ");
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	for (unsigned i = 0; i < count; i++) {
		b[i] = (struct burst){.a = a, .who = n > 4 && !strcmp(a[4], "who"), .fd = -1};
		if (pthread_create(&th[i], &attr, burst_one, &b[i]))
			b[i].r = -EAGAIN;
	}
	for (unsigned i = 0; i < count; i++) {
		if (th[i])
			pthread_join(th[i], NULL);
		tally_add(&t, b[i].r, b[i].took);
		odd += strcmp(b[i].peer, b[0].peer) != 0;
	}
	snprintf(extra, sizeof(extra), ", \"peer\": \"%s\", \"other_peers\": %u", b[0].peer, odd);
	if (hold_ms) {
		printf("{\"open\": %u}\n", t.ok);
		fflush(stdout);
		for (double end = now_s() + hold_ms / 1000.0; !stop && now_s() < end;)
			usleep(20000);
	}
	tally_print(t.failed ? -EIO : 0, start, &t, extra);
	free(b);
	free(th);
	return t.failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_term};

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 3 && !strcmp(argv[1], "serve")) {
		int r = serve(argv + 2, argc - 2);

		if (r < 0)
			fprintf(stderr, "traffic: %s\n", strerror(-r));
		return r < 0 ? 1 : 0;
	}
	if (argc >= 6 && !strcmp(argv[1], "bulk"))
		return bulk(argv + 2, argc - 2);
	if (argc >= 6 && !strcmp(argv[1], "ping"))
		return ping(argv + 2);
	if (argc >= 5 && !strcmp(argv[1], "burst"))
		return burst(argv + 2, argc - 2);
	if (argc >= 5 && !strcmp(argv[1], "serial"))
		return serial(argv + 2);
	if (argc >= 6 && !strcmp(argv[1], "every"))
		return every(argv + 2);
	if (argc >= 6 && !strcmp(argv[1], "long"))
		return long_lived(argv + 2);
	fprintf(stderr, "usage: traffic serve|bulk|ping|burst|serial|every|long ...\n");
	return 2;
}
