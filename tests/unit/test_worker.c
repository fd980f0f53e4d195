/* SPDX-License-Identifier: Apache-2.0 */
/* What one round of a worker may cost: stream frames and closes are bounded, the rest comes in later rounds, and
 * nobody's is lost. The rounds are the test's: no thread, no time. */
#include "agent/engine/proxy/worker.h"
#include "engine/base/cleanup.h"
#include "engine/identity/ca.h"
#include "engine/identity/trust.h"
#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define IDENTITY "spiffe://cluster.local/ns/test/sa/server"
#define MANY 200

static struct engine engine;
static struct worker worker;
static struct pod_shared *shared;
static struct pod *pod;
static struct ca *ca;
static unsigned gone;

/* A caller of the pod: the far end of a tunnel, in the test's own hands. */
struct caller {
	int fd;
	SSL *ssl;
	struct tls_verify verify;
	struct h2 *h2;
	uint8_t wire[1 << 16];
	size_t len;
	unsigned answers;
};

/* --- rounds --- */

static void stop(struct task *t)
{
	(void)t;
	loop_stop(worker.loop);
}

static void one_round(void)
{
	struct task last;

	task_init(&last, stop);
	loop_defer(worker.loop, &last);
	assert_int_equal(loop_run(worker.loop), 0);
}

/* --- the callers --- */

static void response(void *owner, int32_t id, void *stream, const struct h2_headers *h)
{
	(void)id;
	(void)stream;
	assert_int_equal(h->status, 400);
	((struct caller *)owner)->answers++;
}

static void request(void *owner, int32_t id, const struct h2_headers *h, bool end)
{
	(void)owner, (void)id, (void)h, (void)end;
}

static void data(void *owner, int32_t id, void *stream, const uint8_t *bytes, size_t len)
{
	(void)owner, (void)id, (void)stream, (void)bytes, (void)len;
}

static void end(void *owner, int32_t id, void *stream)
{
	(void)owner, (void)id, (void)stream;
}

static void closed(void *owner, int32_t id, void *stream, uint32_t error)
{
	(void)owner, (void)id, (void)stream, (void)error;
}

static ssize_t pull(void *owner, int32_t id, void *stream, uint8_t *buf, size_t max, bool *ret_eof)
{
	(void)owner, (void)id, (void)stream, (void)buf, (void)max, (void)ret_eof;
	return H2_PULL_LATER;
}

static int emit(void *owner, const uint8_t *bytes, size_t len)
{
	struct caller *c = owner;

	assert_true(c->len + len <= sizeof(c->wire));
	memcpy(c->wire + c->len, bytes, len);
	c->len += len;
	return 0;
}

static void nothing(void *owner)
{
	(void)owner;
}

static void goaway(void *owner, uint32_t error)
{
	(void)owner, (void)error;
}

static const struct h2_events events = {request, response, data,   end,	    closed, pull,
					emit,	 nothing,  goaway, nothing, nothing};

/* All that is due, in one piece. */
static void say(struct caller *c)
{
	assert_int_equal(h2_send(c->h2), 0);
	assert_int_equal(SSL_write(c->ssl, c->wire, (int)c->len), (int)c->len);
	c->len = 0;
}

static void hear(struct caller *c)
{
	static uint8_t buf[1 << 16];
	int n;

	while ((n = SSL_read(c->ssl, buf, sizeof(buf))) > 0) {
		unsigned turns = UINT_MAX;

		assert_int_equal(h2_recv(c->h2, buf, (size_t)n, 0, &turns), n);
	}
	assert_int_equal(SSL_get_error(c->ssl, n), SSL_ERROR_WANT_READ);
}

static void call(struct caller *c)
{
	struct ip_port from = {.port = 40000}, to = {.port = 15008};
	int fds[2], r;

	memset(c, 0, sizeof(*c));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	c->fd = fds[0];
	c->verify = (struct tls_verify){.trust = engine.cfg.trust, .expected = IDENTITY};
	c->ssl = tls_identity_client_ssl(pod->identity, &c->verify);
	assert_int_equal(SSL_set_fd(c->ssl, c->fd), 1);
	tunnel_accept(pod, fds[1], &from, &to);
	while ((r = SSL_connect(c->ssl)) != 1) {
		assert_int_equal(SSL_get_error(c->ssl, r), SSL_ERROR_WANT_READ);
		one_round();
	}
	assert_int_equal(h2_new(false, &events, c, 0, &c->h2), 0);
	for (int i = 0; i < 4; i++) {
		say(c);
		one_round();
		hear(c);
	}
}

/* Requests that are refused at once, in one write. */
static void ask(struct caller *c, unsigned n)
{
	while (n--)
		assert_true(h2_connect(c->h2, "nowhere", NULL, NULL, NULL, c) > 0);
	say(c);
}

static void hang_up(struct caller *c)
{
	h2_free(c->h2);
	SSL_free(c->ssl);
	tls_verify_done(&c->verify);
	close(c->fd);
}

/* --- a worker with a pod --- */

static void is_gone(void *arg, uint32_t number)
{
	(void)arg, (void)number;
	gone++;
}

static void report(struct loop_msg *m)
{
	struct pod_shared *s = container_of(m, struct pod_shared, done_msg);

	s->done(s->done_arg, s->number);
	free(s);
}

static int set_up(void **state)
{
	static const char *const domains[] = {"cluster.local"};
	struct trust_config tc = {.domains = domains, .n_domains = 1};
	char dir[] = "/tmp/wr-test-worker-XXXXXX", *error = NULL;
	struct tls_identity *id;

	(void)state;
	folder_make(dir);
	assert_int_equal(ca_open_dir(dir, "cluster.local", 3600, &ca, &error), 0);
	tc.roots_pem = ca_roots(ca);
	memset(&engine, 0, sizeof(engine));
	memset(&worker, 0, sizeof(worker));
	assert_int_equal(trust_new(&tc, &engine.cfg.trust), 0);
	engine.cfg.buffer_limit = 64 << 20;
	engine.workers = &worker;
	engine.n_workers = 1;
	engine.max_fds = 10000;
	assert_int_equal(worker_init(&worker, &engine, 0), 0);
	engine.cfg.control = worker.loop;
	assert_int_equal(ca_issue(ca, IDENTITY, &id, &error), 0);
	shared = calloc(1, sizeof(*shared));
	shared->refs = 1;
	shared->acceptors = 1;
	shared->e = &engine;
	shared->netns_fd = -1;
	for (int i = 0; i < LISTENERS; i++)
		shared->listeners[i] = -1;
	shared->done = is_gone;
	shared->done_msg.fn = report;
	gone = 0;
	assert_int_equal(pod_open(&worker, shared, workload_new(), id), 0);
	pod = list_entry(worker.pods.next, struct pod, node);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	worker_close_all(&worker);
	loop_run_messages(worker.loop);
	assert_int_equal(gone, 1);
	worker_done(&worker);
	trust_unref(engine.cfg.trust);
	ca_free(ca);
	return 0;
}

/* --- the tests --- */

static void stream_frames_of_a_round_are_bounded(void **state)
{
	static struct caller many, other;
	unsigned heard = 0;

	(void)state;
	call(&many);
	call(&other);
	ask(&many, MANY);
	ask(&other, 1);
	one_round();
	hear(&other);
	assert_int_equal(other.answers, 1);
	for (int i = 0; many.answers < MANY && i < MANY; i++, one_round()) {
		hear(&many);
		assert_true(many.answers - heard <= LIMIT_TURNS_A_ROUND);
		/* It goes on by itself: nothing more comes over the wire. */
		assert_true(many.answers > heard);
		heard = many.answers;
	}
	assert_int_equal(many.answers, MANY);
	hang_up(&many);
	hang_up(&other);
}

/* However many tunnels share it, each goes on. */
static void the_round_is_shared_by_all_tunnels(void **state)
{
	static struct caller callers[10];
	unsigned answers = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
		call(&callers[i]);
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
		ask(&callers[i], 90);
	one_round();
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++) {
		hear(&callers[i]);
		assert_true(callers[i].answers > 0);
		answers += callers[i].answers;
	}
	assert_true(answers <= LIMIT_TURNS_A_ROUND + 2 * ARRAY_SIZE(callers));
	for (int i = 0; i < 90; i++)
		one_round();
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++) {
		hear(&callers[i]);
		assert_int_equal(callers[i].answers, 90);
		hang_up(&callers[i]);
	}
}

static void not_called(struct watch *w, uint32_t e)
{
	(void)w, (void)e;
	fail_msg("a connection that has ended hears of its socket");
}

static void connections(int apps[MANY])
{
	for (int i = 0; i < MANY; i++) {
		struct conn *c;
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
		assert_int_equal(conn_new(pod, CONN_IN_HBONE, &c), 0);
		assert_int_equal(local_init(&c->app, worker.loop, fds[0], not_called), 0);
		apps[i] = fds[1];
	}
}

static void end_all(bool reset)
{
	while (!list_empty(&pod->conns))
		conn_end(list_entry(pod->conns.next, struct conn, node), WR_REASON_POLICY_DENY, reset);
}

static unsigned ended(const int apps[MANY])
{
	unsigned n = 0;
	char b;

	for (int i = 0; i < MANY; i++)
		n += recv(apps[i], &b, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
	return n;
}

static void hang_up_apps(const int apps[MANY])
{
	for (int i = 0; i < MANY; i++)
		close(apps[i]);
}

static void resets_of_a_round_are_bounded(void **state)
{
	int apps[MANY];

	(void)state;
	connections(apps);
	end_all(true);
	assert_int_equal(engine.conns, 0);
	assert_int_equal(engine.fds, MANY);
	worker.reap.fn(&worker.reap);
	assert_int_equal(ended(apps), LIMIT_CLOSES_A_ROUND);
	assert_int_equal(engine.fds, MANY - LIMIT_CLOSES_A_ROUND);
	assert_int_equal(shared->fds, MANY - LIMIT_CLOSES_A_ROUND);
	/* What an app still says is nobody's. */
	for (int i = 0; i < MANY; i++)
		(void)send(apps[i], "x", 1, MSG_NOSIGNAL);
	for (int i = 0; i < MANY && ended(apps) < MANY; i++)
		one_round();
	assert_int_equal(engine.fds, 0);
	assert_int_equal(shared->refs, 1);
	hang_up_apps(apps);
}

static void resets_that_waited_are_hurried(void **state)
{
	int apps[MANY];

	(void)state;
	connections(apps);
	end_all(true);
	list_foreach(n, &worker.conns_doomed)
		list_entry(n, struct conn, node)->ended_ms -= LIMIT_CLOSE_MS;
	worker.reap.fn(&worker.reap);
	assert_int_equal(ended(apps), 2 * LIMIT_CLOSES_A_ROUND);
	hang_up_apps(apps);
}

static void clean_ends_do_not_wait(void **state)
{
	int apps[MANY];

	(void)state;
	connections(apps);
	end_all(false);
	assert_int_equal(ended(apps), MANY);
	assert_int_equal(engine.fds, 0);
	hang_up_apps(apps);
}

static void ends_of_a_drain_are_bounded(void **state)
{
	int apps[3][MANY];

	(void)state;
	for (int i = 0; i < 3; i++)
		connections(apps[i]);
	pod->draining = true;
	pod->drain.fn(&pod->drain);
	assert_int_equal(engine.conns, 3 * MANY - LIMIT_ENDS_A_ROUND);
	assert_true(timer_armed(&pod->drain));
	for (int i = 0; i < 3; i++)
		hang_up_apps(apps[i]);
}

static void a_pod_is_gone_with_its_last_socket(void **state)
{
	int apps[MANY];

	(void)state;
	connections(apps);
	pod_stop_accepting(pod);
	loop_timer_cancel(worker.loop, &pod->drain);
	pod->drain.fn(&pod->drain);
	worker.reap.fn(&worker.reap);
	loop_run_messages(worker.loop);
	assert_true(ended(apps) < MANY);
	assert_int_equal(gone, 0);
	for (int i = 0; i < MANY && ended(apps) < MANY; i++)
		one_round();
	loop_run_messages(worker.loop);
	assert_int_equal(gone, 1);
	hang_up_apps(apps);
}

/* However many pods there are, the table leaves room for their own descriptors. */
static void a_pod_takes_room_in_the_table(void **state)
{
	struct engine_pod_config cfg = {.number = 7,
					.netns_fd = -1,
					.listen_outbound = -1,
					.listen_inbound = -1,
					.listen_hbone = -1,
					.workload = workload_new(),
					.identity = pod->identity};
	struct pod *other;

	(void)state;
	list_init(&engine.removing);
	assert_int_equal(engine_pod_add(&engine, &cfg), 0);
	workload_unref(cfg.workload);
	loop_run_messages(worker.loop);
	assert_int_equal(atomic_load(&engine.fds), LISTENERS + 2);
	other = list_entry(pod->node.next, struct pod, node);
	engine_pod_remove(&engine, 7, 0, is_gone, NULL);
	loop_run_messages(worker.loop);
	loop_timer_cancel(worker.loop, &other->drain);
	other->drain.fn(&other->drain);
	loop_run_messages(worker.loop);
	assert_int_equal(gone--, 1);
	assert_int_equal(atomic_load(&engine.fds), 0);
	table_done(&engine.pods);
}

static int claimed(void *arg, int fd, enum socket_role role)
{
	(void)arg, (void)fd, (void)role;
	return 0;
}

/* Sockets are made ahead in a burst, but not once half of the table is in use. */
static void nothing_is_made_ahead_where_room_is_scarce(void **state)
{
	int fds[8];

	(void)state;
	engine.cfg.claim_socket = claimed;
	engine.home_netns_fd = pod->sockets4.netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = pod_socket(pod, false, SOCKET_TUNNEL);
		assert_true(fds[i] >= 0);
	}
	assert_true(pod->sockets4.n > 0);
	sock_cache_done(&pod->sockets4);
	atomic_store(&engine.fds, engine.max_fds / 2 + 1);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		close(fds[i]);
		fds[i] = pod_socket(pod, false, SOCKET_TUNNEL);
		assert_true(fds[i] >= 0);
		assert_int_equal(pod->sockets4.n, 0);
	}
	atomic_store(&engine.fds, 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	close(engine.home_netns_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(stream_frames_of_a_round_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_round_is_shared_by_all_tunnels, set_up, tear_down),
		cmocka_unit_test_setup_teardown(resets_of_a_round_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(resets_that_waited_are_hurried, set_up, tear_down),
		cmocka_unit_test_setup_teardown(clean_ends_do_not_wait, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ends_of_a_drain_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_pod_is_gone_with_its_last_socket, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_pod_takes_room_in_the_table, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_made_ahead_where_room_is_scarce, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
