/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of the resources that Warren reads: what is wrong is refused with its field and line, what is unknown is
 * warned of. Fields as in the Kubernetes API reference (core/v1, discovery.k8s.io/v1). Called by store.c.
 */
#include "engine/base/cleanup.h"
#include "mesh_config.h"
#include "policy_decode.h"
#include "spelling.h"

#include <errno.h>
#include <string.h>

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

/* The label decides who is protected: a misspelt value must not quietly mean no. */
static bool mode_label(struct check *c, const cJSON *labels)
{
	const cJSON *v = get(labels, "istio.io/dataplane-mode");

	if (!v || !strcmp(v->valuestring, "ambient") || !strcmp(v->valuestring, "none") || !*v->valuestring)
		return true;
	return check_refuse(c, v, "metadata.labels[istio.io/dataplane-mode]: must be ambient or none, not %s",
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

	check_hint(c, "metadata", m, used);
	return check_object(c, tree, "", "metadata", true) && check_name(c, m, "metadata", "name", true) &&
	       check_name(c, m, "metadata", "namespace", false) && check_object(c, m, "metadata", "labels", false) &&
	       check_object(c, m, "metadata", "annotations", false) &&
	       check_texts(c, get(m, "labels"), "metadata.labels", true) &&
	       check_texts(c, get(m, "annotations"), "metadata.annotations", true) && mode_label(c, get(m, "labels"));
}

/* The API's "" means the default account, and an address that is not there yet. */
static bool account_name(struct check *c, const cJSON *spec)
{
	const char *v = decode_string(spec, "serviceAccountName", NULL);

	return (v && !*v) || check_name(c, spec, "spec", "serviceAccountName", false);
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

	check_hint(c, "spec", spec, in_spec);
	check_hint(c, "status", status, in_status);
	if (!check_object(c, tree, "", "spec", true) || !check_object(c, tree, "", "status", false) ||
	    !check_string(c, spec, "spec", "nodeName", false) || !account_name(c, spec) ||
	    !check_bool(c, spec, "spec", "hostNetwork") || !check_list(c, spec, "spec", "containers") ||
	    !check_list(c, spec, "spec", "initContainers") || !check_list(c, status, "status", "podIPs") ||
	    !check_list(c, status, "status", "conditions") || !check_string(c, status, "status", "phase", false))
		return false;
	cJSON_ArrayForEach(i, get(spec, "containers")) {
		if (!cJSON_IsObject(i) || !check_list(c, i, "spec.containers[]", "ports"))
			return check_refuse(c, i, "spec.containers[]: must be a mapping");
		cJSON_ArrayForEach(k, get(i, "ports")) {
			if (!check_port(c, get(k, "containerPort"), k, "spec.containers[].ports[].containerPort"))
				return false;
		}
	}
	if (get(status, "podIP") && !is_empty_text(get(status, "podIP")) &&
	    !check_address(c, get(status, "podIP"), "status.podIP"))
		return false;
	cJSON_ArrayForEach(i, get(status, "podIPs")) {
		if (!check_address(c, get(i, "ip"), "status.podIPs[].ip"))
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
		return check_refuse(c, t, "spec.ports[].targetPort: a number must not be in quotes: %s",
				    t->valuestring);
	if (!cJSON_IsObject(p))
		return check_refuse(c, p, "spec.ports[]: must be a mapping");
	check_known(c, "spec.ports[]", p, fields);
	return check_port(c, get(p, "port"), p, "spec.ports[].port") &&
	       check_string(c, p, "spec.ports[]", "name", false) &&
	       check_string(c, p, "spec.ports[]", "protocol", false) &&
	       (!t || cJSON_IsString(t) || check_port(c, t, p, "spec.ports[].targetPort"));
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

	if (!check_object(c, tree, "", "spec", true) || !check_list(c, spec, "spec", "ports") ||
	    !check_list(c, spec, "spec", "clusterIPs") || !check_object(c, spec, "spec", "selector", false) ||
	    !check_texts(c, get(spec, "selector"), "spec.selector", false) ||
	    !check_bool(c, spec, "spec", "publishNotReadyAddresses") ||
	    !check_string(c, spec, "spec", "clusterIP", false))
		return false;
	check_known(c, "spec", spec, fields);
	cJSON_ArrayForEach(i, get(spec, "ports")) {
		if (!service_port(c, i))
			return false;
	}
	cJSON_ArrayForEach(i, get(spec, "clusterIPs")) {
		if (!(cJSON_IsString(i) && !strcmp(i->valuestring, "None")) &&
		    !check_address(c, i, "spec.clusterIPs[]"))
			return false;
	}
	i = get(spec, "clusterIP");
	return !i || !*i->valuestring || !strcmp(i->valuestring, "None") || check_address(c, i, "spec.clusterIP");
}

static bool endpointslice(struct check *c, const cJSON *tree)
{
	const cJSON *i, *a;

	if (!check_list(c, tree, "endpointslice", "endpoints") || !check_list(c, tree, "endpointslice", "ports"))
		return false;
	if (!decode_string(decode_labels(tree), "kubernetes.io/service-name", NULL))
		return check_refuse(c, tree,
				    "metadata.labels[kubernetes.io/service-name]: missing: which Service is this for?");
	if (!strcmp(decode_string(tree, "addressType", ""), "FQDN"))
		return check_refuse(c, tree, "addressType: FQDN is not supported");
	cJSON_ArrayForEach(i, get(tree, "endpoints")) {
		if (!check_list(c, i, "endpoints[]", "addresses"))
			return false;
		cJSON_ArrayForEach(a, get(i, "addresses")) {
			if (!check_address(c, a, "endpoints[].addresses[]"))
				return false;
		}
	}
	cJSON_ArrayForEach(i, get(tree, "ports")) {
		if (get(i, "port") && !check_port(c, get(i, "port"), i, "ports[].port"))
			return false;
	}
	return true;
}

static bool endpoints_addresses(struct check *c, const cJSON *subset, const char *name, const char *path)
{
	const cJSON *a;

	if (!check_list(c, subset, "subsets[]", name))
		return false;
	cJSON_ArrayForEach(a, get(subset, name)) {
		if (!cJSON_IsObject(a))
			return check_refuse(c, subset, "%s: must be a mapping", path);
		if (!get(a, "ip"))
			return check_refuse(c, a, "%s.ip: missing", path);
		if (!check_address(c, get(a, "ip"), path))
			return false;
	}
	return true;
}

static bool endpoints(struct check *c, const cJSON *tree)
{
	const cJSON *i, *p;

	if (!check_list(c, tree, "endpoints", "subsets"))
		return false;
	cJSON_ArrayForEach(i, get(tree, "subsets")) {
		if (!endpoints_addresses(c, i, "addresses", "subsets[].addresses[]") ||
		    !endpoints_addresses(c, i, "notReadyAddresses", "subsets[].notReadyAddresses[]") ||
		    !check_list(c, i, "subsets[]", "ports"))
			return false;
		cJSON_ArrayForEach(p, get(i, "ports")) {
			if (!check_port(c, get(p, "port"), p, "subsets[].ports[].port"))
				return false;
		}
	}
	return true;
}

/* One that waits for a proxy of another kind is listed as not enforced. */
static int authorization_policy(struct check *c, const cJSON *tree)
{
	struct policy *p = NULL;
	int r = policy_decode(c, tree, NULL, &p);

	if (r < 0)
		return r;
	if (p->target_ref)
		r = check_unused(c, "NOT ENFORCED here: bound to a waypoint by targetRefs, and this version has none");
	policy_unref(p);
	return r;
}

static int peer_authentication(struct check *c, const cJSON *tree)
{
	struct peer_auth *p = NULL;
	int r = peer_auth_decode(c, tree, NULL, &p);

	peer_auth_unref(p);
	return r;
}

#define CORE "v1", NULL
#define SECURITY "security.istio.io/v1", "security.istio.io/v1beta1"

static const struct {
	const char *name, *api, *older_api;
	enum resource_kind kind;
	bool (*check)(struct check *c, const cJSON *tree);
	/* The same for kinds that become objects of the model: 0, -EINVAL, -ENOMEM, or -ENOSYS with the reason. */
	int (*decode)(struct check *c, const cJSON *tree);
} kinds[] = {
	{"Namespace", CORE, KIND_NAMESPACE, NULL, NULL},
	{"Pod", CORE, KIND_POD, pod, NULL},
	{"Service", CORE, KIND_SERVICE, service, NULL},
	{"EndpointSlice", "discovery.k8s.io/v1", NULL, KIND_ENDPOINTSLICE, endpointslice, NULL},
	{"Endpoints", CORE, KIND_ENDPOINTS, endpoints, NULL},
	{"ServiceAccount", CORE, KIND_SERVICEACCOUNT, NULL, NULL},
	{"Node", CORE, KIND_NODE, NULL, NULL},
	{"ConfigMap", CORE, KIND_MESH_CONFIG, mesh_config_check, NULL},
	{"AuthorizationPolicy", SECURITY, KIND_AUTHORIZATION_POLICY, NULL, authorization_policy},
	{"PeerAuthentication", SECURITY, KIND_PEER_AUTHENTICATION, NULL, peer_authentication},
};

/* Whoever writes one of a mesh's own resources relies on it: told apart from what merely lies in the folder.
 * By the kind, too, because a misspelt apiVersion makes nobody rely on it less. */
static int not_handled(const cJSON *tree, const char *kind, const char *api, char **ret_reason)
{
	const char *name = decode_string(get(tree, "metadata"), "name", "");

	/* As an installation with revisions has them: the mesh may have no other. */
	if (!strcmp(kind, "ConfigMap") && !strncmp(name, MESH_CONFIG_NAME "-", sizeof(MESH_CONFIG_NAME)) &&
	    get(get(tree, "data"), "mesh")) {
		*ret_reason = strdup("mesh settings of a revision are not read, only those of ConfigMap istio: where "
				     "they differ give --trust-domain, --trust-domain-aliases and --root-namespace");
		return -ENOTSUP;
	}
	if (strstr(api, "istio.io") || strstr(api, "gateway.networking.k8s.io") ||
	    !strcmp(kind, "RequestAuthentication")) {
		*ret_reason = strdup("NOT ENFORCED: this version does nothing with it");
		return -ENOSYS;
	}
	*ret_reason = strdup("kind is not used by Warren");
	return -ENOTSUP;
}

/* Another project's kind of the same name, such as Knative's Service or Linkerd's AuthorizationPolicy. Its API group
 * is a domain; one that may be ours misspelt is not another's. */
static bool is_anothers(const char *api)
{
	size_t group = strcspn(api, "/");

	return api[group] && memchr(api, '.', group) && !strstr(api, "istio") && !strstr(api, "k8s.io") &&
	       strncmp(api, "security.", strlen("security."));
}

/* The index in the table, also of one slip's misspelling, or its length: not a kind that is read. Of ConfigMaps that is
 * the mesh's own alone. */
static size_t find_kind(const cJSON *tree, const char *kind, const char *api)
{
	size_t i = 0;

	if (is_anothers(api))
		return ARRAY_SIZE(kinds);
	while (i < ARRAY_SIZE(kinds) && strcmp(kinds[i].name, kind))
		i++;
	for (size_t k = 0; i == ARRAY_SIZE(kinds) && k < ARRAY_SIZE(kinds); k++)
		if (spelling_near(kind, kinds[k].name))
			i = k;
	if (i < ARRAY_SIZE(kinds) && kinds[i].kind == KIND_MESH_CONFIG &&
	    strcmp(decode_string(get(tree, "metadata"), "name", ""), MESH_CONFIG_NAME))
		return ARRAY_SIZE(kinds);
	return i;
}

/* A policy whose namespace or content is misspelt is for others than it was meant for, or says nothing. */
static bool policy_fields(struct check *c, const cJSON *tree)
{
	static const char *const fields[] = {"apiVersion", "kind", "metadata", "spec", "status", NULL};
	static const char *const content[] = {"selector", "targetRef", "targetRefs",	"action", "rules",
					      "provider", "mtls",      "portLevelMtls", NULL};
	static const char *const meta[] = {"name",
					   "namespace",
					   "labels",
					   "annotations",
					   "creationTimestamp",
					   "deletionTimestamp",
					   "deletionGracePeriodSeconds",
					   "finalizers",
					   "generateName",
					   "generation",
					   "managedFields",
					   "ownerReferences",
					   "resourceVersion",
					   "selfLink",
					   "uid",
					   NULL};

	/* The API server would drop them, and with them what the policy says. */
	for (const char *const *n = content; *n; n++)
		if (get(tree, *n))
			return check_refuse(c, check_at(get(tree, *n), tree), "%s: belongs under spec", *n);
	/* kubectl would ask its context; whoever prints a manifest by a template easily leaves it out. */
	if (cJSON_IsObject(get(tree, "metadata")) && !get(get(tree, "metadata"), "namespace"))
		check_warn(c, get(tree, "metadata"), "metadata.namespace: missing: it is for namespace default");
	return check_misspelt(c, "", tree, fields) && check_misspelt(c, "metadata", get(tree, "metadata"), meta);
}

/* 0, or as decode_check(). */
static int check_kind(struct check *c, const cJSON *tree, size_t i, const char *api)
{
	static const char *const fields[] = {
		"apiVersion", "kind",	    "metadata",	 "spec",    "status",		"addressType",
		"endpoints",  "ports",	    "subsets",	 "secrets", "imagePullSecrets", "automountServiceAccountToken",
		"data",	      "binaryData", "immutable", NULL};
	const char *kind = decode_string(tree, "kind", "");
	int r;

	if (strcmp(kinds[i].name, kind)) {
		check_refuse(c, get(tree, "kind"), "kind: %s: unknown, did you mean %s?", kind, kinds[i].name);
		return -EINVAL;
	}
	if (!*api) {
		check_refuse(c, tree, "apiVersion: missing: %s is read as %s", kinds[i].name, kinds[i].api);
		return -EINVAL;
	}
	if (strcmp(kinds[i].api, api) && (!kinds[i].older_api || strcmp(kinds[i].older_api, api))) {
		check_refuse(c, get(tree, "apiVersion"), "apiVersion: %s is read as %s, not %s", kinds[i].name,
			     kinds[i].api, api);
		return -EINVAL;
	}
	if (!is_policy_kind(kinds[i].kind))
		check_known(c, "", tree, fields);
	else if (!policy_fields(c, tree))
		return -EINVAL;
	if (!metadata(c, tree) || (kinds[i].check && !kinds[i].check(c, tree)))
		return -EINVAL;
	r = kinds[i].decode ? kinds[i].decode(c, tree) : 0;
	/* A policy that could not be looked at is as good as one that was refused. */
	if (r == -ENOMEM)
		check_refuse(c, NULL, "out of memory");
	return r == -ENOMEM ? -EINVAL : r;
}

int decode_check(const cJSON *tree, struct judgement *ret)
{
	const char *kind = decode_string(tree, "kind", NULL), *api = decode_string(tree, "apiVersion", "");
	struct check c = {.warnings = cJSON_CreateArray()};
	/* By the kind alone, too: a policy that names no apiVersion is meant to be one. */
	size_t i = kind ? find_kind(tree, kind, api) : ARRAY_SIZE(kinds);
	int r;

	*ret = (struct judgement){.kind = i < ARRAY_SIZE(kinds) ? kinds[i].kind : KIND_OTHER};
	if (!cJSON_IsObject(tree) || !kind || (!*api && i == ARRAY_SIZE(kinds))) {
		check_refuse(&c, tree, "%s: missing", !kind ? "kind" : "apiVersion");
		r = -EINVAL;
	} else if (i == ARRAY_SIZE(kinds)) {
		r = not_handled(tree, kind, api, &ret->reason);
	} else {
		r = check_kind(&c, tree, i, api);
	}
	if (!ret->reason && *c.reason)
		ret->reason = strdup(c.reason);
	if (cJSON_GetArraySize(c.warnings))
		ret->warnings = c.warnings;
	else
		cJSON_Delete(c.warnings);
	return r;
}
