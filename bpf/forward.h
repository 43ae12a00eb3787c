/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * The next packet of a known flow: what `forward/known.rs` of the dataplane crate would do with it. It
 * repeats the decisions of user space and makes none; all else is left to user space.
 */
#ifndef POINTSMAN_FORWARD_H
#define POINTSMAN_FORWARD_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "flows.h"
#include "judge.h"
#include "maps.h"
#include "parse.h"

/* Nearer to its end a lease is compared with the exact clock, which costs more than all the rest. */
#define LEASE_NEAR_NS 100000000ll

#define NS_PER_MS 1000000

/* Queues that there is room for in `queue_packets`, for each CPU. */
const volatile __u32 queue_room = 1;

/* `now` is the coarse clock, at most a tick late. */
static __always_inline bool lease_runs(__u32 instance, __u64 now)
{
	__u64 *active_until = bpf_map_lookup_elem(&leases, &instance);
	__u64 until;

	if (!active_until)
		return false;
	until = load(active_until);
	if (until > now + LEASE_NEAR_NS)
		return true;
	return bpf_ktime_get_ns() < until;
}

static __always_inline bool is_vip_here(__u32 slot, __u32 ifindex)
{
	__u64 *word = bpf_map_lookup_elem(&vip_states, &slot);
	__u64 state;

	if (!word)
		return false;
	state = load(word);
	return (__u32)state && (!(state >> 32) || state >> 32 == ifindex);
}

/* A frame that we sent ourselves; now and then another one is taken for such. */
static __always_inline bool may_be_own(const struct picture *picture, const __u8 *mac)
{
	const __u16 *words = (const void *)mac;
	__u32 mixed = ((__u32)words[2] << 16 | words[1]) * 0x9e3779b1u >> 22;

	return picture->own[(mixed / 64) % (OWN_BITS / 64)] >> (mixed % 64) & 1;
}

static __always_inline __u32 sum_of(__u64 word)
{
	return (word >> 48) + ((word >> 32) & 0xffff) + ((word >> 16) & 0xffff) + (word & 0xffff);
}

/*
 * Whether the checksum holds the sum of the pseudo header (RFC 9293 §3.1) only: a sender on this host
 * left the rest to a card. User space finishes it. Of one frame in 65,536 it is just like that.
 */
static __always_inline bool is_unfinished(const struct frame *frame)
{
	__u64 dst[2];
	__u32 sum;

	__builtin_memcpy(dst, &frame->about, sizeof(dst));
	sum = sum_of(frame->client.src[0]) + sum_of(frame->client.src[1]) +
	      sum_of(bpf_be64_to_cpu(dst[0])) + sum_of(bpf_be64_to_cpu(dst[1])) +
	      frame->client.protocol + frame->client.len;
	/* That IPv4 addresses are mapped adds ffff, which in such sums is the other zero. */
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return frame->client.checksum == sum || (sum == 0xffff && !frame->client.checksum);
}

/* Whether a sender on this host left it to a card to make the frame what it has to be. */
static __always_inline bool is_raw(const struct port *own, const struct frame *frame, __u64 len)
{
	return own->local_longest && (len > own->local_longest || is_unfinished(frame));
}

/* By what action the frame leaves by this interface; XDP_PASS: it takes none from programs. */
static __always_inline int action_to(struct xdp_md *ctx, const struct port *own, __u32 ifindex)
{
	if (ifindex == ctx->ingress_ifindex && !own->redirects)
		return XDP_TX;
	return bpf_redirect_map(&egress, ifindex, XDP_PASS);
}

/*
 * Forwards the frame, which was sent to our MAC, and counts it. Returns the action, or XDP_PASS: the
 * frame is as it was.
 */
static __always_inline int forward(struct xdp_md *ctx, const struct port *own, const struct frame *frame)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 queue = ctx->rx_queue_index, cpu = bpf_get_smp_processor_id(), zero = 0, at;
	struct ethhdr *eth = data;
	const struct next_hop *hop;
	struct picture *picture;
	struct traffic *count;
	__u64 *of_queue;
	struct found found;
	void *table, *inner;
	__u64 now, slot;
	__u32 now_ms;
	int action;

	table = bpf_map_lookup_elem(&flows, &queue);
	if (!table || (void *)(eth + 1) > end || is_raw(own, frame, end - data))
		return XDP_PASS;
	if (!find(table, frame, &found) || found.backend >= BACKENDS)
		return XDP_PASS;
	inner = bpf_map_lookup_elem(&pictures, &zero);
	if (!inner)
		return XDP_PASS;
	picture = bpf_map_lookup_elem(inner, &zero);
	if (!picture)
		return XDP_PASS;
	/* The verifier of Linux 6.1 has forgotten the limit, and clang would leave the mask out. */
	slot = found.backend;
	barrier_var(slot);
	slot &= BACKENDS - 1;
	hop = &picture->hops[slot];
	/* Split horizon, and what came back. */
	if (!hop->usable || is_same(hop->macs, eth->h_source) || may_be_own(picture, eth->h_source))
		return XDP_PASS;
	now = bpf_ktime_get_coarse_ns();
	now_ms = now / NS_PER_MS;
	if ((__s32)(now_ms - (__u32)(found.was >> 32)) >= (__s32)found.idle)
		return XDP_PASS;
	if (!is_vip_here(hop->vip, ctx->ingress_ifindex) || !lease_runs(hop->instance, now))
		return XDP_PASS;
	at = cpu * BACKENDS + found.backend;
	count = bpf_map_lookup_elem(&traffic, &at);
	at = cpu * queue_room + queue;
	of_queue = bpf_map_lookup_elem(&queue_packets, &at);
	if (!count || !of_queue)
		return XDP_PASS;
	action = action_to(ctx, own, hop->ifindex);
	if (action == XDP_PASS)
		return XDP_PASS;
	count->acked += note(&found, frame, now_ms);
	(*of_queue)++;
	count->packets++;
	count->bytes += end - data;
	__builtin_memcpy(eth, hop->macs, sizeof(hop->macs));
	return action;
}

#endif
