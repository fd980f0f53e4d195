/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads. A Pod, its Namespace's label and the addresses found for it come in; the model's workload
 * leaves. Called by assemble.c; its uid also names the pod to service.c and policy_dump.c.
 */
#include "assemble_private.h"
#include "engine/base/cleanup.h"
#include "override.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

char *assemble_uid(const struct assembly *a, const struct resource *pod)
{
	char *uid;

	if (asprintf(&uid, "%s//Pod/%s/%s", a->cfg.cluster_id, pod->namespace_, pod->name) < 0)
		return NULL;
	return uid;
}

/* The pod's own label wins over its namespace's (Istio: istio.io/dataplane-mode). 1, 0 or -ENOMEM: a pod must
 * not leave the mesh for want of memory. */
static int in_mesh(const struct store *s, const struct resource *pod)
{
	const char *own = decode_string(decode_labels(pod->tree), "istio.io/dataplane-mode", "");
	_cleanup_free_ char *key = NULL;
	struct resource *ns;

	if (*own)
		return !strcmp(own, "ambient");
	key = resource_key("Namespace", "", pod->namespace_);
	if (!key)
		return -ENOMEM;
	ns = table_get_str(&s->resources, key);
	return ns && ns->tree &&
	       !strcmp(decode_string(decode_labels(ns->tree), "istio.io/dataplane-mode", ""), "ambient");
}

/* The injector writes down what it added. The name of a container alone says nothing: Istio's own waypoints and
 * gateways call theirs istio-proxy, too. */
static bool has_sidecar(const cJSON *tree)
{
	return decode_annotation(tree, "sidecar.istio.io/status") != NULL;
}

static bool is_ready(const cJSON *status)
{
	const cJSON *conditions = get(status, "conditions"), *c;

	/* A manifest without status is one that a person wrote: it means a pod that runs. */
	if (!cJSON_GetArraySize(conditions))
		return !strcmp(decode_string(status, "phase", "Running"), "Running");
	cJSON_ArrayForEach(c, conditions) {
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

static int addresses(const struct assembly *a, struct workload *w, const cJSON *status)
{
	const cJSON *i;
	int r = add_addr(w, decode_string(status, "podIP", NULL));

	cJSON_ArrayForEach(i, get(status, "podIPs")) {
		r = r ? r : add_addr(w, decode_string(i, "ip", NULL));
	}
	w->addrs_in_status = w->n_addrs;
	if (!r && override_applies(w)) {
		const struct override *o = override_get(&a->overrides, w->uid);

		if (!o)
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

/* The one that controls it; a manifest that a person wrote may mark none. */
static const cJSON *controller(const cJSON *tree)
{
	const cJSON *refs = get(get(tree, "metadata"), "ownerReferences"), *o;

	cJSON_ArrayForEach(o, refs) {
		if (cJSON_IsTrue(get(o, "controller")))
			return o;
	}
	return cJSON_GetArrayItem(refs, 0);
}

/* Length of a name without "-" and its suffix, 0 when it does not end so or nothing is left. */
static size_t without_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);

	return s && n > s + 1 && name[n - s - 1] == '-' && !strcmp(name + n - s, suffix) ? n - s - 1 : 0;
}

/* A CronJob's Jobs are named after it and the time they are for: 8 to 10 digits. */
static const char *job_time(const char *name)
{
	const char *dash = strrchr(name, '-');
	size_t n = dash ? strlen(dash + 1) : 0;

	return n >= 8 && n <= 10 && strspn(dash + 1, "0123456789") == n ? dash + 1 : "";
}

/* As Istio has it: a Deployment is told from its ReplicaSet's name, a CronJob from its Job's; what is neither
 * these nor a Job goes by the pod's own name. */
static void owner(struct workload *w, const cJSON *tree)
{
	const cJSON *o = controller(tree);
	const char *kind = decode_string(o, "kind", ""), *name = decode_string(o, "name", ""), *type = "";
	size_t n = 0;

	if (!strcmp(kind, "ReplicaSet")) {
		n = without_suffix(name, decode_string(decode_labels(tree), "pod-template-hash", ""));
		type = "deployment";
	} else if (!strcmp(kind, "Job")) {
		n = without_suffix(name, job_time(name));
		type = n ? "cronjob" : "job";
		n = n ? n : strlen(name);
	} else if (!strcmp(kind, "CronJob")) {
		n = strlen(name);
		type = "cronjob";
	}
	w->workload_type = strdup(n ? type : "pod");
	w->workload_name = n ? strndup(name, n) : strdup(w->name);
}

/* A node's place in the world, by the labels that Kubernetes gives it. */
static int locality(struct workload *w, const struct store *s)
{
	_cleanup_free_ char *key = *w->node ? resource_key("Node", "", w->node) : NULL;
	const struct resource *node = key ? table_get_str(&s->resources, key) : NULL;
	const cJSON *labels = decode_labels(node ? node->tree : NULL);
	const char *region = decode_string(labels, "topology.kubernetes.io/region", ""),
		   *zone = decode_string(labels, "topology.kubernetes.io/zone", "");

	w->region = *region ? strdup(region) : NULL;
	w->zone = *zone ? strdup(zone) : NULL;
	return (*w->node && !key) || (*region && !w->region) || (*zone && !w->zone) ? -ENOMEM : 0;
}

static bool complete(const struct workload *w)
{
	return w->uid && w->name && w->namespace_ && w->service_account && w->node && w->network && w->cluster_id &&
	       w->trust_domain && w->identity && w->canonical_name && w->canonical_revision && w->workload_name &&
	       w->workload_type;
}

/* Those two are out by design, and reached as if they had no label. A pod that is refused for a mistake (no namespace
 * named, a foreign socket) stays HBONE: it cannot be reached until that is put right, but nothing is sent to it in
 * plaintext. */
static bool is_fit(const struct workload *w)
{
	return !w->host_network && !w->has_sidecar;
}

struct workload *assemble_workload(const struct assembly *a, const struct store *s, const struct resource *pod)
{
	static const char *const names[] = {"service.istio.io/canonical-name", "app.kubernetes.io/name", "app", NULL};
	static const char *const revisions[] = {"service.istio.io/canonical-revision", "app.kubernetes.io/version",
						"version", NULL};
	const cJSON *spec = get(pod->tree, "spec"), *status = get(pod->tree, "status");
	const cJSON *labels = decode_labels(pod->tree);
	const char *phase = decode_string(status, "phase", "");
	const char *netns = decode_annotation(pod->tree, "warren.dev/netns");
	const char *account = decode_string(spec, "serviceAccountName", ""), *td = a->cfg.trust_domain;
	struct workload *w = workload_new();
	int labelled = in_mesh(s, pod);

	if (!w || labelled < 0)
		return workload_unref(w);
	if (!*account)
		account = "default";
	w->name = strdup(pod->name);
	w->namespace_ = strdup(pod->namespace_);
	w->service_account = strdup(account);
	w->node = strdup(decode_string(spec, "nodeName", ""));
	w->network = strdup(a->cfg.network);
	w->cluster_id = strdup(a->cfg.cluster_id);
	w->trust_domain = strdup(td);
	w->netns_path = netns ? strdup(netns) : NULL;
	w->uid = assemble_uid(a, pod);
	if (asprintf(&w->identity, "spiffe://%s/ns/%s/sa/%s", td, pod->namespace_, account) < 0)
		w->identity = NULL;
	if (w->name)
		owner(w, pod->tree);
	w->canonical_name = strdup(label(labels, names, w->workload_name ? w->workload_name : ""));
	w->canonical_revision = strdup(label(labels, revisions, "latest"));
	if (!complete(w) || (netns && !w->netns_path) || locality(w, s))
		return workload_unref(w);
	w->host_network = cJSON_IsTrue(get(spec, "hostNetwork"));
	w->has_sidecar = has_sidecar(pod->tree);
	w->terminated = !strcmp(phase, "Succeeded") || !strcmp(phase, "Failed");
	w->deleting = get(get(pod->tree, "metadata"), "deletionTimestamp") != NULL;
	w->ready = is_ready(status) && !w->terminated && !w->deleting;
	w->local = *w->node && !strcmp(w->node, a->cfg.node);
	w->capacity = 1;
	w->labelled = labelled;
	w->protocol = w->labelled && is_fit(w) ? TUNNEL_HBONE : TUNNEL_NONE;
	if (w->local && assemble_probes(w, spec))
		return workload_unref(w);
	return addresses(a, w, status) ? workload_unref(w) : w;
}
