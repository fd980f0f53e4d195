/* SPDX-License-Identifier: Apache-2.0 */
/* Which worker a connection's tunnel is on: the key's owner, unless that one has no time. */
#include "agent/engine/proxy/worker.h"
#include "engine/base/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct worker workers[2];
static struct engine engine = {.workers = workers, .n_workers = 2};

struct spin {
	struct timer begin, end;
	struct loop *loop;
};

/* Longer than the window of the loop's accounting. */
static void at_work(struct timer *t)
{
	struct spin *s = container_of(t, struct spin, begin);

	usleep(1200000);
	loop_timer_set(s->loop, &s->end, 1);
}

static void over(struct timer *t)
{
	loop_stop(container_of(t, struct spin, end)->loop);
}

static void saturate(struct worker *w)
{
	struct spin s = {.begin.fn = at_work, .end.fn = over, .loop = w->loop};

	loop_timer_set(w->loop, &s.begin, 0);
	assert_int_equal(loop_run(w->loop), 0);
	assert_true(loop_busy_percent(w->loop) >= LIMIT_WORKER_BUSY_PERCENT);
}

static unsigned worker_of(unsigned accepted_by)
{
	struct workload dst = {.identity = (char *)"spiffe://cluster.local/ns/test/sa/server"};
	struct ip_port next_hop = {.port = 15008}, client = {.port = 40000};
	struct pod p = {.w = &workers[accepted_by]};

	return pool_worker(&p, &dst, &next_hop, &client);
}

static void saturated_owner_gets_no_more(void **state)
{
	unsigned owner, other;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		workers[i] = (struct worker){.e = &engine, .index = i};
		assert_int_equal(loop_new(&workers[i].loop), 0);
	}
	owner = worker_of(0);
	other = 1 - owner;
	assert_int_equal(worker_of(1), owner);
	saturate(&workers[owner]);
	assert_int_equal(worker_of(other), other);
	assert_int_equal(worker_of(owner), owner);
	/* Who has no time either need not dial. */
	saturate(&workers[other]);
	assert_int_equal(worker_of(other), owner);
	for (unsigned i = 0; i < 2; i++)
		loop_free(workers[i].loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(saturated_owner_gets_no_more)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
