/* SPDX-License-Identifier: Apache-2.0 */
/* The running agent of one node: everything wired together. Called by main.c. */
#pragma once
#include "options.h"

struct node;

/* Starts all parts in order; what is missing is printed in one line that says what to do. 0 or -errno. */
int node_start(const struct options *o, struct node **ret);
/* Serves until told to stop. */
int node_run(struct node *n);
struct node *node_free(struct node *n);
