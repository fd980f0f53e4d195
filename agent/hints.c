/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the log tells people about the agent as a whole: with what it starts, that no pod names this node,
 * what stays behind when it ends. The node comes in, lines leave. Called by node.c.
 */
#include "node_private.h"
#include "engine/base/version.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 5
/* What warrenctl looks at unless it is told. */
#define CTL_RUN_DIR "/run/warren"
#define CTL_PIN_DIR "/sys/fs/bpf"

/* Text that grows to the end of its buffer and no further. */
struct words {
	char text[600];
	size_t len;
	unsigned count;
};

static void add_word(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_word(struct words *w, const char *fmt, ...)
{
	va_list ap;
	int n;

	w->len += (size_t)snprintf(w->text + w->len, sizeof(w->text) - w->len, "%s", w->count++ ? ", " : "");
	if (w->len >= sizeof(w->text) - 1)
		w->len = sizeof(w->text) - 1;
	va_start(ap, fmt);
	n = vsnprintf(w->text + w->len, sizeof(w->text) - w->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		w->len += (size_t)n;
	if (w->len >= sizeof(w->text) - 1)
		w->len = sizeof(w->text) - 1;
}

void node_say_start(const struct node *n)
{
	struct words ranges = {0}, without = {0};
	char ready[40] = "no readiness port";
	const cJSON *i;

	for (size_t k = 0; k < n->o.n_mesh_cidrs; k++)
		add_word(&ranges, "%s", n->o.mesh_cidrs[k]);
	cJSON_ArrayForEach(i, n->without)
		add_word(&without, "%s (%s)", cJSON_GetObjectItem(i, "name")->valuestring,
			 cJSON_GetObjectItem(i, "why")->valuestring);
	if (n->o.readiness_port)
		snprintf(ready, sizeof(ready), "readiness on port %u", (unsigned)n->o.readiness_port);
	log_info("agent",
		 "warren %s: node %s, source %s, CA %s (%s, %s), trust domain %s, captures %s, workers: %u, "
		 "%s, without: %s",
		 WARREN_VERSION, n->o.node, n->o.source, n->o.ca, ca_describe(n->ca),
		 n->ca_made ? "made now" : "found there", n->o.trust_domain,
		 ranges.count ? ranges.text : "every address", (unsigned)n->o.workers, ready,
		 without.count ? without.text : "nothing, the kernel has all");
}

static bool seen(const char *const *names, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

void node_hint_name(struct node *n)
{
	const char *names[NAMES_MAX];
	struct table_iter it = {0};
	struct words others = {0};
	unsigned pods = 0;
	struct workload *w;

	while (!n->name_judged && (w = table_next(&n->model->workloads_by_uid, &it))) {
		n->name_judged = w->local;
		if (!*w->node)
			continue;
		pods++;
		if (others.count < NAMES_MAX && !seen(names, others.count, w->node)) {
			names[others.count] = w->node;
			add_word(&others, "%s", w->node);
		}
	}
	if (n->name_judged || !pods)
		return;
	n->name_judged = true;
	log_warn("agent",
		 "none of the %u pods in %s has spec.nodeName %s (seen: %s%s): is --node this node's name "
		 "there?",
		 pods, n->o.source, n->o.node, others.text, others.count == NAMES_MAX ? ", ..." : "");
}

void node_say_left(const struct node *n)
{
	bool open = !strcmp(n->o.on_agent_loss, "open"), own_run = strcmp(n->o.run_dir, CTL_RUN_DIR),
	     own_pins = strcmp(n->o.pin_dir, CTL_PIN_DIR);
	unsigned held = n->handed_over ? 0 : pods_held(n->pods);

	if (held)
		log_warn("agent",
			 "%u pods stay captured and %s until an agent is back; 'warrenctl --node=%s%s%s%s%s "
			 "pod release --all' lets them out",
			 held, open ? "their new connections pass the mesh by" : "closed", n->o.node,
			 own_run ? " --run-dir=" : "", own_run ? n->o.run_dir : "", own_pins ? " --pin-dir=" : "",
			 own_pins ? n->o.pin_dir : "");
}
