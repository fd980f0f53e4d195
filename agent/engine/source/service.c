/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services and their endpoints. A Service, its EndpointSlices (else the pods that it selects, else Endpoints) and the
 * published workloads come in; the model's service leaves. Called by assemble.c.
 */
#include "assemble_private.h"
#include "engine/base/cleanup.h"
#include "published.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool selects(const cJSON *selector, const cJSON *labels)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, selector) {
		const char *v = decode_string(labels, i->string, NULL);

		if (!v || !cJSON_IsString(i) || strcmp(v, i->valuestring))
			return false;
	}
	return true;
}

static bool is_tcp(const cJSON *port)
{
	return !strcmp(decode_string(port, "protocol", "TCP"), "TCP");
}

/* A name may be used once for each protocol. */
static uint16_t container_port(const cJSON *pod, const char *name)
{
	const cJSON *c, *p;

	cJSON_ArrayForEach(c, get(get(pod, "spec"), "containers")) {
		cJSON_ArrayForEach(p, get(c, "ports")) {
			if (is_tcp(p) && !strcmp(decode_string(p, "name", ""), name))
				return (uint16_t)get(p, "containerPort")->valueint;
		}
	}
	return 0;
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

static struct service_endpoint *add_endpoint(struct service *s, const struct ip_addr *addr, struct workload *w,
					     bool healthy)
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
	cJSON_ArrayForEach(p, get(spec, "ports")) {
		if (!is_tcp(p))
			continue;
		s->ports[s->n_ports].port = (uint16_t)get(p, "port")->valueint;
		s->ports[s->n_ports].name = strdup(decode_string(p, "name", ""));
		if (!s->ports[s->n_ports++].name)
			return -ENOMEM;
	}
	return 0;
}

/* What a Service is called by inside the mesh: its cluster addresses. Not spec.externalIPs, as in Istio, and, other
 * than there, not status.loadBalancer either: such an address may be shared by several Services, or be a node's own (as
 * K3s has it), and whoever dialled another port of it would get nowhere. Both are left to the node's own datapath. */
static int fill_vips(struct service *s, const cJSON *spec)
{
	const cJSON *ips = get(spec, "clusterIPs"), *i;
	const char *one = decode_string(spec, "clusterIP", "");

	s->vips = calloc((size_t)cJSON_GetArraySize(ips) + 1, sizeof(*s->vips));
	if (!s->vips)
		return -ENOMEM;
	cJSON_ArrayForEach(i, ips) {
		if (!ip_addr_parse(i->valuestring, &s->vips[s->n_vips]))
			s->n_vips++;
	}
	if (!s->n_vips && !ip_addr_parse(one, &s->vips[0]))
		s->n_vips = 1;
	return 0;
}

/* Endpoints of a selector: every matching pod of the namespace. */
static int from_selector(const struct assembly *a, const struct store *st, struct service *s, const cJSON *spec)
{
	const cJSON *selector = get(spec, "selector"), *p;
	struct table_iter it = {0};
	struct resource *r;

	while ((r = table_next(&st->resources, &it))) {
		_cleanup_free_ char *uid = NULL;
		struct workload *w;

		if (r->kind != KIND_POD || !r->tree || strcmp(r->namespace_, s->namespace_) ||
		    !selects(selector, decode_labels(r->tree)))
			continue;
		uid = assemble_uid(a, r);
		if (!uid)
			return -ENOMEM;
		w = published_by_uid(&a->workloads, uid);
		for (size_t i = 0; w && !w->terminated && i < w->n_addrs; i++) {
			struct service_endpoint *e = add_endpoint(s, &w->addrs[i], w, w->ready);
			size_t n = 0;

			if (!e)
				return -ENOMEM;
			cJSON_ArrayForEach(p, get(spec, "ports")) {
				if (is_tcp(p))
					e->target_ports[n++] = target_port(p, r->tree);
			}
		}
	}
	return 0;
}

/* One address of a slice or subset. Its ports belong to the service's by name (EndpointPort.name). */
static int add_address(const struct assembly *a, struct service *s, const char *text, bool healthy, const cJSON *ports)
{
	struct service_endpoint *e;
	struct ip_addr addr;
	const cJSON *p;

	if (ip_addr_parse(text, &addr))
		return 0;
	e = add_endpoint(s, &addr, claim_owner(&a->claims, &addr), healthy);
	if (!e)
		return -ENOMEM;
	for (size_t n = 0; n < s->n_ports; n++) {
		cJSON_ArrayForEach(p, ports) {
			if (is_tcp(p) && get(p, "port") && !strcmp(decode_string(p, "name", ""), s->ports[n].name))
				e->target_ports[n] = (uint16_t)get(p, "port")->valueint;
		}
	}
	return 0;
}

static int add_slice(const struct assembly *a, struct service *s, const cJSON *slice)
{
	const cJSON *i, *text;

	cJSON_ArrayForEach(i, get(slice, "endpoints")) {
		const cJSON *conditions = get(i, "conditions"), *ready = get(conditions, "ready");
		bool healthy = !cJSON_IsFalse(ready) && !cJSON_IsTrue(get(conditions, "terminating"));

		cJSON_ArrayForEach(text, get(i, "addresses")) {
			if (add_address(a, s, text->valuestring, healthy, get(slice, "ports")))
				return -ENOMEM;
		}
	}
	return 0;
}

/* Endpoints, the older form: Kubernetes mirrors them into slices for a Service without selector. */
static int from_endpoints(const struct assembly *a, const struct store *st, struct service *s)
{
	_cleanup_free_ char *key = resource_key("Endpoints", s->namespace_, s->name);
	const struct resource *r = key ? table_get_str(&st->resources, key) : NULL;
	const cJSON *subset, *i;

	cJSON_ArrayForEach(subset, get(r ? r->tree : NULL, "subsets")) {
		static const char *const lists[] = {"notReadyAddresses", "addresses"};

		for (int ready = 0; ready < 2; ready++) {
			cJSON_ArrayForEach(i, get(subset, lists[ready])) {
				if (add_address(a, s, get(i, "ip")->valuestring, ready, get(subset, "ports")))
					return -ENOMEM;
			}
		}
	}
	return key ? 0 : -ENOMEM;
}

static int endpoints(const struct assembly *a, const struct store *st, struct service *s, const cJSON *spec)
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
	if (sliced)
		return 0;
	return cJSON_GetArraySize(get(spec, "selector")) ? from_selector(a, st, s, spec) : from_endpoints(a, st, s);
}

struct service *assemble_service(const struct assembly *a, const struct store *st, const struct resource *r)
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
	if (!s->name || !s->namespace_ || !s->hostname || fill_ports(s, spec) || fill_vips(s, spec) ||
	    endpoints(a, st, s, spec))
		return service_unref(s);
	return s;
}
