/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of an enrolled pod that the agent does not carry although it would if they were opened now: mostly those
 * older than enrolment. In: the sockets of the pod's namespace. Out: a warning for those that policy forbids, the list,
 * and their end on demand. Called by enrolment.c and by agent/policy_commands.c through pods.h.
 */
#include "private.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/model/policy.h"
#include "engine/telemetry/reason.h"
#include <linux/types.h>
#include "abi/maps.h"

#include <cjson/cJSON.h>
#include <string.h>

#define WARNINGS_MAX 20

struct finding {
	const struct capture_socket *socket;
	bool inbound;
	struct policy_verdict verdict; /* of inbound ones: as plaintext */
};

static bool listens(const struct capture_socket *list, size_t n, const struct capture_socket *s)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].listening && list[i].local.port == s->local.port)
			return true;
	return false;
}

static bool is_own(const struct workload *w, const struct ip_addr *a)
{
	for (size_t i = 0; i < w->n_addrs; i++)
		if (ip_addr_equal(&w->addrs[i], a))
			return true;
	return ip_addr_is_loopback(a);
}

/* Calls fn for each; it may end the socket. 0 or -errno. */
static int each(const struct enrolment *e, void (*fn)(void *arg, const struct enrolment *e, const struct finding *f),
		void *arg)
{
	_cleanup_free_ struct capture_socket *list = NULL;
	struct capture *c = e->all->cfg.capture;
	size_t n = 0;
	int r = e->netns_fd < 0 ? -ENOENT : capture_pod_sockets(c, e->netns_fd, &list, &n);

	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct capture_socket *s = &list[i];
		struct finding f = {.socket = s, .inbound = listens(list, n, s), .verdict = {.allow = true}};

		if (s->listening || (s->kind != WR_SOCK_NONE && s->kind != WR_SOCK_APP_BYPASS) ||
		    is_own(e->workload, &s->remote.ip) ||
		    (f.inbound ? capture_is_probe(c, e->number, s) : !capture_wants(c, &s->remote.ip)))
			continue;
		if (f.inbound) {
			struct policy_subject subject = {.source = s->remote.ip, .destination = s->local};

			policy_evaluate(e->workload->policy, &subject, &f.verdict);
		}
		fn(arg, e, &f);
	}
	return r;
}

static void warn_of(void *arg, const struct enrolment *e, const struct finding *f)
{
	char src[IP_PORT_STRLEN], dst[IP_PORT_STRLEN], policy[600];
	unsigned *n = arg;

	if (f->verdict.allow || (*n)++ >= WARNINGS_MAX)
		return;
	policy_verdict_name(&f->verdict, policy, sizeof(policy));
	log_warn(
		"enroll",
		"%s/%s: a connection older than enrolment goes on although policy forbids it: %s to %s: %s%s%s; end it "
		"with warrenctl connection close --unmanaged",
		e->workload->namespace_, e->workload->name, ip_port_format(&f->socket->remote, src, sizeof(src)),
		ip_port_format(&f->socket->local, dst, sizeof(dst)), reason_name(f->verdict.reason), *policy ? " " : "",
		policy);
}

void unmanaged_warn(const struct enrolment *e)
{
	unsigned n = 0;

	(void)each(e, warn_of, &n);
	if (n > WARNINGS_MAX)
		log_warn("enroll", "%s/%s: and %u more connections older than enrolment that policy forbids",
			 e->workload->namespace_, e->workload->name, n - WARNINGS_MAX);
}

static void add_finding(void *arg, const struct enrolment *e, const struct finding *f)
{
	const struct ip_port *src = f->inbound ? &f->socket->remote : &f->socket->local;
	const struct ip_port *dst = f->inbound ? &f->socket->local : &f->socket->remote;
	cJSON *o = cJSON_CreateObject();
	char text[600];

	snprintf(text, sizeof(text), "%s/%s", e->workload->namespace_, e->workload->name);
	cJSON_AddStringToObject(o, "pod", text);
	cJSON_AddStringToObject(o, "direction", f->inbound ? "inbound" : "outbound");
	cJSON_AddStringToObject(o, "src", ip_port_format(src, text, sizeof(text)));
	cJSON_AddStringToObject(o, "dst", ip_port_format(dst, text, sizeof(text)));
	cJSON_AddBoolToObject(o, "allowed", f->verdict.allow);
	if (!f->verdict.allow) {
		cJSON_AddStringToObject(o, "reason", reason_name(f->verdict.reason));
		policy_verdict_name(&f->verdict, text, sizeof(text));
		cJSON_AddStringToObject(o, "policy", text);
	}
	cJSON_AddItemToArray(arg, o);
}

struct cJSON *pods_unmanaged(const struct pods *p)
{
	cJSON *array = cJSON_CreateArray();

	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++)
		if (p->by_number[n] && p->by_number[n]->state == POD_ENROLLED)
			(void)each(p->by_number[n], add_finding, array);
	return array;
}

static void end(void *arg, const struct enrolment *e, const struct finding *f)
{
	unsigned *ended = arg;

	if (capture_close_socket(e->netns_fd, f->socket) < 0)
		return;
	reason_count(WR_REASON_UNMANAGED_CLOSED);
	++*ended;
}

unsigned pods_close_unmanaged(const struct pods *p)
{
	unsigned ended = 0;

	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++)
		if (p->by_number[n] && p->by_number[n]->state == POD_ENROLLED)
			(void)each(p->by_number[n], end, &ended);
	return ended;
}
