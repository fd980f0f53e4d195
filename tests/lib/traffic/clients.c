/* SPDX-License-Identifier: Apache-2.0 */
/* The clients: each talks to a server of server.c in its own way, and prints one JSON line. Called by main.c. */
#include "traffic.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

int bulk(char **a, int n)
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

int ping(char **a)
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

/* Connect, one message, its echo, close. */
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

int serial(char **a)
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

int every(char **a)
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

int long_lived(char **a)
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

int burst(char **a, int n)
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
