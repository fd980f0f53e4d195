/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many bytes in both directions at once, made up as they are sent and hashed as they come: what was lost, doubled or
 * swapped on the way shows in the hash. Called by server.c and clients.c.
 */
#include "traffic.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BLOCK (256 * 1024)

static void hash_word(struct hash *s, uint64_t w)
{
	s->h = (s->h ^ w) * 0x9e3779b97f4a7c15ULL;
	s->h ^= s->h >> 29;
}

void hash_add(struct hash *s, const uint8_t *p, size_t n)
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

uint64_t hash_end(const struct hash *s)
{
	struct hash t = *s;

	hash_word(&t, t.word ^ ((uint64_t)t.fill << 56));
	return t.h;
}

int source_init(struct source *s, uint64_t bytes, uint64_t seed)
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

int flow_run(struct flow *f, int stall_ms)
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
