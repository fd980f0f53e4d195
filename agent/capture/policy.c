/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy that the kernel enforces by itself: a pod's modes by port, and the ports to which the kubelet's probes may go.
 * In: what the model says of one pod. Out: the entries of wr_mode and wr_probe_ports, and flags in wr_podcfg. Called by
 * agent/enroll and pod.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <string.h>

#define BATCH 1024

/* The keys of a map that are a number's: those that begin with it, or whose value it is. In batches, as there may be
 * thousands of others'. */
static int keys_of(int fd, size_t key_size, uint32_t number, bool by_value, void **ret, size_t *ret_n)
{
	_cleanup_free_ char *keys = malloc(BATCH * key_size), *found = NULL;
	_cleanup_free_ __u32 *values = calloc(BATCH, sizeof(*values));
	__u32 at, count;
	size_t n = 0;
	int r = 0;

	if (!keys || !values)
		return -ENOMEM;
	for (bool first = true; r == 0; first = false) {
		char *grown;

		count = BATCH;
		if (bpf_map_lookup_batch(fd, first ? NULL : &at, &at, keys, values, &count, NULL) < 0)
			r = -errno; /* -ENOENT with the last ones */
		if (r < 0 && r != -ENOENT)
			return r;
		grown = reallocarray(found, n + count + 1, key_size);
		if (!grown)
			return -ENOMEM;
		found = grown;
		for (__u32 i = 0; i < count; i++) {
			const char *key = keys + i * key_size;

			if (by_value ? values[i] == number : !memcmp(key, &number, sizeof(number)))
				memcpy(found + n++ * key_size, key, key_size);
		}
	}
	*ret = take_ptr(found);
	*ret_n = n;
	return 0;
}

/* --- modes --- */

/* One change of a pod's modes, under way. */
struct change {
	const struct capture *c;
	uint32_t number;
	const struct capture_modes *m;
	bool relax; /* nothing becomes strict */
	struct wr_pod_config cfg;
	struct wr_port *listed; /* the ports that have an entry before */
	size_t n_listed;
};

static bool is_strict_now(const struct change *ch, const struct wr_port *key)
{
	__u32 mode;

	if (bpf_map_lookup_elem(ch->c->maps[MAP_MODE], key, &mode) == 0)
		return mode == WR_PORT_STRICT;
	return ch->cfg.flags & WR_POD_STRICT;
}

static bool shall_be_strict(const struct change *ch, const struct wr_port *key)
{
	enum mtls_mode mode = ch->m->mode;

	for (size_t i = 0; i < ch->m->n_ports; i++)
		if (ch->m->ports[i].port == key->port)
			mode = ch->m->ports[i].mode;
	return mode == MTLS_STRICT && (!ch->relax || is_strict_now(ch, key));
}

static int set_port(const struct change *ch, struct wr_port key)
{
	__u32 mode = shall_be_strict(ch, &key) ? WR_PORT_STRICT : WR_PORT_PLAIN;

	return bpf_map_update_elem(ch->c->maps[MAP_MODE], &key, &mode, BPF_ANY) < 0 ? -errno : 0;
}

static int set_flags(struct change *ch, bool strict)
{
	ch->cfg.flags &= ~WR_POD_STRICT;
	if (strict)
		ch->cfg.flags |= WR_POD_STRICT;
	return bpf_map_update_elem(ch->c->maps[MAP_PODCFG], &ch->number, &ch->cfg, BPF_ANY) < 0 ? -errno : 0;
}

/* An entry that says what the pod's flag says. */
static void drop_if_needless(const struct change *ch, struct wr_port key)
{
	__u32 mode;

	if (bpf_map_lookup_elem(ch->c->maps[MAP_MODE], &key, &mode) == 0 &&
	    (mode == WR_PORT_STRICT) == !!(ch->cfg.flags & WR_POD_STRICT))
		(void)bpf_map_delete_elem(ch->c->maps[MAP_MODE], &key);
}

/* First every port that is an exception, before or after, says its new mode; then the flag changes for all others; then
 * the entries that the flag makes needless go. So each port changes once. */
static int make_change(struct change *ch)
{
	bool strict = ch->m->mode == MTLS_STRICT && (!ch->relax || ch->cfg.flags & WR_POD_STRICT);
	int r = 0;

	for (size_t i = 0; i < ch->m->n_ports && r == 0; i++)
		r = set_port(ch, (struct wr_port){.pod = ch->number, .port = ch->m->ports[i].port});
	for (size_t i = 0; i < ch->n_listed && r == 0; i++)
		r = set_port(ch, ch->listed[i]);
	if (r == 0)
		r = set_flags(ch, strict);
	for (size_t i = 0; i < ch->m->n_ports && r == 0; i++)
		drop_if_needless(ch, (struct wr_port){.pod = ch->number, .port = ch->m->ports[i].port});
	for (size_t i = 0; i < ch->n_listed && r == 0; i++)
		drop_if_needless(ch, ch->listed[i]);
	return r;
}

static void forget_modes(const struct capture *c, uint32_t number)
{
	_cleanup_free_ void *keys = NULL;
	size_t n;

	if (keys_of(c->maps[MAP_MODE], sizeof(struct wr_port), number, false, &keys, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		(void)bpf_map_delete_elem(c->maps[MAP_MODE], (struct wr_port *)keys + i);
}

static int change_modes(struct capture *c, uint32_t number, const struct capture_modes *m, bool relax)
{
	struct change ch = {.c = c, .number = number, .m = m, .relax = relax};
	_cleanup_free_ void *listed = NULL;
	int r;

	if (!number || number >= CAPTURE_MAX_PODS)
		return -EINVAL;
	if (bpf_map_lookup_elem(c->maps[MAP_PODCFG], &number, &ch.cfg) < 0)
		return -errno;
	if (!relax)
		ch.cfg.flags = (ch.cfg.flags & ~WR_POD_RESTRICTED) | (m->restricted ? WR_POD_RESTRICTED : 0);
	r = keys_of(c->maps[MAP_MODE], sizeof(struct wr_port), number, false, &listed, &ch.n_listed);
	ch.listed = listed;
	if (r == 0)
		r = make_change(&ch);
	if (r < 0) {
		(void)set_flags(&ch, false);
		forget_modes(c, number);
	}
	return r;
}

int capture_pod_set_modes(struct capture *c, uint32_t number, const struct capture_modes *m)
{
	return change_modes(c, number, m, false);
}

int capture_pod_relax(struct capture *c, uint32_t number, const struct capture_modes *m)
{
	return change_modes(c, number, m, true);
}

/* --- probes --- */

static bool has_probe(const struct wr_probe_port *keys, size_t n, const struct wr_probe_port *key)
{
	for (size_t i = 0; i < n; i++)
		if (!memcmp(&keys[i], key, sizeof(*key)))
			return true;
	return false;
}

int capture_pod_set_probes(struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n_addrs,
			   const uint16_t *ports, size_t n_ports)
{
	static const uint16_t every = 0;
	_cleanup_free_ struct wr_probe_port *wanted = NULL;
	_cleanup_free_ void *had = NULL;
	size_t n = 0, n_had;
	int fd = c->maps[MAP_PROBE_PORTS], r;

	if (c->every_probe) {
		ports = &every;
		n_ports = 1;
	}
	wanted = calloc(n_addrs * n_ports + 1, sizeof(*wanted));
	if (!wanted)
		return -ENOMEM;
	for (size_t i = 0; i < n_addrs; i++)
		for (size_t k = 0; k < n_ports; k++) {
			memcpy(&wanted[n].addr, &addrs[i], sizeof(wanted[n].addr));
			wanted[n++].port = ports[k];
		}
	r = keys_of(fd, sizeof(*wanted), number, true, &had, &n_had);
	for (size_t i = 0; i < n && r == 0; i++)
		if (bpf_map_update_elem(fd, &wanted[i], &number, BPF_ANY) < 0)
			r = -errno;
	for (size_t i = 0; had && i < n_had; i++)
		if (!has_probe(wanted, n, (struct wr_probe_port *)had + i))
			(void)bpf_map_delete_elem(fd, (struct wr_probe_port *)had + i);
	return r;
}

void policy_forget(const struct capture *c, uint32_t number)
{
	_cleanup_free_ void *keys = NULL;
	size_t n;

	forget_modes(c, number);
	if (keys_of(c->maps[MAP_PROBE_PORTS], sizeof(struct wr_probe_port), number, true, &keys, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		(void)bpf_map_delete_elem(c->maps[MAP_PROBE_PORTS], (struct wr_probe_port *)keys + i);
}
