/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of local pods whose status names none, by uid. Private to source/. */
#pragma once
#include "engine/base/addr.h"
#include "engine/base/table.h"

struct override {
	char *uid;
	struct ip_addr *addrs;
	size_t n;
};

/* Adds or replaces; copies uid and addresses. 0 or -ENOMEM. */
int override_set(struct table *t, const char *uid, const struct ip_addr *addrs, size_t n);
const struct override *override_get(const struct table *t, const char *uid);
void override_done(struct table *t);
