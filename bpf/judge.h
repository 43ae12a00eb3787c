/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * Which frames are for a VIP of this node: the maps, and the verdict. `vips` and `leases` are one for all
 * interfaces (user space gives every further object the first one's), `port` is each interface's own.
 */
#ifndef POINTSMAN_JUDGE_H
#define POINTSMAN_JUDGE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "parse.h"

/*
 * Not preallocated: a preallocated element may become another address's while a program that has
 * just looked it up still reads it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VIPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, struct vip);
} vips SEC(".maps");

/* Instance slot -> `active_until`, ns of CLOCK_MONOTONIC. User space writes through a mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INSTANCES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} leases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct port);
} port SEC(".maps");

/* Whether the lease of the instance has not run out. */
static __always_inline bool active(__u32 instance)
{
	__u64 *active_until = bpf_map_lookup_elem(&leases, &instance);

	return active_until && bpf_ktime_get_ns() < *(volatile __u64 *)active_until;
}

/* Whether two MAC addresses are the same. */
static __always_inline bool is_same(const __u8 *mac, const __u8 *other)
{
	const __u16 *a = (const void *)mac, *b = (const void *)other;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

/*
 * Whether the frame was sent to this interface. In promiscuous mode, and from a switch that does not
 * know the destination, frames of other hosts come in as well: two balancers that forwarded each
 * other's would multiply them.
 */
static __always_inline bool is_to(const struct port *port, const struct ethhdr *eth)
{
	/* Ethernet headers are aligned to two bytes, also where that matters (NET_IP_ALIGN). */
	return is_same(eth->h_dest, port->mac);
}

/*
 * What is to become of a frame that is not forwarded here, as if every queue had a socket: only the
 * redirect itself tells OUTCOME_UNBOUND.
 */
static __always_inline enum outcome judge(__u32 ifindex, const struct frame *frame, enum kind kind, bool own)
{
	struct vip *vip;

	if (kind == KIND_MALFORMED)
		return OUTCOME_MALFORMED;
	if (kind == KIND_OTHER)
		return OUTCOME_PASSED;
	vip = bpf_map_lookup_elem(&vips, &frame->about);
	if (!vip)
		return OUTCOME_PASSED;
	if (vip->ifindex && vip->ifindex != ifindex)
		return OUTCOME_OTHER_INTERFACE;
	if (kind == KIND_IP && frame->group)
		return OUTCOME_GROUP;
	if (!frame->group && !own)
		return OUTCOME_OTHER_HOST;
	if (active(vip->instance))
		return kind == KIND_IP ? OUTCOME_REDIRECTED : OUTCOME_NEIGHBOUR_REDIRECTED;
	return kind == KIND_IP ? OUTCOME_INACTIVE : OUTCOME_NEIGHBOUR_INACTIVE;
}

#endif
