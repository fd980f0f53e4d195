/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of local pods whose status names none, by uid. Private to source/. */
#pragma once
#include "engine/model/model.h"

struct override {
	char *uid;
	struct ip_addr *addrs;
	size_t n;
};

/* Adds or replaces; copies uid and addresses. No addresses: removes. 1 when that changes something, 0, or
 * -ENOMEM. */
int override_set(struct table *t, const char *uid, const struct ip_addr *addrs, size_t n);
const struct override *override_get(const struct table *t, const char *uid);
/* Whether a workload's addresses are those found: only an enrolled pod's namespace is watched, any other's
 * may have changed unseen. */
bool override_applies(const struct workload *w);
/* Forgets the addresses of workloads that are gone, or to which none apply any more. */
void override_prune(struct table *t, const struct table *workloads);
void override_done(struct table *t);
