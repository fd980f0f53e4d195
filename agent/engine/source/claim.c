/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and their owners. Workloads come in one by one, those that win first; each leaves with the
 * addresses that nobody before it has, and who asks by address finds that one owner. Called by assemble.c,
 * asked by service.c.
 */
#include "claim.h"
#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int dispute(struct claims *c, const struct ip_addr *addr, const struct workload *owner, const struct workload *w)
{
	char ip[64], *text;
	void *old;

	/* The address of a pod that ends may have been given away already. */
	if (w->terminated || w->deleting)
		return 0;
	if (asprintf(&text,
		     "%s is claimed by pods %s/%s and %s/%s: it is the first one's, which is older or, if "
		     "that is open, first by name",
		     ip_addr_format(addr, ip, sizeof(ip)), owner->namespace_, owner->name, w->namespace_, w->name) < 0)
		return -ENOMEM;
	if (table_put(&c->now, text, strlen(text), text, &old)) {
		free(text);
		return -ENOMEM;
	}
	free(old);
	return 0;
}

int claim_mark_disputed(struct table *seen, struct workload *w)
{
	for (size_t i = 0; !w->host_network && !w->terminated && !w->deleting && i < w->n_addrs; i++) {
		struct workload *other = table_get(seen, &w->addrs[i], sizeof(w->addrs[i]));

		if (other)
			other->addrs_disputed = w->addrs_disputed = true;
		else if (table_put(seen, &w->addrs[i], sizeof(w->addrs[i]), w, NULL))
			return -ENOMEM;
	}
	return 0;
}

int claim_check(struct claims *c, struct workload *w)
{
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; !w->host_network && r == 0 && i < w->n_addrs; i++) {
		const struct workload *owner = claim_owner(c, &w->addrs[i]);

		if (owner)
			r = dispute(c, &w->addrs[i], owner, w);
		else
			w->addrs[kept++] = w->addrs[i];
	}
	if (!w->host_network)
		w->n_addrs = kept;
	return r;
}

int claim_enter(struct claims *c, struct workload *w)
{
	for (size_t i = 0; !w->host_network && !w->terminated && i < w->n_addrs; i++)
		if (table_put(&c->by_addr, &w->addrs[i], sizeof(w->addrs[i]), w, NULL))
			return -ENOMEM;
	return 0;
}

struct workload *claim_owner(const struct claims *c, const struct ip_addr *addr)
{
	return table_get(&c->by_addr, addr, sizeof(*addr));
}

static void forget(struct table *t)
{
	struct table_iter it = {0};
	char *text;

	while ((text = table_next(t, &it))) {
		table_del(t, text, strlen(text));
		free(text);
	}
	table_done(t);
}

void claim_end(struct claims *c, bool complete)
{
	struct table_iter it = {0};
	const char *text;

	table_done(&c->by_addr);
	if (!complete) {
		forget(&c->now);
		return;
	}
	while ((text = table_next(&c->now, &it)))
		if (!table_get_str(&c->disputes, text))
			log_warn("source", "%s", text);
	forget(&c->disputes);
	c->disputes = c->now;
	c->now = (struct table){0};
}

void claim_done(struct claims *c)
{
	claim_end(c, false);
	forget(&c->disputes);
}
