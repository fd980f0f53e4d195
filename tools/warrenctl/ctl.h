/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of warrenctl share, by file. Each function that can fail returns an exit code. */
#pragma once
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* CTL_BROKEN: something between agent and reader failed that says nothing about the node: no usable answer, or
 * an output that cannot be written. */
enum exit_code {
	CTL_OK = 0,
	CTL_NOT_SO = 1,
	CTL_USAGE = 2,
	CTL_NO_AGENT = 3,
	CTL_REFUSED = 4,
	CTL_MISSING = 5,
	CTL_BROKEN = 6,
};

struct ctl {
	bool json, pretty;
	const char *node, *run_dir, *pin_dir;
	const char *from, *to; /* of `policy check` */
	bool plaintext;
	char node_buf[256];
	char **files; /* of -f, and of a command that takes several arguments */
	int n_files;
	bool silent;	  /* the agent is there and gives no usable answer */
	char error[1024]; /* why the last call failed */
};

/* --- out.c: everything that reaches a terminal or a pipe --- */

/* Remembers why and returns code: for a caller that may still find another way. */
int ctl_error(struct ctl *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Prints what was remembered: one line on stderr, or {"error": ...} on stdout in JSON mode. Returns code. */
int ctl_say(struct ctl *c, int code);
/* Both at once. */
int ctl_fail(struct ctl *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* What was remembered as a remark on stderr: the result comes nevertheless, from elsewhere. */
void ctl_remark(struct ctl *c, const char *instead);
/* Prints a result as JSON when that is asked for; true when it did. Otherwise makes its names and strings fit
 * for a terminal, because whoever called us prints them as text next. */
bool ctl_print_json(const struct ctl *c, cJSON *v);
/* Replaces what a terminal could take for a command, and bytes that are not UTF-8. */
void text_clean(char *s);
/* How many characters a cleaned text has. */
int text_width(const char *s);
/* Before the first descriptor is opened: 0, 1 and 2 must not become a socket of ours. */
void ctl_keep_standard(void);
/* Empties stdout; code, or CTL_BROKEN when not everything could be written. */
int ctl_finish(int code);

/* --- out.c as well: members of an object, whatever the agent sent in their place --- */
const char *text_of(const cJSON *o, const char *name); /* "" when it is no string */
double number_of(const cJSON *o, const char *name);    /* 0 when it is no number */
bool is_true(const cJSON *o, const char *name);
const cJSON *member(const cJSON *o, const char *name);

/* --- client.c: asks the agent --- */

/* CTL_OK with *ret the result (to be deleted), which is an array or an object as `type` (cJSON_Array,
 * cJSON_Object) says; or a code with the reason remembered. Takes args over. */
int client_call(struct ctl *c, const char *command, cJSON *args, int type, cJSON **ret);
/* When none was named: the only node under the run directory whose agent takes calls, or else the only one
 * there is. CTL_NO_AGENT when several are there and none has an agent. */
int client_find_node(struct ctl *c);
/* The folder of a node's pins. */
void client_pin_path(const struct ctl *c, const char *node, char *buf, size_t size);
/* As above for what needs pins in place of an agent: of several nodes without one it is the only one that has
 * pins, which a remark names. */
int client_find_pins(struct ctl *c);
/* Into the network namespace of the node's agent, where the pods' links end; without an agent nothing happens. */
void client_enter_network(const struct ctl *c);

/* --- table.c: rows of text with aligned columns --- */
struct column {
	const char *title, *field; /* field of the item; "a.b" reaches inside; lists are joined by commas */
	enum { AS_TEXT, AS_BYTES, AS_MS, AS_NUMBER } as;
};
void table_print(const cJSON *array, const struct column *columns, int n);
const char *field_text(const cJSON *item, const struct column *col, char *buf, int size);

/*
 * Commands of main.c's table. arg is the word behind the command, NULL when there is none. Each returns an exit code,
 * with its result or what is wrong printed.
 */

/* --- show.c: what is only looked at --- */
int show_status(struct ctl *c, const char *arg);
int show_doctor(struct ctl *c, const char *arg);
int show_pods(struct ctl *c, const char *arg);
int show_workloads(struct ctl *c, const char *arg);
int show_services(struct ctl *c, const char *arg);
int show_connections(struct ctl *c, const char *arg);
int show_unmanaged(struct ctl *c, const char *arg);
int show_tunnels(struct ctl *c, const char *arg);
int show_memory(struct ctl *c, const char *arg);
int show_certificates(struct ctl *c, const char *arg);
int show_bpf(struct ctl *c, const char *arg);
int show_config(struct ctl *c, const char *arg);
int show_config_dump(struct ctl *c, const char *arg);

/* --- actions.c --- */
int action_release(struct ctl *c, const char *arg);
int action_enroll(struct ctl *c, const char *arg);
int action_close(struct ctl *c, const char *arg);
int action_log_level(struct ctl *c, const char *arg);
int action_prove(struct ctl *c, const char *arg);

/* --- certificate.c --- */
int certificate_rotate(struct ctl *c, const char *arg);
int certificate_revoke(struct ctl *c, const char *arg);

/* --- policy.c: `policy list`, `policy show` and `policy lint`; the files are c's --- */
int policy_show(struct ctl *c, const char *arg);
int policy_lint(struct ctl *c, const char *arg);

/* --- verdicts.c: `policy check` of c's `from` and `to`, `policy trace` for so many seconds (NULL: until it is
 * interrupted), `policy verdicts` --- */
int verdict_check(struct ctl *c, const char *arg);
int verdict_trace(struct ctl *c, const char *arg);
int verdict_counts(struct ctl *c, const char *arg);

/* --- status.c: `status show` and `config list` as text --- */
void status_print(const cJSON *status);
void resources_print(cJSON *resources);

/* --- bpf.c: `bpf show` as text --- */
void bpf_print(const cJSON *dump);

/* --- local.c: what works without an agent. Codes with the reason remembered --- */
int local_doctor(struct ctl *c);
int local_pods(struct ctl *c, cJSON **ret);
int local_bpf(struct ctl *c, cJSON **ret);
/* name NULL: every pod, and once none is left what the node itself keeps in the kernel. No agent can start on half of
 * it. */
int local_release(struct ctl *c, const char *name);
int local_prove(struct ctl *c, const char *name);

/* --- prove.c: what gets around the agent. CTL_OK: nothing; CTL_NOT_SO: something, printed either way; else a code
 * with the reason remembered --- */
struct capture;
int prove(struct ctl *c, struct capture *cap, const char *name);

/* --- unpin.c --- */

/* Removes the pins of c's node, which captures no pod and whose locks the caller holds, and adds to `removed` what they
 * were. A code with the reason remembered, also when only a part went. */
int unpin_node(struct ctl *c, cJSON *removed);
