/* SPDX-License-Identifier: Apache-2.0 */
/* One pod's instance of a program. In: the place, the pod's number. Out: a loaded program on the node's maps.
 * Called by pod.c and node_end.c, which attach it by link.c. */
#include "private.h"
#include "engine/base/cleanup.h"
#include "bpf/pod_in.skel.h"
#include "bpf/pod_link.skel.h"
#include "bpf/pod_lo.skel.h"
#include "bpf/pod_out.skel.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <string.h>

const char *const place_names[PLACE_MAX_] = {
	[PLACE_OUT] = "out", [PLACE_IN] = "in", [PLACE_LO] = "lo", [PLACE_LINK] = "link"};

static struct bpf_object *open_object(enum place where)
{
	const void *bytes = NULL;
	size_t size = 0;

	switch (where) {
	case PLACE_OUT:
		bytes = pod_out__elf_bytes(&size);
		break;
	case PLACE_IN:
		bytes = pod_in__elf_bytes(&size);
		break;
	case PLACE_LO:
		bytes = pod_lo__elf_bytes(&size);
		break;
	case PLACE_LINK:
		bytes = pod_link__elf_bytes(&size);
		break;
	case PLACE_MAX_:
		break;
	}
	return bpf_object__open_mem(bytes, size, NULL);
}

static int share_map(const struct capture *c, struct bpf_map *map)
{
	for (int i = 0; i < MAP_MAX_; i++)
		if (!strcmp(bpf_map__name(map), map_names[i]))
			return bpf_map__reuse_fd(map, c->maps[i]);
	return 0;
}

/* Offset in bytes of a member, also inside anonymous structs and unions; -ENOENT. */
static int member_offset(const struct btf *btf, const struct btf_type *t, const char *name)
{
	const struct btf_member *m = btf_members(t);

	for (__u32 i = 0; i < btf_vlen(t); i++) {
		__u32 at = btf_member_bit_offset(t, i) / 8;
		const struct btf_type *inner;
		int r;

		if (!strcmp(btf__name_by_offset(btf, m[i].name_off), name))
			return (int)at;
		inner = btf__type_by_id(btf, m[i].type);
		if (m[i].name_off || !btf_is_composite(inner))
			continue;
		r = member_offset(btf, inner, name);
		if (r >= 0)
			return (int)at + r;
	}
	return -ENOENT;
}

/* Once per agent: the kernel's BTF is large. */
static int find_offsets(struct capture *c)
{
	struct btf *btf;
	int id, r;

	if (c->tw_rcv_nxt)
		return 0;
	btf = btf__load_vmlinux_btf();
	if (!btf)
		return -errno;
	id = btf__find_by_name_kind(btf, "sock_common", BTF_KIND_STRUCT);
	r = id < 0 ? id : member_offset(btf, btf__type_by_id(btf, (__u32)id), "skc_tw_rcv_nxt");
	btf__free(btf);
	if (r < 0)
		return r;
	c->tw_rcv_nxt = (uint32_t)r;
	return 0;
}

static int load(struct capture *c, enum place where, struct wr_pod_constants constants)
{
	struct bpf_program *prog;
	struct bpf_object *obj;
	struct bpf_map *map;
	int r = find_offsets(c);

	if (r < 0)
		return r;
	constants.tw_rcv_nxt = c->tw_rcv_nxt;
	obj = open_object(where);
	if (!obj)
		return -errno;
	bpf_object__for_each_map(map, obj)
	{
		/* The only internal map is the read-only data, which holds the constants alone. */
		r = bpf_map__is_internal(map) ? bpf_map__set_initial_value(map, &constants, sizeof(constants))
					      : share_map(c, map);
		if (r < 0)
			goto out;
	}
	r = bpf_object__load(obj);
	if (r < 0)
		goto out;
	prog = bpf_object__next_program(obj, NULL);
	r = fcntl(bpf_program__fd(prog), F_DUPFD_CLOEXEC, 3);
	if (r < 0)
		r = -errno;
out:
	bpf_object__close(obj);
	return r;
}

void instances_done(struct instances *s)
{
	for (int i = 0; i < PLACE_MAX_; i++)
		if (s->fds[i] >= 0)
			close(s->fds[i]);
}

int instances_get(struct instances *s, enum place where)
{
	if (s->fds[where] < 0)
		s->fds[where] =
			load(s->c, where, (struct wr_pod_constants){.number = s->number, .netns_id = s->netns_id});
	return s->fds[where];
}
