/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was published before, and what differs from it now. Fresh workloads and services come in; a delta with
 * those that are new, changed or gone leaves, and only then do they take the place of what was before. Called
 * by assemble.c; service.c, override.c and policy_dump.c look workloads up.
 */
#include "published.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* An object and a text of all its fields, to see whether a new one differs. */
struct version {
	char *text;
	void *object;
};

struct published {
	char *key;
	struct version now;  /* what the workers have; empty: nothing yet */
	struct version next; /* of this round, if it differs */
	bool seen;	     /* in this round */
};

static char *workload_text(const struct workload *w)
{
	_cleanup_free_ char *ips = calloc(1, w->n_addrs * 48 + w->n_probe_ports * 8 + 1);
	char *text = NULL, *at = ips;

	if (!ips)
		return NULL;
	for (size_t i = 0; i < w->n_addrs; i++) {
		ip_addr_format(&w->addrs[i], at, 47);
		at += strlen(at);
		*at++ = ' ';
	}
	for (size_t i = 0; i < w->n_probe_ports; i++)
		at += snprintf(at, 8, ":%u", w->probe_ports[i]);
	/* The set's pointer stands for all its policies: the workload in force holds a reference. */
	if (asprintf(&text, "%s|%s|%s|%s|%s|%s|%s|%s|%s/%s|%s|%d%d%d%d%d%d%d%d%d%d|%u|%p", w->identity, w->node,
		     w->netns_path ? w->netns_path : "", w->canonical_name, w->canonical_revision, w->workload_name,
		     w->workload_type, w->network, w->region ? w->region : "", w->zone ? w->zone : "", ips,
		     w->addrs_in_status, w->protocol, w->labelled, w->ready, w->host_network, w->local, w->has_sidecar,
		     w->terminated, w->deleting, w->addrs_disputed, w->capacity, (void *)w->policy) < 0)
		return NULL;
	return text;
}

static bool print_service(FILE *f, const struct service *s)
{
	bool ok = true;
	char ip[64];

	for (size_t i = 0; i < s->n_vips; i++)
		ok &= fprintf(f, "%s ", ip_addr_format(&s->vips[i], ip, sizeof(ip))) > 0;
	for (size_t i = 0; i < s->n_ports; i++)
		ok &= fprintf(f, "|%u %s", s->ports[i].port, s->ports[i].name) > 0;
	ok &= fprintf(f, "|%d", s->publish_not_ready) > 0;
	for (size_t i = 0; i < s->n_endpoints; i++) {
		const struct service_endpoint *e = &s->endpoints[i];

		/* The pointer stands for the workload's own fields: a changed workload is a new object, and the
		 * service in force holds a reference on the old. */
		ok &= fprintf(f, "|%s %p %u %d", ip_addr_format(&e->addr, ip, sizeof(ip)), (void *)e->workload,
			      e->weight, e->healthy) > 0;
		for (size_t k = 0; k < s->n_ports; k++)
			ok &= fprintf(f, " %u", e->target_ports[k]) > 0;
	}
	return ok;
}

static char *service_text(const struct service *s)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	bool ok;

	if (!f)
		return NULL;
	ok = print_service(f, s);
	return !fclose(f) && ok ? take_ptr(text) : NULL;
}

static void version_done(struct version *v, bool workload)
{
	if (workload)
		workload_unref(v->object);
	else
		service_unref(v->object);
	free(v->text);
	*v = (struct version){0};
}

static void forget(struct table *t, struct published *p, bool workload)
{
	table_del(t, p->key, strlen(p->key));
	version_done(&p->now, workload);
	version_done(&p->next, workload);
	free(p->key);
	free(p);
}

static struct published *find_or_add(struct table *t, const char *key)
{
	struct published *p = table_get_str(t, key);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (p)
		p->key = strdup(key);
	if (p && p->key && !table_put(t, p->key, strlen(p->key), p, NULL))
		return p;
	if (p)
		free(p->key);
	free(p);
	return NULL;
}

/* The object kept, which is the one in force when that has the same text. NULL: out of memory. */
static void *put(struct table *t, const char *key, struct version v, bool workload)
{
	struct published *p = v.text ? find_or_add(t, key) : NULL;

	if (!p) {
		version_done(&v, workload);
		return NULL;
	}
	p->seen = true;
	if (p->now.text && !strcmp(p->now.text, v.text)) {
		version_done(&v, workload);
		return p->now.object;
	}
	p->next = v;
	return v.object;
}

struct workload *published_put_workload(struct table *t, struct workload *w)
{
	return put(t, w->uid, (struct version){workload_text(w), w}, true);
}

int published_put_service(struct table *t, struct service *s)
{
	return put(t, s->hostname, (struct version){service_text(s), s}, false) ? 0 : -ENOMEM;
}

static int add_workload(struct model_delta *d, struct workload *w)
{
	int r = model_delta_add_workload(d, workload_ref(w));

	if (r < 0)
		workload_unref(w);
	return r;
}

static int add_service(struct model_delta *d, struct service *s)
{
	int r = model_delta_add_service(d, service_ref(s));

	if (r < 0)
		service_unref(s);
	return r;
}

int published_collect(const struct table *t, struct model_delta *d, bool workload)
{
	struct table_iter it = {0};
	struct published *p;
	int r = 0;

	while (r == 0 && (p = table_next(t, &it))) {
		if (p->next.object)
			r = workload ? add_workload(d, p->next.object) : add_service(d, p->next.object);
		else if (!p->seen)
			r = workload ? model_delta_remove_workload(d, p->key) : model_delta_remove_service(d, p->key);
	}
	return r;
}

void published_end(struct table *t, bool commit, bool workload)
{
	struct table_iter it = {0};
	struct published *p;

	while ((p = table_next(t, &it))) {
		if (commit ? !p->seen : !p->now.object) {
			forget(t, p, workload);
			continue;
		}
		if (commit && p->next.object) {
			version_done(&p->now, workload);
			p->now = p->next;
			p->next = (struct version){0};
		}
		version_done(&p->next, workload);
		p->seen = false;
	}
}

struct workload *published_by_uid(const struct table *t, const char *uid)
{
	struct published *p = table_get_str(t, uid);

	return !p ? NULL : p->next.object ? p->next.object : p->now.object;
}

void published_done(struct table *t, bool workload)
{
	struct table_iter it = {0};
	struct published *p;

	while ((p = table_next(t, &it)))
		forget(t, p, workload);
	table_done(t);
}
