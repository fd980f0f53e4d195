/* SPDX-License-Identifier: Apache-2.0 */
/* warrenctl OBJECT COMMAND, in bpftool's manner. The table below is the command set and the help. */
#include "ctl.h"
#include "engine/base/cleanup.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define VERSION "0.1.0"

int ctl_fail(const struct ctl *c, int code, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->json) {
		cJSON *o = cJSON_CreateObject();

		cJSON_AddStringToObject(o, "error", text);
		(void)ctl_print_json(c, o);
		cJSON_Delete(o);
	} else {
		fprintf(stderr, "warrenctl: %s\n", text);
	}
	return code;
}

bool ctl_print_json(const struct ctl *c, const cJSON *v)
{
	_cleanup_free_ char *text = NULL;

	if (!c->json)
		return false;
	text = c->pretty ? cJSON_Print(v) : cJSON_PrintUnformatted(v);
	printf("%s\n", text ? text : "null");
	return true;
}

/* --- objects that are lists of rows --- */

static const struct column pod_columns[] = {{"NAMESPACE", "namespace", AS_TEXT}, {"NAME", "name", AS_TEXT},
					    {"STATE", "state", AS_TEXT},	 {"ADDRESSES", "addresses", AS_TEXT},
					    {"IDENTITY", "identity", AS_TEXT},	 {"REASON", "reason", AS_TEXT}};
static const struct column workload_columns[] = {{"NAMESPACE", "namespace", AS_TEXT}, {"NAME", "name", AS_TEXT},
						 {"NODE", "node", AS_TEXT},	      {"PROTOCOL", "protocol", AS_TEXT},
						 {"READY", "ready", AS_TEXT},	      {"ADDRESSES", "addresses", AS_TEXT}};
static const struct column connection_columns[] = {
	{"DIR", "direction", AS_TEXT},	{"POD", "pod", AS_TEXT},	{"SRC", "src", AS_TEXT},
	{"DST", "dst", AS_TEXT},	{"VIA", "next_hop", AS_TEXT},	{"STATE", "state", AS_TEXT},
	{"AGE", "age_ms", AS_MS},	{"SENT", "bytes_sent", AS_BYTES}, {"RECV", "bytes_recv", AS_BYTES},
	{"LOCAL RTT us", "local_tcp_info.rtt_us", AS_NUMBER}, {"TUNNEL RTT us", "tunnel_tcp_info.rtt_us", AS_NUMBER}};
static const struct column tunnel_columns[] = {
	{"DIR", "direction", AS_TEXT},	    {"POD", "pod", AS_TEXT},	    {"REMOTE", "remote", AS_TEXT},
	{"STATE", "state", AS_TEXT},	    {"TLS", "tls", AS_TEXT},	    {"STREAMS", "streams", AS_NUMBER},
	{"AGE", "age_ms", AS_MS},	    {"SENT", "bytes_sent", AS_BYTES}, {"RECV", "bytes_recv", AS_BYTES},
	{"RTT us", "tcp_info.rtt_us", AS_NUMBER}, {"PEER", "peer_identity", AS_TEXT}};
static const struct column certificate_columns[] = {{"IDENTITY", "identity", AS_TEXT},	   {"STATE", "state", AS_TEXT},
						    {"NOT AFTER", "not_after", AS_TEXT}, {"USERS", "users", AS_NUMBER},
						    {"SERIAL", "serial", AS_TEXT}};

static int show_rows(struct ctl *c, const char *command, const struct column *columns, int n)
{
	cJSON *result = NULL;
	int r = client_call(c, command, NULL, false, &result);

	if (r)
		return r;
	if (!ctl_print_json(c, result))
		table_print(result, columns, n);
	cJSON_Delete(result);
	return CTL_OK;
}

static int cmd_workload(struct ctl *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return show_rows(c, "workload list", workload_columns, ARRAY_SIZE(workload_columns));
}

static int cmd_connection(struct ctl *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return show_rows(c, "connection list", connection_columns, ARRAY_SIZE(connection_columns));
}

static int cmd_tunnel(struct ctl *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return show_rows(c, "tunnel list", tunnel_columns, ARRAY_SIZE(tunnel_columns));
}

static int cmd_certificate(struct ctl *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return show_rows(c, "certificate list", certificate_columns, ARRAY_SIZE(certificate_columns));
}

static int cmd_pod(struct ctl *c, int argc, char **argv)
{
	cJSON *result = NULL;
	int r = client_call(c, "pod list", NULL, true, &result);

	(void)argc;
	(void)argv;
	if (r == CTL_NO_AGENT)
		r = local_pods(c, &result);
	else if (r)
		r = client_call(c, "pod list", NULL, false, &result);
	if (r)
		return r;
	if (!ctl_print_json(c, result))
		table_print(result, pod_columns, ARRAY_SIZE(pod_columns));
	cJSON_Delete(result);
	return CTL_OK;
}

static const char *text_of(const cJSON *o, const char *name)
{
	const char *v = cJSON_GetStringValue(cJSON_GetObjectItem(o, name));

	return v ? v : "";
}

static int cmd_service(struct ctl *c, int argc, char **argv)
{
	static const struct column vips = {"", "vips", AS_TEXT};
	cJSON *result = NULL, *s, *e, *p;
	int r = client_call(c, "service list", NULL, false, &result);
	char buf[160];

	(void)argc;
	(void)argv;
	if (r)
		return r;
	if (!ctl_print_json(c, result)) {
		cJSON_ArrayForEach(s, result)
		{
			printf("%s  %s  ports", text_of(s, "hostname"), field_text(s, &vips, buf, sizeof(buf)));
			cJSON_ArrayForEach(p, cJSON_GetObjectItem(s, "ports"))
				printf(" %d", cJSON_GetObjectItem(p, "port")->valueint);
			printf("\n");
			cJSON_ArrayForEach(e, cJSON_GetObjectItem(s, "endpoints"))
			{
				printf("  %-24s %-20s %-6s %s", text_of(e, "address"), text_of(e, "workload"), text_of(e, "protocol"),
				       cJSON_IsTrue(cJSON_GetObjectItem(e, "healthy")) ? "healthy" : "not ready");
				cJSON_ArrayForEach(p, cJSON_GetObjectItem(e, "target_ports"))
					printf("  %s->%d", p->string, p->valueint);
				printf("\n");
			}
		}
	}
	cJSON_Delete(result);
	return CTL_OK;
}

static int cmd_status(struct ctl *c, int argc, char **argv)
{
	cJSON *s = NULL, *pods, *i;
	int r = client_call(c, "status", NULL, false, &s);
	bool up;

	(void)argc;
	(void)argv;
	if (r)
		return r;
	up = cJSON_IsTrue(cJSON_GetObjectItem(s, "up"));
	if (!ctl_print_json(c, s)) {
		pods = cJSON_GetObjectItem(s, "pods");
		printf("node %s: %s  (warren %s, pid %d)\n", text_of(s, "node"), up ? "up" : "NOT up", text_of(s, "version"),
		       cJSON_GetObjectItem(s, "pid")->valueint);
		cJSON_ArrayForEach(i, cJSON_GetObjectItem(s, "pending"))
			printf("waiting for: %s\n", i->valuestring);
		cJSON_ArrayForEach(i, cJSON_GetObjectItem(s, "alarms"))
			printf("ALARM: %s\n", i->valuestring);
		printf("pods:");
		cJSON_ArrayForEach(i, pods)
			printf(" %d %s", i->valueint, i->string);
		printf("\nconnections: %d\nca: %s\nsource: %s", cJSON_GetObjectItem(s, "connections")->valueint, text_of(s, "ca"),
		       text_of(cJSON_GetObjectItem(s, "source"), "spec"));
		cJSON_ArrayForEach(i, cJSON_GetObjectItem(cJSON_GetObjectItem(s, "source"), "resources"))
			printf(", %d %s", i->valueint, i->string);
		printf("\n");
		cJSON_ArrayForEach(i, cJSON_GetObjectItem(s, "counters"))
			printf("%-28s %.0f\n", i->string, i->valuedouble);
	}
	cJSON_Delete(s);
	return up ? CTL_OK : CTL_NOT_SO;
}

static int print_tree(struct ctl *c, cJSON *result)
{
	struct ctl as_json = *c;

	/* Nested data has no better table than JSON itself, indented. */
	if (!c->json)
		as_json.json = as_json.pretty = true;
	(void)ctl_print_json(&as_json, result);
	cJSON_Delete(result);
	return CTL_OK;
}

static int cmd_bpf(struct ctl *c, int argc, char **argv)
{
	cJSON *result = NULL;
	int r = client_call(c, "bpf show", NULL, true, &result);

	(void)argc;
	(void)argv;
	if (r)
		r = local_bpf(c, &result);
	return r ? r : print_tree(c, result);
}

static int cmd_config(struct ctl *c, int argc, char **argv)
{
	cJSON *result = NULL;
	int r = client_call(c, "config dump", NULL, false, &result);

	(void)argc;
	(void)argv;
	return r ? r : print_tree(c, result);
}

static int cmd_log(struct ctl *c, int argc, char **argv)
{
	cJSON *args = cJSON_CreateObject(), *result = NULL;
	int r;

	if (argc)
		cJSON_AddStringToObject(args, "level", argv[0]);
	r = client_call(c, "log level", args, false, &result);
	if (r)
		return r;
	if (!ctl_print_json(c, result))
		printf("%s\n", text_of(result, "level"));
	cJSON_Delete(result);
	return CTL_OK;
}

static int pod_switch(struct ctl *c, const char *command, const char *name)
{
	cJSON *args = cJSON_CreateObject(), *result = NULL;
	bool all = !strcmp(name, "--all") || !strcmp(name, "all");
	int r;

	if (all)
		cJSON_AddTrueToObject(args, "all");
	else
		cJSON_AddStringToObject(args, "name", name);
	r = client_call(c, command, args, true, &result);
	if (r == CTL_NO_AGENT && !strcmp(command, "pod release"))
		return local_release(c, all ? NULL : name);
	if (r)
		return ctl_fail(c, r, "%s: %s", command, r == CTL_NO_AGENT ? "no agent" : "no such pod on this node");
	if (!ctl_print_json(c, result))
		printf("%d pods\n", cJSON_GetObjectItem(result, "pods")->valueint);
	cJSON_Delete(result);
	return CTL_OK;
}

static int cmd_release(struct ctl *c, int argc, char **argv)
{
	return argc ? pod_switch(c, "pod release", argv[0]) : ctl_fail(c, CTL_USAGE, "pod release: name a pod, or --all");
}

static int cmd_enroll(struct ctl *c, int argc, char **argv)
{
	return argc ? pod_switch(c, "pod enroll", argv[0]) : ctl_fail(c, CTL_USAGE, "pod enroll: name a pod, or --all");
}

static int cmd_doctor(struct ctl *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return local_doctor(c);
}

static const struct command {
	const char *object, *command, *args, *help;
	int (*fn)(struct ctl *c, int argc, char **argv);
} commands[] = {
	{"status", "show", "", "is the node up: pods, connections, alarms, counters; exits 0 only when up", cmd_status},
	{"doctor", "show", "", "what the kernel offers, what is missing and what that turns off (*)", cmd_doctor},
	{"pod", "list", "", "pods of this node that belong into the mesh, and why one is not (*)", cmd_pod},
	{"pod", "release", "NAME|--all", "take a pod out of capture now; with an agent it stays out until `pod enroll` (*)",
	 cmd_release},
	{"pod", "enroll", "NAME|--all", "undo a release", cmd_enroll},
	{"workload", "list", "", "every pod the mesh knows", cmd_workload},
	{"service", "list", "", "services with their endpoints", cmd_service},
	{"connection", "list", "", "open connections, with TCP_INFO of local hop and tunnel in JSON", cmd_connection},
	{"tunnel", "list", "", "HBONE tunnels: peer, TLS version, streams", cmd_tunnel},
	{"certificate", "list", "", "certificates of this node's workloads", cmd_certificate},
	{"bpf", "show", "", "programs, links, maps decoded, wanted versus attached (*)", cmd_bpf},
	{"config", "dump", "", "options, resources with their state, the whole model", cmd_config},
	{"log", "level", "[LEVEL]", "show or set the log level: error, warn, info, debug", cmd_log},
};

static void help(FILE *f)
{
	fprintf(f, "Usage: warrenctl [OPTION]... OBJECT [COMMAND] [ARGUMENT]\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		char left[64];

		snprintf(left, sizeof(left), "%s %s %s", commands[i].object, commands[i].command, commands[i].args);
		fprintf(f, "  %-24s %s\n", left, commands[i].help);
	}
	fprintf(f, "\n(*) works without an agent. `show` and `list` mean the same; names may be shortened.\n\n"
		   "  -j, --json       JSON            -p, --pretty     JSON, indented\n"
		   "  -n, --node NAME  which node      --run-dir PATH   default /run/warren\n"
		   "  -V, --version    -h, --help      --pin-dir PATH   default /sys/fs/bpf\n\n"
		   "Exit: 0 ok, 1 not so or not up, 2 usage, 3 no agent, 4 the agent refused, 5 privilege or kernel feature\n"
		   "missing.\n");
}

static bool prefix_of(const char *word, const char *full)
{
	return *word && !strncmp(word, full, strlen(word));
}

/* An object's first command is what it does by itself. */
static const struct command *find(const char *object, const char *command)
{
	bool show = command && (!strcmp(command, "show") || !strcmp(command, "list"));

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		bool listing = !strcmp(commands[i].command, "list") || !strcmp(commands[i].command, "show") ||
			       !strcmp(commands[i].command, "dump");

		if (prefix_of(object, commands[i].object) &&
		    (!command || (show && listing) || prefix_of(command, commands[i].command)))
			return &commands[i];
	}
	return NULL;
}

static int run(struct ctl *c, int argc, char **argv)
{
	const struct command *cmd;

	if (!argc) {
		/* Useful by itself: the state of the node, or how to ask. */
		if (client_find_node(c, true) == CTL_OK)
			return cmd_status(c, 0, NULL);
		help(stdout);
		return CTL_OK;
	}
	if (!strcmp(argv[0], "help") || (argc > 1 && !strcmp(argv[1], "help"))) {
		help(stdout);
		return CTL_OK;
	}
	cmd = find(argv[0], argc > 1 ? argv[1] : NULL);
	if (!cmd)
		return ctl_fail(c, CTL_USAGE, "unknown command: %s%s%s; see warrenctl help", argv[0], argc > 1 ? " " : "",
				argc > 1 ? argv[1] : "");
	return cmd->fn(c, argc > 2 ? argc - 2 : 0, argv + 2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},	   {"pretty", no_argument, NULL, 'p'},
						{"node", required_argument, NULL, 'n'},	   {"run-dir", required_argument, NULL, 'r'},
						{"pin-dir", required_argument, NULL, 'b'}, {"version", no_argument, NULL, 'V'},
						{"help", no_argument, NULL, 'h'},	   {"all", no_argument, NULL, 'a'},
						{NULL, 0, NULL, 0}};
	struct ctl c = {.run_dir = "/run/warren"};
	char *words[8];
	int n = 0, opt;

	while ((opt = getopt_long(argc, argv, "jpn:Vh", options, NULL)) != -1) {
		switch (opt) {
		case 'j':
			c.json = true;
			break;
		case 'p':
			c.json = c.pretty = true;
			break;
		case 'n':
			c.node = optarg;
			break;
		case 'r':
			c.run_dir = optarg;
			break;
		case 'b':
			c.pin_dir = optarg;
			break;
		case 'a':
			break; /* put back behind the command below */
		case 'V':
			printf("warrenctl %s\n", VERSION);
			return CTL_OK;
		case 'h':
			help(stdout);
			return CTL_OK;
		default:
			return CTL_USAGE;
		}
	}
	while (optind < argc && n < 7)
		words[n++] = argv[optind++];
	for (int i = 1; i < argc && n < 7; i++)
		if (!strcmp(argv[i], "--all"))
			words[n++] = argv[i];
	return run(&c, n, words);
}
