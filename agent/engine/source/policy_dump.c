/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people are told of policies: what each says, whether it is enforced here, and on which pods of this node. Store
 * and assembly come in, JSON leaves. Called by source.c for warrenctl and the status.
 */
#include "assemble_private.h"
#include "engine/base/cleanup.h"
#include "published.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What a screen of `status` has room for. */
#define ALARMS_MAX 10

static const char *const actions[] = {"ALLOW", "DENY", "AUDIT", "CUSTOM"};
static const char *const scopes[] = {"mesh", "namespace", "workload"};
static const char *const modes[] = {"UNSET", "DISABLE", "PERMISSIVE", "STRICT"};

struct pod {
	const struct resource *r;
	const struct workload *w;
};

struct dump {
	const struct assembly *a;
	const struct store *s;
	const struct resource *r;
	const struct policy_entry *e;
	struct pod *pods; /* of the whole mesh */
	size_t n_pods;
};

static const char *state_of(const struct dump *d)
{
	const struct policy *p = d->e->policy;

	if (d->r->state == RESOURCE_REFUSED)
		return "refused";
	if (p && p->target_ref)
		return "waits for a waypoint";
	if (!policies_decides(&d->a->policies, d->e))
		return "not used here";
	return p && p->dry_run ? "dry-run" : "enforced here";
}

static const char *reason_of(const struct dump *d)
{
	const struct policy_entry *e = d->e;

	/* Of a document that is in order the reason is its first warning, which is listed with the others. */
	if (d->r->reason && (d->r->state == RESOURCE_REFUSED || d->r->state == RESOURCE_NOT_ENFORCED))
		return d->r->reason;
	if (policies_decides(&d->a->policies, e))
		return NULL;
	return e->policy ? "action AUDIT changes no verdict"
			 : "a selector in the root namespace has no effect in ambient mode: name the workload's "
			   "namespace";
}

static void add_scope(cJSON *o, enum policy_scope scope, const struct policy_label *labels, size_t n)
{
	cJSON *selector;

	cJSON_AddStringToObject(o, "scope", scopes[scope]);
	if (!n)
		return;
	selector = cJSON_AddObjectToObject(o, "selector");
	for (size_t i = 0; i < n; i++)
		cJSON_AddStringToObject(selector, labels[i].key, labels[i].value);
}

static void add_ports(cJSON *o, const struct peer_auth *a)
{
	cJSON *ports;
	char port[8];

	if (!a->n_ports)
		return;
	ports = cJSON_AddObjectToObject(o, "ports");
	for (size_t i = 0; i < a->n_ports; i++) {
		snprintf(port, sizeof(port), "%u", a->ports[i].port);
		cJSON_AddStringToObject(ports, port, modes[a->ports[i].mode]);
	}
}

static void add_content(cJSON *o, const struct policy_entry *e)
{
	const char *created = e->policy ? e->policy->created : e->peer_auth->created;

	if (e->policy) {
		cJSON_AddStringToObject(o, "action", actions[e->policy->action]);
		add_scope(o, e->policy->scope, e->policy->labels, e->policy->n_labels);
		cJSON_AddNumberToObject(o, "rules", (double)e->policy->n_rules);
	} else {
		cJSON_AddStringToObject(o, "mode", modes[e->peer_auth->mode]);
		add_scope(o, e->peer_auth->scope, e->peer_auth->labels, e->peer_auth->n_labels);
		add_ports(o, e->peer_auth);
	}
	if (created)
		cJSON_AddStringToObject(o, "created", created);
	cJSON_AddBoolToObject(o, "closed", e->policy ? e->policy->closed : e->peer_auth->closed);
}

/* --- pods --- */

static cJSON *name_of(const struct peer_auth *a)
{
	char name[600];

	snprintf(name, sizeof(name), "%.250s/%.250s", a->namespace_, a->name);
	return cJSON_CreateString(name);
}

/* Of several PeerAuthentications of one level the oldest counts for a pod: which one instead of d's, or which ones d's
 * takes the place of. */
static void add_rivals(const struct dump *d, const struct resource *pod, cJSON *item)
{
	const struct peer_auth *mine = d->e->peer_auth, *best = mine;
	cJSON *others = cJSON_CreateArray();
	struct table_iter it = {0};
	const struct policy_entry *e;

	while (policies_decides(&d->a->policies, d->e) && (e = table_next(&d->a->policies.entries, &it))) {
		const struct peer_auth *a = e->peer_auth;

		if (!a || a == mine || a->closed || a->scope != mine->scope || !policies_decides(&d->a->policies, e) ||
		    !policies_covers(e, pod->namespace_, decode_labels(pod->tree)))
			continue;
		cJSON_AddItemToArray(others, name_of(a));
		if (peer_auth_wins(a, best))
			best = a;
	}
	if (best != mine)
		cJSON_AddItemToObject(item, "loses_to", name_of(best));
	else if (cJSON_GetArraySize(others))
		cJSON_AddItemToObject(item, "wins_over", take_ptr(others));
	cJSON_Delete(others);
}

/* What of an enrolled pod no policy is enforced for: it carries TCP alone. */
static void add_not_reached(const struct resource *pod, cJSON *item)
{
	const cJSON *c, *port;
	cJSON *list = cJSON_AddArrayToObject(item, "not_enforced_for");
	char text[80];

	cJSON_ArrayForEach(c, get(get(pod->tree, "spec"), "containers")) {
		cJSON_ArrayForEach(port, get(c, "ports")) {
			const char *protocol = decode_string(port, "protocol", "TCP");

			if (!strcmp(protocol, "TCP"))
				continue;
			snprintf(text, sizeof(text), "port %d: %.40s is not TCP", get(port, "containerPort")->valueint,
				 protocol);
			cJSON_AddItemToArray(list, cJSON_CreateString(text));
		}
	}
}

/* A bad policy of the mesh leaves a pod alone that has no other. */
static bool is_spared(const struct dump *d, const struct resource *pod)
{
	struct table_iter it = {0};
	const struct policy_entry *e;

	if (!policies_is_bad_mesh(d->e) || d->a->cfg.policies.bad_mesh_policy_deny)
		return false;
	while ((e = table_next(&d->a->policies.entries, &it)))
		if (e->policy && policies_decides(&d->a->policies, e) && !policies_is_bad_mesh(e) &&
		    !e->policy->dry_run && policies_covers(e, pod->namespace_, decode_labels(pod->tree)))
			return false;
	return true;
}

static void add_pod(const struct dump *d, const struct resource *pod, const struct workload *w, cJSON *o)
{
	const char *why = workload_outside(w) ? workload_outside(w)
			  : is_spared(d, pod) ? "it has no other policy"
					      : NULL;
	cJSON *item = cJSON_CreateObject();

	cJSON_AddStringToObject(item, "uid", w->uid);
	cJSON_AddStringToObject(item, "namespace", w->namespace_);
	cJSON_AddStringToObject(item, "name", w->name);
	if (d->e->peer_auth && !d->e->peer_auth->closed)
		add_rivals(d, pod, item);
	if (why)
		cJSON_AddStringToObject(item, "not_enforced", why);
	else
		add_not_reached(pod, item);
	cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(o, "pods"), item);
}

/* Those of this node: the others' agents know about theirs. How many the whole mesh has. */
static size_t add_pods(const struct dump *d, cJSON *o)
{
	size_t n = 0;

	cJSON_AddArrayToObject(o, "pods");
	if (d->e->policy && d->e->policy->target_ref)
		return 0;
	for (size_t i = 0; i < d->n_pods; i++) {
		const struct pod *p = &d->pods[i];

		if (!policies_covers(d->e, p->r->namespace_, decode_labels(p->r->tree)))
			continue;
		n++;
		if (p->w->local)
			add_pod(d, p->r, p->w, o);
	}
	return n;
}

/* --- all of it --- */

static cJSON *dump_one(const struct dump *d)
{
	const struct resource *r = d->r;
	const char *reason = reason_of(d);
	cJSON *o = resource_row(r, state_of(d), reason);

	cJSON_AddItemToObject(o, "warnings", r->warnings ? cJSON_Duplicate(r->warnings, true) : cJSON_CreateArray());
	add_content(o, d->e);
	if (!add_pods(d, o) && !reason)
		cJSON_AddStringToObject(o, "reason",
					"for no pod of the mesh yet; or its namespace or selector is misspelt");
	return o;
}

static bool has_object(const struct policy_entry *e)
{
	return e && (e->policy || e->peer_auth);
}

/* Once for all policies: looked for among the resources by each, they hold up the thread that applies changes. */
static void list_pods(struct dump *d)
{
	struct table_iter it = {0};
	const struct resource *r;

	d->pods = calloc(d->s->resources.n + 1, sizeof(*d->pods));
	while (d->pods && (r = table_next(&d->s->resources, &it))) {
		_cleanup_free_ char *uid = r->kind == KIND_POD && r->tree ? assemble_uid(d->a, r) : NULL;
		const struct workload *w = uid ? published_by_uid(&d->a->workloads, uid) : NULL;

		if (w)
			d->pods[d->n_pods++] = (struct pod){r, w};
	}
}

cJSON *assemble_policy_dump(const struct assembly *a, const struct store *s)
{
	cJSON *array = cJSON_CreateArray();
	struct table_iter it = {0};
	struct dump d = {.a = a, .s = s};

	list_pods(&d);

	while ((d.r = table_next(&s->resources, &it))) {
		d.e = is_policy_kind(d.r->kind) ? policies_find(&a->policies, d.r->key) : NULL;
		if (has_object(d.e))
			cJSON_AddItemToArray(array, dump_one(&d));
	}
	free(d.pods);
	store_sort(array);
	return array;
}

static void add_alarm(cJSON *alarms, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_alarm(cJSON *alarms, const char *fmt, ...)
{
	char text[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cJSON_AddItemToArray(alarms, cJSON_CreateString(text));
}

/* The closed ones, and those of which another version is in force than the manifest says. */
static bool alarm_policy(const struct assembly *a, const struct resource *r, cJSON *alarms)
{
	const struct policy_entry *e = policies_find(&a->policies, r->key);
	bool closed = has_object(e) && (e->policy ? e->policy->closed : e->peer_auth->closed) &&
		      policies_decides(&a->policies, e);

	if (!closed && !is_refused_update(r))
		return false;
	if (!alarms)
		return true;
	if (closed)
		add_alarm(alarms, "%s%s: %s", r->unreadable ? r->reason : e->key,
			  r->unreadable ? "" : " never was valid",
			  policies_is_bad_mesh(e) && !a->cfg.policies.bad_mesh_policy_deny
				  ? "it closes only workloads that have another policy (--bad-mesh-policy=deny: all)"
				  : "new connections to what it is for are denied");
	else
		add_alarm(alarms, "%s:%d: %s refused: %s; its last good version stays in force", r->file, r->line,
			  r->key, r->reason ? r->reason : "?");
	return true;
}

static void alarm_policies(const struct assembly *a, const struct store *s, cJSON *alarms)
{
	struct table_iter it = {0};
	const struct resource *r;
	int count = 0;

	while ((r = table_next(&s->resources, &it)))
		if (is_policy_kind(r->kind))
			count += alarm_policy(a, r, count < ALARMS_MAX ? alarms : NULL);
	if (count > ALARMS_MAX)
		add_alarm(alarms, "%d more policies never were valid, or were refused: see warrenctl policy list",
			  count - ALARMS_MAX);
}

/* Whether what cannot be read in a file closes, and so has an alarm of its own. */
static bool has_closed(const struct store *s, const char *file)
{
	_cleanup_free_ char *key = store_unreadable_key(file);

	return key && table_get_str(&s->resources, key);
}

void assemble_policy_alarms(const struct assembly *a, const struct store *s, cJSON *alarms)
{
	const char *last = "";
	const cJSON *i;

	if (a->policies.mesh.alarm)
		add_alarm(alarms, "%s", a->policies.mesh.alarm);
	alarm_policies(a, s, alarms);
	/* The first mistake of each file will do. */
	cJSON_ArrayForEach(i, s->problems) {
		const char *file = decode_string(i, "file", "?");

		if (!get(i, STORE_KEPT) || !strcmp(file, last))
			continue;
		last = file;
		if (!has_closed(s, file))
			add_alarm(alarms, "%s: %s; a policy in it that is new or changed is not in force", file,
				  decode_string(i, "reason", "?"));
	}
}
