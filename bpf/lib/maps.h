/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The node's shared maps. Every object declares all of them; the loader pins them once and reuses the pins.
 */
#pragma once
#include "abi/maps.h"

#define BPF_F_NO_PREALLOC 1u
#define BPF_F_CLONE 512u

struct {
	__uint(type, BPF_MAP_TYPE_HASH); /* netns cookie -> pod number, for sockops */
	__uint(max_entries, CAPTURE_MAX_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} wr_pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CAPTURE_MAX_PODS);
	__type(key, __u32);
	__type(value, struct wr_pod_config);
} wr_podcfg SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, CAPTURE_MAX_MESH_RANGES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wr_mesh_key);
	__type(value, __u32);
} wr_mesh SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CAPTURE_MAX_DESTINATIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wr_addr);
	__type(value, __u32);
} wr_dest SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH); /* destination port, host order -> 1 */
	__uint(max_entries, CAPTURE_MAX_EXCLUDED_PORTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} wr_excl SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct wr_sock);
} wr_sock SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, CAPTURE_MAX_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wr_count);
} wr_count SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wr_hint);
} wr_hint SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CAPTURE_MAX_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wr_pod_record);
} wr_podrec SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH); /* -> enum wr_port_mode */
	__uint(max_entries, CAPTURE_MAX_PORT_MODES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wr_port);
	__type(value, __u32);
} wr_mode SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CAPTURE_MAX_DENIED);
	__type(key, struct wr_denied_key);
	__type(value, struct wr_denied);
} wr_denied SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF); /* of struct wr_event */
	__uint(max_entries, CAPTURE_EVENTS_BYTES);
} wr_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH); /* -> pod number */
	__uint(max_entries, CAPTURE_MAX_PROBE_PORTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wr_probe_port);
	__type(value, __u32);
} wr_probe_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CAPTURE_MAX_PROBE_FLOWS);
	__type(key, struct wr_flow);
	__type(value, struct wr_probe_flow);
} wr_probe_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CAPTURE_MAX_ADDRESSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct wr_podip_key);
	__type(value, __u32);
} wr_podip SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CAPTURE_MAX_PODS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wr_link_record);
} wr_linkrec SEC(".maps");
