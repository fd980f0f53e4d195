/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin commands behind warrenctl, but for those of certificates and policy. A call comes in, JSON leaves. Control
 * thread.
 */
#include "node_private.h"
#include "engine/base/clock.h"
#include "engine/base/version.h"
#include "engine/telemetry/accesslog.h"
#include "engine/telemetry/reason.h"
#include "takeover.h"

#include <cjson/cJSON.h>
#include <string.h>

/* What a screen of `status` has room for. */
#define STATUS_REFUSED_MAX 10
#define STATUS_NAMES_MAX 3

static cJSON *counters(void)
{
	cJSON *o = cJSON_CreateObject();

	for (int i = 1; i < WR_REASON_MAX_; i++)
		if (reason_counter((enum wr_reason)i))
			cJSON_AddNumberToObject(o, reason_name((enum wr_reason)i),
						(double)reason_counter((enum wr_reason)i));
	if (accesslog_dropped())
		cJSON_AddNumberToObject(o, "access_log_lines_dropped", (double)accesslog_dropped());
	return o;
}

static const char *text_of(const cJSON *o, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, name));

	return text ? text : "";
}

/* Who may talk to whom hangs on it. */
static bool is_about_access(const cJSON *resource)
{
	const char *kind = text_of(resource, "kind");

	return !strcmp(kind, "AuthorizationPolicy") || !strcmp(kind, "RequestAuthentication");
}

/* Appends the names of those that are about access, or of the others, to text; how many are there by now. */
static int name_unenforced(const cJSON *resources, bool about_access, int count, char *text, size_t size)
{
	size_t len = strlen(text);
	const cJSON *i;

	cJSON_ArrayForEach(i, resources) {
		if (strcmp(text_of(i, "state"), "not enforced") || is_about_access(i) != about_access)
			continue;
		if (count++ < STATUS_NAMES_MAX && len < size)
			len += (size_t)snprintf(text + len, size - len, "%s %.64s %.64s/%.64s", count > 1 ? "," : "",
						text_of(i, "kind"), text_of(i, "namespace"), text_of(i, "name"));
	}
	return count;
}

/* People write policy to be protected by it: that it is not, is not for a list that nobody opens. */
static void alarm_not_enforced(cJSON *alarms, const cJSON *resources)
{
	char text[1024] = "NOT ENFORCED:";
	int count = name_unenforced(resources, true, 0, text, sizeof(text));
	size_t len;

	count = name_unenforced(resources, false, count, text, sizeof(text));
	len = strlen(text);
	if (count > STATUS_NAMES_MAX && len < sizeof(text))
		snprintf(text + len, sizeof(text) - len, " and %d more: warrenctl config list",
			 count - STATUS_NAMES_MAX);
	if (count)
		cJSON_AddItemToArray(alarms, cJSON_CreateString(text));
}

/* Resources are listed by `config list`: here only how many there are in each state, and the first that are
 * refused. */
static void add_source(cJSON *o, struct node *n)
{
	cJSON *dump = source_dump(n->source), *list = cJSON_DetachItemFromObject(dump, "resources"), *i;
	cJSON *states = cJSON_AddObjectToObject(dump, "resources");
	cJSON *refused = cJSON_AddArrayToObject(dump, "refused");

	cJSON_ArrayForEach(i, list) {
		const char *state = text_of(i, "state");
		cJSON *have = cJSON_GetObjectItemCaseSensitive(states, state);

		if (have)
			cJSON_SetNumberValue(have, have->valuedouble + 1);
		else
			cJSON_AddNumberToObject(states, state, 1);
		if (!strcmp(state, "refused") && cJSON_GetArraySize(refused) < STATUS_REFUSED_MAX)
			cJSON_AddItemToArray(refused, cJSON_Duplicate(i, true));
	}
	alarm_not_enforced(cJSON_GetObjectItemCaseSensitive(o, "alarms"), list);
	cJSON_Delete(list);
	cJSON_AddItemToObject(o, "source", dump);
}

/* An answer that needs what the workers count per pod. */
struct counted {
	struct node *n;
	struct admin_call *call;
};

static void count_pods(struct node *n, struct admin_call *c, void (*answer)(void *arg, cJSON *rows))
{
	struct counted *k = malloc(sizeof(*k));

	if (!k) {
		admin_reply_error(c, ENOMEM, "out of memory");
		return;
	}
	*k = (struct counted){n, c};
	engine_dump(n->engine, "pods", answer, k);
}

static double number_of(const cJSON *o, const char *name)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);

	return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static void status_counted(void *arg, cJSON *rows)
{
	_cleanup_free_ struct counted *k = arg;
	struct node *n = k->n;
	struct pods_counts counts = pods_count(n->pods);
	double tunnels = 0;
	cJSON *o = cJSON_CreateObject(), *list, *pods, *i;
	const char *why;
	bool up = node_is_up(n, &why);

	cJSON_ArrayForEach(i, rows)
		tunnels += number_of(i, "tunnels");
	cJSON_Delete(rows);
	cJSON_AddStringToObject(o, "node", n->o.node);
	cJSON_AddStringToObject(o, "version", WARREN_VERSION);
	cJSON_AddNumberToObject(o, "pid", getpid());
	cJSON_AddNumberToObject(o, "uptime_s", (double)((clock_now_ms() - n->start_ms) / 1000));
	cJSON_AddBoolToObject(o, "up", up);
	list = cJSON_AddArrayToObject(o, "pending");
	if (!up)
		cJSON_AddItemToArray(list, cJSON_CreateString(why));
	list = cJSON_AddArrayToObject(o, "alarms");
	source_alarms(n->source, list);
	pods_alarms(n->pods, list);
	trust_keeper_alarms(n->keeper, list);
	cert_store_alarms(n->certs, list);
	if (capture_alarm(n->capture))
		cJSON_AddItemToArray(list, cJSON_CreateString(capture_alarm(n->capture)));
	cJSON_AddItemToObject(o, "without", cJSON_Duplicate(n->without, true));
	pods = cJSON_AddObjectToObject(o, "pods");
	cJSON_AddNumberToObject(pods, "enrolled", counts.enrolled);
	cJSON_AddNumberToObject(pods, "pending", counts.pending);
	cJSON_AddNumberToObject(pods, "draining", counts.draining);
	cJSON_AddNumberToObject(pods, "refused", counts.refused);
	cJSON_AddNumberToObject(o, "connections", (double)engine_open_connections(n->engine));
	cJSON_AddNumberToObject(o, "tunnels", tunnels);
	cJSON_AddNumberToObject(o, "workers", (double)n->o.workers);
	cJSON_AddStringToObject(o, "ca", ca_describe(n->ca));
	cJSON_AddStringToObject(o, "ca_folder", ca_path(n->ca));
	cJSON_AddItemToObject(o, "mesh", source_mesh_dump(n->source));
	add_source(o, n);
	cJSON_AddItemToObject(o, "counters", counters());
	admin_reply(k->call, o);
}

static void status(void *arg, struct admin_call *c)
{
	count_pods(arg, c, status_counted);
}

/* A pod has a row on each worker, and a second one there while an earlier enrolment drains. */
static void pods_counted(void *arg, cJSON *rows)
{
	_cleanup_free_ struct counted *k = arg;
	cJSON *pods = pods_dump(k->n->pods), *i;
	double conns[CAPTURE_MAX_PODS] = {0};

	cJSON_ArrayForEach(i, rows) {
		double at = number_of(i, "number");

		if (at > 0 && at < CAPTURE_MAX_PODS)
			conns[(size_t)at] += number_of(i, "connections");
	}
	cJSON_Delete(rows);
	cJSON_ArrayForEach(i, pods)
		cJSON_AddNumberToObject(i, "connections", conns[(size_t)number_of(i, "number")]);
	admin_reply(k->call, pods);
}

static void pod_list(void *arg, struct admin_call *c)
{
	count_pods(arg, c, pods_counted);
}

static cJSON *workloads(struct node *n)
{
	cJSON *array = cJSON_CreateArray();
	struct table_iter it = {0};
	struct workload *w;
	char ip[64];

	while ((w = table_next(&n->model->workloads_by_uid, &it))) {
		cJSON *o = cJSON_CreateObject(), *addrs = cJSON_CreateArray();

		cJSON_AddStringToObject(o, "uid", w->uid);
		cJSON_AddStringToObject(o, "namespace", w->namespace_);
		cJSON_AddStringToObject(o, "name", w->name);
		for (size_t i = 0; i < w->n_addrs; i++)
			cJSON_AddItemToArray(addrs, cJSON_CreateString(ip_addr_format(&w->addrs[i], ip, sizeof(ip))));
		cJSON_AddItemToObject(o, "addresses", addrs);
		cJSON_AddStringToObject(o, "node", w->node);
		cJSON_AddBoolToObject(o, "local", w->local);
		cJSON_AddStringToObject(o, "protocol", w->protocol == TUNNEL_HBONE ? "HBONE" : "TCP");
		cJSON_AddBoolToObject(o, "ready", w->ready);
		cJSON_AddStringToObject(o, "identity", w->identity);
		cJSON_AddStringToObject(o, "canonical_name", w->canonical_name);
		cJSON_AddStringToObject(o, "canonical_revision", w->canonical_revision);
		cJSON_AddStringToObject(o, "workload_type", w->workload_type);
		cJSON_AddStringToObject(o, "workload_name", w->workload_name);
		cJSON_AddItemToArray(array, o);
	}
	return array;
}

static cJSON *endpoint(const struct service *s, const struct service_endpoint *e)
{
	cJSON *o = cJSON_CreateObject(), *ports = cJSON_CreateObject();
	char text[64], port[8];

	cJSON_AddStringToObject(o, "address", ip_addr_format(&e->addr, text, sizeof(text)));
	cJSON_AddStringToObject(o, "workload", e->workload ? e->workload->name : "");
	cJSON_AddStringToObject(o, "protocol", e->workload && e->workload->protocol == TUNNEL_HBONE ? "HBONE" : "TCP");
	cJSON_AddBoolToObject(o, "healthy", e->healthy);
	for (size_t i = 0; i < s->n_ports; i++) {
		snprintf(port, sizeof(port), "%u", s->ports[i].port);
		cJSON_AddNumberToObject(ports, port, e->target_ports[i]);
	}
	cJSON_AddItemToObject(o, "target_ports", ports);
	return o;
}

static cJSON *services(struct node *n)
{
	cJSON *array = cJSON_CreateArray();
	struct table_iter it = {0};
	struct service *s;
	char ip[64];

	while ((s = table_next(&n->model->services_by_hostname, &it))) {
		cJSON *o = cJSON_CreateObject(), *list;

		cJSON_AddStringToObject(o, "namespace", s->namespace_);
		cJSON_AddStringToObject(o, "name", s->name);
		cJSON_AddStringToObject(o, "hostname", s->hostname);
		list = cJSON_AddArrayToObject(o, "vips");
		for (size_t i = 0; i < s->n_vips; i++)
			cJSON_AddItemToArray(list, cJSON_CreateString(ip_addr_format(&s->vips[i], ip, sizeof(ip))));
		list = cJSON_AddArrayToObject(o, "ports");
		for (size_t i = 0; i < s->n_ports; i++) {
			cJSON *p = cJSON_CreateObject();

			cJSON_AddStringToObject(p, "name", s->ports[i].name);
			cJSON_AddNumberToObject(p, "port", s->ports[i].port);
			cJSON_AddItemToArray(list, p);
		}
		list = cJSON_AddArrayToObject(o, "endpoints");
		for (size_t i = 0; i < s->n_endpoints; i++)
			cJSON_AddItemToArray(list, endpoint(s, &s->endpoints[i]));
		cJSON_AddItemToArray(array, o);
	}
	return array;
}

static void workload_list(void *arg, struct admin_call *c)
{
	admin_reply(c, workloads(arg));
}

static void service_list(void *arg, struct admin_call *c)
{
	admin_reply(c, services(arg));
}

static void dumped(void *arg, struct cJSON *array)
{
	admin_reply(arg, array);
}

static void connection_list(void *arg, struct admin_call *c)
{
	engine_dump(((struct node *)arg)->engine, "connections", dumped, c);
}

static void tunnel_list(void *arg, struct admin_call *c)
{
	engine_dump(((struct node *)arg)->engine, "tunnels", dumped, c);
}

static void memory_show(void *arg, struct admin_call *c)
{
	engine_dump(((struct node *)arg)->engine, "memory", dumped, c);
}

static void bpf_show(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	cJSON *o = capture_dump(n->capture);

	if (!o) {
		admin_reply_error(c, ENOMEM, "out of memory");
		return;
	}
	/* Without these only what is there can be shown, not what should be. */
	cJSON_AddItemToObject(o, "wanted", pods_dump(n->pods));
	admin_reply(c, o);
}

static void config_list(void *arg, struct admin_call *c)
{
	cJSON *dump = source_dump(((struct node *)arg)->source);

	admin_reply(c, cJSON_DetachItemFromObjectCaseSensitive(dump, "resources"));
	cJSON_Delete(dump);
}

static void config_dump(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	cJSON *o = cJSON_CreateObject();

	cJSON_AddItemToObject(o, "options", options_dump(&n->o));
	cJSON_AddItemToObject(o, "source", source_dump(n->source));
	cJSON_AddItemToObject(o, "workloads", workloads(n));
	cJSON_AddItemToObject(o, "services", services(n));
	cJSON_AddItemToObject(o, "pods", pods_dump(n->pods));
	admin_reply(c, o);
}

static void log_level(void *arg, struct admin_call *c)
{
	const char *level = admin_text(c, "level", NULL);
	cJSON *o;

	(void)arg;
	if (level && log_set_level(level) < 0) {
		admin_reply_error(c, EINVAL, "log level: %s: expected error, warn, info or debug", level);
		return;
	}
	o = cJSON_CreateObject();
	cJSON_AddStringToObject(o, "level", log_get_level());
	admin_reply(c, o);
}

static void pod_switch(struct node *n, struct admin_call *c, int (*fn)(struct pods *p, const char *name),
		       const char *word)
{
	const char *name = admin_text(c, "name", NULL);
	bool all = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(admin_args(c), "all"));
	cJSON *o;
	int count;

	if (!name && !all) {
		admin_reply_error(c, EINVAL, "pod %s: name a pod, or all", word);
		return;
	}
	count = fn(n->pods, all ? NULL : name);
	if (!count && !all) {
		admin_reply_error(c, ENOENT, "pod %s: no such pod on this node: %s", word, name);
		return;
	}
	o = cJSON_CreateObject();
	cJSON_AddNumberToObject(o, "pods", count);
	admin_reply(c, o);
}

static void pod_release(void *arg, struct admin_call *c)
{
	pod_switch(arg, c, pods_release, "release");
}

static void pod_enroll(void *arg, struct admin_call *c)
{
	pod_switch(arg, c, pods_readmit, "enroll");
}

struct hand {
	struct node *n;
	int fd, error;
};

static void hand_pod(void *arg, uint32_t number, const char *uid)
{
	struct hand *h = arg;
	int fds[3];

	if (h->error || engine_pod_listeners(h->n->engine, number, fds) < 0)
		return;
	h->error = takeover_send(h->fd, uid, fds);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static void takeover(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	struct hand h = {.n = n, .fd = admin_fd(c)};

	if (n->handed_over) {
		admin_reply_error(c, EBUSY, "already handed over");
		return;
	}
	pods_each(n->pods, hand_pod, &h);
	if (!h.error)
		h.error = takeover_send(h.fd, NULL, NULL);
	if (h.error) {
		admin_reply_error(c, -h.error, "hand-over failed: %s", strerror(-h.error));
		return;
	}
	admin_reply(c, cJSON_CreateTrue());
	node_hand_over(n);
}

int node_register(struct node *n, const struct node_command *commands, size_t count)
{
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++)
		r = admin_register(n->admin, commands[i].name, commands[i].fn, n);
	return r;
}

int node_register_commands(struct node *n)
{
	static const struct node_command commands[] = {
		{"status", status},
		{"pod list", pod_list},
		{"pod release", pod_release},
		{"pod enroll", pod_enroll},
		{"workload list", workload_list},
		{"service list", service_list},
		{"connection list", connection_list},
		{"tunnel list", tunnel_list},
		{"memory show", memory_show},
		{"bpf show", bpf_show},
		{"config list", config_list},
		{"config dump", config_dump},
		{"log level", log_level},
		{"takeover", takeover},
	};

	return node_register(n, commands, ARRAY_SIZE(commands));
}
