/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this kernel and system offer. In: nothing, or the features to call missing. Out: one report, each
 * feature with what it is needed for. Called by capture.c, by agent/node.c at start and by `warrenctl doctor`.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cjson/cJSON.h>
#include <linux/bpf.h>
#include <mntent.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/vfs.h>

#define BPFFS_MAGIC 0xcafe4a11
#define NETNS_COOKIE_OPTION 71 /* SO_NETNS_COOKIE */

bool probe_assumed_missing(const char *list, const char *name)
{
	size_t len = strlen(name);

	while (list && *list) {
		size_t n = strcspn(list, ",");

		if (n == len && !memcmp(list, name, n))
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

char *probe_cgroup2(void)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	char *path = NULL;
	struct mntent *e;

	if (!f)
		return NULL;
	while (!path && (e = getmntent(f)))
		if (!strcmp(e->mnt_type, "cgroup2"))
			path = strdup(e->mnt_dir);
	endmntent(f);
	return path;
}

static bool has_bpffs(void)
{
	struct statfs s;

	return statfs("/sys/fs/bpf", &s) == 0 && (unsigned long)s.f_type == BPFFS_MAGIC;
}

static bool has_btf(void)
{
	return access("/sys/kernel/btf/vmlinux", R_OK) == 0;
}

static bool has_cgroup2(void)
{
	_cleanup_free_ char *path = probe_cgroup2();

	return path != NULL;
}

static bool has_ipv6(void)
{
	return access("/proc/sys/net/ipv6", F_OK) == 0;
}

static bool has_netns_cookie(void)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, NETNS_COOKIE_OPTION, &cookie, &len) == 0;
}

static bool has_sk_assign(void)
{
	return libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_sk_assign, NULL) == 1;
}

static bool has_skc_lookup(void)
{
	return libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_skc_lookup_tcp, NULL) == 1;
}

static bool has_sk_storage(void)
{
	return libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_sk_storage_get, NULL) == 1;
}

static bool has_sockops(void)
{
	return has_cgroup2() && libbpf_probe_bpf_helper(BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_get_netns_cookie, NULL) == 1;
}

static bool has_ringbuf(void)
{
	return libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, NULL) == 1;
}

static const struct feature {
	const char *name;
	bool (*fn)(void);
	bool required;
	const char *needed_for;
} features[] = {
	{"btf", has_btf, true, "loading any program"},
	{"bpffs", has_bpffs, true, "pins that outlive the agent (mount -t bpf bpf /sys/fs/bpf)"},
	{"sk_assign", has_sk_assign, true, "handing captured connections to the agent (Linux 5.7)"},
	{"skc_lookup", has_skc_lookup, true, "telling existing connections from new ones (Linux 5.2)"},
	{"sk_storage", has_sk_storage, true, "verdicts that outlive the agent (Linux 5.2)"},
	{"netns_cookie", has_netns_cookie, true, "telling pods apart (Linux 5.14)"},
	{"ringbuf", has_ringbuf, true, "reports of what the kernel itself refused (Linux 5.8)"},
	{"tcx", link_tcx_supported, false, "links that nobody else can remove (Linux 6.6); without: clsact filters"},
	{"cgroup2", has_cgroup2, false, "attaching sockops (mount -t cgroup2 none /sys/fs/cgroup/unified)"},
	{"sockops", has_sockops, false,
	 "cheap congestion control between app and agent, and knowing the kubelet's probes (Linux 5.15); without: more "
	 "CPU "
	 "per byte, and probes are subject to policy"},
	{"ipv6", has_ipv6, false, "capturing IPv6; without: IPv4 alone"},
};

int probe_required(const char *assume_missing, char **ret_error)
{
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];

		if (!f->required || f->fn == has_bpffs)
			continue;
		if (probe_assumed_missing(assume_missing, f->name) || !f->fn())
			return capture_fail(ret_error, -EOPNOTSUPP, "this kernel lacks %s, needed for %s", f->name,
					    f->needed_for);
	}
	return 0;
}

struct cJSON *capture_probe(const char *assume_missing)
{
	cJSON *list = cJSON_CreateArray();

	for (size_t i = 0; list && i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		bool assumed = probe_assumed_missing(assume_missing, f->name);
		cJSON *o = cJSON_CreateObject();

		if (!o)
			break;
		cJSON_AddStringToObject(o, "name", f->name);
		cJSON_AddBoolToObject(o, "present", !assumed && f->fn());
		if (assumed)
			cJSON_AddBoolToObject(o, "assumed_missing", true);
		cJSON_AddBoolToObject(o, "required", f->required);
		cJSON_AddStringToObject(o, "needed_for", f->needed_for);
		cJSON_AddItemToArray(list, o);
	}
	return list;
}

/* What the kernel has may still have been refused to us: what capture uses counts. */
static const char *lacks(const struct capture *c, const struct feature *f)
{
	if (probe_assumed_missing(c->assume_missing, f->name))
		return "assumed missing";
	if (!f->fn())
		return "missing";
	if ((f->fn == has_sockops && !c->sockops) || (f->fn == link_tcx_supported && !c->tcx))
		return "refused";
	return NULL;
}

struct cJSON *capture_without(const struct capture *c)
{
	cJSON *list = cJSON_CreateArray();

	for (size_t i = 0; list && i < ARRAY_SIZE(features); i++) {
		const char *why = features[i].required ? NULL : lacks(c, &features[i]);
		cJSON *o = why ? cJSON_CreateObject() : NULL;

		if (!o)
			continue;
		cJSON_AddStringToObject(o, "name", features[i].name);
		cJSON_AddStringToObject(o, "why", why);
		cJSON_AddItemToArray(list, o);
	}
	return list;
}
