/* SPDX-License-Identifier: Apache-2.0 */
/* Event loop of one thread over epoll; see the header. Watches, timers, tasks and messages come in, callbacks leave. */
#include "engine/io/loop.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/limits.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define LOOP_EVENTS 256
#define LOOP_BUSY_WINDOW_US 1000000

struct loop {
	int epoll_fd;
	struct watch wake;
	bool running;
	uint64_t now_ms;
	unsigned round;
	struct epoll_event events[LOOP_EVENTS];
	int n_events, next_event;
	struct list tasks;
	struct timer **heap; /* 1-based binary heap by due time */
	uint32_t n_timers, heap_size;
	uint64_t window_start_us, window_idle_us;
	unsigned busy_percent;
	unsigned poll_us, short_waits;
	uint64_t pause_us, sleep_until_us; /* others want the CPU: no waiting awake before */
	pthread_mutex_t lock;		   /* guards messages and signalled */
	struct loop_msg *messages, **messages_end;
	bool signalled;
};

void loop_run_messages(struct loop *l)
{
	struct loop_msg *m;

	pthread_mutex_lock(&l->lock);
	m = l->messages;
	l->messages = NULL;
	l->messages_end = &l->messages;
	l->signalled = false;
	pthread_mutex_unlock(&l->lock);
	while (m) {
		struct loop_msg *next = m->next;

		m->fn(m);
		m = next;
	}
}

static void wake_ready(struct watch *w, uint32_t events)
{
	uint64_t count;

	(void)events;
	(void)!read(w->fd, &count, sizeof(count));
	loop_run_messages(container_of(w, struct loop, wake));
}

int loop_new(struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	list_init(&l->tasks);
	l->messages_end = &l->messages;
	l->now_ms = clock_now_ms();
	pthread_mutex_init(&l->lock, NULL);
	l->wake.fd = -1;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		r = -errno;
		loop_free(l);
		return r;
	}
	l->wake.fn = wake_ready;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = fd < 0 ? -errno : loop_watch_add(l, &l->wake, fd, EPOLLIN);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		l->wake.fd = -1;
		loop_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct loop *loop_free(struct loop *l)
{
	if (!l)
		return NULL;
	if (l->wake.fd >= 0)
		close(l->wake.fd);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	pthread_mutex_destroy(&l->lock);
	free(l->heap);
	free(l);
	return NULL;
}

unsigned loop_round(const struct loop *l)
{
	return l->round;
}

uint64_t loop_now_ms(const struct loop *l)
{
	return l->now_ms;
}

unsigned loop_busy_percent(const struct loop *l)
{
	return __atomic_load_n(&l->busy_percent, __ATOMIC_RELAXED);
}

int loop_watch_add(struct loop *l, struct watch *w, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	w->fd = fd;
	w->events = events;
	w->added = true;
	return 0;
}

int loop_watch_mod(struct loop *l, struct watch *w, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	if (!w->added || w->events == events)
		return 0;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) < 0)
		return -errno;
	w->events = events;
	return 0;
}

void loop_watch_del(struct loop *l, struct watch *w)
{
	if (!w->added)
		return;
	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	loop_watch_forget(l, w);
}

void loop_watch_forget(struct loop *l, struct watch *w)
{
	if (!w->added)
		return;
	w->added = false;
	/* The owner may be freed now: forget what this round has already fetched for it. */
	for (int i = l->next_event; i < l->n_events; i++)
		if (l->events[i].data.ptr == w)
			l->events[i].data.ptr = NULL;
}

/* --- timers: a binary heap of pointers; heap[1] is due first --- */

static void heap_place(struct loop *l, struct timer *t, uint32_t i)
{
	l->heap[i] = t;
	t->heap_index = i;
}

static void heap_up(struct loop *l, struct timer *t, uint32_t i)
{
	while (i > 1 && l->heap[i / 2]->due_ms > t->due_ms) {
		heap_place(l, l->heap[i / 2], i);
		i /= 2;
	}
	heap_place(l, t, i);
}

static void heap_down(struct loop *l, struct timer *t, uint32_t i)
{
	for (;;) {
		uint32_t child = i * 2;

		if (child > l->n_timers)
			break;
		if (child < l->n_timers && l->heap[child + 1]->due_ms < l->heap[child]->due_ms)
			child++;
		if (l->heap[child]->due_ms >= t->due_ms)
			break;
		heap_place(l, l->heap[child], i);
		i = child;
	}
	heap_place(l, t, i);
}

void loop_timer_cancel(struct loop *l, struct timer *t)
{
	uint32_t i = t->heap_index;
	struct timer *last;

	if (!i)
		return;
	t->heap_index = 0;
	last = l->heap[l->n_timers--];
	if (last == t)
		return;
	if (i > 1 && l->heap[i / 2]->due_ms > last->due_ms)
		heap_up(l, last, i);
	else
		heap_down(l, last, i);
}

void loop_timer_set(struct loop *l, struct timer *t, uint64_t after_ms)
{
	loop_timer_cancel(l, t);
	if (l->n_timers + 1 >= l->heap_size) {
		uint32_t size = l->heap_size ? l->heap_size * 2 : 64;
		struct timer **heap = realloc(l->heap, size * sizeof(*heap));

		/* A deadline that cannot be kept would hang somebody for ever: better to fail loudly. */
		if (!heap)
			abort();
		l->heap = heap;
		l->heap_size = size;
	}
	t->due_ms = l->now_ms + after_ms;
	l->n_timers++;
	heap_up(l, t, l->n_timers);
}

static void run_timers(struct loop *l)
{
	while (l->n_timers && l->heap[1]->due_ms <= l->now_ms) {
		struct timer *t = l->heap[1];

		loop_timer_cancel(l, t);
		t->fn(t);
	}
}

/* --- tasks and messages --- */

void task_init(struct task *t, void (*fn)(struct task *t))
{
	t->fn = fn;
	list_init(&t->node);
}

void loop_defer(struct loop *l, struct task *t)
{
	if (list_empty(&t->node))
		list_append(&l->tasks, &t->node);
}

void task_cancel(struct task *t)
{
	list_remove(&t->node);
}

static void run_tasks(struct loop *l)
{
	struct list due;

	/* A task that queues itself again waits for the next round: sockets get their turn in between. */
	list_init(&due);
	list_splice(&due, &l->tasks);
	while (!list_empty(&due)) {
		struct task *t = list_entry(due.next, struct task, node);

		list_remove(&t->node);
		t->fn(t);
	}
}

void loop_post(struct loop *l, struct loop_msg *m)
{
	static const uint64_t one = 1;
	bool wake;

	m->next = NULL;
	pthread_mutex_lock(&l->lock);
	*l->messages_end = m;
	l->messages_end = &m->next;
	wake = !l->signalled;
	l->signalled = true;
	pthread_mutex_unlock(&l->lock);
	if (wake)
		(void)!write(l->wake.fd, &one, sizeof(one));
}

void loop_stop(struct loop *l)
{
	static const uint64_t one = 1;

	__atomic_store_n(&l->running, false, __ATOMIC_RELEASE);
	(void)!write(l->wake.fd, &one, sizeof(one));
}

static int wait_ms(const struct loop *l)
{
	uint64_t wait;

	if (!list_empty(&l->tasks))
		return 0;
	if (!l->n_timers)
		return -1;
	if (l->heap[1]->due_ms <= l->now_ms)
		return 0;
	wait = l->heap[1]->due_ms - l->now_ms;
	return wait > 3600000 ? 3600000 : (int)wait;
}

/* Busy share per window of a second, for the dump of a worker. */
static void account(struct loop *l, uint64_t before_us, uint64_t after_us)
{
	uint64_t window = after_us - l->window_start_us;

	l->window_idle_us += after_us - before_us;
	if (window < LOOP_BUSY_WINDOW_US)
		return;
	__atomic_store_n(&l->busy_percent, (unsigned)(100 - 100 * l->window_idle_us / window), __ATOMIC_RELAXED);
	l->window_start_us = after_us;
	l->window_idle_us = 0;
}

void loop_set_busy_poll(struct loop *l, unsigned window_us)
{
	l->poll_us = window_us;
}

static void forgive(struct loop *l)
{
	l->short_waits -= l->short_waits < LIMIT_POLL_STREAK ? l->short_waits : LIMIT_POLL_STREAK;
}

void loop_came(struct loop *l, size_t bytes)
{
	if (bytes >= LIMIT_POLL_BYTES)
		forgive(l);
}

/* Somebody kept the CPU that was offered: soon after the last time that happened, for twice as long as then. */
static void sleep_for_a_while(struct loop *l, uint64_t now_us)
{
	bool again = l->pause_us && now_us < l->sleep_until_us + LIMIT_POLL_PAUSE_MAX_US;

	l->pause_us = again ? l->pause_us * 2 : LIMIT_POLL_PAUSE_US;
	if (l->pause_us > LIMIT_POLL_PAUSE_MAX_US)
		l->pause_us = LIMIT_POLL_PAUSE_MAX_US;
	l->sleep_until_us = now_us + l->pause_us;
}

/* The events that came within the window, or 0. Whoever else wants this CPU gets it in between; once somebody kept it,
 * the loop sleeps for a while, as only a sleeper that is woken goes before those who compute. */
static int wait_awake(struct loop *l, uint64_t now_us)
{
	uint64_t end = now_us + l->poll_us, before_us;
	int n;

	do {
		n = epoll_wait(l->epoll_fd, l->events, LOOP_EVENTS, 0);
		if (n)
			return n;
		before_us = now_us;
		(void)sched_yield();
		now_us = clock_now_us();
		if (now_us - before_us >= LIMIT_POLL_YIELDED_US)
			sleep_for_a_while(l, now_us);
	} while (now_us < end);
	return 0;
}

/* One long wait takes back so many short ones: a pause in a close exchange is forgiven, a call now and then, with its
 * answer soon after, never begins one. */
static void count_wait(struct loop *l, uint64_t took_us)
{
	if (took_us > l->poll_us)
		forgive(l);
	else if (l->short_waits < 4 * LIMIT_POLL_STREAK)
		l->short_waits++;
}

/* A sleeping thread costs the next event a wake-up, on an idle CPU tens of microseconds: it is not worth lying down
 * while events come at shorter intervals. */
static int wait_events(struct loop *l)
{
	uint64_t before_us = clock_now_us(), after_us;
	int wait, n = 0;

	l->now_ms = before_us / 1000;
	wait = wait_ms(l);
	if (wait && l->poll_us && l->short_waits >= LIMIT_POLL_STREAK && before_us >= l->sleep_until_us)
		n = wait_awake(l, before_us);
	if (!n)
		n = epoll_wait(l->epoll_fd, l->events, LOOP_EVENTS, wait);
	after_us = clock_now_us();
	if (wait)
		count_wait(l, after_us - before_us);
	account(l, before_us, after_us);
	l->now_ms = after_us / 1000;
	return n;
}

int loop_run(struct loop *l)
{
	__atomic_store_n(&l->running, true, __ATOMIC_RELEASE);
	l->window_start_us = clock_now_us();
	while (__atomic_load_n(&l->running, __ATOMIC_ACQUIRE)) {
		int n = wait_events(l);

		l->round++;
		if (n < 0 && errno != EINTR)
			return -errno;
		l->n_events = n < 0 ? 0 : n;
		for (l->next_event = 0; l->next_event < l->n_events;) {
			struct epoll_event *ev = &l->events[l->next_event++];
			struct watch *w = ev->data.ptr;

			if (w)
				w->fn(w, ev->events);
		}
		run_timers(l);
		run_tasks(l);
	}
	return 0;
}
