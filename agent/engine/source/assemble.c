/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resources into workloads and services, then the difference to what was published before: only what changed goes to the
 * workers. Called by source.c.
 */
#include "assemble.h"
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

struct override {
	char *uid;
	struct ip_addr *addrs;
	size_t n;
};

static const cJSON *get(const cJSON *o, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(o, name);
}

static struct resource *lookup(const struct store *s, const char *kind, const char *ns, const char *name)
{
	_cleanup_free_ char *key = resource_key(kind, ns, name);

	return key ? table_get_str(&s->resources, key) : NULL;
}

/* --- workloads --- */

/* The pod's own label wins over its namespace's (Istio: istio.io/dataplane-mode). */
static bool in_mesh(const struct store *s, const struct resource *pod)
{
	const char *own = decode_string(decode_labels(pod->tree), "istio.io/dataplane-mode", "");
	struct resource *ns;

	if (*own)
		return !strcmp(own, "ambient");
	ns = lookup(s, "Namespace", "", pod->namespace_);
	return ns && ns->tree && !strcmp(decode_string(decode_labels(ns->tree), "istio.io/dataplane-mode", ""), "ambient");
}

static bool has_sidecar(const cJSON *tree)
{
	static const char *const lists[] = {"containers", "initContainers"};

	for (int i = 0; i < 2; i++) {
		const cJSON *c;

		cJSON_ArrayForEach(c, get(get(tree, "spec"), lists[i]))
		{
			const char *name = decode_string(c, "name", "");

			if (!strcmp(name, "istio-proxy") || !strcmp(name, "warren-sidecar"))
				return true;
		}
	}
	return decode_annotation(tree, "sidecar.istio.io/status") != NULL;
}

static bool is_ready(const cJSON *status)
{
	const cJSON *conditions = get(status, "conditions"), *c;

	/* A manifest without status is one that a person wrote: it means a pod that runs. */
	if (!cJSON_IsArray(conditions))
		return true;
	cJSON_ArrayForEach(c, conditions)
	{
		if (!strcmp(decode_string(c, "type", ""), "Ready"))
			return !strcmp(decode_string(c, "status", ""), "True");
	}
	return false;
}

static int add_addr(struct workload *w, const char *text)
{
	struct ip_addr a, *grown;

	if (!text || ip_addr_parse(text, &a))
		return 0;
	for (size_t i = 0; i < w->n_addrs; i++)
		if (ip_addr_equal(&w->addrs[i], &a))
			return 0;
	grown = realloc(w->addrs, (w->n_addrs + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	w->addrs = grown;
	w->addrs[w->n_addrs++] = a;
	return 0;
}

static int addresses(struct assembly *a, struct workload *w, const cJSON *status)
{
	const cJSON *i;
	int r = add_addr(w, decode_string(status, "podIP", NULL));

	cJSON_ArrayForEach(i, get(status, "podIPs"))
		r = r ? r : add_addr(w, decode_string(i, "ip", NULL));
	if (!r && !w->n_addrs && w->local) {
		struct override *o = table_get_str(&a->overrides, w->uid);

		if (!o || !o->n)
			return 0;
		w->addrs = malloc(o->n * sizeof(*o->addrs));
		if (!w->addrs)
			return -ENOMEM;
		memcpy(w->addrs, o->addrs, o->n * sizeof(*o->addrs));
		w->n_addrs = o->n;
	}
	return r;
}

static const char *label(const cJSON *labels, const char *const names[], const char *fallback)
{
	for (const char *const *n = names; *n; n++) {
		const char *v = decode_string(labels, *n, NULL);

		if (v && *v)
			return v;
	}
	return fallback;
}

/* Deployment and CronJob are told from the ReplicaSet's and Job's names, as Istio does. */
static void owner(struct workload *w, const cJSON *tree)
{
	const cJSON *o = cJSON_GetArrayItem(get(get(tree, "metadata"), "ownerReferences"), 0);
	const char *kind = decode_string(o, "kind", ""), *name = decode_string(o, "name", w->name);
	const char *hash = decode_string(decode_labels(tree), "pod-template-hash", NULL);
	size_t n = strlen(name);

	if (!strcmp(kind, "ReplicaSet")) {
		if (hash && n > strlen(hash) + 1 && !strcmp(name + n - strlen(hash), hash))
			n -= strlen(hash) + 1;
		w->workload_type = strdup("deployment");
	} else if (!strcmp(kind, "Job") || !strcmp(kind, "CronJob")) {
		w->workload_type = strdup(!strcmp(kind, "Job") ? "job" : "cronjob");
	} else {
		name = w->name;
		n = strlen(name);
		w->workload_type = strdup("pod");
	}
	w->workload_name = strndup(name, n);
}

static bool complete(const struct workload *w)
{
	return w->uid && w->name && w->namespace_ && w->service_account && w->node && w->network && w->cluster_id &&
	       w->trust_domain && w->identity && w->canonical_name && w->canonical_revision && w->workload_name &&
	       w->workload_type;
}

static struct workload *make_workload(struct assembly *a, const struct store *s, const struct resource *r)
{
	static const char *const names[] = {"service.istio.io/canonical-name", "app.kubernetes.io/name", "app", NULL};
	static const char *const revisions[] = {"service.istio.io/canonical-revision", "app.kubernetes.io/version", "version",
						NULL};
	const cJSON *spec = get(r->tree, "spec"), *status = get(r->tree, "status"), *labels = decode_labels(r->tree);
	const char *phase = decode_string(status, "phase", ""), *netns = decode_annotation(r->tree, "warren.dev/netns");
	const char *account = decode_string(spec, "serviceAccountName", "default");
	struct workload *w = workload_new();

	if (!w)
		return NULL;
	w->name = strdup(r->name);
	w->namespace_ = strdup(r->namespace_);
	w->service_account = strdup(account);
	w->node = strdup(decode_string(spec, "nodeName", ""));
	w->network = strdup(a->cfg.network);
	w->cluster_id = strdup(a->cfg.cluster_id);
	w->trust_domain = strdup(a->cfg.trust_domain);
	w->netns_path = netns ? strdup(netns) : NULL;
	if (asprintf(&w->uid, "%s//Pod/%s/%s", a->cfg.cluster_id, r->namespace_, r->name) < 0)
		w->uid = NULL;
	if (asprintf(&w->identity, "spiffe://%s/ns/%s/sa/%s", a->cfg.trust_domain, r->namespace_, account) < 0)
		w->identity = NULL;
	if (w->name)
		owner(w, r->tree);
	w->canonical_name = strdup(label(labels, names, w->workload_name ? w->workload_name : ""));
	w->canonical_revision = strdup(label(labels, revisions, "latest"));
	if (!complete(w))
		return workload_unref(w);
	w->host_network = cJSON_IsTrue(get(spec, "hostNetwork"));
	w->has_sidecar = has_sidecar(r->tree);
	w->terminated = !strcmp(phase, "Succeeded") || !strcmp(phase, "Failed");
	w->deleting = get(get(r->tree, "metadata"), "deletionTimestamp") != NULL;
	w->ready = is_ready(status) && !w->terminated && !w->deleting;
	w->local = *w->node && !strcmp(w->node, a->cfg.node);
	w->capacity = 1;
	w->labelled = in_mesh(s, r);
	w->protocol = w->labelled && !w->host_network && !w->has_sidecar ? TUNNEL_HBONE : TUNNEL_NONE;
	return addresses(a, w, status) ? workload_unref(w) : w;
}

/* --- services --- */

static bool selects(const cJSON *selector, const cJSON *labels)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, selector)
	{
		const char *v = decode_string(labels, i->string, NULL);

		if (!v || !cJSON_IsString(i) || strcmp(v, i->valuestring))
			return false;
	}
	return true;
}

static uint16_t container_port(const cJSON *pod, const char *name)
{
	const cJSON *c, *p;

	cJSON_ArrayForEach(c, get(get(pod, "spec"), "containers"))
	{
		cJSON_ArrayForEach(p, get(c, "ports"))
		{
			if (!strcmp(decode_string(p, "name", ""), name))
				return (uint16_t)get(p, "containerPort")->valueint;
		}
	}
	return 0;
}

static bool is_tcp(const cJSON *port)
{
	return !strcmp(decode_string(port, "protocol", "TCP"), "TCP");
}

/* Target of the service's port for one pod: a number, a container port's name, or the port itself. */
static uint16_t target_port(const cJSON *port, const cJSON *pod)
{
	const cJSON *t = get(port, "targetPort");

	if (cJSON_IsNumber(t))
		return (uint16_t)t->valueint;
	if (cJSON_IsString(t))
		return pod ? container_port(pod, t->valuestring) : 0;
	return (uint16_t)get(port, "port")->valueint;
}

static struct service_endpoint *add_endpoint(struct service *s, const struct ip_addr *addr, struct workload *w, bool healthy)
{
	struct service_endpoint *grown = realloc(s->endpoints, (s->n_endpoints + 1) * sizeof(*grown)), *e;
	uint16_t *ports = calloc(s->n_ports ? s->n_ports : 1, sizeof(*ports));

	if (grown)
		s->endpoints = grown;
	if (!grown || !ports) {
		free(ports);
		return NULL;
	}
	e = &s->endpoints[s->n_endpoints++];
	*e = (struct service_endpoint){.addr = *addr,
				       .workload = w ? workload_ref(w) : NULL,
				       .target_ports = ports,
				       .weight = w ? w->capacity : 1,
				       .healthy = healthy};
	return e;
}

static int fill_ports(struct service *s, const cJSON *spec)
{
	const cJSON *p;

	s->ports = calloc((size_t)cJSON_GetArraySize(get(spec, "ports")) + 1, sizeof(*s->ports));
	if (!s->ports)
		return -ENOMEM;
	cJSON_ArrayForEach(p, get(spec, "ports"))
	{
		if (!is_tcp(p))
			continue;
		s->ports[s->n_ports].port = (uint16_t)get(p, "port")->valueint;
		s->ports[s->n_ports].name = strdup(decode_string(p, "name", ""));
		if (!s->ports[s->n_ports++].name)
			return -ENOMEM;
	}
	return 0;
}

static int fill_vips(struct service *s, const cJSON *spec)
{
	const cJSON *ips = get(spec, "clusterIPs"), *i;
	const char *one = decode_string(spec, "clusterIP", "");

	s->vips = calloc((size_t)cJSON_GetArraySize(ips) + 1, sizeof(*s->vips));
	if (!s->vips)
		return -ENOMEM;
	cJSON_ArrayForEach(i, ips)
		if (!ip_addr_parse(i->valuestring, &s->vips[s->n_vips]))
			s->n_vips++;
	if (!s->n_vips && !ip_addr_parse(one, &s->vips[0]))
		s->n_vips = 1;
	return 0;
}

/* Endpoints of a selector: every matching pod of the namespace. */
static int from_selector(struct assembly *a, const struct store *st, struct service *s, const cJSON *spec)
{
	const cJSON *selector = get(spec, "selector"), *p;
	struct table_iter it = {0};
	struct resource *r;

	if (!cJSON_GetArraySize(selector))
		return 0;
	while ((r = table_next(&st->resources, &it))) {
		_cleanup_free_ char *uid = NULL;
		struct published *pub;
		struct workload *w;

		if (r->kind != KIND_POD || !r->tree || strcmp(r->namespace_, s->namespace_) ||
		    !selects(selector, decode_labels(r->tree)))
			continue;
		if (asprintf(&uid, "%s//Pod/%s/%s", a->cfg.cluster_id, r->namespace_, r->name) < 0)
			return -ENOMEM;
		pub = table_get_str(&a->workloads, uid);
		w = pub ? pub->object : NULL;
		for (size_t i = 0; w && !w->terminated && i < w->n_addrs; i++) {
			struct service_endpoint *e = add_endpoint(s, &w->addrs[i], w, w->ready);
			size_t n = 0;

			if (!e)
				return -ENOMEM;
			cJSON_ArrayForEach(p, get(spec, "ports"))
				if (is_tcp(p))
					e->target_ports[n++] = target_port(p, r->tree);
		}
	}
	return 0;
}

static struct workload *owner_of(struct assembly *a, const struct ip_addr *addr)
{
	struct table_iter it = {0};
	struct workload *found = NULL;
	struct published *p;

	while ((p = table_next(&a->workloads, &it))) {
		struct workload *w = p->object;

		/* An address that a pod has left, or is about to leave, may be another's already. */
		for (size_t i = 0; !w->host_network && !w->terminated && i < w->n_addrs; i++)
			if (ip_addr_equal(&w->addrs[i], addr) && (!found || found->deleting))
				found = w;
	}
	return found;
}

static int add_slice(struct assembly *a, struct service *s, const cJSON *slice)
{
	const cJSON *i, *text, *p;

	cJSON_ArrayForEach(i, get(slice, "endpoints"))
	{
		const cJSON *conditions = get(i, "conditions"), *ready = get(conditions, "ready");
		bool healthy = !cJSON_IsFalse(ready) && !cJSON_IsTrue(get(conditions, "terminating"));

		cJSON_ArrayForEach(text, get(i, "addresses"))
		{
			struct service_endpoint *e;
			struct ip_addr addr;

			if (ip_addr_parse(text->valuestring, &addr))
				continue;
			e = add_endpoint(s, &addr, owner_of(a, &addr), healthy);
			if (!e)
				return -ENOMEM;
			/* Slice ports belong to service ports by name (EndpointPort.name). */
			for (size_t n = 0; n < s->n_ports; n++) {
				cJSON_ArrayForEach(p, get(slice, "ports"))
				{
					if (!strcmp(decode_string(p, "name", ""), s->ports[n].name) && get(p, "port"))
						e->target_ports[n] = (uint16_t)get(p, "port")->valueint;
				}
			}
		}
	}
	return 0;
}

static int endpoints(struct assembly *a, const struct store *st, struct service *s, const cJSON *spec)
{
	struct table_iter it = {0};
	struct resource *r;
	bool sliced = false;

	while ((r = table_next(&st->resources, &it))) {
		if (r->kind != KIND_ENDPOINTSLICE || !r->tree || strcmp(r->namespace_, s->namespace_) ||
		    strcmp(decode_string(decode_labels(r->tree), "kubernetes.io/service-name", ""), s->name))
			continue;
		sliced = true;
		if (add_slice(a, s, r->tree))
			return -ENOMEM;
	}
	return sliced ? 0 : from_selector(a, st, s, spec);
}

static struct service *make_service(struct assembly *a, const struct store *st, const struct resource *r)
{
	const cJSON *spec = get(r->tree, "spec");
	struct service *s = service_new();

	if (!s)
		return NULL;
	s->name = strdup(r->name);
	s->namespace_ = strdup(r->namespace_);
	s->publish_not_ready = cJSON_IsTrue(get(spec, "publishNotReadyAddresses"));
	if (asprintf(&s->hostname, "%s.%s.svc.%s", r->name, r->namespace_, a->cfg.cluster_domain) < 0)
		s->hostname = NULL;
	if (!s->name || !s->namespace_ || !s->hostname || fill_ports(s, spec) || fill_vips(s, spec) || endpoints(a, st, s, spec))
		return service_unref(s);
	return s;
}

/* --- what changed --- */

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
	if (asprintf(&text, "%s|%s|%s|%s|%s|%s|%s|%s|%s|%d%d%d%d%d%d%d%d|%u", w->identity, w->node, w->netns_path ? w->netns_path : "",
		     w->canonical_name, w->canonical_revision, w->workload_name, w->workload_type, w->network, ips, w->protocol,
		     w->labelled, w->ready, w->host_network, w->local, w->has_sidecar, w->terminated, w->deleting, w->capacity) < 0)
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
		fprintf(f, "|%s %p %u %d", ip_addr_format(&e->addr, ip, sizeof(ip)), (void *)e->workload, e->weight, e->healthy);
		for (size_t k = 0; k < s->n_ports; k++)
			fprintf(f, " %u", e->target_ports[k]);
	}
	return fclose(f) ? NULL : text;
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

/* Enters a fresh object (taken over) under its key: kept only when its text differs. 1 new or different, 0 the same. */
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

static void unsee(struct table *t)
{
	struct table_iter it = {0};
	struct published *p;

	while ((p = table_next(t, &it)))
		p->seen = p->is_new = false;
}

/* Puts what is new into the delta and what is gone into its removals. */
static int collect(struct table *t, struct model_delta *d, bool workload)
{
	struct table_iter it = {0};
	struct published *p;
	int r = 0;

	while ((p = table_next(t, &it))) {
		const char *key = workload ? ((struct workload *)p->object)->uid : ((struct service *)p->object)->hostname;

		if (p->is_new)
			r = workload ? model_delta_add_workload(d, workload_ref(p->object)) :
				       model_delta_add_service(d, service_ref(p->object));
		if (!p->seen) {
			r = workload ? model_delta_remove_workload(d, key) : model_delta_remove_service(d, key);
			table_del(t, key, strlen(key));
			published_free(p, workload);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int assemble(struct assembly *a, const struct store *s, struct model_delta **ret)
{
	struct model_delta *d = model_delta_new();
	struct table_iter it = {0};
	struct resource *r;
	int e = d ? 0 : -ENOMEM;

	unsee(&a->workloads);
	unsee(&a->services);
	while (e >= 0 && (r = table_next(&s->resources, &it))) {
		struct workload *w;

		if (r->kind != KIND_POD || !r->tree)
			continue;
		w = make_workload(a, s, r);
		e = w ? publish(&a->workloads, w->uid, w, workload_text(w), true) : -ENOMEM;
	}
	it = (struct table_iter){0};
	while (e >= 0 && (r = table_next(&s->resources, &it))) {
		struct service *v;

		if (r->kind != KIND_SERVICE || !r->tree)
			continue;
		if (!strcmp(decode_string(get(r->tree, "spec"), "type", ""), "ExternalName"))
			continue;
		v = make_service(a, s, r);
		e = v ? publish(&a->services, v->hostname, v, service_text(v), false) : -ENOMEM;
	}
	/* Services first: their texts name workloads by pointer, which must not be freed and reused before. */
	if (e >= 0)
		e = collect(&a->services, d, false);
	if (e >= 0)
		e = collect(&a->workloads, d, true);
	if (e < 0) {
		model_delta_free(d);
		return e;
	}
	d->generation = ++a->generation;
	*ret = d;
	return 0;
}

int assemble_set_addresses(struct assembly *a, const char *uid, const struct ip_addr *addrs, size_t n)
{
	struct override *o = table_get_str(&a->overrides, uid);
	struct ip_addr *copy = malloc(n * sizeof(*copy) + 1);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, addrs, n * sizeof(*copy));
	if (!o) {
		o = calloc(1, sizeof(*o));
		if (o)
			o->uid = strdup(uid);
		if (!o || !o->uid || table_put(&a->overrides, o->uid, strlen(o->uid), o, NULL)) {
			free(copy);
			return -ENOMEM;
		}
	}
	free(o->addrs);
	o->addrs = copy;
	o->n = n;
	return 0;
}

static void published_done(struct table *t, bool workload)
{
	struct table_iter it = {0};
	struct published *p;

	while ((p = table_next(t, &it))) {
		const char *key = workload ? ((struct workload *)p->object)->uid : ((struct service *)p->object)->hostname;

		table_del(t, key, strlen(key));
		published_free(p, workload);
	}
	table_done(t);
}

void assemble_done(struct assembly *a)
{
	struct table_iter it = {0};
	struct override *o;

	published_done(&a->services, false);
	published_done(&a->workloads, true);
	while ((o = table_next(&a->overrides, &it))) {
		table_del(&a->overrides, o->uid, strlen(o->uid));
		free(o->uid);
		free(o->addrs);
		free(o);
	}
	table_done(&a->overrides);
}
