/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What works without an agent: the kernel's features, the pins, taking pods out of capture. Out: results, or
 * codes with the reason remembered. Called by show.c and actions.c.
 */
#include "ctl.h"
#include "agent/capture/capture.h"
#include "engine/base/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

static int open_pins(struct ctl *c, struct capture **ret)
{
	_cleanup_free_ char *error = NULL;
	int r = client_find_pins(c);

	if (r)
		return r;
	client_enter_network(c);
	r = capture_open_readonly(c->node, c->pin_dir, ret, &error);
	if (r < 0)
		return ctl_error(c, r == -ENOENT ? CTL_NO_AGENT : CTL_MISSING, "%s", error ? error : strerror(-r));
	return CTL_OK;
}

/* What the kernel has and the node's agent goes without is missing all the same: nobody knows a probe then. */
static void mark_unused(const cJSON *dump, cJSON *probe)
{
	cJSON *i;

	cJSON_ArrayForEach(i, probe) {
		if (is_true(dump, "sockops") || strcmp(text_of(i, "name"), "sockops") || !is_true(i, "present"))
			continue;
		cJSON_ReplaceItemInObject(i, "present", cJSON_CreateFalse());
		cJSON_AddStringToObject(
			i, "why", "the kernel has it, the node's agent goes without: --assume-missing or refused");
	}
}

/* A row for each captured pod that could get around the agent: its link has no end here that is watched. */
static void add_links(const cJSON *dump, cJSON *probe)
{
	const cJSON *p;
	char text[400];
	cJSON *o;

	cJSON_ArrayForEach(p, member(dump, "pods")) {
		if (!strcmp(text_of(p, "link"), "enforced"))
			continue;
		o = cJSON_CreateObject();
		cJSON_AddStringToObject(o, "name", "link");
		cJSON_AddBoolToObject(o, "present", false);
		cJSON_AddBoolToObject(o, "required", false);
		cJSON_AddStringToObject(o, "link", text_of(p, "link"));
		snprintf(text, sizeof(text), "no way around the agent for %.64s/%.128s: its link is %s",
			 text_of(p, "namespace"), text_of(p, "name"), text_of(p, "link"));
		cJSON_AddStringToObject(o, "needed_for", text);
		cJSON_AddItemToArray(probe, o);
	}
}

/* Without pins there is nothing to tell of. */
static void add_pins(struct ctl *c, cJSON *probe)
{
	struct capture *cap = NULL;
	cJSON *dump;

	if (open_pins(c, &cap))
		return;
	dump = capture_dump(cap);
	if (dump) {
		mark_unused(dump, probe);
		add_links(dump, probe);
	}
	cJSON_Delete(dump);
	capture_close(cap);
}

int local_doctor(struct ctl *c)
{
	cJSON *probe = capture_probe(NULL), *i;
	bool missing = false;

	if (!probe)
		return ctl_error(c, CTL_BROKEN, "out of memory");
	add_pins(c, probe);
	cJSON_ArrayForEach(i, probe) {
		missing |= !is_true(i, "present") && is_true(i, "required");
	}
	if (!ctl_print_json(c, probe)) {
		static const struct column columns[] = {{"FEATURE", "name", AS_TEXT},
							{"PRESENT", "present", AS_TEXT},
							{"NEEDED FOR", "needed_for", AS_TEXT}};

		table_print(probe, columns, 3);
		cJSON_ArrayForEach(i, probe) {
			if (*text_of(i, "why"))
				printf("\n%s: %s\n", text_of(i, "name"), text_of(i, "why"));
		}
		if (geteuid())
			printf("\nnot root: what needs privileges shows as missing\n");
	}
	cJSON_Delete(probe);
	return missing ? CTL_MISSING : CTL_OK;
}

/* The namespace an earlier agent recorded, if its path still names the same one. */
static int open_recorded(const struct capture_leftover *l)
{
	_cleanup_close_ int fd = *l->netns_path ? open(l->netns_path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0 || !capture_is_netns(fd, l->netns_cookie))
		return -1;
	return take_fd(fd);
}

static void add_link(struct capture *cap, const struct capture_leftover *l, cJSON *o)
{
	_cleanup_close_ int netns = open_recorded(l);
	char buf[160];

	cJSON_AddStringToObject(o, "link", capture_pod_link(cap, l->number, netns, buf, sizeof(buf)));
}

int local_pods(struct ctl *c, cJSON **ret)
{
	struct capture_leftover *left = NULL;
	struct capture *cap = NULL;
	cJSON *array;
	size_t n = 0;
	int r = open_pins(c, &cap);

	if (r)
		return r;
	r = capture_leftovers(cap, &left, &n);
	if (r < 0) {
		capture_close(cap);
		return ctl_error(c, CTL_MISSING, "cannot read the pins: %s", strerror(-r));
	}
	array = cJSON_CreateArray();
	for (size_t i = 0; i < n; i++) {
		cJSON *o = cJSON_CreateObject();
		const char *at = strstr(left[i].uid, "//Pod/"), *slash = at ? strchr(at + 6, '/') : NULL;
		char ns[256] = "";

		if (slash)
			snprintf(ns, sizeof(ns), "%.*s", (int)(slash - at - 6), at + 6);
		cJSON_AddNumberToObject(o, "number", left[i].number);
		cJSON_AddStringToObject(o, "uid", left[i].uid);
		cJSON_AddStringToObject(o, "namespace", ns);
		cJSON_AddStringToObject(o, "name", slash ? slash + 1 : left[i].uid);
		cJSON_AddStringToObject(o, "netns", left[i].netns_path);
		cJSON_AddStringToObject(o, "state", c->silent ? "captured, agent silent" : "captured, no agent");
		add_link(cap, &left[i], o);
		cJSON_AddItemToArray(array, o);
	}
	free(left);
	capture_close(cap);
	*ret = array;
	return CTL_OK;
}

int local_bpf(struct ctl *c, cJSON **ret)
{
	struct capture *cap = NULL;
	int r = open_pins(c, &cap);

	if (r)
		return r;
	*ret = capture_dump(cap);
	capture_close(cap);
	return *ret ? CTL_OK : ctl_error(c, CTL_MISSING, "cannot read the pins");
}

static bool named(const char *uid, const char *name)
{
	const char *at = strstr(uid, "//Pod/"), *full = at ? at + 6 : uid, *slash = strchr(full, '/');

	return !name || !strcmp(uid, name) || !strcmp(full, name) || (slash && !strcmp(slash + 1, name));
}

/* Takes the pods of that name out of capture: how many there were, or -errno; *ret_left is how many others
 * stay. */
static int detach(const struct ctl *c, struct capture *cap, const char *name, size_t *ret_left)
{
	struct capture_leftover *left = NULL;
	int r, count = 0, failed = 0;
	size_t n = 0;

	r = capture_leftovers(cap, &left, &n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		int fd, e;

		if (!named(left[i].uid, name))
			continue;
		fd = open_recorded(&left[i]);
		e = capture_pod_detach(cap, left[i].number, fd);
		if (fd >= 0)
			close(fd);
		count++;
		failed = e < 0 ? e : failed;
		text_clean(left[i].uid);
		if (!c->json)
			printf("%s: %s\n", left[i].uid, e < 0 ? strerror(-e) : "out of capture");
	}
	free(left);
	*ret_left = n - (size_t)count;
	return failed ? failed : count;
}

static void print_released(const struct ctl *c, int count, cJSON *removed)
{
	cJSON *o = cJSON_CreateObject(), *i;

	cJSON_AddNumberToObject(o, "pods", count);
	if (removed)
		cJSON_AddItemToObject(o, "removed", removed);
	if (!ctl_print_json(c, o))
		cJSON_ArrayForEach(i, removed) {
			printf("removed: %s\n", cJSON_GetStringValue(i));
		}
	cJSON_Delete(o);
}

/* Locked, or -1 with errno: EWOULDBLOCK when an agent has it. */
static int lock(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -1;
	return take_fd(fd);
}

/* The two locks of the node's agent, as far as there are files for them. One that is starting or ending answers no
 * call, but has them. */
static int hold_node(struct ctl *c, int *ret_run_dir, int *ret_pins)
{
	char folder[4096], path[4200];
	int r = client_find_pins(c);

	if (r)
		return r;
	client_pin_path(c, c->node, folder, sizeof(folder));
	snprintf(path, sizeof(path), "%s/%s/lock", c->run_dir, c->node);
	*ret_run_dir = lock(path);
	if (*ret_run_dir >= 0 || errno == ENOENT)
		*ret_pins = lock(folder);
	if (*ret_pins >= 0 || errno == ENOENT)
		return CTL_OK;
	return ctl_error(c, CTL_REFUSED, "node %s: nothing was released: %s", c->node,
			 errno == EWOULDBLOCK ? "an agent is starting or ending; try again" : strerror(errno));
}

int local_release(struct ctl *c, const char *name)
{
	_cleanup_close_ int run_dir = -1, pins = -1;
	struct capture *cap = NULL;
	int r = hold_node(c, &run_dir, &pins), count;
	cJSON *removed = NULL;
	size_t left = 0;

	if (r == CTL_OK)
		r = open_pins(c, &cap);
	if (r)
		return r;
	count = detach(c, cap, name, &left);
	capture_close(cap);
	if (count < 0)
		return ctl_error(c, CTL_MISSING, "release: %s", strerror(-count));
	if (!count && name)
		return ctl_error(c, CTL_NOT_SO, "no captured pod is called %s", name);
	if (!name && !left) {
		removed = cJSON_CreateArray();
		r = unpin_node(c, removed);
	}
	/* In JSON mode there is one answer: what could not be done, or what was. */
	if (c->json && r)
		cJSON_Delete(removed);
	else
		print_released(c, count, removed);
	return r;
}

int local_prove(struct ctl *c, const char *name)
{
	struct capture *cap = NULL;
	int r = open_pins(c, &cap);

	if (r)
		return r;
	r = prove(c, cap, name);
	capture_close(cap);
	return r;
}
