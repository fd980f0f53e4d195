/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses that a pod may send from, as entries of wr_podip. In: a pod's number and all of its addresses. Out:
 * exactly these in the map; new ones are there before old ones go. Called by pod.c, and through it by agent/enroll.
 */
#include "private.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

static struct wr_podip_key key_of(uint32_t number, const struct ip_addr *a)
{
	struct wr_podip_key k = {.number = number};

	memcpy(&k.addr, a, sizeof(k.addr));
	return k;
}

static bool all_there(const struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct wr_podip_key k = key_of(number, &addrs[i]);
		__u32 one;

		if (bpf_map_lookup_elem(c->maps[MAP_PODIP], &k, &one) < 0)
			return false;
	}
	return true;
}

static bool wanted(const struct wr_podip_key *k, const struct ip_addr *addrs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!memcmp(&k->addr, &addrs[i], sizeof(k->addr)))
			return true;
	return false;
}

static int remove_others(const struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n)
{
	struct wr_podip_key key, next;
	bool have = false;

	while (bpf_map_get_next_key(c->maps[MAP_PODIP], have ? &key : NULL, &next) == 0) {
		if (next.number != number || wanted(&next, addrs, n)) {
			key = next;
			have = true;
		} else if (bpf_map_delete_elem(c->maps[MAP_PODIP], &next) < 0 && errno != ENOENT) {
			return -errno;
		}
	}
	return 0;
}

int addresses_sync(const struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n)
{
	struct wr_link_record rec;
	__u32 one = 1;
	int r;

	link_record(c, number, &rec);
	if (rec.addresses == n && all_there(c, number, addrs, n))
		return 0;
	for (size_t i = 0; i < n; i++) {
		struct wr_podip_key k = key_of(number, &addrs[i]);

		if (bpf_map_update_elem(c->maps[MAP_PODIP], &k, &one, BPF_ANY) < 0)
			return -errno;
	}
	rec.addresses = (__u32)n;
	r = link_record_store(c, number, &rec);
	return r < 0 ? r : remove_others(c, number, addrs, n);
}

void addresses_each(const struct capture *c, uint32_t number, void (*fn)(void *arg, const struct ip_addr *a), void *arg)
{
	struct wr_podip_key key, next;
	bool have = false;

	for (unsigned i = 0; i < CAPTURE_MAX_ADDRESSES; i++) {
		struct ip_addr a;

		if (bpf_map_get_next_key(c->maps[MAP_PODIP], have ? &key : NULL, &next) < 0)
			return;
		key = next;
		have = true;
		memcpy(&a, &key.addr, sizeof(a));
		if (key.number == number)
			fn(arg, &a);
	}
}
