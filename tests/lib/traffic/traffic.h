/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of traffic share. Times are seconds; errors are negative errno. */
#pragma once
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEADER_MAX 128

/* Set by SIGTERM and SIGINT. */
extern volatile sig_atomic_t stop;

/* --- conn.c --- */
double now_s(void);
/* A descriptor, which blocks, or -errno. */
int dial(const char *addr, const char *port, double timeout);
int set_timeout(int fd, int seconds);
int write_all(int fd, const void *buf, size_t n);
/* 0, -errno, or -EPIPE when the peer ended early. */
int read_all(int fd, void *buf, size_t n);
/* Without its end. */
int read_line(int fd, char *buf, size_t size);

/* --- flow.c --- */

/* A running hash over words; chunk borders do not matter, order does. Fast enough not to be what is measured. */
struct hash {
	uint64_t h, word;
	unsigned fill;
};

void hash_add(struct hash *s, const uint8_t *p, size_t n);
uint64_t hash_end(const struct hash *s);

/* The sender's bytes: a pseudo-random block whose first word counts the blocks, so that a lost, doubled or swapped
 * block changes the hash. */
struct source {
	uint8_t *block;
	size_t at;
	uint64_t n, left;
	struct hash hash;
};

int source_init(struct source *s, uint64_t bytes, uint64_t seed);

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

/* Until everything is sent and the peer's end was read. 0 or -errno. */
int flow_run(struct flow *f, int stall_ms);

/* --- server.c --- */

/* MODE:PORT each. 0 after SIGTERM, or -errno. */
int serve(char **specs, int n);

/* --- clients.c: the words behind the command; they print the result and return the exit code --- */
int bulk(char **a, int n);
int ping(char **a);
int burst(char **a, int n);
int serial(char **a);
int every(char **a);
int long_lived(char **a);
