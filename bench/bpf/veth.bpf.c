// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
/*
 * The traffic of the veth bench, its sink, and the two loops that the balancer is compared with. Each is
 * the program of a veth end but for `generate`, which BPF_PROG_RUN runs with live frames.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PORTS 50         /* flows of one client */
#define FIRST_PORT 1024
#define STEPS 4          /* packets that establish a flow */
#define BLOCK 64         /* flows that are established together */
#define SPREAD 2654435761ull /* a prime: flows come in another order than they were made */

/* How traffic is to be: user space writes it before the run. */
struct settings {
	__u8 macs[12];     /* destination and source */
	__u16 v6;
	__u16 udp;
	__u32 flows;
	__u32 establish;   /* each flow's first packets, instead of its next one for ever */
	__u32 sum;         /* of an IPv4 header without source address */
	__u32 unused;
	__u64 interval_ns; /* from packet to packet; 0: as fast as it goes */
};

struct progress {
	__u64 packets;
	__u64 due;
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
	__type(value, struct progress);
} progress SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct ports {
	__be16 source, dest;
};

/* SYN, ACK, two segments; then more segments of the same kind. */
static __always_inline void set_tcp(struct tcphdr *tcp, __u32 step)
{
	__u32 sequence = step == 0 ? 1000 : 1001 + (step > 1 ? (step - 2) * 6 : 0);

	tcp->seq = bpf_htonl(sequence);
	tcp->ack_seq = step ? bpf_htonl(5000 + step) : 0;
	tcp->doff = sizeof(*tcp) / 4;
	tcp->syn = step == 0;
	tcp->ack = step > 0;
	tcp->psh = 0;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, flow, step = STEPS, port;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct progress *done = bpf_map_lookup_elem(&progress, &zero);
	struct ports *ports;
	__u64 now, number;

	if (!set || !done || data + sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + sizeof(*ports) > end)
		return XDP_ABORTED;
	if (set->interval_ns) {
		now = bpf_ktime_get_ns();
		if (now < done->due)
			return XDP_DROP;
		/* What was missed for want of time is not made good. */
		done->due = (now - done->due > 1000000 ? now : done->due) + set->interval_ns;
	}
	number = done->packets++;
	if (!set->flows)
		return XDP_ABORTED;
	if (set->establish) {
		flow = number / (BLOCK * STEPS) * BLOCK + number % BLOCK;
		step = number / BLOCK % STEPS;
		if (flow >= set->flows)
			return XDP_DROP;
	} else {
		flow = number * SPREAD % set->flows;
	}
	__builtin_memcpy(data, set->macs, sizeof(set->macs));
	data += sizeof(struct ethhdr);
	port = FIRST_PORT + flow % PORTS;
	if (set->v6) {
		struct ipv6hdr *ip = data;

		ip->saddr.s6_addr32[3] = bpf_htonl(flow / PORTS);
		ports = (void *)(ip + 1);
	} else {
		struct iphdr *ip = data;
		__u32 client = 0x0a640000 + flow / PORTS, sum;

		ip->saddr = bpf_htonl(client);
		sum = set->sum + (client >> 16) + (client & 0xffff);
		sum = (sum & 0xffff) + (sum >> 16);
		ip->check = bpf_htons(~((sum & 0xffff) + (sum >> 16)));
		ports = (void *)(ip + 1);
	}
	ports->source = bpf_htons(port);
	if (!set->udp && (void *)ports + sizeof(struct tcphdr) <= end)
		set_tcp((void *)ports, step);
	return XDP_TX;
}

/* Drops the traffic; neighbour discovery is the kernel's. */
SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *six = (void *)(eth + 1);

	if ((void *)(six + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return XDP_DROP;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6) && six->nexthdr != IPPROTO_ICMPV6)
		return XDP_DROP;
	return XDP_PASS;
}

/* What a program can do at most that touches the frame: the MACs swapped, and out of the same end. */
SEC("xdp")
int reflect(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u8 mac[ETH_ALEN];

	if ((void *)(eth + 1) > end || eth->h_proto == bpf_htons(ETH_P_ARP))
		return XDP_PASS;
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return XDP_TX;
}

/* All to the socket of the only queue. */
SEC("xdp")
int to_socket(struct xdp_md *ctx)
{
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
