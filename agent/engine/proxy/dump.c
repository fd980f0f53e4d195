/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker holds, as JSON for warrenctl: connections, tunnels, pods, memory, verdicts. Runs on the worker's
 * thread; called by engine.c. */
#include "worker.h"
#include "engine/base/cleanup.h"

#include <cjson/cJSON.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/socket.h>

static void add_addr(cJSON *o, const char *name, const struct ip_port *a)
{
	char text[IP_PORT_STRLEN];

	if (a->port)
		cJSON_AddStringToObject(o, name, ip_port_format(a, text, sizeof(text)));
}

static void add_text(cJSON *o, const char *name, const char *value)
{
	if (value && *value)
		cJSON_AddStringToObject(o, name, value);
}

static void add_number(cJSON *o, const char *name, uint64_t v)
{
	cJSON_AddNumberToObject(o, name, (double)v);
}

static void add_tcp_info(cJSON *o, const char *name, int fd)
{
	struct tcp_info ti;
	socklen_t len = sizeof(ti);
	cJSON *i;

	memset(&ti, 0, sizeof(ti));
	if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) < 0)
		return;
	i = cJSON_AddObjectToObject(o, name);
	add_number(i, "state", ti.tcpi_state);
	add_number(i, "rtt_us", ti.tcpi_rtt);
	add_number(i, "rttvar_us", ti.tcpi_rttvar);
	add_number(i, "cwnd", ti.tcpi_snd_cwnd);
	add_number(i, "unacked", ti.tcpi_unacked);
	add_number(i, "notsent_bytes", ti.tcpi_notsent_bytes);
	add_number(i, "retrans", ti.tcpi_total_retrans);
	add_number(i, "delivery_rate", ti.tcpi_delivery_rate);
}

static void add_pod(cJSON *o, const struct pod *p)
{
	char name[512];

	snprintf(name, sizeof(name), "%s/%s", p->workload->namespace_, p->workload->name);
	cJSON_AddStringToObject(o, "pod", name);
}

/* The socket of a plain connection that is not its `app`; NULL of a tunnelled one. */
static const struct local *far_of(const struct conn *c)
{
	return c->relay ? &container_of(c, struct relay, conn)->far : NULL;
}

static cJSON *dump_conn(const struct conn *c)
{
	static const char *const kinds[] = {"hbone", "tcp", "hbone", "plaintext"};
	bool out = c->kind == CONN_OUT_HBONE || c->kind == CONN_OUT_TCP;
	const struct workload *own = c->pod->workload, *src = out ? own : c->peer, *dst = out ? c->peer : own;
	const struct local *far = far_of(c), *local = c->kind == CONN_IN_PLAIN ? far : &c->app;
	cJSON *o = cJSON_CreateObject();

	add_pod(o, c->pod);
	cJSON_AddStringToObject(o, "direction", out ? "outbound" : "inbound");
	cJSON_AddStringToObject(o, "protocol", kinds[c->kind]);
	cJSON_AddStringToObject(o, "state", c->established ? "open" : c->retrying ? "retrying" : "setup");
	add_addr(o, "src", &c->client);
	add_addr(o, "dst", &c->dst);
	if (out)
		add_addr(o, "next_hop", &c->next_hop);
	if (c->tunnel) {
		if (!out)
			add_addr(o, "next_hop", &c->tunnel->local);
		add_addr(o, "authority", &c->target);
		add_text(o, "peer_identity", c->tunnel->verify.peer);
		add_tcp_info(o, "tunnel_tcp_info", c->tunnel->watch.fd);
	}
	add_text(o, "src_workload", src ? src->name : NULL);
	add_text(o, "dst_workload", dst ? dst->name : NULL);
	add_text(o, "service", c->service ? c->service->hostname : NULL);
	add_number(o, "age_ms", worker_now_ms(c->pod->w) - c->start_us / 1000);
	add_number(o, "bytes_sent", c->bytes_sent);
	add_number(o, "bytes_recv", c->bytes_recv);
	add_number(o, "backlog_bytes", c->app.backlog + (far ? far->backlog : 0));
	add_tcp_info(o, "local_tcp_info", local->watch.fd);
	return o;
}

static cJSON *dump_tunnel(const struct tunnel *t)
{
	static const char *const states[] = {"dialing", "handshake", "settings", "ready", "closed"};
	char congestion[CONGESTION_NAME] = "";
	cJSON *o = cJSON_CreateObject();

	add_pod(o, t->pod);
	cJSON_AddStringToObject(o, "direction", t->server ? "inbound" : "outbound");
	cJSON_AddStringToObject(o, "state", t->goaway ? "draining" : states[t->state]);
	add_addr(o, "local", &t->local);
	add_addr(o, "remote", &t->remote);
	add_text(o, "peer_identity", t->verify.peer);
	add_text(o, "expected_identity", t->expected);
	if (t->tls.ssl) {
		add_text(o, "tls", SSL_get_version(t->tls.ssl));
		add_text(o, "cipher", SSL_get_cipher_name(t->tls.ssl));
	}
	add_text(o, "certificate_serial", t->identity->serial);
	add_text(o, "peer_certificate_serial", t->verify.peer_serial);
	add_number(o, "streams", t->n_conns);
	add_number(o, "age_ms", worker_now_ms(t->pod->w) - t->created_ms);
	add_number(o, "bytes_sent", t->tls.bytes_out);
	add_number(o, "bytes_recv", t->tls.bytes_in);
	if (t->watch.fd >= 0)
		congestion_of(t->watch.fd, congestion);
	add_text(o, "congestion", congestion);
	add_tcp_info(o, "tcp_info", t->watch.fd);
	return o;
}

static void dump_pod(const struct pod *p, const char *what, cJSON *array)
{
	if (!strcmp(what, "connections")) {
		list_foreach(n, &p->conns)
			cJSON_AddItemToArray(array, dump_conn(list_entry(n, struct conn, node)));
	} else if (!strcmp(what, "tunnels")) {
		list_foreach(n, &p->tunnels)
			cJSON_AddItemToArray(array, dump_tunnel(list_entry(n, struct tunnel, node)));
	} else if (!strcmp(what, "pods")) {
		cJSON *o = cJSON_CreateObject();
		unsigned conns = 0, tunnels = 0;

		list_foreach(n, &p->conns)
			conns++;
		list_foreach(n, &p->tunnels)
			tunnels++;
		add_pod(o, p);
		add_number(o, "number", p->number);
		add_number(o, "worker", p->w->index);
		cJSON_AddBoolToObject(o, "draining", p->draining);
		add_number(o, "connections", conns);
		add_number(o, "tunnels", tunnels);
		cJSON_AddItemToArray(array, o);
	}
}

cJSON *dump_worker(struct worker *w, const char *what)
{
	cJSON *array = cJSON_CreateArray();

	if (!strcmp(what, "memory")) {
		cJSON *o = cJSON_CreateObject();

		add_number(o, "worker", w->index);
		add_number(o, "backlog_bytes", local_backlog_bytes());
		add_number(o, "budget_bytes", w->budget);
		add_number(o, "window_level", w->window_level);
		add_number(o, "window_bytes", worker_stream_window(w));
		add_number(o, "window_grown_bytes", w->window_grown);
		add_number(o, "busy_percent", loop_busy_percent(w->loop));
		cJSON_AddItemToArray(array, o);
		return array;
	}
	if (!strcmp(what, "verdicts"))
		tally_dump(&w->tally, array);
	if (!strcmp(what, "trace"))
		trace_dump(w->trace, array);
	list_foreach(n, &w->pods)
		dump_pod(list_entry(n, struct pod, node), what, array);
	return array;
}
