/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a node's capture and marking sockets. In: the node's configuration. Out: maps and the sockops link
 * in force. Called by agent/node.c, by workers (capture_claim_socket) and by warrenctl (read-only).
 */
#include "private.h"
#include "engine/base/addr.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_PIN_DIR "/sys/fs/bpf"

/* libbpf's own words go to the debug log: many are about the things we try first. */
static int print_libbpf(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	_cleanup_free_ char *text = NULL;
	int n;

	if (level == LIBBPF_DEBUG || !log_enabled(LOG_DEBUG_LEVEL))
		return 0;
	n = vasprintf(&text, fmt, ap);
	if (n < 0) {
		text = NULL;
		return 0;
	}
	if (n && text[n - 1] == '\n')
		text[n - 1] = '\0';
	log_write(LOG_DEBUG_LEVEL, "libbpf", "%s", text);
	return n;
}

static int allocate(const char *node, const char *pin_dir, struct capture **ret)
{
	char folder[PINS_FOLDER_MAX];
	struct capture *c;
	int n;

	if (!pins_folder(node, folder))
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	for (int i = 0; i < MAP_MAX_; i++)
		c->maps[i] = -1;
	c->node = strdup(node);
	n = snprintf(c->dir, sizeof(c->dir), "%s/" WR_PIN_ROOT "/%s/v%d", pin_dir ? pin_dir : DEFAULT_PIN_DIR, folder,
		     WR_ABI_VERSION);
	if (!c->node || n >= (int)sizeof(c->dir)) {
		capture_close(c);
		return c->node ? -ENAMETOOLONG : -ENOMEM;
	}
	libbpf_set_print(print_libbpf);
	*ret = c;
	return 0;
}

static int apply_ranges(struct capture *c, const struct capture_config *cfg, char **ret_error)
{
	_cleanup_free_ struct wr_mesh_key *keys = calloc(cfg->n_mesh_cidrs + 1, sizeof(*keys));
	size_t n = cfg->n_mesh_cidrs;
	int r;

	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct ip_addr a;
		unsigned bits;

		r = ip_cidr_parse(cfg->mesh_cidrs[i], &a, &bits);
		if (r < 0)
			return capture_fail(ret_error, r, "'%s' is not an address range", cfg->mesh_cidrs[i]);
		keys[i].prefixlen = bits;
		memcpy(&keys[i].addr, &a, sizeof(a));
	}
	/* None: ::/0, which the calloc already wrote. */
	r = pins_sync_keys(c->maps[MAP_MESH], keys, sizeof(*keys), n ? n : 1);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot write the mesh ranges (%zu, at most %d): %s", n,
				    CAPTURE_MAX_MESH_RANGES, strerror(-r));
	return 0;
}

static int apply_ports(struct capture *c, const struct capture_config *cfg, char **ret_error)
{
	_cleanup_free_ __u32 *keys = calloc(cfg->n_excluded_ports + 1, sizeof(*keys));
	int r;

	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < cfg->n_excluded_ports; i++)
		keys[i] = cfg->excluded_ports[i];
	r = pins_sync_keys(c->maps[MAP_EXCL], keys, sizeof(*keys), cfg->n_excluded_ports);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot write the excluded ports (%zu, at most %d): %s",
				    cfg->n_excluded_ports, CAPTURE_MAX_EXCLUDED_PORTS, strerror(-r));
	return 0;
}

/* Pods that an earlier agent left get the flags of this one's command line; what policy says of them stays. */
static void apply_flags(struct capture *c)
{
	for (__u32 number = 1; number < CAPTURE_MAX_PODS; number++) {
		struct wr_pod_config p;

		if (bpf_map_lookup_elem(c->maps[MAP_PODCFG], &number, &p) < 0 || p.mode == WR_POD_OFF)
			continue;
		p.flags = pod_flags(c, p.flags);
		(void)bpf_map_update_elem(c->maps[MAP_PODCFG], &number, &p, BPF_ANY);
	}
}

int capture_open(const struct capture_config *cfg, struct capture **ret, char **ret_error)
{
	const char *pin_dir = cfg->pin_dir ? cfg->pin_dir : DEFAULT_PIN_DIR;
	struct capture *c = NULL;
	char pods[600];
	int r = allocate(cfg->node, pin_dir, &c);

	if (r < 0)
		return capture_fail(ret_error, r, "node name '%s': %s", cfg->node ? cfg->node : "", strerror(-r));
	c->open_on_loss = cfg->on_agent_loss_open;
	c->every_probe = cfg->exempt_node_sockets;
	c->anti_spoof = cfg->anti_spoof;
	if (cfg->assume_missing) {
		c->assume_missing = strdup(cfg->assume_missing);
		if (!c->assume_missing) {
			capture_close(c);
			return -ENOMEM;
		}
	}
	c->tcx = !probe_assumed_missing(cfg->assume_missing, "tcx") && link_tcx_supported();
	c->sockops = !probe_assumed_missing(cfg->assume_missing, "sockops");
	r = probe_required(cfg->assume_missing, ret_error);
	if (r == 0)
		r = pins_check_bpffs(pin_dir, ret_error);
	if (r == 0) {
		snprintf(pods, sizeof(pods), "%s/pods", c->dir);
		r = pins_make_dir(pods);
		if (r < 0)
			capture_fail(ret_error, r, "cannot make %s: %s", pods, strerror(-r));
	}
	if (r == 0)
		r = pins_load_node(c, ret_error);
	if (r == 0)
		r = apply_ranges(c, cfg, ret_error);
	if (r == 0)
		r = apply_ports(c, cfg, ret_error);
	if (r < 0) {
		capture_close(c);
		return r;
	}
	apply_flags(c);
	*ret = c;
	return 0;
}

int capture_open_readonly(const char *node, const char *pin_dir, struct capture **ret, char **ret_error)
{
	struct capture *c = NULL;
	char path[600];
	struct stat st;
	int r = allocate(node, pin_dir, &c);

	if (r < 0)
		return capture_fail(ret_error, r, "node name '%s': %s", node ? node : "", strerror(-r));
	c->readonly = true;
	c->tcx = link_tcx_supported();
	snprintf(path, sizeof(path), "%s/app_socket", c->dir);
	c->sockops = stat(path, &st) == 0;
	if (stat(c->dir, &st) < 0)
		r = capture_fail(ret_error, -errno, "node %s has no pins at %s: %s", node, c->dir, strerror(errno));
	else
		r = pins_open_maps(c, ret_error);
	if (r < 0) {
		capture_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct capture *capture_close(struct capture *c)
{
	struct table_iter it = {};
	void *v;

	if (!c)
		return NULL;
	capture_unwatch_denials(c);
	for (int i = 0; i < MAP_MAX_; i++)
		if (c->maps[i] >= 0)
			close(c->maps[i]);
	while ((v = table_next(&c->workloads, &it)))
		workload_unref(v);
	it = (struct table_iter){};
	while ((v = table_next(&c->services, &it)))
		service_unref(v);
	table_done(&c->workloads);
	table_done(&c->services);
	free(c->assume_missing);
	free(c->node);
	free(c);
	return NULL;
}

static int set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

int capture_claim_socket(void *arg, int fd, enum socket_role role)
{
	const struct capture *c = arg;
	struct wr_sock s = {.kind = role == SOCKET_TO_APP ? WR_SOCK_TO_APP : WR_SOCK_TUNNEL};
	int r;

	if (bpf_map_update_elem(c->maps[MAP_SOCK], &fd, &s, BPF_ANY) < 0)
		return -errno;
	if (role != SOCKET_TO_APP)
		return 0;
	/* Of the level of IPv4, and in force for IPv6 sockets too. */
	r = set(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
	if (r == 0)
		r = set(fd, SOL_SOCKET, SO_MARK, (int)WR_MARK_TO_APP);
	/* The hop never leaves the pod. A kernel without reno has no TCP. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	return r;
}
