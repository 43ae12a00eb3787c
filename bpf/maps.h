/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * The maps of the steering program beside those of judge.h. `vip_states`, `pictures` and `egress` are one for
 * all interfaces (user space gives every further object the first one's), the others are each program's own.
 */
#ifndef POINTSMAN_MAPS_H
#define POINTSMAN_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/*
 * VIP slot -> interface index in the upper half (0: all of them), and whether it is a VIP. The same as
 * in `vips` for those that know the slot. User space writes through a mapping.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VIPS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} vip_states SEC(".maps");

/*
 * The picture in use. User space never changes one: it puts another one in its place, and then the
 * kernel waits until no program reads the former one any more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct picture));
	});
} pictures SEC(".maps");

/* Interface index -> the same, of interfaces that take frames from programs (ndo_xdp_xmit). */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, EGRESSES);
	__type(key, __u32);
	__type(value, __u32);
} egress SEC(".maps");

/* RX queue -> the flow table of its worker, which is in the worker's memory as well. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, XSKS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(map_flags, BPF_F_MMAPABLE);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct line));
	});
} flows SEC(".maps");

/* CPU times BACKENDS, and backend slot -> what this CPU sent there. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BACKENDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

/* CPU times `queue_room`, and RX queue -> what this CPU forwarded of it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} queue_packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, XSKS);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOME_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

#endif
