/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop of one thread: epoll watches, timers, deferred tasks and messages from other threads.
 * One round is: epoll_wait, the callbacks of all ready descriptors, due timers, then the tasks
 * deferred so far; what a task defers comes in the next round, which then does not wait.
 * Protocol code defers its flush, so that the events of one round end in one write per connection.
 * All functions but loop_post and loop_stop are for the loop's own thread (or before it runs).
 */
#pragma once
#include "engine/base/list.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;

/* A watched descriptor, embedded in its owner. `events` are epoll bits; the owner may be freed inside its callback
 * after loop_watch_del. */
struct watch {
	void (*fn)(struct watch *w, uint32_t events);
	int fd;
	uint32_t events;
	bool added;
};

struct timer {
	void (*fn)(struct timer *t);
	uint64_t due_ms;
	uint32_t heap_index; /* 0: not armed */
};

/* Runs once at the end of the present round. */
struct task {
	void (*fn)(struct task *t);
	struct list node;
};

/* A message from any thread; runs on the loop's thread. The callee owns the message after fn is called. */
struct loop_msg {
	void (*fn)(struct loop_msg *m);
	struct loop_msg *next;
};

int loop_new(struct loop **ret);
struct loop *loop_free(struct loop *l);
/* While events come at shorter intervals than `window_us` (LIMIT_POLL_STREAK of them), the loop waits for the next one
 * awake, yielding its CPU to whoever wants it, for at most that long; 0, as at the start: it always sleeps. */
void loop_set_busy_poll(struct loop *l, unsigned window_us);
/* So many bytes came in one piece. Of bulk traffic more comes meanwhile, and costs less in one piece than in several:
 * the loop sleeps. */
void loop_came(struct loop *l, size_t bytes);
/* Runs until loop_stop. Returns 0 or a negative errno from epoll. */
int loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* The number of this round: for what is bounded per round. */
unsigned loop_round(const struct loop *l);
/* Milliseconds of CLOCK_MONOTONIC as of the start of this round: for deadlines; cheaper than clock_now_ms. */
uint64_t loop_now_ms(const struct loop *l);

/* Starts watching; w->fn must be set. 0 or -errno of epoll_ctl. */
int loop_watch_add(struct loop *l, struct watch *w, int fd, uint32_t events);
int loop_watch_mod(struct loop *l, struct watch *w, uint32_t events);
/* Stops watching; harmless if not added. Events already fetched for this watch in the present round are dropped. */
void loop_watch_del(struct loop *l, struct watch *w);
/* The same for a descriptor that is closed soon and has no duplicate: the kernel then drops it from epoll itself, which
 * spares the system call. Until then w stays, and its fn may be called in later rounds. */
void loop_watch_forget(struct loop *l, struct watch *w);

void loop_timer_set(struct loop *l, struct timer *t, uint64_t after_ms);
void loop_timer_cancel(struct loop *l, struct timer *t);
static inline bool timer_armed(const struct timer *t)
{
	return t->heap_index != 0;
}

void task_init(struct task *t, void (*fn)(struct task *t));
/* Queues the task for the end of this round; again while queued: no effect. */
void loop_defer(struct loop *l, struct task *t);
void task_cancel(struct task *t);

/* From any thread: hands the message over and wakes the loop. Never fails. */
void loop_post(struct loop *l, struct loop_msg *m);
/* Runs what has been posted and not run. For the end: the loop's thread is gone, and what messages own must go, too. */
void loop_run_messages(struct loop *l);
/* Share of the last second that this loop's thread spent working, in percent. */
unsigned loop_busy_percent(const struct loop *l);
