/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside warrenctl. */
#pragma once
#include <cjson/cJSON.h>
#include <stdbool.h>

enum exit_code { CTL_OK = 0, CTL_NOT_SO = 1, CTL_USAGE = 2, CTL_NO_AGENT = 3, CTL_REFUSED = 4, CTL_MISSING = 5 };

struct ctl {
	bool json, pretty;
	const char *node, *run_dir, *pin_dir;
	char node_buf[256];
};

/* One line on stderr, or {"error": ...} on stdout in JSON mode. Returns code. */
int ctl_fail(const struct ctl *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Prints a result: JSON as it is when asked for, else nothing; true when it printed. */
bool ctl_print_json(const struct ctl *c, const cJSON *v);

/* client.c: asks the agent. CTL_OK with *ret the result (to be deleted), or a code with the error printed (unless quiet). */
int client_call(struct ctl *c, const char *command, cJSON *args, bool quiet, cJSON **ret);
/* Finds the only node under the run directory when none was named. CTL_OK or CTL_USAGE/CTL_NO_AGENT, printed unless quiet. */
int client_find_node(struct ctl *c, bool quiet);

/* table.c: rows of text with aligned columns. */
struct column {
	const char *title, *field; /* field of the item; "a.b" reaches inside; lists are joined by commas */
	enum { AS_TEXT, AS_BYTES, AS_MS, AS_NUMBER } as;
};
void table_print(const cJSON *array, const struct column *columns, int n);
const char *field_text(const cJSON *item, const struct column *col, char *buf, int size);

/* local.c: what works without an agent. */
int local_doctor(struct ctl *c);
int local_pods(struct ctl *c, cJSON **ret);
int local_bpf(struct ctl *c, cJSON **ret);
int local_release(struct ctl *c, const char *name);
