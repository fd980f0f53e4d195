/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small mesh of manifests, read into a model and read again with changes: for the tests of agent/engine/source.
 * set_up and tear_down are for each test; `load` gives the delta out, `reload` and `edit` do not.
 */
#pragma once
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/store.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/model/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char mesh[] =
	"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2, serviceAccountName: web, containers: [{name: c, ports: [{name: http, containerPort: "
	"8080}]}]}\n"
	"status: {podIPs: [{ip: 10.0.2.1}, {ip: 'fd00::1'}], conditions: [{type: Ready, status: 'True'}]}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: web-2, namespace: shop, labels: {app: web}}\n"
	"spec: {nodeName: n2, containers: [{name: c, ports: [{name: http, containerPort: 9090}]}]}\n"
	"status: {podIP: 10.0.2.2, conditions: [{type: Ready, status: 'False'}]}\n---\n"
	"apiVersion: v1\nkind: Pod\nmetadata: {name: old, namespace: shop, labels: {istio.io/dataplane-mode: none}}\n"
	"spec: {nodeName: n1}\nstatus: {podIP: 10.0.1.9}\n---\n"
	"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
	"spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd96::1'], selector: {app: web},\n"
	"       ports: [{name: http, port: 80, targetPort: http}, {name: raw, port: 81}, {name: dns, port: 53, "
	"protocol: UDP}]}\n";

static struct store store;
static struct assembly assembly;
static struct model *model;

static inline void document(void *arg, cJSON *tree, int line)
{
	store_put(arg, "m.yaml", line, tree);
}

static inline void broken(void *arg, const struct yaml_error *error)
{
	store_put_broken(arg, "m.yaml", error);
}

static const struct yaml_handlers handlers = {document, broken};

static inline struct model_delta *load(const char *text)
{
	struct model_delta *d;

	store_begin(&store);
	(void)yaml_parse(text, strlen(text), &handlers, &store);
	store_end(&store);
	assert_int_equal(assemble(&assembly, &store, &d), 0);
	assert_int_equal(model_apply(model, d), 0);
	return d;
}

static inline void reload(const char *text)
{
	model_delta_free(load(text));
}

static inline int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	store = (struct store){0};
	assembly = (struct assembly){.cfg = {.node = "n1",
					     .cluster_id = "Kubernetes",
					     .network = "",
					     .cluster_domain = "cluster.local",
					     .trust_domain = "cluster.local"}};
	model = model_new();
	reload(mesh);
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	model_free(model);
	assemble_done(&assembly);
	store_done(&store);
	return 0;
}

static inline struct route to(const char *ip, uint16_t port)
{
	struct ip_port dst = {.port = port};
	struct route r;

	assert_int_equal(ip_addr_parse(ip, &dst.ip), 0);
	route_decide(model, NULL, &dst, 12345, &r);
	return r;
}

static inline struct resource *resource(const char *key)
{
	return table_get_str(&store.resources, key);
}

/* Replaces one piece of the manifests and reads them again. */
static inline void edit(const char *from, const char *with)
{
	char text[2 * sizeof(mesh)];
	const char *at = strstr(mesh, from);

	assert_non_null(at);
	snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - mesh), mesh, with, at + strlen(from));
	reload(text);
}
