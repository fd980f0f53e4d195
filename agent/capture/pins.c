/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's pins: bpffs itself, the shared maps, the sockops link. In: a node's folder. Out: descriptors of
 * maps that exist once per node and outlive the agent. Called by capture.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "bpf/app_socket.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define BPFFS_MAGIC 0xcafe4a11

const char *const map_names[MAP_MAX_] = {
	[MAP_PODS] = "wr_pods",
	[MAP_PODCFG] = "wr_podcfg",
	[MAP_MESH] = "wr_mesh",
	[MAP_DEST] = "wr_dest",
	[MAP_EXCL] = "wr_excl",
	[MAP_SOCK] = "wr_sock",
	[MAP_COUNT] = "wr_count",
	[MAP_HINT] = "wr_hint",
	[MAP_PODREC] = "wr_podrec",
	[MAP_MODE] = "wr_mode",
	[MAP_DENIED] = "wr_denied",
	[MAP_EVENTS] = "wr_events",
	[MAP_PROBE_PORTS] = "wr_probe_ports",
	[MAP_PROBE_FLOWS] = "wr_probe_flows",
	[MAP_PODIP] = "wr_podip",
	[MAP_LINKREC] = "wr_linkrec",
};

int pins_check_bpffs(const char *pin_dir, char **ret_error)
{
	struct statfs s;

	if (statfs(pin_dir, &s) == 0 && (unsigned long)s.f_type == BPFFS_MAGIC)
		return 0;
	if (mount("bpf", pin_dir, "bpf", 0, NULL) == 0)
		return 0;
	return capture_fail(ret_error, -ENODEV,
			    "%s is not a bpffs and cannot be mounted (%s); run: mount -t bpf bpf %s", pin_dir,
			    strerror(errno), pin_dir);
}

int pins_make_dir(const char *path)
{
	char buf[600];
	size_t len = strlen(path);

	if (len >= sizeof(buf))
		return -ENAMETOOLONG;
	memcpy(buf, path, len + 1);
	for (char *p = buf + 1;; p++) {
		if (*p && *p != '/')
			continue;
		char saved = *p;

		*p = '\0';
		if (mkdir(buf, 0700) < 0 && errno != EEXIST)
			return -errno;
		*p = saved;
		if (!saved)
			return 0;
	}
}

bool pins_folder(const char *node, char ret[PINS_FOLDER_MAX])
{
	size_t n = node ? strlen(node) : 0;

	if (!n || n >= PINS_FOLDER_MAX || *node == '.' || strpbrk(node, "/:"))
		return false;
	for (size_t i = 0; i <= n; i++)
		ret[i] = node[i] == '.' ? ':' : node[i];
	return true;
}

int capture_pin_folder(const char *node, const char *pin_dir, char **ret_path, char **ret_error)
{
	_cleanup_free_ char *path = NULL;
	char folder[PINS_FOLDER_MAX];
	int r = pins_check_bpffs(pin_dir, ret_error);

	if (r < 0)
		return r;
	if (!pins_folder(node, folder))
		return capture_fail(ret_error, -EINVAL, "node name '%s' is not a folder's", node);
	if (asprintf(&path, "%s/" WR_PIN_ROOT "/%s", pin_dir, folder) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	r = pins_make_dir(path);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot make %s: %s", path, strerror(-r));
	*ret_path = take_ptr(path);
	return 0;
}

int pins_open_maps(struct capture *c, char **ret_error)
{
	for (int i = 0; i < MAP_MAX_; i++) {
		char path[600];

		if (c->maps[i] >= 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", c->dir, map_names[i]);
		c->maps[i] = bpf_obj_get(path);
		if (c->maps[i] < 0 && c->readonly && i >= MAP_MODE)
			continue;
		if (c->maps[i] < 0)
			return capture_fail(ret_error, -errno, "cannot open %s: %s", path, strerror(errno));
	}
	return 0;
}

int pins_update_link(const char *path, int prog_fd)
{
	_cleanup_close_ int link = bpf_obj_get(path);

	if (link < 0)
		return -ENOENT;
	if (bpf_link_update(link, prog_fd, NULL) == 0)
		return 0;
	return unlink(path) < 0 ? -errno : -ENOENT;
}

static int attach_sockops(struct capture *c, int prog_fd)
{
	_cleanup_free_ char *cgroup = probe_cgroup2();
	_cleanup_close_ int link = -1, dir = -1;
	char path[600];
	int r;

	if (!cgroup)
		return -ENODEV;
	snprintf(path, sizeof(path), "%s/app_socket", c->dir);
	r = pins_update_link(path, prog_fd);
	if (r != -ENOENT)
		return r;
	dir = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	link = bpf_link_create(prog_fd, dir, BPF_CGROUP_SOCK_OPS, NULL);
	if (link < 0)
		return -errno;
	return bpf_obj_pin(link, path) < 0 ? -errno : 0;
}

static void detach_sockops(struct capture *c)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/app_socket", c->dir);
	(void)unlink(path);
}

static bool matches(const char *pattern)
{
	glob_t g = {};
	bool found = glob(pattern, GLOB_NOSORT, NULL, &g) == 0;

	globfree(&g);
	return found;
}

/* Where pods have cgroups of version 1 only, a hostNetwork pod cannot be told from the kubelet. */
static bool pods_are_seen(const char *cgroup2)
{
	char pattern[600];

	snprintf(pattern, sizeof(pattern), "%s/kubepods*", cgroup2);
	return matches(pattern) || !matches("/sys/fs/cgroup/*/kubepods*");
}

/* What the sockops program must know of this node: the agent's own namespace and the root of the cgroups it sees. */
static int fill_constants(struct wr_node_constants *n)
{
	_cleanup_free_ char *cgroup = probe_cgroup2();
	uint64_t cookie;
	struct stat st;
	int r;

	if (!cgroup || stat(cgroup, &st) < 0)
		return -ENODEV;
	if (!pods_are_seen(cgroup)) {
		log_warn("capture",
			 "pods have cgroups of version 1, which do not tell the kubelet from a hostNetwork pod: "
			 "its probes are subject to policy");
		return 0;
	}
	r = netns_cookie(&cookie);
	if (r < 0)
		return r;
	n->netns_cookie = cookie;
	n->cgroup = st.st_ino;
	return 0;
}

static int load_object(struct capture *c, bool sockops, struct app_socket **ret)
{
	struct app_socket *obj = app_socket__open();
	struct bpf_map *map;
	int r;

	if (!obj)
		return -errno;
	bpf_object__for_each_map(map, obj->obj)
	{
		char path[600];

		if (bpf_map__is_internal(map))
			continue;
		snprintf(path, sizeof(path), "%s/%s", c->dir, bpf_map__name(map));
		r = bpf_map__set_pin_path(map, path);
		if (r < 0)
			goto fail;
	}
	bpf_program__set_autoload(obj->progs.app_socket, sockops);
	r = sockops ? fill_constants(&obj->rodata->node) : 0;
	if (r < 0)
		goto fail;
	r = app_socket__load(obj);
	if (r < 0)
		goto fail;
	*ret = obj;
	return 0;
fail:
	app_socket__destroy(obj);
	return r;
}

int pins_load_node(struct capture *c, char **ret_error)
{
	struct app_socket *obj = NULL;
	int r = load_object(c, c->sockops, &obj);

	if (r < 0 && c->sockops) {
		log_warn("capture", "sockops program refused (%s): going on without it", strerror(-r));
		c->sockops = false;
		r = load_object(c, false, &obj);
	}
	if (r < 0)
		return capture_fail(
			ret_error, r,
			"cannot create or adopt the maps in %s: %s (maps of another layout? release all pods "
			"and remove the folder)",
			c->dir, strerror(-r));
	r = pins_open_maps(c, ret_error);
	if (r == 0 && c->sockops) {
		int s = attach_sockops(c, bpf_program__fd(obj->progs.app_socket));

		if (s < 0) {
			log_warn("capture", "sockops not attached (%s): going on without it", strerror(-s));
			c->sockops = false;
		}
	} else if (r == 0) {
		detach_sockops(c);
	}
	app_socket__destroy(obj);
	return r;
}

static bool contains(const void *keys, size_t key_size, size_t n, const void *key)
{
	for (size_t i = 0; i < n; i++)
		if (!memcmp((const char *)keys + i * key_size, key, key_size))
			return true;
	return false;
}

int pins_sync_keys(int map_fd, const void *keys, size_t key_size, size_t n)
{
	char key[32], next[32];
	bool have = false;
	__u32 one = 1;

	if (key_size > sizeof(key))
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (bpf_map_update_elem(map_fd, (const char *)keys + i * key_size, &one, BPF_ANY) < 0)
			return -errno;
	while (bpf_map_get_next_key(map_fd, have ? key : NULL, next) == 0) {
		if (contains(keys, key_size, n, next)) {
			memcpy(key, next, key_size);
			have = true;
		} else if (bpf_map_delete_elem(map_fd, next) < 0) {
			return -errno;
		}
	}
	return 0;
}
