/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pod: attached as a transaction, drained, detached. In: its namespace and number. Out: programs, map
 * entries, rules and listeners in force, or nothing. The mode in wr_podcfg is written last and taken back
 * first, so programs do nothing for a pod that is half attached. Called by agent/enroll, and by warrenctl
 * (detach) without an agent.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>

static const uint16_t listener_ports[3] = {WR_PORT_OUTBOUND, WR_PORT_INBOUND, WR_PORT_HBONE};

static int remember_qdisc(struct wr_pod_record *rec, unsigned ifindex)
{
	for (size_t i = 0; i < CAPTURE_MAX_INTERFACES; i++)
		if (!rec->clsact[i] || rec->clsact[i] == ifindex) {
			rec->clsact[i] = ifindex;
			return 0;
		}
	return -ENOSPC;
}

static bool made_qdisc(const struct wr_pod_record *rec, unsigned ifindex)
{
	for (size_t i = 0; i < CAPTURE_MAX_INTERFACES; i++)
		if (rec->clsact[i] == ifindex)
			return true;
	return false;
}

/* 1 when it was attached, 0 when it is there already and may stay. */
static int attach_one(struct instances *s, unsigned ifindex, enum place where, bool replace, struct wr_pod_record *rec)
{
	struct attachment a = {.c = s->c, .number = s->number, .ifindex = ifindex, .where = where};
	bool made = false;
	int r;

	if (!replace && link_attached(&a))
		return 0;
	r = instances_get(s, where);
	if (r >= 0)
		r = link_attach(&a, r, &made);
	if (made && remember_qdisc(rec, ifindex) < 0) {
		link_remove_clsact(ifindex, true);
		return -ENOSPC;
	}
	return r < 0 ? r : 1;
}

/* lo first: pod_out must not send there what nobody takes. In the pod's namespace. */
static int attach_all(struct instances *s, const struct interface *list, size_t n, bool replace,
		      struct wr_pod_record *rec)
{
	int count = 0, r = -ENODEV;

	for (size_t i = 0; i < n; i++)
		if (list[i].ifindex == 1) {
			r = attach_one(s, 1, PLACE_LO, replace, rec);
			count += r > 0;
		}
	for (size_t i = 0; i < n && r >= 0; i++) {
		if (list[i].ifindex == 1)
			continue;
		r = attach_one(s, list[i].ifindex, PLACE_IN, replace, rec);
		count += r > 0;
		if (r >= 0) {
			r = attach_one(s, list[i].ifindex, PLACE_OUT, replace, rec);
			count += r > 0;
		}
	}
	return r < 0 ? r : count;
}

static int lookup_record(const struct capture *c, uint32_t number, struct wr_pod_record *ret)
{
	return bpf_map_lookup_elem(c->maps[MAP_PODREC], &number, ret) < 0 ? -errno : 0;
}

static int store_record(const struct capture *c, uint32_t number, const struct wr_pod_record *rec)
{
	return bpf_map_update_elem(c->maps[MAP_PODREC], &number, rec, BPF_ANY) < 0 ? -errno : 0;
}

__u32 pod_flags(const struct capture *c, __u32 now)
{
	now &= ~(WR_POD_OPEN | WR_POD_LINK_COUNT | WR_POD_LINK_OFF);
	return now | (c->open_on_loss ? WR_POD_OPEN : 0) | (c->anti_spoof == ANTI_SPOOF_COUNT ? WR_POD_LINK_COUNT : 0) |
	       (c->anti_spoof == ANTI_SPOOF_OFF ? WR_POD_LINK_OFF : 0);
}

/* What policy says of the pod stays. */
static int set_mode(const struct capture *c, uint32_t number, enum wr_pod_mode mode)
{
	struct wr_pod_config p;

	if (bpf_map_lookup_elem(c->maps[MAP_PODCFG], &number, &p) < 0)
		return -errno;
	p.mode = mode;
	p.flags = pod_flags(c, p.flags);
	return bpf_map_update_elem(c->maps[MAP_PODCFG], &number, &p, BPF_ANY) < 0 ? -errno : 0;
}

/* Keeps the counters of a pod that is adopted. */
static int make_counters(const struct capture *c, uint32_t number)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct wr_count *zero = cpus > 0 ? calloc((size_t)cpus, sizeof(*zero)) : NULL;

	if (!zero)
		return -ENOMEM;
	if (bpf_map_update_elem(c->maps[MAP_COUNT], &number, zero, BPF_NOEXIST) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

static int open_listeners(const struct capture *c, const int passed[3], int fds[3], char **ret_error)
{
	for (int i = 0; i < 3; i++) {
		int r;

		if (passed && passed[0] >= 0) {
			fds[i] = passed[i];
			r = listener_adopt(c, fds[i], listener_ports[i]);
			if (r < 0)
				return capture_fail(ret_error, r, "cannot claim the passed listener of port %u: %s",
						    listener_ports[i], strerror(-r));
			continue;
		}
		r = listener_open(c, listener_ports[i], ret_error);
		if (r < 0)
			return r;
		fds[i] = r;
	}
	return 0;
}

/* Everything that happens inside the pod's namespace. */
static int attach_inside(struct instances *s, const struct capture_pod *pod, const int passed[3],
			 struct wr_pod_record *rec, int fds[3], struct interface **ret_list, size_t *ret_n,
			 char **ret_error)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	int r = netns_enter(pod->netns_fd, &g);

	if (r < 0)
		return capture_fail(ret_error, r, "cannot enter the pod's network namespace: %s", strerror(-r));
	r = netns_prepare(&rec->made, ret_error);
	if (r == 0)
		r = open_listeners(s->c, passed, fds, ret_error);
	if (r < 0)
		return r;
	r = interfaces_list(ret_list, ret_n);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot list the pod's interfaces: %s", strerror(-r));
	r = attach_all(s, *ret_list, *ret_n, true, rec);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot attach the programs (%s): %s", s->c->tcx ? "tcx" : "clsact",
				    strerror(-r));
	return 0;
}

/* The record is stored before and after, so that whatever was made is known even if the process dies between. */
static int attach_programs(struct capture *c, const struct capture_pod *pod, const int passed[3],
			   struct wr_pod_record *rec, int fds[3], char **ret_error)
{
	_cleanup_(instances_done) struct instances s = INSTANCES(c, pod->number);
	_cleanup_free_ struct interface *list = NULL;
	size_t n = 0;
	int r = attach_inside(&s, pod, passed, rec, fds, &list, &n, ret_error), stored;

	if (r == 0)
		r = node_end_attach(&s, pod->netns_fd, list, n, true, ret_error);
	stored = store_record(c, pod->number, rec);
	return r < 0 ? r : stored;
}

/* Everything of a number but what is in the pod's namespace and its cookie's entry. */
static int forget(struct capture *c, uint32_t number)
{
	struct wr_pod_config off = {.mode = WR_POD_OFF};
	int r = bpf_map_update_elem(c->maps[MAP_PODCFG], &number, &off, BPF_ANY) < 0 ? -errno : 0;

	link_remove_pins(c, number);
	policy_forget(c, number);
	(void)bpf_map_delete_elem(c->maps[MAP_COUNT], &number);
	(void)addresses_sync(c, number, NULL, 0);
	(void)bpf_map_delete_elem(c->maps[MAP_LINKREC], &number);
	(void)bpf_map_delete_elem(c->maps[MAP_PODREC], &number);
	return r;
}

/* What was made for the pod's former record is still to be undone. */
static void keep_made(struct wr_pod_record *rec, const struct wr_pod_record *old)
{
	rec->made = old->made;
	memcpy(rec->clsact, old->clsact, sizeof(rec->clsact));
}

/* The other number under which this namespace is attached, 0 for none. Two sets of programs must not stay. */
static uint32_t former_number(const struct capture *c, uint32_t number, struct wr_pod_record *rec)
{
	struct wr_link_record link;
	struct wr_pod_record old;

	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++) {
		if (n == number || lookup_record(c, n, &old) < 0 || old.netns_cookie != rec->netns_cookie)
			continue;
		keep_made(rec, &old);
		link_record(c, n, &link);
		link.addresses = 0;
		(void)link_record_store(c, number, &link);
		return n;
	}
	return 0;
}

/* What an earlier agent left under this number, if it is this very namespace; anything else there is removed.
 */
static bool adopt(struct capture *c, uint32_t number, struct wr_pod_record *rec)
{
	struct wr_pod_record old;

	if (lookup_record(c, number, &old) == 0) {
		if (old.netns_cookie == rec->netns_cookie) {
			keep_made(rec, &old);
			return true;
		}
		(void)capture_pod_detach(c, number, -1);
	}
	return false;
}

static int describe(const struct capture_pod *pod, struct wr_pod_record *rec)
{
	int r = netns_identify(pod->netns_fd, rec);

	snprintf(rec->uid, sizeof(rec->uid), "%s", pod->uid ? pod->uid : "");
	snprintf(rec->namespace_, sizeof(rec->namespace_), "%s", pod->namespace_ ? pod->namespace_ : "");
	snprintf(rec->name, sizeof(rec->name), "%s", pod->name ? pod->name : "");
	return r;
}

int capture_pod_set_addresses(struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n)
{
	return addresses_sync(c, number, addrs, n);
}

static int enter_maps(struct capture *c, const struct capture_pod *pod, const struct wr_pod_record *rec)
{
	int r = make_counters(c, pod->number);

	if (r == 0 && bpf_map_update_elem(c->maps[MAP_PODS], &rec->netns_cookie, &pod->number, BPF_ANY) < 0)
		r = -errno;
	return r < 0 ? r : addresses_sync(c, pod->number, pod->addrs, pod->n_addrs);
}

int capture_pod_attach(struct capture *c, const struct capture_pod *pod, const int listeners[3], int ret_listeners[3],
		       char **ret_error)
{
	struct wr_pod_record rec = {};
	int fds[3] = {-1, -1, -1}, r;
	char dir[600];
	uint32_t former;
	bool adopted;

	if (!pod->number || pod->number >= CAPTURE_MAX_PODS)
		return capture_fail(ret_error, -EINVAL, "pod number %u is not in 1..%d", pod->number,
				    CAPTURE_MAX_PODS - 1);
	r = describe(pod, &rec);
	if (r < 0)
		return capture_fail(ret_error, r, "cannot look at the pod's network namespace: %s", strerror(-r));
	adopted = adopt(c, pod->number, &rec);
	former = former_number(c, pod->number, &rec);
	snprintf(dir, sizeof(dir), "%s/pods/%u", c->dir, pod->number);
	r = store_record(c, pod->number, &rec);
	if (r == 0)
		r = pins_make_dir(dir);
	if (r == 0)
		r = enter_maps(c, pod, &rec);
	if (r < 0)
		capture_fail(ret_error, r, "cannot write the pod's entries: %s", strerror(-r));
	if (r == 0)
		r = attach_programs(c, pod, listeners, &rec, fds, ret_error);
	if (r == 0 && pod->modes)
		(void)capture_pod_set_modes(c, pod->number, pod->modes);
	if (r == 0)
		r = set_mode(c, pod->number, WR_POD_ENROLLED);
	if (r == 0) {
		if (former)
			(void)forget(c, former);
		memcpy(ret_listeners, fds, sizeof(fds));
		return 0;
	}
	for (int i = 0; i < 3 && !(listeners && listeners[0] >= 0); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	/* What a predecessor enforces stays in force: fail closed. */
	if (former) {
		(void)forget(c, pod->number);
		(void)bpf_map_update_elem(c->maps[MAP_PODS], &rec.netns_cookie, &former, BPF_ANY);
	} else if (!adopted) {
		(void)capture_pod_detach(c, pod->number, pod->netns_fd);
	}
	return r;
}

static int refresh_inside(struct instances *s, int netns_fd, struct wr_pod_record *rec, struct interface **ret_list,
			  size_t *ret_n)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	int r = netns_enter(netns_fd, &g);

	if (r == 0)
		r = interfaces_list(ret_list, ret_n);
	return r < 0 ? r : attach_all(s, *ret_list, *ret_n, false, rec);
}

int capture_pod_refresh(struct capture *c, uint32_t number, int netns_fd)
{
	_cleanup_(instances_done) struct instances s = INSTANCES(c, number);
	_cleanup_free_ struct interface *list = NULL;
	struct wr_pod_record rec;
	int r = lookup_record(c, number, &rec), ends, stored;
	size_t n = 0;

	if (r == 0)
		r = refresh_inside(&s, netns_fd, &rec, &list, &n);
	if (r < 0)
		return r;
	ends = node_end_attach(&s, netns_fd, list, n, false, NULL);
	stored = r > 0 ? store_record(c, number, &rec) : 0;
	return stored < 0 ? stored : ends < 0 ? ends : r + ends;
}

static int change_mode(struct capture *c, uint32_t number, enum wr_pod_mode mode)
{
	struct wr_pod_record rec;
	int r = lookup_record(c, number, &rec);

	return r < 0 ? r : set_mode(c, number, mode);
}

int capture_pod_drain(struct capture *c, uint32_t number)
{
	return change_mode(c, number, WR_POD_DRAINING);
}

int capture_pod_resume(struct capture *c, uint32_t number)
{
	return change_mode(c, number, WR_POD_ENROLLED);
}

/* In the pod's namespace; its filters, rules, routes and sysctls. */
static int restore_inside(struct wr_pod_record *rec, int netns_fd, struct interface **ret_list, size_t *ret_n)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	int r = netns_enter(netns_fd, &g);

	if (r < 0)
		return r;
	(void)interfaces_list(ret_list, ret_n);
	for (size_t i = 0; i < *ret_n; i++)
		link_remove_clsact((*ret_list)[i].ifindex, made_qdisc(rec, (*ret_list)[i].ifindex));
	return netns_restore(&rec->made);
}

static int restore(struct capture *c, uint32_t number, struct wr_pod_record *rec, const struct wr_link_record *link,
		   int netns_fd)
{
	_cleanup_free_ struct interface *list = NULL;
	size_t n = 0;
	int r;

	if (!capture_is_netns(netns_fd, rec->netns_cookie))
		return -ESTALE;
	r = restore_inside(rec, netns_fd, &list, &n);
	node_end_detach(c, number, netns_fd, list, n, link);
	return r;
}

int capture_pod_detach(struct capture *c, uint32_t number, int netns_fd)
{
	struct wr_pod_record rec = {};
	struct wr_link_record link;
	int r = lookup_record(c, number, &rec), first;

	if (!number || number >= CAPTURE_MAX_PODS)
		return -EINVAL;
	link_record(c, number, &link);
	first = forget(c, number);
	if (r == 0)
		(void)bpf_map_delete_elem(c->maps[MAP_PODS], &rec.netns_cookie);
	if (r == 0 && netns_fd >= 0) {
		r = restore(c, number, &rec, &link, netns_fd);
		first = first ? first : r;
	}
	return first == -ENOENT ? 0 : first;
}

int capture_leftovers(struct capture *c, struct capture_leftover **ret, size_t *ret_n)
{
	_cleanup_free_ struct capture_leftover *list = calloc(CAPTURE_MAX_PODS, sizeof(*list));
	struct wr_pod_record rec;
	size_t n = 0;

	if (!list)
		return -ENOMEM;
	for (__u32 number = 1; number < CAPTURE_MAX_PODS; number++) {
		struct capture_leftover *l = &list[n];

		if (lookup_record(c, number, &rec) < 0)
			continue;
		l->number = number;
		l->netns_cookie = rec.netns_cookie;
		snprintf(l->uid, sizeof(l->uid), "%s", rec.uid);
		snprintf(l->netns_path, sizeof(l->netns_path), "%s", rec.netns_path);
		n++;
	}
	*ret = take_ptr(list);
	*ret_n = n;
	return 0;
}
