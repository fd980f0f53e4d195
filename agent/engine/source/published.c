/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was published before, and what differs from it now. Fresh workloads and services come in; a delta with
 * those that are new, changed or gone leaves. Called by assemble.c; service.c looks workloads up.
 */
#include "published.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What the workers have: the object and a text of all its fields, to see whether a new one differs. */
struct published {
	char *text;
	void *object;
	bool seen, is_new;
};

static char *workload_text(const struct workload *w)
{
	_cleanup_free_ char *ips = calloc(1, w->n_addrs * 48 + 1);
	char *text = NULL, *at = ips;

	if (!ips)
		return NULL;
	for (size_t i = 0; i < w->n_addrs; i++) {
		ip_addr_format(&w->addrs[i], at, 47);
		at += strlen(at);
		*at++ = ' ';
	}
	if (asprintf(&text, "%s|%s|%s|%s|%s|%s|%s|%s|%s/%s|%s|%d%d%d%d%d%d%d|%u", w->identity, w->node,
		     w->netns_path ? w->netns_path : "", w->canonical_name, w->canonical_revision,
		     w->workload_name, w->workload_type, w->network,
		     w->region ? w->region : "", w->zone ? w->zone : "", ips, w->protocol, w->labelled, w->ready,
		     w->host_network, w->local, w->has_sidecar, w->terminated, w->capacity) < 0)
		return NULL;
	return text;
}

static char *service_text(const struct service *s)
{
	char *text = NULL, ip[64];
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	for (size_t i = 0; i < s->n_vips; i++)
		fprintf(f, "%s ", ip_addr_format(&s->vips[i], ip, sizeof(ip)));
	for (size_t i = 0; i < s->n_ports; i++)
		fprintf(f, "|%u %s", s->ports[i].port, s->ports[i].name);
	fprintf(f, "|%d", s->publish_not_ready);
	for (size_t i = 0; i < s->n_endpoints; i++) {
		const struct service_endpoint *e = &s->endpoints[i];

		/* The pointer stands for the workload's own fields: a changed workload is a new object. */
		fprintf(f, "|%s %p %u %d", ip_addr_format(&e->addr, ip, sizeof(ip)), (void *)e->workload,
			e->weight, e->healthy);
		for (size_t k = 0; k < s->n_ports; k++)
			fprintf(f, " %u", e->target_ports[k]);
	}
	return fclose(f) ? NULL : text;
}

static const char *key_of(const struct published *p, bool workload)
{
	return workload ? ((struct workload *)p->object)->uid : ((struct service *)p->object)->hostname;
}

static void published_free(struct published *p, bool workload)
{
	if (workload)
		workload_unref(p->object);
	else
		service_unref(p->object);
	free(p->text);
	free(p);
}

static int publish(struct table *t, const char *key, void *object, char *text, bool workload)
{
	struct published *p = table_get_str(t, key);

	if (!text)
		return -ENOMEM;
	if (p && !strcmp(p->text, text)) {
		p->seen = true;
		free(text);
		if (workload)
			workload_unref(object);
		else
			service_unref(object);
		return 0;
	}
	if (p) {
		/* The key lives in the object, so the entry moves with it. */
		table_del(t, key, strlen(key));
		published_free(p, workload);
	}
	p = calloc(1, sizeof(*p));
	if (!p || table_put(t, key, strlen(key), p, NULL)) {
		free(p);
		free(text);
		return -ENOMEM;
	}
	*p = (struct published){.text = text, .object = object, .seen = true, .is_new = true};
	return 1;
}

int published_put_workload(struct table *t, struct workload *w)
{
	return publish(t, w->uid, w, workload_text(w), true);
}

int published_put_service(struct table *t, struct service *s)
{
	return publish(t, s->hostname, s, service_text(s), false);
}

void published_unsee(struct table *t)
{
	struct table_iter it = {0};
	struct published *p;

	while ((p = table_next(t, &it)))
		p->seen = p->is_new = false;
}

int published_collect(struct table *t, struct model_delta *d, bool workload)
{
	struct table_iter it = {0};
	struct published *p;
	int r = 0;

	while ((p = table_next(t, &it))) {
		const char *key = key_of(p, workload);

		if (p->is_new)
			r = workload ? model_delta_add_workload(d, workload_ref(p->object))
				     : model_delta_add_service(d, service_ref(p->object));
		if (!p->seen) {
			r = workload ? model_delta_remove_workload(d, key)
				     : model_delta_remove_service(d, key);
			table_del(t, key, strlen(key));
			published_free(p, workload);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

struct workload *published_by_uid(const struct table *t, const char *uid)
{
	struct published *p = table_get_str(t, uid);

	return p ? p->object : NULL;
}

struct workload *published_by_addr(const struct table *t, const struct ip_addr *addr)
{
	struct table_iter it = {0};
	struct published *p;

	while ((p = table_next(t, &it))) {
		struct workload *w = p->object;

		for (size_t i = 0; !w->host_network && !w->terminated && i < w->n_addrs; i++)
			if (ip_addr_equal(&w->addrs[i], addr))
				return w;
	}
	return NULL;
}

void published_done(struct table *t, bool workload)
{
	struct table_iter it = {0};
	struct published *p;

	while ((p = table_next(t, &it))) {
		const char *key = key_of(p, workload);

		table_del(t, key, strlen(key));
		published_free(p, workload);
	}
	table_done(t);
}
