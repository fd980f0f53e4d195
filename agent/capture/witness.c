/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The witness of `warrenctl prove`: a program right behind pod_link on the node's end of a pod's link. In: a pod, the
 * ports that mark the probes. Out: which of them got that far. Nothing stays when it is closed; a link goes even
 * when its owner is killed. In the node's network namespace; called by warrenctl.
 */
#include "private.h"
#include "engine/base/cleanup.h"
#include "bpf/link_witness.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>

struct capture_witness {
	struct link_witness *program;
	unsigned ifindex;
	int link; /* TCX; -1: a filter */
	bool filter, made_qdisc;
};

/* The first interface of the pod that has an end here. */
static int find_end(int netns_fd, struct capture_link *ret, unsigned *ret_ifindex, char **ret_error)
{
	_cleanup_free_ struct interface *list = NULL;
	const char *why = "", *last = "";
	struct interface end;
	size_t n = 0;
	int r = interfaces_of(netns_fd, &list, &n);

	if (r < 0)
		return capture_fail(ret_error, r, "cannot list the pod's interfaces: %s", strerror(-r));
	for (size_t i = 0; i < n; i++) {
		if (!node_end_of(&list[i], netns_fd, &end, &why)) {
			last = *why ? why : last;
			continue;
		}
		ret->ifindex = list[i].ifindex;
		memcpy(ret->name, list[i].name, sizeof(ret->name));
		memcpy(ret->mac, list[i].mac, sizeof(ret->mac));
		memcpy(ret->end_name, end.name, sizeof(ret->end_name));
		memcpy(ret->end_mac, end.mac, sizeof(ret->end_mac));
		*ret_ifindex = end.ifindex;
		return 0;
	}
	return capture_fail(ret_error, -ENODEV, "no end of the pod's link is on this node: %s",
			    *last ? last : "it has no interface that leads out");
}

static int load(struct capture_witness *w, uint16_t first_port, uint16_t to_port)
{
	w->program = link_witness__open();
	if (!w->program)
		return -errno;
	w->program->rodata->witness.first_port = first_port;
	w->program->rodata->witness.to_port = to_port;
	return link_witness__load(w->program);
}

/* Behind pod_link, in the way that this is attached. */
static int attach(struct capture_witness *w, const struct attachment *watched)
{
	int prog = bpf_program__fd(w->program->progs.link_witness), r;

	if (link_filter(w->ifindex, PLACE_LINK) || !link_tcx_supported()) {
		r = link_witness_filter(w->ifindex, prog, &w->made_qdisc);
		w->filter = r == 0;
		return r;
	}
	w->link = link_witness_tcx(watched, prog);
	return w->link < 0 ? w->link : 0;
}

int capture_witness_open(struct capture *c, uint32_t number, int netns_fd, uint16_t first_port, uint16_t to_port,
			 struct capture_link *ret_link, struct capture_witness **ret, char **ret_error)
{
	struct capture_witness *w = calloc(1, sizeof(*w));
	struct attachment watched = {.c = c, .number = number, .where = PLACE_LINK};
	struct capture_link link = {0};
	int r;

	if (!w)
		return -ENOMEM;
	w->link = -1;
	r = find_end(netns_fd, &link, &w->ifindex, ret_error);
	if (r == 0) {
		watched.ifindex = w->ifindex;
		r = load(w, first_port, to_port);
		r = r < 0 ? r : attach(w, &watched);
		if (r < 0)
			capture_fail(ret_error, r, "cannot attach a witness to %s: %s", link.end_name, strerror(-r));
	}
	if (r < 0) {
		capture_witness_close(w);
		return r;
	}
	*ret_link = link;
	*ret = w;
	return 0;
}

uint64_t capture_witness_seen(const struct capture_witness *w, uint32_t probe)
{
	uint64_t seen = 0;

	(void)bpf_map_lookup_elem(bpf_map__fd(w->program->maps.wr_witness), &probe, &seen);
	return seen;
}

struct capture_witness *capture_witness_close(struct capture_witness *w)
{
	if (!w)
		return NULL;
	if (w->link >= 0)
		close(w->link);
	if (w->filter)
		link_remove_witness(w->ifindex, w->made_qdisc);
	link_witness__destroy(w->program);
	free(w);
	return NULL;
}
