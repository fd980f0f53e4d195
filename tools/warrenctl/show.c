/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that only look: what the agent answers, or the pins in its place, as rows or as the text of status.c and
 * bpf.c. Called by main.c through its table.
 */
#include "ctl.h"
#include "engine/base/cleanup.h"

#include <stdio.h>

/* --- objects that are lists of rows --- */

static const struct column pod_columns[] = {{"NAMESPACE", "namespace", AS_TEXT}, {"NAME", "name", AS_TEXT},
					    {"STATE", "state", AS_TEXT},	 {"ADDRESSES", "addresses", AS_TEXT},
					    {"CONNS", "connections", AS_NUMBER}, {"LINK", "link", AS_TEXT},
					    {"IDENTITY", "identity", AS_TEXT},	 {"REASON", "reason", AS_TEXT}};
static const struct column workload_columns[] = {
	{"NAMESPACE", "namespace", AS_TEXT}, {"NAME", "name", AS_TEXT},	  {"NODE", "node", AS_TEXT},
	{"PROTOCOL", "protocol", AS_TEXT},   {"READY", "ready", AS_TEXT}, {"ADDRESSES", "addresses", AS_TEXT}};
static const struct column connection_columns[] = {{"DIR", "direction", AS_TEXT},
						   {"POD", "pod", AS_TEXT},
						   {"SRC", "src", AS_TEXT},
						   {"DST", "dst", AS_TEXT},
						   {"VIA", "next_hop", AS_TEXT},
						   {"STATE", "state", AS_TEXT},
						   {"AGE", "age_ms", AS_MS},
						   {"SENT", "bytes_sent", AS_BYTES},
						   {"RECV", "bytes_recv", AS_BYTES},
						   {"LOCAL RTT us", "local_tcp_info.rtt_us", AS_NUMBER},
						   {"TUNNEL RTT us", "tunnel_tcp_info.rtt_us", AS_NUMBER}};
static const struct column tunnel_columns[] = {
	{"DIR", "direction", AS_TEXT},	   {"POD", "pod", AS_TEXT},
	{"REMOTE", "remote", AS_TEXT},	   {"STATE", "state", AS_TEXT},
	{"TLS", "tls", AS_TEXT},	   {"STREAMS", "streams", AS_NUMBER},
	{"AGE", "age_ms", AS_MS},	   {"SENT", "bytes_sent", AS_BYTES},
	{"RECV", "bytes_recv", AS_BYTES},  {"RTT us", "tcp_info.rtt_us", AS_NUMBER},
	{"PEER", "peer_identity", AS_TEXT}};
static const struct column certificate_columns[] = {{"IDENTITY", "identity", AS_TEXT},
						    {"STATE", "state", AS_TEXT},
						    {"NOT BEFORE", "not_before", AS_TEXT},
						    {"NOT AFTER", "not_after", AS_TEXT},
						    {"RENEWAL", "next_renewal", AS_TEXT},
						    {"ROTATION", "root_rotation", AS_TEXT},
						    {"CRL", "crl", AS_TEXT},
						    {"USERS", "users", AS_NUMBER},
						    {"SERIAL", "serial", AS_TEXT}};

static const struct column memory_columns[] = {
	{"WORKER", "worker", AS_NUMBER},	{"BUSY %", "busy_percent", AS_NUMBER},
	{"BACKLOG", "backlog_bytes", AS_BYTES}, {"BUDGET", "budget_bytes", AS_BYTES},
	{"WINDOW", "window_bytes", AS_BYTES},	{"GROWN", "window_grown_bytes", AS_BYTES}};
static const struct column unmanaged_columns[] = {{"DIR", "direction", AS_TEXT},   {"POD", "pod", AS_TEXT},
						  {"SRC", "src", AS_TEXT},	   {"DST", "dst", AS_TEXT},
						  {"ALLOWED", "allowed", AS_TEXT}, {"REASON", "reason", AS_TEXT},
						  {"POLICY", "policy", AS_TEXT}};

static int show_rows(struct ctl *c, const char *command, const struct column *columns, int n)
{
	cJSON *result = NULL;
	int r = client_call(c, command, NULL, cJSON_Array, &result);

	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		table_print(result, columns, n);
	cJSON_Delete(result);
	return CTL_OK;
}

int show_workloads(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "workload list", workload_columns, ARRAY_SIZE(workload_columns));
}

int show_connections(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "connection list", connection_columns, ARRAY_SIZE(connection_columns));
}

int show_unmanaged(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "connection unmanaged", unmanaged_columns, ARRAY_SIZE(unmanaged_columns));
}

int show_tunnels(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "tunnel list", tunnel_columns, ARRAY_SIZE(tunnel_columns));
}

int show_certificates(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "certificate list", certificate_columns, ARRAY_SIZE(certificate_columns));
}

int show_memory(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "memory show", memory_columns, ARRAY_SIZE(memory_columns));
}

/* Asks the pins in the agent's place when r says that it gave no answer. An agent that is there nevertheless is
 * worth a remark; when the pins have nothing either, the agent's failure is the one to tell. */
static int or_pins(struct ctl *c, int r, int (*fn)(struct ctl *c, cJSON **ret), cJSON **ret)
{
	struct ctl pins = *c;
	int e;

	if (r != CTL_BROKEN && r != CTL_NO_AGENT)
		return r;
	pins.silent = r == CTL_BROKEN;
	e = fn(&pins, ret);
	if (e == CTL_OK && r == CTL_BROKEN)
		ctl_remark(c, "this is from the pins");
	if (e == CTL_OK || r == CTL_BROKEN || e == CTL_NO_AGENT)
		return e == CTL_OK ? e : r;
	return ctl_error(c, e, "%s", pins.error);
}

int show_pods(struct ctl *c, const char *arg)
{
	cJSON *result = NULL;
	int r = or_pins(c, client_call(c, "pod list", NULL, cJSON_Array, &result), local_pods, &result);

	(void)arg;
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		table_print(result, pod_columns, ARRAY_SIZE(pod_columns));
	cJSON_Delete(result);
	return CTL_OK;
}

/* --- objects with a text of their own --- */

static void print_service(const cJSON *s)
{
	static const struct column vips = {"", "vips", AS_TEXT};
	const cJSON *e, *p;
	char buf[160];

	printf("%s  %s  ports", text_of(s, "hostname"), field_text(s, &vips, buf, sizeof(buf)));
	cJSON_ArrayForEach(p, member(s, "ports"))
		printf(" %.0f", number_of(p, "port"));
	printf("\n");
	cJSON_ArrayForEach(e, member(s, "endpoints")) {
		printf("  %-24s %-20s %-6s %s", text_of(e, "address"), text_of(e, "workload"), text_of(e, "protocol"),
		       is_true(e, "healthy") ? "healthy" : "not ready");
		cJSON_ArrayForEach(p, member(e, "target_ports"))
			printf("  %s->%d", p->string ? p->string : "?", p->valueint);
		printf("\n");
	}
}

int show_services(struct ctl *c, const char *arg)
{
	cJSON *result = NULL, *s;
	int r = client_call(c, "service list", NULL, cJSON_Array, &result);

	(void)arg;
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result)) {
		cJSON_ArrayForEach(s, result)
			print_service(s);
		if (!cJSON_GetArraySize(result))
			printf("none\n");
	}
	cJSON_Delete(result);
	return CTL_OK;
}

int show_status(struct ctl *c, const char *arg)
{
	cJSON *s = NULL;
	int r = client_call(c, "status", NULL, cJSON_Object, &s);
	bool up;

	(void)arg;
	if (r)
		return ctl_say(c, r);
	up = is_true(s, "up");
	if (!ctl_print_json(c, s))
		status_print(s);
	cJSON_Delete(s);
	return up ? CTL_OK : CTL_NOT_SO;
}

int show_bpf(struct ctl *c, const char *arg)
{
	cJSON *result = NULL;
	int r = or_pins(c, client_call(c, "bpf show", NULL, cJSON_Object, &result), local_bpf, &result);

	(void)arg;
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		bpf_print(result);
	cJSON_Delete(result);
	return CTL_OK;
}

int show_doctor(struct ctl *c, const char *arg)
{
	int r = local_doctor(c);

	(void)arg;
	return r == CTL_BROKEN ? ctl_say(c, r) : r;
}

int show_config(struct ctl *c, const char *arg)
{
	cJSON *result = NULL;
	int r = client_call(c, "config list", NULL, cJSON_Array, &result);

	(void)arg;
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		resources_print(result);
	cJSON_Delete(result);
	return CTL_OK;
}

/* The model is nested deep: it has no better text than JSON itself, indented. */
int show_config_dump(struct ctl *c, const char *arg)
{
	cJSON *result = NULL;
	int r = client_call(c, "config dump", NULL, cJSON_Object, &result);

	(void)arg;
	if (r)
		return ctl_say(c, r);
	if (!c->json)
		c->json = c->pretty = true;
	(void)ctl_print_json(c, result);
	cJSON_Delete(result);
	return CTL_OK;
}
