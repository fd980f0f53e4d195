/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refusals that the kernel made by itself. In: the ring buffer wr_events. Out: one call for each, a bounded number at a
 * time: callers can be invented, and the loop has other work. What the ring cannot hold stays counted. Called by
 * agent/denied.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"
#include "engine/io/loop.h"

#include <bpf/libbpf.h>
#include <string.h>

#define PAUSE_MS 100

struct denials {
	struct loop *loop;
	struct watch watch;
	struct timer pause;
	struct ring_buffer *ring;
	void (*fn)(void *arg, const struct capture_denial *d);
	void *arg;
	unsigned taken; /* in this round */
};

static int take(void *ctx, void *data, size_t size)
{
	const struct wr_event *e = data;
	struct capture_denial d = {0};
	struct denials *s = ctx;

	if (size < sizeof(*e))
		return 0;
	d.number = e->pod;
	d.reason = (enum wr_reason)e->reason;
	d.suppressed = e->suppressed;
	memcpy(&d.src.ip, &e->src, sizeof(d.src.ip));
	memcpy(&d.dst.ip, &e->dst, sizeof(d.dst.ip));
	d.src.port = e->sport;
	d.dst.port = e->dport;
	s->fn(s->arg, &d);
	return ++s->taken < CAPTURE_DENIALS_PER_ROUND ? 0 : -EAGAIN;
}

static void events_ready(struct watch *w, uint32_t events)
{
	struct denials *s = container_of(w, struct denials, watch);

	(void)events;
	s->taken = 0;
	if (ring_buffer__consume(s->ring) != -EAGAIN)
		return;
	(void)loop_watch_mod(s->loop, &s->watch, 0);
	loop_timer_set(s->loop, &s->pause, PAUSE_MS);
}

static void pause_over(struct timer *t)
{
	struct denials *s = container_of(t, struct denials, pause);

	(void)loop_watch_mod(s->loop, &s->watch, EPOLLIN);
}

int capture_watch_denials(struct capture *c, struct loop *loop, void (*fn)(void *arg, const struct capture_denial *d),
			  void *arg)
{
	struct denials *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->fn = fn;
	s->arg = arg;
	s->watch.fn = events_ready;
	s->pause.fn = pause_over;
	s->ring = ring_buffer__new(c->maps[MAP_EVENTS], take, s, NULL);
	r = s->ring ? loop_watch_add(loop, &s->watch, ring_buffer__epoll_fd(s->ring), EPOLLIN) : -errno;
	if (r < 0) {
		ring_buffer__free(s->ring);
		free(s);
		return r;
	}
	capture_unwatch_denials(c);
	c->denials = s;
	return 0;
}

void capture_unwatch_denials(struct capture *c)
{
	struct denials *s = take_ptr(c->denials);

	if (!s)
		return;
	loop_watch_del(s->loop, &s->watch);
	loop_timer_cancel(s->loop, &s->pause);
	ring_buffer__free(s->ring);
	free(s);
}
