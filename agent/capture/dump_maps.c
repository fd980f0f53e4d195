/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's maps with their content, read back from the kernel. In: an open capture, read-only or not. Out: JSON.
 * Called by dump.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <bpf/bpf.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>

/* Calls fn, if any, for each key; returns how many there are, or -errno. A key that is deleted meanwhile makes
 * the kernel start over, hence the bound. */
static int each_key(int fd, cJSON *out, void (*fn)(int fd, const void *key, cJSON *out))
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), n = 0;
	__u64 key[5], next[5]; /* larger than any key in abi/maps.h, and aligned */

	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	if (info.key_size > sizeof(key))
		return -E2BIG;
	while (n < info.max_entries && bpf_map_get_next_key(fd, n ? key : NULL, next) == 0) {
		memcpy(key, next, sizeof(key));
		if (fn)
			fn(fd, key, out);
		n++;
	}
	return n < info.max_entries && errno != ENOENT ? -errno : (int)n;
}

static void add_range(int fd, const void *key, cJSON *list)
{
	const struct wr_mesh_key *k = key;
	char addr[48], text[64];
	struct ip_addr a;
	bool v4;

	(void)fd;
	memcpy(&a, &k->addr, sizeof(a));
	v4 = ip_addr_is_v4(&a) && k->prefixlen >= 96;
	snprintf(text, sizeof(text), "%s/%u", ip_addr_format(&a, addr, sizeof(addr)),
		 v4 ? k->prefixlen - 96 : k->prefixlen);
	cJSON_AddItemToArray(list, cJSON_CreateString(text));
}

static void add_destination(int fd, const void *key, cJSON *o)
{
	struct ip_addr a;
	char addr[48];
	__u32 flags;

	memcpy(&a, key, sizeof(a));
	if (bpf_map_lookup_elem(fd, key, &flags) == 0)
		cJSON_AddStringToObject(o, ip_addr_format(&a, addr, sizeof(addr)),
					flags & WR_DEST_VIP ? "vip" : "unenrolled");
}

static void add_port(int fd, const void *key, cJSON *list)
{
	(void)fd;
	cJSON_AddItemToArray(list, cJSON_CreateNumber(*(const __u32 *)key));
}

static void add_cookie(int fd, const void *key, cJSON *o)
{
	char cookie[24];
	__u32 number;

	snprintf(cookie, sizeof(cookie), "%" PRIu64, (uint64_t) * (const __u64 *)key);
	if (bpf_map_lookup_elem(fd, key, &number) == 0)
		cJSON_AddNumberToObject(o, cookie, number);
}

static const char *endpoint_text(const struct wr_addr *addr, __u16 port, char *buf, size_t size)
{
	struct ip_port a = {.port = port};

	memcpy(&a.ip, addr, sizeof(a.ip));
	return ip_port_format(&a, buf, size);
}

/* Keys "<pod>:<port>". */
static void add_mode(int fd, const void *key, cJSON *o)
{
	const struct wr_port *k = key;
	char name[32];
	__u32 mode;

	snprintf(name, sizeof(name), "%u:%u", k->pod, k->port);
	if (bpf_map_lookup_elem(fd, key, &mode) == 0)
		cJSON_AddStringToObject(o, name, mode == WR_PORT_STRICT ? "strict" : "permissive");
}

/* Keys "<caller> <pod>:<port>"; how many since the last report. */
static void add_denied(int fd, const void *key, cJSON *o)
{
	const struct wr_denied_key *k = key;
	char addr[48], name[80];
	struct wr_denied d;
	struct ip_addr a;

	memcpy(&a, &k->src, sizeof(a));
	snprintf(name, sizeof(name), "%s %u:%u", ip_addr_format(&a, addr, sizeof(addr)), k->pod, k->port);
	if (bpf_map_lookup_elem(fd, key, &d) == 0)
		cJSON_AddNumberToObject(o, name, (double)d.suppressed);
}

/* Port 0 stands for every port. */
static void add_probe(int fd, const void *key, cJSON *o)
{
	const struct wr_probe_port *k = key;
	char name[IP_PORT_STRLEN];
	__u32 number;

	if (bpf_map_lookup_elem(fd, key, &number) == 0)
		cJSON_AddNumberToObject(o, endpoint_text(&k->addr, k->port, name, sizeof(name)), number);
}

static void add_flow(int fd, const void *key, cJSON *o)
{
	char src[IP_PORT_STRLEN], dst[IP_PORT_STRLEN], name[2 * IP_PORT_STRLEN + 1];
	const struct wr_flow *k = key;
	struct wr_probe_flow f;

	snprintf(name, sizeof(name), "%s %s", endpoint_text(&k->src, k->sport, src, sizeof(src)),
		 endpoint_text(&k->dst, k->dport, dst, sizeof(dst)));
	if (bpf_map_lookup_elem(fd, key, &f) == 0)
		cJSON_AddNumberToObject(o, name, f.pod);
}

static const char *map_type(__u32 type)
{
	switch (type) {
	case BPF_MAP_TYPE_HASH:
		return "hash";
	case BPF_MAP_TYPE_ARRAY:
		return "array";
	case BPF_MAP_TYPE_LRU_HASH:
		return "lru_hash";
	case BPF_MAP_TYPE_RINGBUF:
		return "ringbuf";
	case BPF_MAP_TYPE_LPM_TRIE:
		return "lpm_trie";
	case BPF_MAP_TYPE_SK_STORAGE:
		return "sk_storage";
	case BPF_MAP_TYPE_PERCPU_HASH:
		return "percpu_hash";
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return "percpu_array";
	default:
		return "other";
	}
}

static cJSON *dump_map(const struct capture *c, enum wr_map which)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	cJSON *o = cJSON_CreateObject();
	int n;

	cJSON_AddStringToObject(o, "name", map_names[which]);
	if (bpf_obj_get_info_by_fd(c->maps[which], &info, &len) < 0)
		return o;
	cJSON_AddNumberToObject(o, "id", info.id);
	cJSON_AddStringToObject(o, "type", map_type(info.type));
	cJSON_AddNumberToObject(o, "bytes_key", info.key_size);
	cJSON_AddNumberToObject(o, "bytes_value", info.value_size);
	cJSON_AddNumberToObject(o, "max_entries", info.max_entries);
	/* An array is always full; what sockets hold can only be asked socket by socket (max_entries 0). */
	n = strstr(map_type(info.type), "array") || !info.max_entries ? -EINVAL : each_key(c->maps[which], NULL, NULL);
	if (n >= 0)
		cJSON_AddNumberToObject(o, "entries", n);
	return o;
}

void dump_maps(const struct capture *c, struct cJSON *o)
{
	static const struct {
		enum wr_map map;
		const char *name;
		bool is_list;
		void (*fn)(int fd, const void *key, cJSON *out);
	} contents[] = {
		{MAP_MESH, "mesh_ranges", true, add_range},	    {MAP_DEST, "destinations", false, add_destination},
		{MAP_EXCL, "excluded_ports", true, add_port},	    {MAP_PODS, "netns_cookies", false, add_cookie},
		{MAP_MODE, "port_modes", false, add_mode},	    {MAP_DENIED, "refused", false, add_denied},
		{MAP_PROBE_PORTS, "probe_ports", false, add_probe}, {MAP_PROBE_FLOWS, "probes", false, add_flow},
	};
	cJSON *list;

	for (size_t i = 0; i < ARRAY_SIZE(contents); i++) {
		list = contents[i].is_list ? cJSON_AddArrayToObject(o, contents[i].name)
					   : cJSON_AddObjectToObject(o, contents[i].name);
		(void)each_key(c->maps[contents[i].map], list, contents[i].fn);
	}
	list = cJSON_AddArrayToObject(o, "maps");
	for (int i = 0; i < MAP_MAX_; i++)
		cJSON_AddItemToArray(list, dump_map(c, (enum wr_map)i));
}
