/* SPDX-License-Identifier: Apache-2.0 */
/* warrenctl OBJECT COMMAND, in bpftool's manner. The table below is the command set and the help. */
#include "ctl.h"
#include "engine/base/cleanup.h"
#include "engine/base/version.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

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

static int cmd_workload(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "workload list", workload_columns, ARRAY_SIZE(workload_columns));
}

static int cmd_connection(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "connection list", connection_columns, ARRAY_SIZE(connection_columns));
}

static int cmd_tunnel(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "tunnel list", tunnel_columns, ARRAY_SIZE(tunnel_columns));
}

static int cmd_certificate(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "certificate list", certificate_columns, ARRAY_SIZE(certificate_columns));
}

static int cmd_memory(struct ctl *c, const char *arg)
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

static int cmd_pod(struct ctl *c, const char *arg)
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

static int cmd_service(struct ctl *c, const char *arg)
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

/* --- objects with an output of their own --- */

static int cmd_status(struct ctl *c, const char *arg)
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

static int cmd_bpf(struct ctl *c, const char *arg)
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

static int cmd_config_list(struct ctl *c, const char *arg)
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
static int cmd_config_dump(struct ctl *c, const char *arg)
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

static int cmd_log(struct ctl *c, const char *arg)
{
	cJSON *args = cJSON_CreateObject(), *result = NULL;
	int r;

	if (arg)
		cJSON_AddStringToObject(args, "level", arg);
	r = client_call(c, "log level", args, cJSON_Object, &result);
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		printf("%s\n", text_of(result, "level"));
	cJSON_Delete(result);
	return CTL_OK;
}

static const struct column unmanaged_columns[] = {{"DIR", "direction", AS_TEXT},   {"POD", "pod", AS_TEXT},
						  {"SRC", "src", AS_TEXT},	   {"DST", "dst", AS_TEXT},
						  {"ALLOWED", "allowed", AS_TEXT}, {"REASON", "reason", AS_TEXT},
						  {"POLICY", "policy", AS_TEXT}};

static int cmd_unmanaged(struct ctl *c, const char *arg)
{
	(void)arg;
	return show_rows(c, "connection unmanaged", unmanaged_columns, ARRAY_SIZE(unmanaged_columns));
}

static int cmd_close(struct ctl *c, const char *arg)
{
	cJSON *result = NULL;
	int r;

	if (!arg || strcmp(arg, "--unmanaged"))
		return ctl_fail(c, CTL_USAGE,
				"connection close: what: --unmanaged, all that `connection unmanaged` lists");
	r = client_call(c, "connection close", NULL, cJSON_Object, &result);
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		printf("%.0f connections\n", number_of(result, "closed"));
	cJSON_Delete(result);
	return CTL_OK;
}

static int cmd_policy_check(struct ctl *c, const char *arg)
{
	(void)arg;
	return verdict_check(c);
}

static int cmd_policy_trace(struct ctl *c, const char *arg)
{
	char *end = NULL;
	unsigned long seconds = arg ? strtoul(arg, &end, 10) : 0;

	if (arg && (!seconds || *end))
		return ctl_fail(c, CTL_USAGE, "policy trace: %s: expected seconds", arg);
	return verdict_trace(c, seconds);
}

static int cmd_policy_verdicts(struct ctl *c, const char *arg)
{
	(void)arg;
	return verdict_counts(c);
}

/* --- actions --- */

static bool is_all(const char *arg)
{
	return !strcmp(arg, "--all") || !strcmp(arg, "all");
}

/* CTL_OK and the result printed, or a code with the reason remembered. */
static int pod_switch(struct ctl *c, const char *command, const char *arg)
{
	cJSON *args = cJSON_CreateObject(), *result = NULL;
	int r;

	if (is_all(arg))
		cJSON_AddTrueToObject(args, "all");
	else
		cJSON_AddStringToObject(args, "name", arg);
	r = client_call(c, command, args, cJSON_Object, &result);
	if (r)
		return r;
	if (!ctl_print_json(c, result))
		printf("%.0f pods\n", number_of(result, "pods"));
	cJSON_Delete(result);
	return CTL_OK;
}

/* Past an agent that is there but stuck nothing is released: it would take the pod back. */
static int cmd_release(struct ctl *c, const char *arg)
{
	int r = arg ? pod_switch(c, "pod release", arg) : ctl_error(c, CTL_USAGE, "pod release: name a pod, or --all");

	if (r == CTL_NO_AGENT)
		r = local_release(c, is_all(arg) ? NULL : arg);
	return r ? ctl_say(c, r) : CTL_OK;
}

static int cmd_enroll(struct ctl *c, const char *arg)
{
	int r = arg ? pod_switch(c, "pod enroll", arg) : ctl_error(c, CTL_USAGE, "pod enroll: name a pod, or --all");

	return r ? ctl_say(c, r) : CTL_OK;
}

static int cmd_doctor(struct ctl *c, const char *arg)
{
	int r = local_doctor(c);

	(void)arg;
	return r == CTL_BROKEN ? ctl_say(c, r) : r;
}

static int cmd_lint(struct ctl *c, const char *arg)
{
	(void)arg;
	return policy_lint(c);
}

/* What cannot be found out has one code of its own: 1 is for what was. */
static int cmd_prove(struct ctl *c, const char *arg)
{
	int r = arg ? local_prove(c, arg) : ctl_error(c, CTL_USAGE, "prove: name a pod");

	if (r == CTL_OK || r == CTL_NOT_SO)
		return r;
	return ctl_say(c, CTL_USAGE);
}

/* --- the command table --- */

static const struct command {
	const char *object, *command, *args, *help;
	int (*fn)(struct ctl *c, const char *arg);
} commands[] = {
	{"status", "show", "", "is the node up: pods, connections, alarms, counters; exits 0 only when up", cmd_status},
	{"doctor", "show", "", "what the kernel offers, what is missing and what that turns off (*)", cmd_doctor},
	{"pod", "list", "", "pods that belong into the mesh, why one is not, open connections (*)", cmd_pod},
	{"pod", "release", "NAME|--all",
	 "take a pod out of capture now; with an agent it stays out until `pod enroll` (*)", cmd_release},
	{"pod", "enroll", "NAME|--all", "undo a release", cmd_enroll},
	{"prove", "pod", "NAME", "send from inside a pod what should not get out, and say what did (*)", cmd_prove},
	{"workload", "list", "", "every pod the mesh knows", cmd_workload},
	{"service", "list", "", "services with their endpoints", cmd_service},
	{"connection", "list", "", "open connections, with TCP_INFO of local hop and tunnel in JSON", cmd_connection},
	{"connection", "unmanaged", "", "those the agent does not carry: older than enrolment", cmd_unmanaged},
	{"connection", "close", "--unmanaged", "end these by a reset", cmd_close},
	{"tunnel", "list", "", "HBONE tunnels: peer, TLS version, streams", cmd_tunnel},
	{"memory", "show", "",
	 "per worker: share of time at work, bytes that apps have not taken and their limit, stream windows",
	 cmd_memory},
	{"certificate", "list", "", "certificates of this node's workloads", cmd_certificate},
	{"certificate", "rotate-root", "[--finish|--force]",
	 "replace the embedded CA's root in three steps; --force waits for nothing", certificate_rotate},
	{"certificate", "revoke", "SERIAL|IDENTITY", "put on the embedded CA's revocation list; ends live tunnels",
	 certificate_revoke},
	{"bpf", "show", "", "wanted versus attached, programs, links, maps decoded (*)", cmd_bpf},
	{"config", "list", "", "resources: applied, refused, ignored or not enforced, where and why", cmd_config_list},
	{"config", "dump", "", "options, resources with their state, the whole model; always as JSON", cmd_config_dump},
	{"policy", "list", "[NAME]", "policies: enforced here, refused, waiting; of one: its pods, warnings, who wins",
	 policy_show},
	{"policy", "lint", "FILE...", "judge manifests as an agent would; exits 1 if one is refused (*)", cmd_lint},
	{"policy", "verdicts", "", "how often which policy, rule and field denied, or would have", cmd_policy_verdicts},
	{"policy", "check", "--from=WHO --to=POD", "may it, and why: exits 0 when allowed, 1 when denied",
	 cmd_policy_check},
	{"policy", "trace", "[SECONDS]", "verdicts as they are given, each with what led to it", cmd_policy_trace},
	{"log", "level", "[LEVEL]", "show or set the log level: error, warn, info, debug", cmd_log},
};

/* All commands, or those of one object. */
static void print_commands(const char *object)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		char left[64];

		if (object && strcmp(object, commands[i].object))
			continue;
		snprintf(left, sizeof(left), "%s %s %s", commands[i].object, commands[i].command, commands[i].args);
		printf("  %-32s %s\n", left, commands[i].help);
	}
}

static int help(const char *object)
{
	printf("Usage: warrenctl [OPTION]... OBJECT [COMMAND] [ARGUMENT]\n\n");
	print_commands(object);
	printf("\n(*) works without an agent. `show` and `list` mean the same; names may be shortened.\n\n"
	       "  -j, --json       JSON            -p, --pretty     JSON, indented\n"
	       "  -n, --node NAME  which node      --run-dir PATH   default /run/warren\n"
	       "  -V, --version    -h, --help      --pin-dir PATH   default /sys/fs/bpf\n"
	       "  -f, --file FILE  a manifest to lint\n\n"
	       "WHO is NAMESPACE/POD, ip:ADDRESS (in plaintext) or spiffe://...; --plaintext: without its identity;\n"
	       "POD is NAMESPACE/POD:PORT.\n"
	       "WARREN_NODE, WARREN_RUN_DIR and WARREN_PIN_DIR stand for an option that is not given. When no\n"
	       "node is named it is the one under the run directory that has an agent, or else pins.\n"
	       "Without an agent `pod release --all` also removes what the node itself has in the kernel.\n\n"
	       "`prove NAME` does, from the pod's network namespace, what a hostile process with CAP_NET_RAW could: "
	       "SYNs\n"
	       "and bytes to a mesh address by packet sockets (also past the pod's own queue and programs), raw "
	       "sockets\n"
	       "and TCP sockets with the agent's marks; foreign sources; IPv4, IPv6, v4-mapped. A program right "
	       "behind\n"
	       "ours on the node's end of the pod's link counts what comes out and ends it there: nobody gets a "
	       "probe,\n"
	       "and nothing stays behind. (A capture at that place would also see what is dropped a moment later.)\n"
	       "Exit of prove: 0 nothing got through, 1 something did, 2 it could not be found out.\n\n"
	       "Exit: 0 ok, 1 not so or not up, 2 usage, 3 no agent, 4 the agent refused, 5 privilege or kernel\n"
	       "feature missing, 6 no usable answer from the agent within 10 s, or the output cannot be written.\n"
	       "An error is one line on stderr, with -j and -p {\"error\": TEXT} on stdout.\n");
	return CTL_OK;
}

static bool prefix_of(const char *word, const char *full)
{
	return *word && !strncmp(word, full, strlen(word));
}

static bool is_show(const char *command)
{
	return command && (!strcmp(command, "show") || !strcmp(command, "list"));
}

/* An object's first command is what it does by itself, and what `show` and `list` mean. */
static const struct command *find(const char *object, const char *command)
{
	const char *first = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		bool is_first = !first || strcmp(first, commands[i].object);

		first = commands[i].object;
		if (prefix_of(object, commands[i].object) &&
		    (!command || (is_first && is_show(command)) || prefix_of(command, commands[i].command)))
			return &commands[i];
	}
	return NULL;
}

/* The files of -f with those that are named behind the command. */
static char **add_files(struct ctl *c, char **words, int n)
{
	for (int i = 0; i < n; i++)
		c->files[c->n_files++] = words[i];
	return c->files;
}

/* `prove NAME` is `prove pod NAME`. */
static bool is_short_prove(int n, char **words, const struct command *cmd)
{
	const struct command *first = n == 2 && !cmd ? find(words[0], NULL) : NULL;

	return first && first->fn == cmd_prove;
}

/* Words are OBJECT [COMMAND] [ARGUMENT]; what is too much is named, never ignored. */
static int run(struct ctl *c, int n, char **words)
{
	const char *command = n > 1 ? words[1] : NULL;
	const struct command *cmd;
	int args;

	if (!n)
		/* Useful by itself: the state of the node, or how to ask. */
		return client_find_node(c) == CTL_OK ? cmd_status(c, NULL) : help(NULL);
	if (!strcmp(words[0], "help") && !command)
		return help(NULL);
	if (command && !strcmp(command, "help"))
		command = NULL;
	cmd = find(words[0], command);
	if (is_short_prove(n, words, cmd))
		return cmd_prove(c, command);
	if (!cmd)
		return ctl_fail(c, CTL_USAGE, "unknown command: %s%s%s; see warrenctl help", words[0],
				command ? " " : "", command ? command : "");
	if (n > 1 && !command)
		return help(cmd->object);
	/* Of what only looks, an argument narrows it where its own name says that it takes one. */
	args = *cmd->args && (!is_show(command) || is_show(cmd->command));
	if (strstr(cmd->args, "...")) {
		c->files = add_files(c, words + 2, n - 2);
		args = n;
	} else if (c->n_files) {
		return ctl_fail(c, CTL_USAGE, "%s %s: -f goes with policy lint alone", cmd->object, cmd->command);
	}
	if (n - 2 > args)
		return ctl_fail(c, CTL_USAGE, "%s %s: unexpected argument: %s", cmd->object, cmd->command,
				words[2 + args]);
	if ((c->from || c->to || c->plaintext) && cmd->fn != cmd_policy_check)
		return ctl_fail(c, CTL_USAGE, "%s %s: --from, --to and --plaintext belong to policy check", cmd->object,
				cmd->command);
	return cmd->fn(c, n > 2 ? words[2] : NULL);
}

/* Options without a letter. */
enum long_option { ONLY_LONG = 256, OPT_RUN_DIR, OPT_PIN_DIR, OPT_WORD, OPT_FROM, OPT_TO, OPT_PLAINTEXT };

static int wrong_option(struct ctl *c, int opt, char **argv)
{
	char letter[] = {'-', (char)optopt, '\0'};
	/* Only of a letter that nobody knows is the word before not the one: more letters may follow it. */
	bool is_letter = opt == '?' && optopt && optopt < ONLY_LONG && !strchr("jpVh", optopt);
	const char *name = is_letter ? letter : argv[optind - 1];

	if (opt == ':')
		return ctl_fail(c, CTL_USAGE, "option needs a value: %s", name);
	return ctl_fail(c, CTL_USAGE, "unknown option: %s; see warrenctl help", name);
}

/* Fills c and moves the words to the front of argv: how many, or -1 with *ret_code to exit with. */
static int options(struct ctl *c, int argc, char **argv, int *ret_code)
{
	static const struct option known[] = {{"json", no_argument, NULL, 'j'},
					      {"pretty", no_argument, NULL, 'p'},
					      {"node", required_argument, NULL, 'n'},
					      {"file", required_argument, NULL, 'f'},
					      {"run-dir", required_argument, NULL, OPT_RUN_DIR},
					      {"pin-dir", required_argument, NULL, OPT_PIN_DIR},
					      {"version", no_argument, NULL, 'V'},
					      {"help", no_argument, NULL, 'h'},
					      {"all", no_argument, NULL, OPT_WORD},
					      {"unmanaged", no_argument, NULL, OPT_WORD},
					      {"finish", no_argument, NULL, OPT_WORD},
					      {"force", no_argument, NULL, OPT_WORD},
					      {"from", required_argument, NULL, OPT_FROM},
					      {"to", required_argument, NULL, OPT_TO},
					      {"plaintext", no_argument, NULL, OPT_PLAINTEXT},
					      {NULL, 0, NULL, 0}};
	static char word[16];
	int opt, n, which = 0;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":jpn:f:Vh", known, &which)) != -1) {
		switch (opt) {
		case 'j':
			c->json = true;
			break;
		case 'p':
			c->json = c->pretty = true;
			break;
		case 'n':
			c->node = optarg;
			break;
		case 'f':
			c->files[c->n_files++] = optarg;
			break;
		case OPT_RUN_DIR:
			c->run_dir = optarg;
			break;
		case OPT_PIN_DIR:
			c->pin_dir = optarg;
			break;
		case OPT_WORD:
			snprintf(word, sizeof(word), "--%s", known[which].name);
			break;
		case OPT_FROM:
			c->from = optarg;
			break;
		case OPT_TO:
			c->to = optarg;
			break;
		case OPT_PLAINTEXT:
			c->plaintext = true;
			break;
		case 'V':
			printf("warrenctl %s\n", WARREN_VERSION);
			*ret_code = CTL_OK;
			return -1;
		case 'h':
			*ret_code = help(NULL);
			return -1;
		default:
			*ret_code = wrong_option(c, opt, argv);
			return -1;
		}
	}
	n = argc - optind;
	memmove(argv, argv + optind, (size_t)n * sizeof(*argv));
	/* It stands for a name; its own place in argv, before optind, is free. */
	if (*word)
		argv[n++] = word;
	return n;
}

/* An empty variable is an unset one, as in the shell's ${NAME:-...}. */
static const char *environment(const char *name, const char *fallback)
{
	const char *value = getenv(name);

	return value && *value ? value : fallback;
}

int main(int argc, char **argv)
{
	struct ctl c = {.run_dir = environment("WARREN_RUN_DIR", "/run/warren"),
			.pin_dir = environment("WARREN_PIN_DIR", NULL),
			.node = environment("WARREN_NODE", NULL)};
	_cleanup_free_ char **files = calloc((size_t)argc + 1, sizeof(*files));
	int code = CTL_OK, n;

	if (!files)
		return CTL_BROKEN;
	c.files = files;
	ctl_keep_standard();
	n = options(&c, argc, argv, &code);
	if (n >= 0)
		code = run(&c, n, argv);
	return ctl_finish(code);
}
