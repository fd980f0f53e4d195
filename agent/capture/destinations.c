/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Known VIPs and un-enrolled pods, as the map wr_dest. In: the model and what changed in it. Out: map
 * entries, at a cost of what changed. Called by agent/node.c on the control thread after each change.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <string.h>

/* The model alone says what an address is: entries never depend on the order of changes. */
static __u32 flags_of(const struct model *m, const struct ip_addr *a)
{
	const struct workload *w = model_workload_by_addr(m, a);
	__u32 flags = model_service_by_vip(m, a) ? WR_DEST_VIP : 0;

	if (w && w->protocol == TUNNEL_NONE)
		flags |= WR_DEST_UNENROLLED;
	return flags;
}

static int update(struct capture *c, const struct model *m, const struct ip_addr *a)
{
	__u32 flags = flags_of(m, a);

	if (flags)
		return bpf_map_update_elem(c->maps[MAP_DEST], a, &flags, BPF_ANY) < 0 ? -errno : 0;
	return bpf_map_delete_elem(c->maps[MAP_DEST], a) < 0 && errno != ENOENT ? -errno : 0;
}

static int update_list(struct capture *c, const struct model *m, const struct ip_addr *a, size_t n)
{
	int first = 0;

	for (size_t i = 0; i < n; i++) {
		int r = update(c, m, &a[i]);

		first = first ? first : r;
	}
	return first;
}

static int forget_workload(struct capture *c, const struct model *m, const char *uid)
{
	struct workload *w = table_del(&c->workloads, uid, strlen(uid));
	int r = w ? update_list(c, m, w->addrs, w->n_addrs) : 0;

	workload_unref(w);
	return r;
}

static int forget_service(struct capture *c, const struct model *m, const char *hostname)
{
	struct service *s = table_del(&c->services, hostname, strlen(hostname));
	int r = s ? update_list(c, m, s->vips, s->n_vips) : 0;

	service_unref(s);
	return r;
}

static int remember_workload(struct capture *c, const struct model *m, struct workload *w)
{
	int r = forget_workload(c, m, w->uid), s;

	s = table_put(&c->workloads, w->uid, strlen(w->uid), workload_ref(w), NULL);
	if (s < 0) {
		workload_unref(w);
		return s;
	}
	s = update_list(c, m, w->addrs, w->n_addrs);
	return r ? r : s;
}

static int remember_service(struct capture *c, const struct model *m, struct service *s)
{
	int r = forget_service(c, m, s->hostname), t;

	t = table_put(&c->services, s->hostname, strlen(s->hostname), service_ref(s), NULL);
	if (t < 0) {
		service_unref(s);
		return t;
	}
	t = update_list(c, m, s->vips, s->n_vips);
	return r ? r : t;
}

bool capture_wants(const struct capture *c, const struct ip_addr *dst)
{
	struct wr_mesh_key key = {.prefixlen = 128};
	__u32 flags = 0, in_mesh;

	memcpy(&key.addr, dst, sizeof(key.addr));
	(void)bpf_map_lookup_elem(c->maps[MAP_DEST], dst, &flags);
	return flags & WR_DEST_VIP ||
	       (!(flags & WR_DEST_UNENROLLED) && !bpf_map_lookup_elem(c->maps[MAP_MESH], &key, &in_mesh));
}

/* Entries of an earlier agent that the model does not have. */
static void sweep(struct capture *c, const struct model *m)
{
	struct ip_addr key, next;
	bool have = false;

	while (bpf_map_get_next_key(c->maps[MAP_DEST], have ? &key : NULL, &next) == 0) {
		if (flags_of(m, &next)) {
			key = next;
			have = true;
		} else if (bpf_map_delete_elem(c->maps[MAP_DEST], &next) < 0) {
			return;
		}
	}
}

/* All of them: those that had no room may have some now. */
static int update_all(struct capture *c, const struct model *m)
{
	struct table_iter workloads = {0}, services = {0};
	const struct workload *w;
	const struct service *s;
	int first = 0, r;

	while ((w = table_next(&c->workloads, &workloads))) {
		r = update_list(c, m, w->addrs, w->n_addrs);
		first = first ? first : r;
	}
	while ((s = table_next(&c->services, &services))) {
		r = update_list(c, m, s->vips, s->n_vips);
		first = first ? first : r;
	}
	return first;
}

#define TEXT(x) #x
#define NUMBER(x) TEXT(x)
#define BEYOND ": Services beyond are captured only inside --mesh-cidr"

const char *capture_alarm(const struct capture *c)
{
	return !c->behind	     ? NULL
	       : c->behind == -E2BIG ? "the kernel's list of addresses is full (" NUMBER(
					       CAPTURE_MAX_DESTINATIONS) " Services and pods outside the mesh)" BEYOND
				     : "the kernel's list of addresses cannot be written" BEYOND;
}

int capture_apply_model(struct capture *c, const struct model *m, const struct model_delta *d)
{
	int first = 0, r;

	for (size_t i = 0; i < d->n_removed_workloads; i++) {
		r = forget_workload(c, m, d->removed_workloads[i]);
		first = first ? first : r;
	}
	for (size_t i = 0; i < d->n_removed_services; i++) {
		r = forget_service(c, m, d->removed_services[i]);
		first = first ? first : r;
	}
	for (size_t i = 0; i < d->n_workloads; i++) {
		r = remember_workload(c, m, d->workloads[i]);
		first = first ? first : r;
	}
	for (size_t i = 0; i < d->n_services; i++) {
		r = remember_service(c, m, d->services[i]);
		first = first ? first : r;
	}
	if (!c->swept) {
		sweep(c, m);
		c->swept = true;
	}
	if (c->behind && first == 0)
		first = update_all(c, m);
	c->behind = first;
	return first;
}
