/* SPDX-License-Identifier: Apache-2.0 */
/* Admin socket and readiness, with good, bad and slow clients. */
#include "engine/admin/admin.h"
#include "engine/base/cleanup.h"
#include "engine/io/loop.h"

#include <cjson/cJSON.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <cmocka.h>

static char path[64];
static uint16_t port;
static struct loop *loop;
static struct admin *admin;
static struct readiness *readiness;
static pthread_t thread;
static atomic_bool up;
static struct {
	struct timer timer;
	struct admin_call *call;
} later;

static void echo(void *arg, struct admin_call *c)
{
	const cJSON *args = admin_args(c);

	(void)arg;
	admin_reply(c, args ? cJSON_Duplicate(args, 1) : cJSON_CreateNull());
}

static void refuse(void *arg, struct admin_call *c)
{
	(void)arg;
	admin_reply_error(c, ENOENT, "no %s", "such thing");
}

static void answer_late(struct timer *t)
{
	(void)t;
	admin_reply(later.call, cJSON_CreateString("late"));
}

static void slow(void *arg, struct admin_call *c)
{
	(void)arg;
	later.call = c;
	later.timer.fn = answer_late;
	loop_timer_set(loop, &later.timer, 50);
}

static bool ready(void *arg, const char **ret_why)
{
	(void)arg;
	*ret_why = "web, db";
	return atomic_load(&up);
}

static void *run(void *arg)
{
	(void)loop_run(loop);
	return arg;
}

/* Several runs on one machine must not meet. */
static int bind_some_port(void)
{
	int fd = -1;

	port = (uint16_t)(16000 + getpid() % 8000);
	for (int i = 0; i < 100 && fd < 0; i++)
		fd = readiness_bind(++port, false);
	return fd;
}

static int start(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/wr-admin-%d.sock", (int)getpid());
	if (loop_new(&loop) || admin_new(loop, path, &admin) ||
	    readiness_new(loop, bind_some_port(), ready, NULL, &readiness))
		return -1;
	if (admin_register(admin, "echo", echo, NULL) || admin_register(admin, "refuse", refuse, NULL) ||
	    admin_register(admin, "slow", slow, NULL))
		return -1;
	return pthread_create(&thread, NULL, run, NULL);
}

static int stop(void **state)
{
	(void)state;
	loop_stop(loop);
	pthread_join(thread, NULL);
	readiness_free(readiness);
	admin_free(admin);
	loop_free(loop);
	unlink(path);
	return 0;
}

static int dial_admin(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static int dial_readiness(void)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

/* Sends and reads to the end. Closes. */
static const char *exchange(int fd, const char *request)
{
	static char text[70000];
	size_t len = 0;
	ssize_t n;

	(void)!send(fd, request, strlen(request), MSG_NOSIGNAL);
	while ((n = recv(fd, text + len, sizeof(text) - 1 - len, 0)) > 0)
		len += (size_t)n;
	text[len] = 0;
	close(fd);
	return text;
}

static void socket_is_private(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void commands_are_answered(void **state)
{
	(void)state;
	assert_string_equal(exchange(dial_admin(), "{\"command\": \"echo\", \"args\": {\"a\": 1}}\n"),
			    "{\"ok\":true,\"result\":{\"a\":1}}\n");
	assert_string_equal(exchange(dial_admin(), "{\"command\": \"refuse\"}\n"),
			    "{\"ok\":false,\"error\":\"no such thing\",\"code\":2}\n");
	assert_string_equal(exchange(dial_admin(), "{\"command\": \"slow\"}\n"), "{\"ok\":true,\"result\":\"late\"}\n");
	assert_non_null(strstr(exchange(dial_admin(), "{\"command\": \"nonsense\"}\n"), "unknown command"));
	assert_non_null(strstr(exchange(dial_admin(), "garbage\n"), "\"ok\":false"));
	assert_non_null(strstr(exchange(dial_admin(), "{\"command\": 3}\n"), "\"ok\":false"));
}

static void request_in_pieces(void **state)
{
	int fd = dial_admin();

	(void)state;
	assert_int_equal(send(fd, "{\"command\": ", 12, 0), 12);
	usleep(20000);
	assert_string_equal(exchange(fd, "\"echo\"}\n"), "{\"ok\":true,\"result\":null}\n");
}

static void endless_request_is_cut(void **state)
{
	_cleanup_free_ char *much = malloc(100001);

	(void)state;
	memset(much, 'x', 100000);
	much[100000] = 0;
	assert_string_equal(exchange(dial_admin(), much), "");
	assert_non_null(strstr(exchange(dial_admin(), "{\"command\": \"echo\"}\n"), "true"));
}

/* The answer comes when nobody is there any more. */
static void caller_goes_before_its_answer(void **state)
{
	int fd = dial_admin();

	(void)state;
	assert_true(send(fd, "{\"command\": \"slow\"}\n", 20, 0) == 20);
	usleep(10000);
	close(fd);
	usleep(100000);
	assert_non_null(strstr(exchange(dial_admin(), "{\"command\": \"echo\"}\n"), "true"));
}

static void readiness_says_what_is_pending(void **state)
{
	static const char probe[] = "GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n";
	const char *r;

	(void)state;
	atomic_store(&up, false);
	r = exchange(dial_readiness(), probe);
	assert_non_null(strstr(r, "HTTP/1.1 500"));
	assert_non_null(strstr(r, "not ready, pending: web, db"));
	atomic_store(&up, true);
	assert_non_null(strstr(exchange(dial_readiness(), probe), "HTTP/1.1 200 OK"));
	r = exchange(dial_readiness(), "HEAD /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_non_null(strstr(r, "HTTP/1.1 200 OK"));
	assert_string_equal(strstr(r, "\r\n\r\n"), "\r\n\r\n");
	assert_non_null(strstr(exchange(dial_readiness(), "GET /other HTTP/1.1\r\nHost: x\r\n\r\n"), "404"));
	assert_non_null(strstr(
		exchange(dial_readiness(), "POST /healthz/ready HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
		"405"));
	assert_non_null(strstr(exchange(dial_readiness(), "\x16\x03\x01 nonsense\r\n\r\n"), "400"));
}

static void readiness_bounds_a_request(void **state)
{
	char path_[2000] = "GET /", much[20000] = "GET /healthz/ready HTTP/1.1\r\nA: ";

	(void)state;
	memset(path_ + 5, 'a', 1000);
	strcat(path_, " HTTP/1.1\r\n\r\n");
	assert_non_null(strstr(exchange(dial_readiness(), path_), "400"));
	memset(much + strlen(much), 'b', 15000);
	/* Refused; a reset may overtake the answer, as more is under way. */
	assert_null(strstr(exchange(dial_readiness(), much), "200 OK"));
}

/* Many that say nothing do not keep a probe out. */
static void silent_clients_do_not_block(void **state)
{
	int fds[100];

	(void)state;
	atomic_store(&up, true);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = dial_readiness();
	assert_non_null(strstr(exchange(dial_readiness(), "GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n"), "200 OK"));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* Another node's agent is told that the port is taken; a successor gets it beside us, and no request before
 * it serves. */
static void port_is_shared_with_a_successor_alone(void **state)
{
	int beside;

	(void)state;
	assert_int_equal(readiness_bind(port, false), -EADDRINUSE);
	beside = readiness_bind(port, true);
	assert_true(beside >= 0);
	for (int i = 0; i < 20; i++)
		assert_non_null(strstr(exchange(dial_readiness(), "GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n"),
				       "HTTP/1.1"));
	close(beside);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(socket_is_private),
		cmocka_unit_test(commands_are_answered),
		cmocka_unit_test(request_in_pieces),
		cmocka_unit_test(endless_request_is_cut),
		cmocka_unit_test(caller_goes_before_its_answer),
		cmocka_unit_test(readiness_says_what_is_pending),
		cmocka_unit_test(readiness_bounds_a_request),
		cmocka_unit_test(silent_clients_do_not_block),
		cmocka_unit_test(port_is_shared_with_a_successor_alone),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
