/* SPDX-License-Identifier: Apache-2.0 */
/* Which congestion control a tunnel begins with and which it goes on with. "The system's" is here what the socket that
 * is asked was given. */
#include "engine/io/congestion.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static int socket_with(const char *name)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (name && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void assert_has(int fd, const char *name)
{
	char got[CONGESTION_NAME];

	congestion_of(fd, got);
	assert_string_equal(got, name);
}

static void choice_is_as_system(const char *choice, const char *system)
{
	int fd = socket_with(system);
	struct congestion c;

	congestion_choose(&c, choice, fd);
	assert_string_equal(c.near, "");
	assert_string_equal(c.far, "");
	congestion_begin(&c, fd);
	congestion_connected(&c, fd);
	assert_has(fd, system);
	close(fd);
}

static void the_systems_stays_unless_it_paces(void **state)
{
	(void)state;
	choice_is_as_system(NULL, "reno");
	choice_is_as_system("", "reno");
	choice_is_as_system(CONGESTION_SYSTEM, "reno");
	choice_is_as_system(CONGESTION_AUTO, "reno");
}

static void a_name_is_for_near_and_far(void **state)
{
	int fd = socket_with(NULL);
	struct congestion c;

	(void)state;
	congestion_choose(&c, "reno", fd);
	congestion_begin(&c, fd);
	assert_has(fd, "reno");
	congestion_connected(&c, fd);
	assert_has(fd, "reno");
	close(fd);
}

static void connected(int *ret_listener, int *ret_client, int *ret_server, const struct congestion *c)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	*ret_listener = socket_with(NULL);
	*ret_client = socket_with(NULL);
	congestion_begin(c, *ret_listener);
	congestion_begin(c, *ret_client);
	assert_int_equal(bind(*ret_listener, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(*ret_listener, 1), 0);
	assert_int_equal(getsockname(*ret_listener, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(connect(*ret_client, (struct sockaddr *)&a, len), 0);
	*ret_server = accept(*ret_listener, NULL, NULL);
	assert_true(*ret_server >= 0);
}

static void where_the_system_paces_only_far_peers_are_paced(void **state)
{
	int paced = socket_with("bbr"), unmeasured, listener, client, server;
	struct congestion c;
	char near[CONGESTION_NAME];

	(void)state;
	if (paced < 0)
		skip();
	congestion_choose(&c, CONGESTION_AUTO, paced);
	assert_string_equal(c.far, "bbr");
	connected(&listener, &client, &server, &c);
	congestion_of(listener, near);
	assert_string_not_equal(near, "bbr");
	assert_has(client, near);
	assert_has(server, near);
	/* Nobody knows how far the peer is. */
	unmeasured = socket_with(NULL);
	congestion_begin(&c, unmeasured);
	congestion_connected(&c, unmeasured);
	assert_has(unmeasured, "bbr");
	for (int *fd = (int[]){paced, unmeasured, listener, client, server, -1}; *fd >= 0; fd++)
		close(*fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_systems_stays_unless_it_paces),
		cmocka_unit_test(a_name_is_for_near_and_far),
		cmocka_unit_test(where_the_system_paces_only_far_peers_are_paced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
