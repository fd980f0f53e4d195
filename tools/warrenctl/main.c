/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warrenctl OBJECT COMMAND, in bpftool's manner. Enters the command line and leaves an exit code; the table below is
 * the command set and the help. The commands themselves are in show.c, actions.c, certificate.c, policy.c and
 * verdicts.c.
 */
#include "ctl.h"
#include "engine/base/cleanup.h"
#include "engine/base/version.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

/* --- the command table --- */

static const struct command {
	const char *object, *command, *args, *help;
	int (*fn)(struct ctl *c, const char *arg);
} commands[] = {
	{"status", "show", "", "is the node up: pods, connections, alarms, counters; exits 0 only when up",
	 show_status},
	{"doctor", "show", "", "what the kernel offers, what is missing and what that turns off (*)", show_doctor},
	{"pod", "list", "", "pods that belong into the mesh, why one is not, open connections (*)", show_pods},
	{"pod", "release", "NAME|--all", "take a pod out of capture, until `pod enroll` where an agent runs (*)",
	 action_release},
	{"pod", "enroll", "NAME|--all", "undo a release", action_enroll},
	{"prove", "pod", "NAME", "send from inside a pod what should not get out, and say what did (*)", action_prove},
	{"workload", "list", "", "every pod the mesh knows", show_workloads},
	{"service", "list", "", "services with their endpoints", show_services},
	{"connection", "list", "", "open connections, with TCP_INFO of local hop and tunnel in JSON", show_connections},
	{"connection", "unmanaged", "", "those that the agent does not carry: older than enrolment", show_unmanaged},
	{"connection", "close", "--unmanaged", "end these by a reset", action_close},
	{"tunnel", "list", "", "HBONE tunnels: peer, TLS version, streams", show_tunnels},
	{"memory", "show", "", "per worker: time at work, bytes not yet taken and their limit, windows", show_memory},
	{"certificate", "list", "", "certificates of this node's workloads", show_certificates},
	{"certificate", "rotate-root", "[--finish|--force]",
	 "the next of three steps to a new root; --force waits for nothing", certificate_rotate},
	{"certificate", "revoke", "SERIAL|IDENTITY", "put on the embedded CA's revocation list; ends its open tunnels",
	 certificate_revoke},
	{"bpf", "show", "", "wanted versus attached, programs, links, maps decoded (*)", show_bpf},
	{"config", "list", "", "resources: applied, refused, ignored or not enforced, where and why", show_config},
	{"config", "dump", "", "options, resources with their state, the whole model; always as JSON",
	 show_config_dump},
	{"policy", "list", "[NAME]", "policies and what became of each; of one also its pods and warnings",
	 policy_show},
	{"policy", "lint", "FILE...", "judge manifests as an agent would; exits 1 if one is refused (*)", policy_lint},
	{"policy", "verdicts", "", "how often which policy, rule and field denied, or would have", verdict_counts},
	{"policy", "check", "--from=WHO --to=TO", "may it, and why: exits 0 when allowed, 1 when denied",
	 verdict_check},
	{"policy", "trace", "[SECONDS]", "verdicts as they are given, each with what led to it", verdict_trace},
	{"log", "level", "[LEVEL]", "show or set the log level: error, warn, info, debug", action_log_level},
};

/* All commands, or those of one object. */
static void print_commands(const char *object)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		char left[64];

		if (object && strcmp(object, commands[i].object))
			continue;
		snprintf(left, sizeof(left), "%s %s %s", commands[i].object, commands[i].command, commands[i].args);
		printf("  %-42s %s\n", left, commands[i].help);
	}
}

/* What the table has no room for: all of it, or of one object. */
static void print_notes(const char *object)
{
	static const struct {
		const char *object, *text;
	} notes[] = {
		{"policy",
		 "policy check: WHO is NAMESPACE/POD, ip:ADDRESS (in plaintext) or spiffe://...; --plaintext: a pod\n"
		 "without its identity. TO is NAMESPACE/POD:PORT. Exit: 0 allowed, 1 denied, 2 cannot tell.\n"},
		{"pod",
		 "pod release --all: without an agent it also removes what the node itself has in the kernel.\n"},
		{"prove",
		 "prove: `prove NAME` will do. It sends from the pod's network namespace what a process with\n"
		 "CAP_NET_RAW could: packet sockets, raw sockets, the agent's marks, foreign sources. A witness on\n"
		 "the node's end of the pod's link counts what gets out and ends it there. Exit: 0 nothing got out,\n"
		 "1 something did, 2 cannot tell.\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(notes); i++)
		if (!object || !strcmp(object, notes[i].object))
			printf("%s%s", object || !i ? "\n" : "", notes[i].text);
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
	       "WARREN_NODE, WARREN_RUN_DIR and WARREN_PIN_DIR stand for an option that is not given. When no\n"
	       "node is named it is the one under the run directory that has an agent, or else pins.\n");
	print_notes(object);
	printf("\n"
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

	return first && first->fn == action_prove;
}

/* Words are OBJECT [COMMAND] [ARGUMENT]; what is too much is named, never ignored. */
static int run(struct ctl *c, int n, char **words)
{
	const char *command = n > 1 ? words[1] : NULL;
	const struct command *cmd;
	int args;

	if (!n)
		/* Useful by itself: the state of the node, or how to ask. */
		return client_find_node(c) == CTL_OK ? show_status(c, NULL) : help(NULL);
	if (!strcmp(words[0], "help") && !command)
		return help(NULL);
	if (!strcmp(words[0], "help") && n == 2 && find(command, NULL))
		return help(find(command, NULL)->object);
	if (command && !strcmp(command, "help"))
		command = NULL;
	cmd = find(words[0], command);
	if (is_short_prove(n, words, cmd))
		return action_prove(c, command);
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
	if ((c->from || c->to || c->plaintext) && cmd->fn != verdict_check)
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
