// SPDX-License-Identifier: GPL-2.0
/* Both ends of a measurement of packets per second: `generate` makes TCP packets under
 * BPF_PROG_RUN with live frames, `sink` counts those that a balancer sent on to a backend and drops
 * them. No more than `window` packets are under way, so the slowest part sets the pace and nothing is
 * lost. `reflect` in place of a balancer says what the rest costs. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME 60
/* So long without a packet at the sink: what is under way is lost. */
#define STALLED_NS 1000000000ULL

struct settings {
	__u32 paused;
	__u32 ifindex;
	__u32 sources;
	__u32 window;
	__u64 packets; /* of this pass */
	__u32 flags; /* TCP's, as in the header */
	__u32 sequence;
	__u32 vip; /* network byte order */
	__u8 to[6];
	__u8 from[6];
};

struct counters {
	__u64 sent;
	__u64 lost;
	__u64 waiting_since;
	__u64 received_then;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

/* A map of its own: what the sink writes shares no cache line with what the generator does. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} received SEC(".maps");

struct frame {
	__u8 to[6], from[6];
	__u16 ether;
	__u8 version, tos;
	__u16 length, id, fragment;
	__u8 ttl, protocol;
	__u16 checksum;
	__u32 source, destination;
	__u16 source_port, destination_port;
	__u32 sequence, acknowledgment;
	__u8 offset, flags;
	__u16 window, tcp_checksum, urgent;
} __attribute__((packed));

static const __u32 zero;

/* The checksum of an IPv4 header of which only the addresses vary. */
static __always_inline __u16 header_checksum(__u32 source, __u32 destination)
{
	__u32 sum = 0x4500 + 40 + 0x4000 + (64 << 8) + 6;

	source = bpf_ntohl(source);
	destination = bpf_ntohl(destination);
	sum += (source >> 16) + (source & 0xffff) + (destination >> 16) + (destination & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return bpf_htons(~sum & 0xffff);
}

/* Whether another packet may leave now. */
static __always_inline int may_send(const struct settings *set, struct counters *count, __u64 done)
{
	__u64 now;

	if (count->sent - done - count->lost < set->window) {
		count->waiting_since = 0;
		return 1;
	}
	now = bpf_ktime_get_ns();
	if (!count->waiting_since || count->received_then != done) {
		count->waiting_since = now;
		count->received_then = done;
	} else if (now - count->waiting_since > STALLED_NS) {
		count->lost = count->sent - done;
	}
	return 0;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct counters *count = bpf_map_lookup_elem(&counters, &zero);
	__u64 *done = bpf_map_lookup_elem(&received, &zero);
	struct frame *frame = (void *)(long)ctx->data;
	__u32 number;

	if (!set || !count || !done || (void *)(long)ctx->data_end < (void *)frame + FRAME)
		return XDP_ABORTED;
	if (set->paused || count->sent >= set->packets ||
	    !may_send(set, count, *(volatile __u64 *)done))
		return XDP_DROP;
	/* A permutation: the factor has no divisor in common with the numbers that are used. */
	number = (count->sent * 618033989ULL) % (set->sources ?: 1);
	count->sent++;
	__builtin_memcpy(frame->to, set->to, 6);
	__builtin_memcpy(frame->from, set->from, 6);
	frame->ether = bpf_htons(0x0800);
	frame->version = 0x45;
	frame->tos = 0;
	frame->length = bpf_htons(40);
	frame->id = 0;
	frame->fragment = bpf_htons(0x4000);
	frame->ttl = 64;
	frame->protocol = 6;
	frame->source = bpf_htonl(0x64400000 + number);
	frame->destination = set->vip;
	frame->checksum = header_checksum(frame->source, frame->destination);
	frame->source_port = bpf_htons(40000);
	frame->destination_port = bpf_htons(80);
	frame->sequence = bpf_htonl(set->sequence);
	frame->acknowledgment = bpf_htonl(1);
	frame->offset = 0x50;
	frame->flags = set->flags;
	frame->window = bpf_htons(1000);
	frame->tcp_checksum = 0;
	frame->urgent = 0;
	return bpf_redirect(set->ifindex, 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	__u64 *done = bpf_map_lookup_elem(&received, &zero);
	struct frame *frame = (void *)(long)ctx->data;

	if (!done || (void *)(long)ctx->data_end < (void *)(frame + 1))
		return XDP_PASS;
	/* A client's packet, sent to another MAC than the balancer's: to a backend's. */
	if (frame->ether != bpf_htons(0x0800) || (bpf_ntohl(frame->source) >> 22) != 0x64400000 >> 22)
		return XDP_PASS;
	__sync_fetch_and_add(done, 1);
	return XDP_DROP;
}

/* Sends everything back to its sender, with another destination MAC. */
SEC("xdp")
int reflect(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;

	if ((void *)(long)ctx->data_end < (void *)(frame + 1))
		return XDP_PASS;
	if (frame->ether != bpf_htons(0x0800))
		return XDP_PASS;
	__builtin_memcpy(frame->from, frame->to, 6);
	frame->to[5]++;
	return XDP_TX;
}

char terms[] SEC("license") = "GPL";
