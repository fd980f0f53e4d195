/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin commands behind `warrenctl policy`: what became of each (list), what a verdict would be and why (check),
 * what they are (trace), how often each denied (verdicts); and about connections that escape them. A call comes in,
 * JSON leaves. Control thread.
 */
#include "node_private.h"
#include "engine/model/policy.h"
#include "engine/model/route.h"
#include "engine/telemetry/reason.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

/* Whoever traces asks again well within this. */
#define TRACE_MS 3000

/* --- list --- */

/* Of connections older than enrolment, which no agent stands before: how many lead into each pod that has any. */
static cJSON *count_older(const struct node *n)
{
	cJSON *rows = pods_unmanaged(n->pods), *counts = cJSON_CreateObject(), *row, *count;

	cJSON_ArrayForEach(row, rows) {
		const char *pod = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "pod"));

		if (strcmp(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "direction")), "inbound"))
			continue;
		count = cJSON_GetObjectItemCaseSensitive(counts, pod);
		if (!count)
			count = cJSON_AddNumberToObject(counts, pod, 0);
		cJSON_SetNumberValue(count, count->valuedouble + 1);
	}
	cJSON_Delete(rows);
	return counts;
}

/* What the source cannot know: a pod that its manifest puts into the mesh may not have got there, or be there only for
 * what began later. */
static void add_outside(const struct node *n, const cJSON *older, cJSON *pod)
{
	const cJSON *uid = cJSON_GetObjectItemCaseSensitive(pod, "uid"), *count;
	const struct workload *w = model_workload_by_uid(n->model, cJSON_GetStringValue(uid));
	const char *why;
	char text[600];

	if (!w || cJSON_GetObjectItemCaseSensitive(pod, "not_enforced"))
		return;
	why = pods_outside(n->pods, w, text, sizeof(text));
	if (why)
		cJSON_AddStringToObject(pod, "not_enforced", why);
	snprintf(text, sizeof(text), "%s/%s", w->namespace_, w->name);
	count = cJSON_GetObjectItemCaseSensitive(older, text);
	if (!count || why)
		return;
	snprintf(text, sizeof(text), "connections older than enrolment: %d; see warrenctl connection unmanaged",
		 count->valueint);
	cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(pod, "not_enforced_for"), cJSON_CreateString(text));
}

static void policy_list(void *arg, struct admin_call *c)
{
	const struct node *n = arg;
	cJSON *list = source_policy_dump(n->source), *policy, *pod;
	cJSON *older = list->child ? count_older(n) : NULL;

	cJSON_ArrayForEach(policy, list) {
		cJSON_ArrayForEach(pod, cJSON_GetObjectItemCaseSensitive(policy, "pods")) {
			add_outside(n, older, pod);
		}
	}
	cJSON_Delete(older);
	admin_reply(c, list);
}

/* --- check --- */

struct question {
	struct workload *from, *to; /* borrowed from the model; from NULL: not a pod's name */
	struct policy_subject subject;
};

/* By "<namespace>/<name>". */
static struct workload *find_pod(const struct node *n, const char *name, size_t len)
{
	struct table_iter it = {0};
	struct workload *w;
	char full[600];

	while ((w = table_next(&n->model->workloads_by_uid, &it))) {
		int k = snprintf(full, sizeof(full), "%s/%s", w->namespace_, w->name);

		if ((size_t)k == len && !memcmp(full, name, len))
			return w;
	}
	return NULL;
}

static const struct ip_addr *address_of_family(const struct workload *w, bool v4)
{
	for (size_t i = 0; i < w->n_addrs; i++)
		if (ip_addr_is_v4(&w->addrs[i]) == v4)
			return &w->addrs[i];
	return NULL;
}

/* As people write a port: digits alone, and no zero before them. 0: it is none. */
static uint16_t read_port(const char *text)
{
	size_t n = strspn(text, "0123456789");
	unsigned long port = n && n <= 5 && !text[n] && *text != '0' ? strtoul(text, NULL, 10) : 0;

	return port <= UINT16_MAX ? (uint16_t)port : 0;
}

static bool read_to(struct node *n, struct admin_call *c, struct question *q)
{
	const char *text = admin_text(c, "to", ""), *colon = strrchr(text, ':');
	uint16_t port = colon ? read_port(colon + 1) : 0;

	if (!port) {
		admin_reply_error(c, EINVAL,
				  "policy check: --to: %s: expected NAMESPACE/POD:PORT, the port a number from 1 to "
				  "65535 in digits alone, such as shop/web:8080",
				  text);
		return false;
	}
	q->to = find_pod(n, text, (size_t)(colon - text));
	if (!q->to || !q->to->n_addrs) {
		admin_reply_error(c, ENOENT, "policy check: --to: %s: %s", text,
				  q->to ? "the pod has no address yet" : "no such pod; see warrenctl workload list");
		return false;
	}
	if (!q->to->local) {
		admin_reply_error(c, ENOENT, "policy check: --to: %s: a pod of node %s, whose agent decides: ask there",
				  text, q->to->node);
		return false;
	}
	q->subject.destination = (struct ip_port){q->to->addrs[0], port};
	return true;
}

static bool read_from(struct node *n, struct admin_call *c, struct question *q)
{
	const char *text = admin_text(c, "from", "");
	bool plain = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(admin_args(c), "plaintext"));
	struct spiffe_id id;

	if (!strncmp(text, "ip:", 3)) {
		if (!ip_addr_parse(text + 3, &q->subject.source))
			return true;
	} else if (!strncmp(text, "spiffe://", 9)) {
		q->subject.identity = plain ? NULL : text;
		if (!spiffe_parse(text, strlen(text), &id))
			return true;
	} else if ((q->from = find_pod(n, text, strlen(text)))) {
		const struct ip_addr *a = address_of_family(q->from, ip_addr_is_v4(&q->subject.destination.ip));

		if (a)
			q->subject.source = *a;
		/* What is not in the mesh, or does not go into it, comes in plaintext. */
		if (!plain && q->from->protocol == TUNNEL_HBONE && q->to->protocol == TUNNEL_HBONE)
			q->subject.identity = q->from->identity;
		return true;
	}
	admin_reply_error(c, EINVAL,
			  "policy check: --from: %s: expected NAMESPACE/POD of a known pod, ip:ADDRESS or "
			  "spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT",
			  text);
	return false;
}

static void add_step(cJSON *steps, const char *step, const char *result)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "step", step);
	cJSON_AddStringToObject(o, "result", result);
	cJSON_AddItemToArray(steps, o);
}

/* Nobody who can be asked about is a probe; but who wonders why the kubelet gets through learns it here. */
static void add_probe(cJSON *steps, const struct node *n, const struct question *q)
{
	bool exempt = !strcmp(n->o.probe_exemption, "node-sockets");

	for (size_t i = 0; i < q->to->n_probe_ports && !exempt; i++)
		exempt = q->to->probe_ports[i] == q->subject.destination.port;
	add_step(steps, "probe",
		 exempt ? "no: but the node's own sockets, such as the kubelet's, pass to this port"
			: "no: the port is no probe's");
}

/* Whether a certificate of this identity passes the handshake, for all that its trust domain says. */
static bool is_believed(const struct node *n, const char *identity)
{
	struct spiffe_id id;

	return !spiffe_parse(identity, strlen(identity), &id) &&
	       trust_has_domain(trust_keeper_trust(n->keeper), id.trust_domain, id.trust_domain_len);
}

static enum wr_reason add_binding(cJSON *steps, const struct node *n, const struct question *q)
{
	struct binding b;
	char text[100];

	if (q->from) {
		b = binding_judge(node_source_binding(n), n->model, &q->subject.source, q->subject.identity);
		add_step(steps, "source binding", b.text);
		return b.allow ? WR_REASON_NONE : b.reason;
	}
	snprintf(text, sizeof(text), "no address given; --source-binding=%s decides when it calls",
		 n->o.source_binding);
	add_step(steps, "source binding", text);
	return WR_REASON_NONE;
}

/* What comes before the policies. NONE, or why it gets no further. */
static enum wr_reason add_provenance(cJSON *steps, const struct node *n, const struct question *q)
{
	add_probe(steps, n, q);
	add_step(steps, "identity", q->subject.identity ? q->subject.identity : "plaintext: nobody is proven");
	if (!q->subject.identity)
		return WR_REASON_NONE;
	if (!is_believed(n, q->subject.identity)) {
		add_step(steps, "handshake",
			 "refused: the roots may not vouch for this trust domain, which is neither the mesh's own nor "
			 "one of its aliases: see warrenctl status");
		return WR_REASON_TLS_TRUST_DOMAIN;
	}
	add_step(steps, "handshake", "the roots may vouch for its trust domain");
	return add_binding(steps, n, q);
}

/* The answer for a pod that nobody stands before. */
static cJSON *unjudged(const char *why)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddBoolToObject(o, "allow", true);
	cJSON_AddStringToObject(o, "not_enforced", why);
	cJSON_AddArrayToObject(o, "steps");
	return o;
}

/* The answer where no policy is asked. */
static cJSON *refused(enum wr_reason reason, cJSON *steps)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddBoolToObject(o, "allow", false);
	cJSON_AddStringToObject(o, "reason", reason_name(reason));
	cJSON_AddItemToObject(o, "steps", steps);
	return o;
}

/* In the order of a connection. NULL: out of memory. */
static cJSON *judge(const struct node *n, const struct question *q)
{
	cJSON *steps = cJSON_CreateArray(), *o, *policies;
	enum wr_reason reason = add_provenance(steps, n, q);

	if (reason)
		return refused(reason, steps);
	/* Whatever the policies say. */
	if (route_port_is_illegal(q->subject.destination.port)) {
		add_step(steps, "destination", "the port is the agent's own: refused");
		return refused(WR_REASON_ILLEGAL_PORT, steps);
	}
	o = policy_explain(q->to->policy, &q->subject);
	policies = cJSON_DetachItemFromObjectCaseSensitive(o, "steps");
	for (cJSON *s; (s = cJSON_DetachItemFromArray(policies, 0));)
		cJSON_AddItemToArray(steps, s);
	cJSON_Delete(policies);
	if (o)
		cJSON_AddItemToObject(o, "steps", steps);
	else
		cJSON_Delete(steps);
	return o;
}

static void policy_check(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	struct question q = {0};
	const char *why;
	char text[600];
	cJSON *o;

	if (!read_to(n, c, &q) || !read_from(n, c, &q))
		return;
	why = pods_outside(n->pods, q.to, text, sizeof(text));
	o = why ? unjudged(why) : judge(n, &q);
	if (o)
		admin_reply(c, o);
	else
		admin_reply_error(c, ENOMEM, "out of memory");
}

/* --- trace, verdicts --- */

struct watcher {
	struct admin_call *call;
	double since;
};

static double seq_of(const cJSON *o)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, "seq");

	return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

/* Of the workers' rings what the caller has not seen, oldest first. */
static void traced(void *arg, cJSON *rows)
{
	_cleanup_free_ struct watcher *w = arg;
	cJSON *answer = cJSON_CreateArray(), *oldest, *i;

	do {
		oldest = NULL;
		cJSON_ArrayForEach(i, rows)
			if (seq_of(i) > w->since && (!oldest || seq_of(i) < seq_of(oldest)))
				oldest = i;
		if (oldest) {
			w->since = seq_of(oldest);
			cJSON_AddItemToArray(answer, cJSON_DetachItemViaPointer(rows, oldest));
		}
	} while (oldest);
	cJSON_Delete(rows);
	admin_reply(w->call, answer);
}

static void policy_trace(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	const cJSON *since = cJSON_GetObjectItemCaseSensitive(admin_args(c), "since");
	struct watcher *w = malloc(sizeof(*w));

	if (!w) {
		admin_reply_error(c, ENOMEM, "out of memory");
		return;
	}
	*w = (struct watcher){c, cJSON_IsNumber(since) ? since->valuedouble : 0};
	engine_trace(n->engine, TRACE_MS);
	engine_dump(n->engine, "trace", traced, w);
}

static void counted(void *arg, cJSON *rows)
{
	admin_reply(arg, rows);
}

static void policy_verdicts(void *arg, struct admin_call *c)
{
	engine_dump(((struct node *)arg)->engine, "verdicts", counted, c);
}

/* --- connections older than enrolment --- */

static void connection_unmanaged(void *arg, struct admin_call *c)
{
	admin_reply(c, pods_unmanaged(((struct node *)arg)->pods));
}

static void connection_close(void *arg, struct admin_call *c)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddNumberToObject(o, "closed", pods_close_unmanaged(((struct node *)arg)->pods));
	admin_reply(c, o);
}

int node_register_policy_commands(struct node *n)
{
	static const struct node_command commands[] = {
		{"policy list", policy_list},
		{"policy check", policy_check},
		{"policy trace", policy_trace},
		{"policy verdicts", policy_verdicts},
		{"connection unmanaged", connection_unmanaged},
		{"connection close", connection_close},
	};

	return node_register(n, commands, ARRAY_SIZE(commands));
}
