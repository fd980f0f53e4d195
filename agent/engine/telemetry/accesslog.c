/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Access log with ztunnel's field names and order. Workers format into a ring; one thread writes it out, so a slow disk
 * or a full pipe costs lines (counted), never a worker's time. Called by proxy/conn.c.
 */
#include "engine/telemetry/accesslog.h"
#include "engine/base/decimal.h"
#include "engine/base/log.h"
#include "engine/model/policy.h"
#include "engine/telemetry/reason.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Room for two thousand connections that end at once; pages beyond the first 64 KiB are given back after such a burst.
 */
#define RING_BYTES (1024 * 1024)
#define KEEP_BYTES (64 * 1024)
/* Every field at its longest: a line that is cut is no JSON. */
#define LINE_BYTES 6144
/* Lines are collected for this long, so that a burst is a few writes instead of a wake-up each. */
#define WRITE_INTERVAL_MS 20
/* Not so long when a burst fills the ring: what says why it ended must find room. */
#define HURRY_BYTES (RING_BYTES / 4)

static struct {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	pthread_t writer;
	bool open, json, stop, reopen;
	int fd;
	char path[512];
	size_t used;
	uint64_t dropped;
	_Alignas(KEEP_BYTES) char ring[RING_BYTES];
	_Alignas(KEEP_BYTES) char out[RING_BYTES];
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER, .fd = -1};

static bool is_file(void)
{
	return sink.path[0] != 0;
}

static int open_path(void)
{
	int fd = open(sink.path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

	return fd < 0 ? -errno : fd;
}

static void write_out(int fd, const char *data, size_t len)
{
	static bool complained;

	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (!complained)
				log_error("access", "cannot write the access log: %s; lines are lost and counted",
					  strerror(errno));
			complained = true;
			for (; len; len--)
				sink.dropped += *data++ == '\n';
			return;
		}
		complained = false;
		data += n;
		len -= (size_t)n;
	}
}

static void give_back(char *buffer, size_t used)
{
	if (used > KEEP_BYTES)
		(void)madvise(buffer + KEEP_BYTES, RING_BYTES - KEEP_BYTES, MADV_DONTNEED);
}

/* With the lock held: waits for more lines, but not until they are too many. */
static void collect(void)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_nsec += WRITE_INTERVAL_MS * 1000000L;
	end.tv_sec += end.tv_nsec / 1000000000L;
	end.tv_nsec %= 1000000000L;
	while (!sink.stop && sink.used < HURRY_BYTES)
		if (pthread_cond_clockwait(&sink.filled, &sink.lock, CLOCK_MONOTONIC, &end))
			return;
}

static void *writer_main(void *arg)
{
	(void)arg;
	pthread_setname_np(pthread_self(), "accesslog");
	pthread_mutex_lock(&sink.lock);
	for (;;) {
		size_t n;

		while (!sink.used && !sink.stop && !sink.reopen)
			pthread_cond_wait(&sink.filled, &sink.lock);
		collect();
		if (sink.reopen && is_file()) {
			int fd = open_path();

			if (fd >= 0) {
				close(sink.fd);
				sink.fd = fd;
			} else {
				log_error("access", "cannot reopen %s: %s; going on with the old file", sink.path,
					  strerror(-fd));
			}
		}
		sink.reopen = false;
		n = sink.used;
		memcpy(sink.out, sink.ring, n);
		give_back(sink.ring, n);
		sink.used = 0;
		if (!n && sink.stop)
			break;
		int fd = sink.fd;
		pthread_mutex_unlock(&sink.lock);
		write_out(fd, sink.out, n);
		give_back(sink.out, n);
		pthread_mutex_lock(&sink.lock);
	}
	pthread_mutex_unlock(&sink.lock);
	return NULL;
}

int accesslog_open(const char *target, bool json)
{
	int fd, r;

	if (!strcmp(target, "off"))
		return 0;
	sink.path[0] = 0;
	if (!strcmp(target, "stdout")) {
		fd = STDOUT_FILENO;
	} else if (!strcmp(target, "stderr")) {
		fd = STDERR_FILENO;
	} else {
		if (strlen(target) >= sizeof(sink.path))
			return -ENAMETOOLONG;
		memcpy(sink.path, target, strlen(target) + 1);
		fd = open_path();
		if (fd < 0)
			return fd;
	}
	sink.fd = fd;
	sink.json = json;
	sink.stop = false;
	r = -pthread_create(&sink.writer, NULL, writer_main, NULL);
	if (r == 0)
		__atomic_store_n(&sink.open, true, __ATOMIC_RELEASE);
	return r;
}

void accesslog_reopen(void)
{
	pthread_mutex_lock(&sink.lock);
	sink.reopen = true;
	pthread_cond_signal(&sink.filled);
	pthread_mutex_unlock(&sink.lock);
}

void accesslog_close(void)
{
	if (!__atomic_exchange_n(&sink.open, false, __ATOMIC_ACQ_REL))
		return;
	pthread_mutex_lock(&sink.lock);
	sink.stop = true;
	pthread_cond_signal(&sink.filled);
	pthread_mutex_unlock(&sink.lock);
	pthread_join(sink.writer, NULL);
	if (is_file())
		close(sink.fd);
	sink.fd = -1;
}

uint64_t accesslog_dropped(void)
{
	uint64_t n;

	pthread_mutex_lock(&sink.lock);
	n = sink.dropped;
	pthread_mutex_unlock(&sink.lock);
	return n;
}

/* --- one line --- */

struct line {
	char text[LINE_BYTES];
	size_t n;
	bool json;
};

/* Plain copies: a line has some sixty pieces, and printf for each of them was a tenth of what a connection cost. */
static void put_bytes(struct line *l, const char *from, size_t len)
{
	size_t room = sizeof(l->text) - 1 - l->n;

	len = len < room ? len : room;
	memcpy(l->text + l->n, from, len);
	l->n += len;
}

static void put(struct line *l, const char *value)
{
	put_bytes(l, value, strlen(value));
}

/* Whether JSON, and a line of text, can hold the character as it is. */
static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c != 0x7f && c != '"' && c != '\\';
}

static void put_escaped(struct line *l, unsigned char c)
{
	char buf[8];
	int n = snprintf(buf, sizeof(buf), c == '"' || c == '\\' ? "\\%c" : "\\u%04x", c);

	put_bytes(l, buf, (size_t)n);
}

static void put_quoted(struct line *l, const char *value)
{
	put(l, "\"");
	while (*value) {
		size_t n = 0;

		while (value[n] && is_plain((unsigned char)value[n]))
			n++;
		put_bytes(l, value, n);
		value += n;
		if (*value)
			put_escaped(l, (unsigned char)*value++);
	}
	put(l, "\"");
}

static void put_number(struct line *l, uint64_t v)
{
	char buf[DECIMAL_STRLEN];

	put_bytes(l, buf, (size_t)(decimal_write(buf, v, 1) - buf));
}

static void key(struct line *l, const char *name)
{
	put(l, l->json ? ",\"" : " ");
	put(l, name);
	put(l, l->json ? "\":" : "=");
}

static void text(struct line *l, const char *name, const char *value)
{
	if (!value || !*value)
		return;
	key(l, name);
	put_quoted(l, value);
}

/* Addresses and authorities stand without quotes in the text form, as ztunnel writes them. */
static void bare(struct line *l, const char *name, const char *value)
{
	if (l->json) {
		text(l, name, value);
		return;
	}
	key(l, name);
	put(l, value);
}

static void addr(struct line *l, const char *name, const struct ip_port *a)
{
	char buf[IP_PORT_STRLEN];

	if (a->port)
		bare(l, name, ip_port_format(a, buf, sizeof(buf)));
}

static void number(struct line *l, const char *name, uint64_t v)
{
	key(l, name);
	put_number(l, v);
}

static void party(struct line *l, bool src, const struct workload *w, const char *identity)
{
	if (w) {
		text(l, src ? "src.workload" : "dst.workload", w->name);
		text(l, src ? "src.namespace" : "dst.namespace", w->namespace_);
	}
	text(l, src ? "src.identity" : "dst.identity", identity);
	if (w)
		text(l, src ? "src.cluster" : "dst.cluster", w->cluster_id);
}

static void error(struct line *l, const struct accesslog_record *r)
{
	char buf[256];

	if (!r->reason)
		return;
	snprintf(buf, sizeof(buf), "%s: %s%s%s", reason_name(r->reason), reason_text(r->reason), r->detail ? ": " : "",
		 r->detail ? r->detail : "");
	text(l, "error", buf);
}

/* What denied it, so that nobody has to search for it. */
static void denial(struct line *l, const struct policy_verdict *v)
{
	char name[600];

	policy_verdict_name(v, name, sizeof(name));
	text(l, "policy", name);
	if (v->rule >= 0)
		number(l, "policy.rule", (uint64_t)v->rule);
	text(l, "policy.field", v->field);
}

static void fields(struct line *l, const struct accesslog_record *r)
{
	addr(l, "src.addr", &r->src_addr);
	if (!r->early)
		party(l, true, r->src, r->src_identity);
	addr(l, "dst.addr", &r->dst_addr);
	if (!r->early) {
		if (r->hbone_addr)
			bare(l, "dst.hbone_addr", r->hbone_addr);
		text(l, "dst.service", r->dst_service ? r->dst_service->hostname : NULL);
		party(l, false, r->dst, r->dst_identity);
	}
	text(l, "direction", r->direction == ACCESS_OUTBOUND ? "outbound" : "inbound");
	if (!r->early && !r->opened) {
		number(l, "bytes_sent", r->bytes_sent);
		number(l, "bytes_recv", r->bytes_recv);
		key(l, "duration");
		put(l, "\"");
		put_number(l, r->duration_us / 1000);
		put(l, "ms\"");
	}
	error(l, r);
	if (r->verdict)
		denial(l, r->verdict);
}

/* What stands before the fields. */
static void opening(struct line *l, const struct accesslog_record *r)
{
	const char *level = r->early ? "warn" : r->opened ? "debug" : r->reason ? "error" : "info";
	const char *message = r->early ? "connection failed" : r->opened ? "connection opened" : "connection complete";
	char now[40];

	log_timestamp(now, sizeof(now));
	const char *const json[] = {"{\"level\":\"",
				    level,
				    "\",\"time\":\"",
				    now,
				    "\",\"scope\":\"access\",\"message\":\"",
				    message,
				    "\"",
				    NULL};
	const char *const plain[] = {now, "\t", level, "\taccess\t", message, "\t", NULL};

	for (const char *const *piece = l->json ? json : plain; *piece; piece++)
		put(l, *piece);
}

void accesslog_write(const struct accesslog_record *r)
{
	struct line l;

	if (!__atomic_load_n(&sink.open, __ATOMIC_ACQUIRE))
		return;
	l.n = 0;
	l.json = sink.json;
	opening(&l, r);
	size_t start = l.n;
	fields(&l, r);
	/* The text form has a tab before its first field, not a space as well. */
	if (!l.json && l.n > start && l.text[start] == ' ')
		memmove(l.text + start, l.text + start + 1, --l.n - start);
	if (l.n > sizeof(l.text) - 3)
		l.n = sizeof(l.text) - 3;
	if (l.json)
		l.text[l.n++] = '}';
	l.text[l.n++] = '\n';
	pthread_mutex_lock(&sink.lock);
	if (sink.used + l.n > sizeof(sink.ring)) {
		sink.dropped++;
	} else {
		memcpy(sink.ring + sink.used, l.text, l.n);
		if (!sink.used || (sink.used < HURRY_BYTES && sink.used + l.n >= HURRY_BYTES))
			pthread_cond_signal(&sink.filled);
		sink.used += l.n;
	}
	pthread_mutex_unlock(&sink.lock);
}
