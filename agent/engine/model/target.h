/* SPDX-License-Identifier: Apache-2.0 */
/* Which services the addresses of this node's pods are endpoints of. Private to model/. */
#pragma once
#include "engine/model/model.h"

/* Enters a service under its endpoints on this node. 0, or -ENOMEM: under a part of them. */
int target_add(struct table *targets, struct service *s);
/* Takes it out again, as far as it was entered. */
void target_remove(struct table *targets, const struct service *s);
void target_done(struct table *targets);
/* The one entered first that sends some port of its own to this one; NULL: none does. */
struct service *target_find(const struct table *targets, const struct ip_addr *addr, uint16_t port);
