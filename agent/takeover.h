/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners passed from the running agent of a node to its successor over the admin socket. */
#pragma once
#include <stddef.h>

struct takeover_pod {
	char uid[512];
	int fds[3];
};

/* Successor: asks the agent at socket_path for its listeners. The number of pods (array to be freed), -ENOENT
 * when nobody listens there, or -errno. */
int takeover_ask(const char *socket_path, struct takeover_pod **ret);
/* Predecessor: sends one pod's listeners on a connected socket; the end mark is a NULL uid. 0 or -errno. */
int takeover_send(int fd, const char *uid, const int fds[3]);
