/* SPDX-License-Identifier: Apache-2.0 */
/* What store.c and unreadable.c share. */
#pragma once
#include "store.h"

/* What a document calls itself; "" where it does not. */
struct names {
	const char *kind, *namespace_, *name;
};

/* What is listed beside the resources: a file, or a document of one, that is not to be had. NULL for names: none could
 * be read. Borrowed. */
cJSON *store_add_problem(struct store *s, const struct names *names, enum resource_state state, const char *file,
			 int line, const char *reason);
/* The folder is read anew whenever anything in it changes: what is as wrong as it was is not said again. */
bool store_is_news(const struct store *s, const cJSON *problem);
/* A resource that stands for what cannot be read in a file: one for each file. 0 or -ENOMEM. */
int store_add_unreadable(struct store *s, const char *file, int line, const char *reason);

/* --- unreadable.c --- */

/* Whether a resource that was not seen may be the one in a document that cannot be read. */
bool store_may_be_unreadable(const struct store *s, const struct resource *r);
/* At the end of a round: what became of what cannot be read and may be a policy. */
void store_settle_unreadable(struct store *s);
void store_forget_unreadable(struct store *s);
