/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic for the tests: plain TCP clients and servers that know nothing of the mesh. Enters: a command line; leaves:
 * one JSON line on stdout. Called by tests/lib/mesh.py inside pods' network namespaces.
 *
 *   traffic serve MODE:PORT...             echo, duplex, who, rst, finfirst, last, close
 *   traffic bulk ADDR PORT UP DOWN [mixed|plain] [PAUSE_MS]
 *   traffic ping ADDR PORT COUNT SIZE
 *   traffic burst ADDR PORT COUNT [HOLD_MS] [who]
 *   traffic serial ADDR PORT COUNT
 *   traffic every ADDR PORT INTERVAL_MS SECONDS     a new connection each interval (until SIGTERM)
 *   traffic long ADDR PORT INTERVAL_MS SECONDS      one connection, a numbered message each interval
 */
#include "traffic.h"

#include <stdio.h>
#include <string.h>

volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_term};

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 3 && !strcmp(argv[1], "serve")) {
		int r = serve(argv + 2, argc - 2);

		if (r < 0)
			fprintf(stderr, "traffic: %s\n", strerror(-r));
		return r < 0 ? 1 : 0;
	}
	if (argc >= 6 && !strcmp(argv[1], "bulk"))
		return bulk(argv + 2, argc - 2);
	if (argc >= 6 && !strcmp(argv[1], "ping"))
		return ping(argv + 2);
	if (argc >= 5 && !strcmp(argv[1], "burst"))
		return burst(argv + 2, argc - 2);
	if (argc >= 5 && !strcmp(argv[1], "serial"))
		return serial(argv + 2);
	if (argc >= 6 && !strcmp(argv[1], "every"))
		return every(argv + 2);
	if (argc >= 6 && !strcmp(argv[1], "long"))
		return long_lived(argv + 2);
	fprintf(stderr, "usage: traffic serve|bulk|ping|burst|serial|every|long ...\n");
	return 2;
}
