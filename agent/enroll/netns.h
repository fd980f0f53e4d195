/* SPDX-License-Identifier: Apache-2.0 */
/* A pod's network namespace as a path: opened, compared, its addresses read. Control thread. */
#pragma once
#include "engine/base/addr.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* Opens the path; it must be a network namespace. A descriptor, or -errno. */
int netns_open(const char *path, struct stat *ret_st);
/* Whether path still names the namespace with this identity. */
bool netns_same(const char *path, const struct stat *st);
/* Whether it is the agent's own, or the node's (process 1's). */
bool netns_is_node(const struct stat *st);
/* Global addresses of the namespace's interfaces but lo, at most max. The number found, or -errno. */
int netns_addresses(int fd, struct ip_addr *ret, size_t max);
