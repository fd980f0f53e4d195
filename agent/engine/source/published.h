/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The objects that the workers have, to see which new ones differ: a table of workloads by uid, another of
 * services by hostname. Private to source/.
 */
#pragma once
#include "engine/base/table.h"
#include "engine/model/model.h"

/* Enters this round's fresh object (taken over) under its key; kept only when its text differs. The workload
 * kept, or NULL: out of memory. */
struct workload *published_put_workload(struct table *t, struct workload *w);
/* 0 or -ENOMEM. */
int published_put_service(struct table *t, struct service *s);
/* Puts what is new into the delta, and what the round has not entered into its removals. 0 or -ENOMEM. */
int published_collect(const struct table *t, struct model_delta *d, bool workload);
/* The round is over: what it entered is in force, or it never was. */
void published_end(struct table *t, bool commit, bool workload);
void published_done(struct table *t, bool workload);

/* Borrowed from a table of workloads, this round's first; NULL: none. */
struct workload *published_by_uid(const struct table *t, const char *uid);
