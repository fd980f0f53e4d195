/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of the resources that Warren reads: what is wrong is refused with its field and line, what is unknown is
 * warned of. Fields as in the Kubernetes API reference (core/v1, discovery.k8s.io/v1). Called by store.c.
 */
#include "resource.h"
#include "engine/base/cleanup.h"
#include "spelling.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_LEN 253

struct check {
	char reason[400];
	bool refused, warned;
};

static bool refuse(struct check *c, const cJSON *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The first error is the one reported. Always false, for use as a return value. */
static bool refuse(struct check *c, const cJSON *at, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (c->refused)
		return false;
	c->refused = true;
	va_start(ap, fmt);
	n = vsnprintf(c->reason, sizeof(c->reason), fmt, ap);
	va_end(ap);
	if (at && !cJSON_IsNumber(at) && at->valueint > 0 && n > 0 && (size_t)n < sizeof(c->reason))
		snprintf(c->reason + n, sizeof(c->reason) - (size_t)n, " (line %d)", at->valueint);
	return false;
}

/* `meant`: the field that this may be; NULL when there is none. */
static void warn(struct check *c, const char *where, const char *field, const char *meant)
{
	if (c->refused || c->warned)
		return;
	c->warned = true;
	snprintf(c->reason, sizeof(c->reason), "%s%s%s: unknown field, %s%s%s", where, *where ? "." : "", field,
		 meant ? "did you mean " : "ignored", meant ? meant : "", meant ? "?" : "");
}

const char *decode_string(const cJSON *o, const char *name, const char *fallback)
{
	const cJSON *v = get(o, name);

	return cJSON_IsString(v) ? v->valuestring : fallback;
}

const cJSON *decode_labels(const cJSON *tree)
{
	return get(get(tree, "metadata"), "labels");
}

const char *decode_annotation(const cJSON *tree, const char *name)
{
	return decode_string(get(get(tree, "metadata"), "annotations"), name, NULL);
}

static void known(struct check *c, const char *where, const cJSON *o, const char *const names[])
{
	const cJSON *i;

	cJSON_ArrayForEach(i, o) {
		bool found = cJSON_IsNull(i);

		for (const char *const *n = names; *n && !found; n++)
			found = !strcmp(*n, i->string);
		if (!found)
			warn(c, where, i->string, NULL);
	}
}

/* Where the API has many more fields than Warren uses, only what may be one of these is warned of. */
static void near(struct check *c, const char *where, const cJSON *o, const char *const used[])
{
	const cJSON *i;

	cJSON_ArrayForEach(i, o) {
		const char *meant = NULL;
		bool found = false;

		for (const char *const *n = used; *n && !found; n++) {
			found = !strcmp(*n, i->string);
			meant = spelling_near(i->string, *n) ? *n : meant;
		}
		if (meant && !found)
			warn(c, where, i->string, meant);
	}
}

static bool want_string(struct check *c, const cJSON *o, const char *path, const char *name, bool required)
{
	const cJSON *v = get(o, name);

	if (!v)
		return !required || refuse(c, o, "%s.%s: missing", path, name);
	return cJSON_IsString(v) || refuse(c, v, "%s.%s: must be a text", path, name);
}

static bool want_bool(struct check *c, const cJSON *o, const char *path, const char *name)
{
	const cJSON *v = get(o, name);

	return !v || cJSON_IsBool(v) || refuse(c, v, "%s.%s: must be true or false", path, name);
}

static bool want_list(struct check *c, const cJSON *o, const char *path, const char *name)
{
	const cJSON *v = get(o, name);

	return !v || cJSON_IsArray(v) || refuse(c, v, "%s.%s: must be a list", path, name);
}

static bool want_object(struct check *c, const cJSON *o, const char *path, const char *name, bool required)
{
	const cJSON *v = get(o, name);

	if (!v)
		return !required || refuse(c, o, "%s%s%s: missing", path, *path ? "." : "", name);
	return cJSON_IsObject(v) || refuse(c, v, "%s%s%s: must be a mapping", path, *path ? "." : "", name);
}

static bool port_number(struct check *c, const cJSON *v, const cJSON *at, const char *path)
{
	return (cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= 65535 &&
		v->valuedouble == (double)(int)v->valuedouble) ||
	       refuse(c, at, "%s: must be a port from 1 to 65535", path);
}

static bool address(struct check *c, const cJSON *v, const char *path)
{
	struct ip_addr a;

	return (cJSON_IsString(v) && !ip_addr_parse(v->valuestring, &a)) ||
	       refuse(c, v, "%s: not an IP address: %s", path, cJSON_IsString(v) ? v->valuestring : "?");
}

/* Names become part of identities: RFC 1123 characters only. */
static bool dns_name(struct check *c, const cJSON *o, const char *path, const char *name, bool required)
{
	const char *v;

	if (!want_string(c, o, path, name, required))
		return false;
	v = decode_string(o, name, NULL);
	if (!v)
		return true;
	if (!*v || strlen(v) > NAME_MAX_LEN || strspn(v, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(v))
		return refuse(c, get(o, name), "%s.%s: not a valid name: %s", path, name, v);
	return true;
}

static bool texts(struct check *c, const cJSON *o, const char *path, bool nulls)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, o) {
		if (!cJSON_IsString(i) && !(nulls && cJSON_IsNull(i)))
			return refuse(c, o, "%s.%s: must be a text; put it in quotes", path, i->string);
	}
	return true;
}

/* The label decides who is protected: a misspelt value must not quietly mean no. */
static bool mode_label(struct check *c, const cJSON *labels)
{
	const cJSON *v = get(labels, "istio.io/dataplane-mode");

	if (!v || !strcmp(v->valuestring, "ambient") || !strcmp(v->valuestring, "none") || !*v->valuestring)
		return true;
	return refuse(c, v, "metadata.labels[istio.io/dataplane-mode]: must be ambient or none, not %s",
		      v->valuestring);
}

static bool metadata(struct check *c, const cJSON *tree)
{
	static const char *const used[] = {"name",
					   "namespace",
					   "labels",
					   "annotations",
					   "ownerReferences",
					   "creationTimestamp",
					   "deletionTimestamp",
					   NULL};
	const cJSON *m = get(tree, "metadata");

	near(c, "metadata", m, used);
	return want_object(c, tree, "", "metadata", true) && dns_name(c, m, "metadata", "name", true) &&
	       dns_name(c, m, "metadata", "namespace", false) && want_object(c, m, "metadata", "labels", false) &&
	       want_object(c, m, "metadata", "annotations", false) &&
	       texts(c, get(m, "labels"), "metadata.labels", true) &&
	       texts(c, get(m, "annotations"), "metadata.annotations", true) && mode_label(c, get(m, "labels"));
}

/* The API's "" means the default account, and an address that is not there yet. */
static bool account_name(struct check *c, const cJSON *spec)
{
	const char *v = decode_string(spec, "serviceAccountName", NULL);

	return (v && !*v) || dns_name(c, spec, "spec", "serviceAccountName", false);
}

static bool is_empty_text(const cJSON *v)
{
	return cJSON_IsString(v) && !*v->valuestring;
}

static bool pod(struct check *c, const cJSON *tree)
{
	static const char *const in_spec[] = {"nodeName", "serviceAccountName", "hostNetwork", "containers", NULL};
	static const char *const in_status[] = {"phase", "podIP", "podIPs", "conditions", NULL};
	const cJSON *spec = get(tree, "spec"), *status = get(tree, "status"), *i, *k;

	near(c, "spec", spec, in_spec);
	near(c, "status", status, in_status);
	if (!want_object(c, tree, "", "spec", true) || !want_object(c, tree, "", "status", false) ||
	    !want_string(c, spec, "spec", "nodeName", false) || !account_name(c, spec) ||
	    !want_bool(c, spec, "spec", "hostNetwork") || !want_list(c, spec, "spec", "containers") ||
	    !want_list(c, spec, "spec", "initContainers") || !want_list(c, status, "status", "podIPs") ||
	    !want_list(c, status, "status", "conditions") || !want_string(c, status, "status", "phase", false))
		return false;
	cJSON_ArrayForEach(i, get(spec, "containers")) {
		if (!cJSON_IsObject(i) || !want_list(c, i, "spec.containers[]", "ports"))
			return refuse(c, i, "spec.containers[]: must be a mapping");
		cJSON_ArrayForEach(k, get(i, "ports")) {
			if (!port_number(c, get(k, "containerPort"), k, "spec.containers[].ports[].containerPort"))
				return false;
		}
	}
	if (get(status, "podIP") && !is_empty_text(get(status, "podIP")) &&
	    !address(c, get(status, "podIP"), "status.podIP"))
		return false;
	cJSON_ArrayForEach(i, get(status, "podIPs")) {
		if (!address(c, get(i, "ip"), "status.podIPs[].ip"))
			return false;
	}
	return true;
}

static bool service_port(struct check *c, const cJSON *p)
{
	static const char *const fields[] = {"name", "port", "targetPort", "protocol", "nodePort", "appProtocol", NULL};
	const cJSON *t = get(p, "targetPort");

	/* The API server refuses a name without a letter: it would be looked for among the container ports' names. */
	if (cJSON_IsString(t) && strspn(t->valuestring, "0123456789-") == strlen(t->valuestring))
		return refuse(c, t, "spec.ports[].targetPort: a number must not be in quotes: %s", t->valuestring);
	if (!cJSON_IsObject(p))
		return refuse(c, p, "spec.ports[]: must be a mapping");
	known(c, "spec.ports[]", p, fields);
	return port_number(c, get(p, "port"), p, "spec.ports[].port") &&
	       want_string(c, p, "spec.ports[]", "name", false) &&
	       want_string(c, p, "spec.ports[]", "protocol", false) &&
	       (!t || cJSON_IsString(t) || port_number(c, t, p, "spec.ports[].targetPort"));
}

static bool service(struct check *c, const cJSON *tree)
{
	static const char *const fields[] = {"clusterIP",
					     "clusterIPs",
					     "ports",
					     "selector",
					     "type",
					     "ipFamilies",
					     "ipFamilyPolicy",
					     "sessionAffinity",
					     "sessionAffinityConfig",
					     "publishNotReadyAddresses",
					     "internalTrafficPolicy",
					     "externalTrafficPolicy",
					     "externalName",
					     "externalIPs",
					     "loadBalancerIP",
					     "loadBalancerClass",
					     "loadBalancerSourceRanges",
					     "allocateLoadBalancerNodePorts",
					     "healthCheckNodePort",
					     "trafficDistribution",
					     NULL};
	const cJSON *spec = get(tree, "spec"), *i;

	if (!want_object(c, tree, "", "spec", true) || !want_list(c, spec, "spec", "ports") ||
	    !want_list(c, spec, "spec", "clusterIPs") || !want_object(c, spec, "spec", "selector", false) ||
	    !texts(c, get(spec, "selector"), "spec.selector", false) ||
	    !want_bool(c, spec, "spec", "publishNotReadyAddresses") ||
	    !want_string(c, spec, "spec", "clusterIP", false))
		return false;
	known(c, "spec", spec, fields);
	cJSON_ArrayForEach(i, get(spec, "ports")) {
		if (!service_port(c, i))
			return false;
	}
	cJSON_ArrayForEach(i, get(spec, "clusterIPs")) {
		if (!(cJSON_IsString(i) && !strcmp(i->valuestring, "None")) && !address(c, i, "spec.clusterIPs[]"))
			return false;
	}
	i = get(spec, "clusterIP");
	return !i || !*i->valuestring || !strcmp(i->valuestring, "None") || address(c, i, "spec.clusterIP");
}

static bool endpointslice(struct check *c, const cJSON *tree)
{
	const cJSON *i, *a;

	if (!want_list(c, tree, "endpointslice", "endpoints") || !want_list(c, tree, "endpointslice", "ports"))
		return false;
	if (!decode_string(decode_labels(tree), "kubernetes.io/service-name", NULL))
		return refuse(c, tree,
			      "metadata.labels[kubernetes.io/service-name]: missing: which Service is this for?");
	if (!strcmp(decode_string(tree, "addressType", ""), "FQDN"))
		return refuse(c, tree, "addressType: FQDN is not supported");
	cJSON_ArrayForEach(i, get(tree, "endpoints")) {
		if (!want_list(c, i, "endpoints[]", "addresses"))
			return false;
		cJSON_ArrayForEach(a, get(i, "addresses")) {
			if (!address(c, a, "endpoints[].addresses[]"))
				return false;
		}
	}
	cJSON_ArrayForEach(i, get(tree, "ports")) {
		if (get(i, "port") && !port_number(c, get(i, "port"), i, "ports[].port"))
			return false;
	}
	return true;
}

static bool endpoints_addresses(struct check *c, const cJSON *subset, const char *name, const char *path)
{
	const cJSON *a;

	if (!want_list(c, subset, "subsets[]", name))
		return false;
	cJSON_ArrayForEach(a, get(subset, name)) {
		if (!cJSON_IsObject(a))
			return refuse(c, subset, "%s: must be a mapping", path);
		if (!get(a, "ip"))
			return refuse(c, a, "%s.ip: missing", path);
		if (!address(c, get(a, "ip"), path))
			return false;
	}
	return true;
}

static bool endpoints(struct check *c, const cJSON *tree)
{
	const cJSON *i, *p;

	if (!want_list(c, tree, "endpoints", "subsets"))
		return false;
	cJSON_ArrayForEach(i, get(tree, "subsets")) {
		if (!endpoints_addresses(c, i, "addresses", "subsets[].addresses[]") ||
		    !endpoints_addresses(c, i, "notReadyAddresses", "subsets[].notReadyAddresses[]") ||
		    !want_list(c, i, "subsets[]", "ports"))
			return false;
		cJSON_ArrayForEach(p, get(i, "ports")) {
			if (!port_number(c, get(p, "port"), p, "subsets[].ports[].port"))
				return false;
		}
	}
	return true;
}

static const struct {
	const char *name, *api;
	enum resource_kind kind;
	bool (*check)(struct check *c, const cJSON *tree);
} kinds[] = {
	{"Namespace", "v1", KIND_NAMESPACE, NULL},
	{"Pod", "v1", KIND_POD, pod},
	{"Service", "v1", KIND_SERVICE, service},
	{"EndpointSlice", "discovery.k8s.io/v1", KIND_ENDPOINTSLICE, endpointslice},
	{"Endpoints", "v1", KIND_ENDPOINTS, endpoints},
	{"ServiceAccount", "v1", KIND_SERVICEACCOUNT, NULL},
	{"Node", "v1", KIND_NODE, NULL},
};

/* Whoever writes one of a mesh's own resources relies on it: told apart from what merely lies in the folder.
 * By the kind, too, because a misspelt apiVersion makes nobody rely on it less. */
static int not_handled(const char *kind, const char *api, char **ret_reason)
{
	if (strstr(api, "istio.io") || strstr(api, "gateway.networking.k8s.io") ||
	    !strcmp(kind, "AuthorizationPolicy") || !strcmp(kind, "PeerAuthentication") ||
	    !strcmp(kind, "RequestAuthentication")) {
		*ret_reason = strdup("NOT ENFORCED: this version does nothing with it");
		return -ENOSYS;
	}
	*ret_reason = strdup("kind is not used by Warren");
	return -ENOTSUP;
}

int decode_check(const cJSON *tree, enum resource_kind *ret_kind, char **ret_reason)
{
	static const char *const fields[] = {
		"apiVersion", "kind",  "metadata", "spec",    "status",		  "addressType",
		"endpoints",  "ports", "subsets",  "secrets", "imagePullSecrets", "automountServiceAccountToken",
		NULL};
	struct check c = {0};
	const char *kind = decode_string(tree, "kind", NULL), *api = decode_string(tree, "apiVersion", NULL);
	size_t i;

	*ret_reason = NULL;
	*ret_kind = KIND_OTHER;
	if (!cJSON_IsObject(tree) || !kind || !api)
		refuse(&c, tree, "%s: missing", !kind ? "kind" : "apiVersion");
	for (i = 0; kind && i < ARRAY_SIZE(kinds) && strcmp(kinds[i].name, kind); i++)
		;
	if (!c.refused && i == ARRAY_SIZE(kinds))
		return not_handled(kind, api, ret_reason);
	if (!c.refused && strcmp(kinds[i].api, api))
		refuse(&c, get(tree, "apiVersion"), "apiVersion: %s is read as %s, not %s", kind, kinds[i].api, api);
	if (!c.refused) {
		*ret_kind = kinds[i].kind;
		known(&c, "", tree, fields);
		if (metadata(&c, tree) && kinds[i].check)
			(void)kinds[i].check(&c, tree);
	}
	if (c.refused || c.warned)
		*ret_reason = strdup(c.reason);
	return c.refused ? -EINVAL : 0;
}
