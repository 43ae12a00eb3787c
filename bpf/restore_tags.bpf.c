// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
/*
 * Keeps the VLAN tags of frames that come to a VIP through a device below: the port of a bond, team or
 * bridge, what a macvlan is made on. The kernel takes the tag out of the frame there and carries it
 * beside it, where XDP on the device above, generic, does not see it. This program runs in between, at
 * the lower device's ingress hook, and puts the tag back into the frame.
 *
 * A tag beside the frame goes into it when another one is pushed. That other one, of priority 0 and no
 * VLAN, stays beside the frame and is lost in its stead. Only frames that the steering program takes are
 * changed: no other has to find its way with two tags.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "judge.h"

/* The device above, on which the steering program is. */
const volatile __u32 upper = 0;

/* How many tags were put back, and how many frames dropped for want of memory for it. */
enum restored { RESTORED, NOT_RESTORED, RESTORED_COUNT };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RESTORED_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} restored SEC(".maps");

static __always_inline void count(enum restored what)
{
	__u32 key = what;
	__u64 *counter = bpf_map_lookup_elem(&restored, &key);

	if (counter)
		(*counter)++;
}

static __always_inline int drop(void)
{
	count(NOT_RESTORED);
	return TC_ACT_SHOT;
}

SEC("tc")
int restore_tag(struct __sk_buff *skb)
{
	struct frame frame = {};
	const struct ethhdr *eth = (void *)(long)skb->data;
	__u32 key = 0;
	const struct port *above = bpf_map_lookup_elem(&port, &key);
	enum outcome outcome;
	bool own;

	if (!skb->vlan_present || (const void *)(eth + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	/* Done already, for another device above. */
	if (!skb->vlan_tci && is_vlan(eth->h_proto))
		return TC_ACT_UNSPEC;
	own = above && is_to(above, eth);
	if (!own && !(eth->h_dest[0] & 1))
		return TC_ACT_UNSPEC;
	/* Drivers leave packets in fragments; XDP has the whole frame. */
	if (bpf_skb_pull_data(skb, skb->len))
		return drop();
	frame.pos = (void *)(long)skb->data;
	frame.end = (void *)(long)skb->data_end;
	outcome = judge(upper, &frame, parse(&frame), own);
	if (outcome != OUTCOME_REDIRECTED && outcome != OUTCOME_NEIGHBOUR_REDIRECTED)
		return TC_ACT_UNSPEC;
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 0))
		return drop();
	count(RESTORED);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
