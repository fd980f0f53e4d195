/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads. A Pod, its Namespace's label and the addresses found for it come in; the model's workload
 * leaves. Called by assemble.c.
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

static struct resource *lookup(const struct store *s, const char *kind, const char *ns, const char *name)
{
	_cleanup_free_ char *key = resource_key(kind, ns, name);

	return key ? table_get_str(&s->resources, key) : NULL;
}

/* The pod's own label wins over its namespace's (Istio: istio.io/dataplane-mode). */
static bool in_mesh(const struct store *s, const struct resource *pod)
{
	const char *own = decode_string(decode_labels(pod->tree), "istio.io/dataplane-mode", "");
	struct resource *ns;

	if (*own)
		return !strcmp(own, "ambient");
	ns = lookup(s, "Namespace", "", pod->namespace_);
	return ns && ns->tree &&
	       !strcmp(decode_string(decode_labels(ns->tree), "istio.io/dataplane-mode", ""), "ambient");
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
	if (!cJSON_GetArraySize(conditions))
		return !strcmp(decode_string(status, "phase", "Running"), "Running");
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

static int addresses(const struct assembly *a, struct workload *w, const cJSON *status)
{
	const cJSON *i;
	int r = add_addr(w, decode_string(status, "podIP", NULL));

	cJSON_ArrayForEach(i, get(status, "podIPs"))
	{
		r = r ? r : add_addr(w, decode_string(i, "ip", NULL));
	}
	if (!r && !w->n_addrs && w->local) {
		const struct override *o = override_get(&a->overrides, w->uid);

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

/* The owner that controls the pod, as a controller or kubectl writes it. */
static const cJSON *controller(const cJSON *tree)
{
	const cJSON *o;

	cJSON_ArrayForEach(o, get(get(tree, "metadata"), "ownerReferences"))
	{
		if (cJSON_IsTrue(get(o, "controller")))
			return o;
	}
	return NULL;
}

/* A CronJob's Jobs are named after the minute they were due: 8 to 10 digits. The length of what precedes, or 0. */
static size_t cronjob_name(const char *name)
{
	size_t n = strlen(name), digits = 0;

	while (digits < n && name[n - 1 - digits] >= '0' && name[n - 1 - digits] <= '9')
		digits++;
	return digits >= 8 && digits <= 10 && n > digits + 1 && name[n - 1 - digits] == '-' ? n - digits - 1 : 0;
}

/* Deployment and CronJob are told from the ReplicaSet's and Job's names; what else owns a pod counts as the pod, all as
 * istiod does. */
static void owner(struct workload *w, const cJSON *tree)
{
	const cJSON *o = controller(tree);
	const char *kind = decode_string(o, "kind", ""), *name = decode_string(o, "name", "");
	const char *hash = decode_string(decode_labels(tree), "pod-template-hash", "");
	size_t n = strlen(name), h = strlen(hash), cron = cronjob_name(name);

	if (!strcmp(kind, "ReplicaSet") && h && n > h + 1 && name[n - h - 1] == '-' && !strcmp(name + n - h, hash)) {
		w->workload_type = strdup("deployment");
		n -= h + 1;
	} else if (!strcmp(kind, "Job") && n) {
		w->workload_type = strdup(cron ? "cronjob" : "job");
		n = cron ? cron : n;
	} else {
		w->workload_type = strdup("pod");
		name = w->name;
		n = strlen(name);
	}
	w->workload_name = strndup(name, n);
}

/* A node's place in the world, by the labels that Kubernetes gives it. */
static void locality(struct workload *w, const struct store *s)
{
	const struct resource *node = *w->node ? lookup(s, "Node", "", w->node) : NULL;
	const cJSON *labels = decode_labels(node ? node->tree : NULL);
	const char *region = decode_string(labels, "topology.kubernetes.io/region", ""),
		   *zone = decode_string(labels, "topology.kubernetes.io/zone", "");

	w->region = *region ? strdup(region) : NULL;
	w->zone = *zone ? strdup(zone) : NULL;
}

static bool complete(const struct workload *w)
{
	return w->uid && w->name && w->namespace_ && w->service_account && w->node && w->network &&
	       w->cluster_id && w->trust_domain && w->identity && w->canonical_name &&
	       w->canonical_revision && w->workload_name && w->workload_type;
}

struct workload *assemble_workload(const struct assembly *a, const struct store *s,
				   const struct resource *pod)
{
	static const char *const names[] = {"service.istio.io/canonical-name", "app.kubernetes.io/name",
					    "app", NULL};
	static const char *const revisions[] = {"service.istio.io/canonical-revision",
						"app.kubernetes.io/version", "version", NULL};
	const cJSON *spec = get(pod->tree, "spec"), *status = get(pod->tree, "status");
	const cJSON *labels = decode_labels(pod->tree);
	const char *phase = decode_string(status, "phase", "");
	const char *netns = decode_annotation(pod->tree, "warren.dev/netns");
	const char *account = decode_string(spec, "serviceAccountName", ""), *td = a->cfg.trust_domain;
	struct workload *w = workload_new();

	if (!w)
		return NULL;
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
	if (!complete(w))
		return workload_unref(w);
	locality(w, s);
	w->host_network = cJSON_IsTrue(get(spec, "hostNetwork"));
	w->has_sidecar = has_sidecar(pod->tree);
	w->terminated = !strcmp(phase, "Succeeded") || !strcmp(phase, "Failed");
	/* Asked to go is not gone: until its grace period ends it runs, enrolled and known by its address. */
	w->ready = is_ready(status) && !w->terminated && !get(get(pod->tree, "metadata"), "deletionTimestamp");
	w->local = *w->node && !strcmp(w->node, a->cfg.node);
	w->capacity = 1;
	w->labelled = in_mesh(s, pod);
	w->protocol = w->labelled && !w->host_network && !w->has_sidecar ? TUNNEL_HBONE : TUNNEL_NONE;
	return addresses(a, w, status) ? workload_unref(w) : w;
}
