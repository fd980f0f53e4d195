/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, numbers, times, tables, lists and the event loop. */
#include "engine/base/addr.h"
#include "engine/base/cleanup.h"
#include "engine/base/decimal.h"
#include "engine/base/dir.h"
#include "engine/base/limits.h"
#include "engine/base/log.h"
#include "engine/base/table.h"
#include "engine/base/trie.h"
#include "engine/io/loop.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <cmocka.h>

static void addresses_have_one_form(void **state)
{
	struct ip_addr v4, mapped, v6;
	char text[64];

	(void)state;
	assert_int_equal(ip_addr_parse("10.0.0.1", &v4), 0);
	assert_int_equal(ip_addr_parse("::ffff:10.0.0.1", &mapped), 0);
	assert_true(ip_addr_equal(&v4, &mapped));
	assert_true(ip_addr_is_v4(&mapped));
	assert_string_equal(ip_addr_format(&mapped, text, sizeof(text)), "10.0.0.1");
	assert_int_equal(ip_addr_parse("fd77::1", &v6), 0);
	assert_false(ip_addr_is_v4(&v6));
	assert_string_equal(ip_addr_format(&v6, text, sizeof(text)), "fd77::1");
	assert_int_equal(ip_addr_parse("10.0.0.1.1", &v4), -EINVAL);
	assert_int_equal(ip_addr_parse("", &v4), -EINVAL);
}

static void ports_are_parsed_strictly(void **state)
{
	static const char *const bad[] = {
		"",	      "10.0.0.1",      "10.0.0.1:",   "10.0.0.1:0", "10.0.0.1:65536", ":80",
		"fd00::1:80", "[10.0.0.1]:80", "[fd00::1]80", "[fd00::1]:", "10.0.0.1:+8",    "10.0.0.1: 8",
		"[]:80",      "[fd00::1:80",   "10.0.0.1:80x"};
	struct ip_port p;
	char text[IP_PORT_STRLEN];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(ip_port_parse(bad[i], strlen(bad[i]), &p), -EINVAL);
	assert_int_equal(ip_port_parse("[fd00::1]:8080", 14, &p), 0);
	assert_int_equal(p.port, 8080);
	assert_string_equal(ip_port_format(&p, text, sizeof(text)), "[fd00::1]:8080");
	assert_int_equal(ip_port_parse("1.2.3.4:80", 10, &p), 0);
	assert_string_equal(ip_port_format(&p, text, sizeof(text)), "1.2.3.4:80");
	assert_int_equal(ip_port_parse("1.2.3.4\0:80", 11, &p), -EINVAL);
}

static void numbers_are_written_with_their_width(void **state)
{
	char text[DECIMAL_STRLEN + 1];

	(void)state;
	*decimal_write(text, 0, 1) = 0;
	assert_string_equal(text, "0");
	*decimal_write(text, UINT64_MAX, 1) = 0;
	assert_string_equal(text, "18446744073709551615");
	*decimal_write(text, 1020, 6) = 0;
	assert_string_equal(text, "001020");
}

static void timestamps_are_those_of_the_calendar(void **state)
{
	time_t before = time(NULL), second;
	struct tm tm = {0};
	char text[40], *rest;

	(void)state;
	assert_int_equal(log_timestamp(text, sizeof(text)), 27);
	rest = strptime(text, "%Y-%m-%dT%H:%M:%S.", &tm);
	assert_non_null(rest);
	second = timegm(&tm);
	assert_true(second >= before && second <= time(NULL));
	assert_int_equal(strspn(rest, "0123456789"), 6);
	assert_string_equal(rest + 6, "Z");
}

static void cidrs_count_from_the_mapped_start(void **state)
{
	struct ip_addr a;
	unsigned bits;

	(void)state;
	assert_int_equal(ip_cidr_parse("10.0.0.0/8", &a, &bits), 0);
	assert_int_equal(bits, 104);
	assert_int_equal(ip_cidr_parse("fd00::/8", &a, &bits), 0);
	assert_int_equal(bits, 8);
	assert_int_equal(ip_cidr_parse("10.1.2.3", &a, &bits), 0);
	assert_int_equal(bits, 128);
	assert_int_equal(ip_cidr_parse("10.0.0.0/33", &a, &bits), -EINVAL);
	assert_int_equal(ip_cidr_parse("10.0.0.0/", &a, &bits), -EINVAL);
}

static void masks_leave_the_network(void **state)
{
	static const struct {
		const char *given, *network;
	} cases[] = {
		{"10.1.2.3/8", "10.0.0.0/8"},
		{"10.1.2.3/32", "10.1.2.3/32"},
		{"10.1.2.3", "10.1.2.3/32"},
		{"10.1.2.255/25", "10.1.2.128/25"},
		{"1.2.3.4/0", "0.0.0.0/0"},
		{"fd00::1/8", "fd00::/8"},
		{"fd77:ffff::/17", "fd77:8000::/17"},
		{"fd00::1", "fd00::1/128"},
		{"::1/0", "::/0"},
		{"::ffff:10.1.2.3/104", "10.0.0.0/8"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
	};
	char text[IP_CIDR_STRLEN];
	struct ip_addr a;
	unsigned bits;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(ip_cidr_parse(cases[i].given, &a, &bits), 0);
		ip_addr_mask(&a, bits);
		assert_string_equal(ip_cidr_format(&a, bits, text, sizeof(text)), cases[i].network);
	}
}

static void sockaddr_round_trip(void **state)
{
	struct sockaddr_storage ss;
	struct ip_port p, q;

	(void)state;
	ip_port_parse("10.9.8.7:1234", 13, &p);
	assert_int_equal(ip_port_to_sockaddr(&p, AF_INET, &ss), 16);
	assert_int_equal(ip_port_from_sockaddr(&ss, &q), 0);
	assert_true(ip_addr_equal(&p.ip, &q.ip));
	assert_int_equal(p.port, q.port);
	assert_int_equal(ip_port_to_sockaddr(&p, AF_INET6, &ss), 28);
	assert_int_equal(ip_port_from_sockaddr(&ss, &q), 0);
	assert_true(ip_addr_equal(&p.ip, &q.ip));
	assert_int_equal(p.port, q.port);
	ss.ss_family = AF_UNIX;
	assert_int_equal(ip_port_from_sockaddr(&ss, &q), -EAFNOSUPPORT);
}

/* What the walk finds, one letter a key, in its order. */
static void assert_walk(const struct trie *t, const char *text, const char *want)
{
	struct trie_walk w;
	char found[16] = "";
	const char *v;

	trie_walk_init(&w, t);
	while ((v = trie_walk_next(&w, t, text, strlen(text) * 8)))
		strncat(found, v, 1);
	assert_string_equal(found, want);
}

/* Each key's value is a letter; later keys branch off before, inside and after those that are there. */
static void trie_finds_every_key_that_a_text_begins_with(void **state)
{
	static const char *const keys[] = {"prod/web", "prod/", "prod/db", "dev", "", "prod/web/x", "p"};
	static const char *const ends[] = {"/web", "b", "/sa/web"};
	static char letters[] = "0123456";
	struct trie t = {0}, back = {.backwards = true};
	void **slot;

	(void)state;
	assert_walk(&t, "prod", "");
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		assert_int_equal(trie_slot(&t, keys[i], strlen(keys[i]) * 8, &slot), 0);
		assert_null(*slot);
		*slot = &letters[i];
	}
	assert_int_equal(trie_slot(&t, "prod/", 5 * 8, &slot), 0);
	assert_ptr_equal(*slot, &letters[1]);
	assert_walk(&t, "prod/web/xy", "46105");
	assert_walk(&t, "prod/we", "461");
	assert_walk(&t, "prod/db", "4612");
	assert_walk(&t, "devil", "43");
	assert_walk(&t, "de", "4");
	assert_walk(&t, "", "4");
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		assert_int_equal(trie_slot(&back, ends[i], strlen(ends[i]) * 8, &slot), 0);
		*slot = &letters[i];
	}
	assert_walk(&back, "ns/a/sa/web", "102");
	assert_walk(&back, "ns/b", "1");
	assert_walk(&back, "bx", "");
	trie_done(&t);
	trie_done(&back);
}

static void table_keeps_what_it_is_given(void **state)
{
	struct table t = {0};
	static char keys[5000][16];
	struct table_iter it = {0};
	size_t seen = 0;
	void *old;

	(void)state;
	assert_null(table_get_str(&t, "nothing"));
	for (int i = 0; i < 5000; i++) {
		snprintf(keys[i], sizeof(keys[i]), "key-%d", i);
		assert_int_equal(table_put(&t, keys[i], strlen(keys[i]), keys[i], NULL), 0);
	}
	for (int i = 0; i < 5000; i++)
		assert_ptr_equal(table_get_str(&t, keys[i]), keys[i]);
	assert_int_equal(table_put(&t, keys[7], strlen(keys[7]), keys[8], &old), 0);
	assert_ptr_equal(old, keys[7]);
	for (int i = 0; i < 5000; i += 2)
		assert_non_null(table_del(&t, keys[i], strlen(keys[i])));
	assert_null(table_del(&t, keys[0], strlen(keys[0])));
	while (table_next(&t, &it))
		seen++;
	assert_int_equal(seen, 2500);
	table_done(&t);
	assert_null(table_get_str(&t, "key-1"));
}

struct ticks {
	struct loop *loop;
	struct timer timers[50];
	int order[50], n;
	struct task task;
	int tasks;
	struct loop_msg msg;
	bool message;
	struct watch a, b;
	int events;
};

static struct ticks ticks;

static void tick(struct timer *t)
{
	ticks.order[ticks.n++] = (int)(t - ticks.timers);
	if (ticks.n == 25)
		loop_stop(ticks.loop);
}

static void timers_fire_in_order(void **state)
{
	(void)state;
	memset(&ticks, 0, sizeof(ticks));
	assert_int_equal(loop_new(&ticks.loop), 0);
	for (int i = 0; i < 50; i++) {
		ticks.timers[i].fn = tick;
		loop_timer_set(ticks.loop, &ticks.timers[i], (uint64_t)((i * 7) % 50));
	}
	for (int i = 0; i < 50; i += 2)
		loop_timer_cancel(ticks.loop, &ticks.timers[i]);
	assert_int_equal(loop_run(ticks.loop), 0);
	assert_int_equal(ticks.n, 25);
	for (int i = 1; i < 25; i++)
		assert_true((ticks.order[i - 1] * 7) % 50 < (ticks.order[i] * 7) % 50);
	loop_free(ticks.loop);
}

static void task_again(struct task *t)
{
	if (++ticks.tasks < 3)
		loop_defer(ticks.loop, t);
}

static void message(struct loop_msg *m)
{
	(void)m;
	ticks.message = true;
	loop_stop(ticks.loop);
}

static void *poster(void *arg)
{
	(void)arg;
	loop_post(ticks.loop, &ticks.msg);
	return NULL;
}

static void messages_and_tasks_run(void **state)
{
	pthread_t thread;

	(void)state;
	memset(&ticks, 0, sizeof(ticks));
	assert_int_equal(loop_new(&ticks.loop), 0);
	task_init(&ticks.task, task_again);
	loop_defer(ticks.loop, &ticks.task);
	loop_defer(ticks.loop, &ticks.task);
	ticks.msg.fn = message;
	pthread_create(&thread, NULL, poster, NULL);
	assert_int_equal(loop_run(ticks.loop), 0);
	pthread_join(thread, NULL);
	assert_true(ticks.message);
	assert_true(ticks.tasks >= 1);
	loop_free(ticks.loop);
}

/* Whichever of two ready descriptors comes first removes the other, whose owner might be freed by then. */
static void ready(struct watch *w, uint32_t events)
{
	(void)events;
	ticks.events++;
	loop_watch_del(ticks.loop, w == &ticks.a ? &ticks.b : &ticks.a);
	loop_watch_del(ticks.loop, w);
	loop_stop(ticks.loop);
}

static void removed_watch_gets_no_event(void **state)
{
	int x[2], y[2];

	(void)state;
	memset(&ticks, 0, sizeof(ticks));
	assert_int_equal(loop_new(&ticks.loop), 0);
	assert_int_equal(pipe(x), 0);
	assert_int_equal(pipe(y), 0);
	ticks.a.fn = ticks.b.fn = ready;
	assert_int_equal(loop_watch_add(ticks.loop, &ticks.a, x[0], EPOLLIN), 0);
	assert_int_equal(loop_watch_add(ticks.loop, &ticks.b, y[0], EPOLLIN), 0);
	assert_int_equal(write(x[1], "x", 1), 1);
	assert_int_equal(write(y[1], "y", 1), 1);
	assert_int_equal(loop_run(ticks.loop), 0);
	assert_int_equal(ticks.events, 1);
	for (int i = 0; i < 2; i++) {
		close(x[i]);
		close(y[i]);
	}
	loop_free(ticks.loop);
}

/* Events in close succession, then none until a timer is due: over and over until one such pause was spent awake. */
struct busy {
	struct loop *loop;
	struct watch watch;
	struct timer timer;
	int events, pauses;
	int64_t cpu_before_us;
	size_t bytes; /* come with each event */
	int awake;    /* pauses */
};

static struct busy busy;

static int64_t cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void next_event(void)
{
	assert_int_equal(eventfd_write(busy.watch.fd, 1), 0);
}

static void close_succession(struct watch *w, uint32_t events)
{
	eventfd_t n;

	(void)events;
	assert_int_equal(eventfd_read(w->fd, &n), 0);
	loop_came(busy.loop, busy.bytes);
	if (++busy.events % 64) {
		next_event();
		return;
	}
	busy.cpu_before_us = cpu_us();
	loop_timer_set(busy.loop, &busy.timer, 5);
}

static void pause_over(struct timer *t)
{
	(void)t;
	busy.awake += cpu_us() - busy.cpu_before_us > 400;
	if ((busy.awake && !busy.bytes) || ++busy.pauses == (busy.bytes ? 40 : 400))
		loop_stop(busy.loop);
	else
		next_event();
}

static void await(size_t bytes)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	busy = (struct busy){.watch = {.fn = close_succession}, .timer = {.fn = pause_over}, .bytes = bytes};
	assert_int_equal(loop_new(&busy.loop), 0);
	loop_set_busy_poll(busy.loop, 1000);
	assert_int_equal(loop_watch_add(busy.loop, &busy.watch, fd, EPOLLIN), 0);
	next_event();
	assert_int_equal(loop_run(busy.loop), 0);
	loop_free(busy.loop);
	close(fd);
}

static void close_events_are_awaited_awake(void **state)
{
	(void)state;
	await(0);
	assert_true(busy.awake);
}

static void bulk_is_awaited_asleep(void **state)
{
	(void)state;
	await(LIMIT_POLL_BYTES);
	/* Who else works on this CPU may be counted now and then. */
	assert_true(busy.awake < busy.pauses / 2);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void folders_come_with_their_parents(void **state)
{
	char top[] = "/tmp/warren-dir-XXXXXX", path[64];
	mode_t old = umask(022);

	(void)state;
	assert_non_null(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/a//b/c/", top);
	assert_int_equal(dir_make(path, 0700), 0);
	assert_int_equal(mode_of(path), 0700);
	snprintf(path, sizeof(path), "%s/a/b", top);
	assert_int_equal(mode_of(path), 0755);
	assert_int_equal(dir_make(path, 0700), 0);
	assert_int_equal(mode_of(path), 0755); /* as it was */
	snprintf(path, sizeof(path), "%s/a/file", top);
	assert_int_equal(close(creat(path, 0600)), 0);
	assert_int_equal(dir_make(path, 0700), -ENOTDIR);
	snprintf(path, sizeof(path), "%s/a/file/d", top);
	assert_int_equal(dir_make(path, 0700), -ENOTDIR);
	for (const char *const *p = (const char *const[]){"a/file", "a/b/c", "a/b", "a", "", NULL}; *p; p++) {
		snprintf(path, sizeof(path), "%s/%s", top, *p);
		assert_int_equal(remove(path), 0);
	}
	umask(old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_have_one_form),
		cmocka_unit_test(ports_are_parsed_strictly),
		cmocka_unit_test(numbers_are_written_with_their_width),
		cmocka_unit_test(timestamps_are_those_of_the_calendar),
		cmocka_unit_test(cidrs_count_from_the_mapped_start),
		cmocka_unit_test(masks_leave_the_network),
		cmocka_unit_test(sockaddr_round_trip),
		cmocka_unit_test(table_keeps_what_it_is_given),
		cmocka_unit_test(trie_finds_every_key_that_a_text_begins_with),
		cmocka_unit_test(timers_fire_in_order),
		cmocka_unit_test(messages_and_tasks_run),
		cmocka_unit_test(removed_watch_gets_no_event),
		cmocka_unit_test(close_events_are_awaited_awake),
		cmocka_unit_test(bulk_is_awaited_asleep),
		cmocka_unit_test(folders_come_with_their_parents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
