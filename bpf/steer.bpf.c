// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
/*
 * Steers the frames of active VIPs to the AF_XDP socket of their RX queue, drops those of VIPs
 * that are not active on this node, and leaves everything else to the kernel.
 *
 * It knows addresses and leases, nothing of services, ports or backends: what to do with a frame
 * of a VIP is user space's decision, whether it is one is decided here and nowhere else. What user
 * space decided for a flow it repeats, if asked to (forward.h).
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "forward.h"
#include "judge.h"
#include "maps.h"
#include "parse.h"

/* Whether known flows are forwarded here. */
const volatile __u32 fast_path = 0;

static __always_inline void count(enum outcome outcome)
{
	__u32 key = outcome;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);

	if (counter)
		(*counter)++;
}

#ifdef READ_TAGS
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *protocol, __u16 *tci) __ksym;

/* Whether the frame has a VLAN tag beside it. */
static __always_inline bool has_tag_beside(struct xdp_md *ctx)
{
	__be16 protocol;
	__u16 control;

	return !bpf_xdp_metadata_rx_vlan_tag(ctx, &protocol, &control);
}

/*
 * Puts a VLAN tag that came beside the frame where user space finds it: else the frame would leave
 * in the native VLAN. False if there is no room for it.
 */
static __always_inline bool restore_tag(struct xdp_md *ctx)
{
	__be16 tag[2];
	__u16 control;
	__u8 macs[2 * ETH_ALEN];
	void *to;

	if (bpf_xdp_metadata_rx_vlan_tag(ctx, &tag[0], &control))
		return true;
	if (bpf_xdp_load_bytes(ctx, 0, macs, sizeof(macs)))
		return false;
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(tag)))
		return false;
	to = (void *)(long)ctx->data;
	if (to + sizeof(macs) + sizeof(tag) > (void *)(long)ctx->data_end)
		return false;
	tag[1] = bpf_htons(control);
	__builtin_memcpy(to, macs, sizeof(macs));
	__builtin_memcpy(to + sizeof(macs), tag, sizeof(tag));
	return true;
}
#else
static __always_inline bool has_tag_beside(struct xdp_md *ctx)
{
	(void)ctx;
	return false;
}

static __always_inline bool restore_tag(struct xdp_md *ctx)
{
	(void)ctx;
	return true;
}
#endif

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	struct frame frame = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.wants_client = fast_path,
	};
	const struct ethhdr *eth = frame.pos;
	__u32 key = 0;
	const struct port *here = bpf_map_lookup_elem(&port, &key);
	enum kind kind = parse(&frame);
	enum outcome outcome;
	int action = XDP_PASS;
	/* Behind a header that is there. */
	bool own = here && kind != KIND_MALFORMED && (const void *)(eth + 1) <= frame.end && is_to(here, eth);

	if (fast_path && own && kind == KIND_IP && frame.client.protocol && !has_tag_beside(ctx)) {
		action = forward(ctx, here, &frame);
		if (action != XDP_PASS) {
			count(OUTCOME_FORWARDED);
			return action;
		}
	}
	outcome = judge(ctx->ingress_ifindex, &frame, kind, own);
	if (outcome == OUTCOME_INACTIVE || outcome == OUTCOME_NEIGHBOUR_INACTIVE)
		action = XDP_DROP;
	if (outcome == OUTCOME_REDIRECTED || outcome == OUTCOME_NEIGHBOUR_REDIRECTED) {
		/* A device that makes no room for the tag has its frames left to the kernel. */
		if (restore_tag(ctx))
			action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
		if (action != XDP_REDIRECT)
			outcome = OUTCOME_UNBOUND;
	}
	count(outcome);
	return action;
}

/* Lets user space compare its clock with the one that leases are compared with. */
SEC("syscall")
int clock(struct clock *ctx)
{
	ctx->now_ns = bpf_ktime_get_ns();
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
