/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a port of a local pod back to the Service. Services come in as the model gets and loses them; for a connection
 * whose caller does not say by which Service it came, the one that it most likely used leaves. Other nodes' pods are
 * never asked for, so the index is as large as this node. Called by model.c.
 */
#include "target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct target {
	struct ip_addr addr;
	struct service **services; /* in the order of their coming; one with the address twice is here twice */
	size_t n;
};

static bool is_here(const struct service_endpoint *e)
{
	return e->workload && e->workload->local;
}

static struct target *target_get(struct table *targets, const struct ip_addr *addr)
{
	struct target *t = table_get(targets, addr, sizeof(*addr));

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->addr = *addr;
	if (table_put(targets, &t->addr, sizeof(t->addr), t, NULL)) {
		free(t);
		return NULL;
	}
	return t;
}

static int append(struct target *t, struct service *s)
{
	struct service **grown = realloc(t->services, (t->n + 1) * sizeof(struct service *));

	if (!grown)
		return -ENOMEM;
	t->services = grown;
	t->services[t->n++] = s;
	return 0;
}

int target_add(struct table *targets, struct service *s)
{
	for (size_t i = 0; i < s->n_endpoints; i++) {
		struct target *t;

		if (!is_here(&s->endpoints[i]))
			continue;
		t = target_get(targets, &s->endpoints[i].addr);
		if (!t || append(t, s))
			return -ENOMEM;
	}
	return 0;
}

static void target_free(struct target *t)
{
	free(t->services);
	free(t);
}

void target_remove(struct table *targets, const struct service *s)
{
	for (size_t i = 0; i < s->n_endpoints; i++) {
		const struct ip_addr *addr = &s->endpoints[i].addr;
		struct target *t = is_here(&s->endpoints[i]) ? table_get(targets, addr, sizeof(*addr)) : NULL;
		size_t kept = 0;

		for (size_t k = 0; t && k < t->n; k++)
			if (t->services[k] != s)
				t->services[kept++] = t->services[k];
		if (t)
			t->n = kept;
		if (t && !kept) {
			table_del(targets, addr, sizeof(*addr));
			target_free(t);
		}
	}
}

void target_done(struct table *targets)
{
	struct table_iter it = {0};
	struct target *t;

	while ((t = table_next(targets, &it)))
		target_free(t);
	table_done(targets);
}

static bool sends_to(const struct service *s, const struct ip_addr *addr, uint16_t port)
{
	for (size_t i = 0; i < s->n_endpoints; i++) {
		const struct service_endpoint *e = &s->endpoints[i];

		for (size_t k = 0; k < s->n_ports && ip_addr_equal(&e->addr, addr); k++)
			if (e->target_ports[k] == port)
				return true;
	}
	return false;
}

struct service *target_find(const struct table *targets, const struct ip_addr *addr, uint16_t port)
{
	const struct target *t = table_get(targets, addr, sizeof(*addr));

	for (size_t i = 0; t && i < t->n; i++)
		if (sends_to(t->services[i], addr, port))
			return t->services[i];
	return NULL;
}
