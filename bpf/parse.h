/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * From bytes to the address that a frame is about, and for the packets that most are to the client's
 * half of the flow. Looks at no map and decides nothing.
 *
 * Adding what a packet says of its length to a packet pointer takes CAP_PERFMON.
 */
#ifndef POINTSMAN_PARSE_H
#define POINTSMAN_PARSE_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define VLAN_TAGS 2
#define IPV4_MIN_WORDS 5
#define IPV4_MAPPED 0xffff00000000ull /* the upper part of the lower half: RFC 4291 §2.5.5.2 */
#define IPV4_FRAGMENT 0x3fff /* more fragments, or an offset */
#define TCP_FLAGS 13 /* the byte that has them */
#define TCP_MEANING 0x17 /* ACK, RST, SYN, FIN */
#define TCP_ACK 0x10
#define ARP_ETHERNET 1 /* RFC 826; <linux/if_arp.h> wants a C library */
#define ARP_REQUEST 1
#define NEXT_ICMPV6 58
#define ND_HOP_LIMIT 255 /* RFC 4861 §7.1.1 */
#define ND_ROUTER_SOLICITATION 133
#define ND_NEIGHBOUR_SOLICITATION 135
#define ND_REDIRECT 137

enum kind {
	KIND_OTHER,     /* nothing that could be about a VIP */
	KIND_MALFORMED, /* a header is cut off or contradicts itself */
	KIND_IP,        /* an IP packet; the address is its destination */
	KIND_NEIGHBOUR  /* an ARP request or neighbour solicitation; the address is its target */
};

/*
 * The source of a whole, usual packet: TCP with ACK and without RST, SYN and FIN, or
 * UDP; no IPv4 options, no IPv6 extension headers.
 */
struct client {
	__u64 src[2];   /* the address as a number, the upper half first; IPv4 is mapped */
	__u32 ports;    /* the VIP's in the upper half, the client's */
	__u32 ack;      /* TCP: the acknowledgment number */
	__u16 len;      /* of the TCP segment or UDP datagram */
	__u16 checksum;
	__u8 protocol;  /* 0: no such packet */
};

struct frame {
	void *pos;         /* first byte not yet parsed */
	void *end;
	bool group;        /* the Ethernet destination is multicast or broadcast */
	struct addr about; /* valid for KIND_IP and KIND_NEIGHBOUR */
	bool wants_client; /* in: whether `client` is looked at */
	struct client client; /* valid for KIND_IP */
};

struct vlan_tag {
	__be16 control;
	__be16 type;
};

/* What every ARP packet starts with. */
struct arp_fixed {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
};

/* ARP for IPv4 over Ethernet (RFC 826). */
struct arp_ipv4 {
	struct arp_fixed fixed;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender_ip[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target_ip[4];
};

/* Neighbour solicitation without its options (RFC 4861 §4.3). */
struct solicitation {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 reserved;
	struct addr target;
};

_Static_assert(sizeof(struct arp_ipv4) == 28, "no padding");
_Static_assert(sizeof(struct solicitation) == 24, "no padding");

/*
 * A length field in host order, as a number that may be added to a packet pointer. The verifiers of
 * most kernels know nothing of the result of a byte swap, and clang, which knows that it fits into
 * 16 bits, leaves out a mask that would tell them: hence the barrier before the mask.
 */
static __always_inline __u64 length(__be16 field)
{
	__u64 value = bpf_ntohs(field);

	barrier_var(value);
	return value & 0xffff;
}

static __always_inline void about_ipv4(struct frame *frame, const void *octets)
{
	__builtin_memset(frame->about.octets, 0, 10);
	__builtin_memset(frame->about.octets + 10, 0xff, 2);
	__builtin_memcpy(frame->about.octets + 12, octets, 4);
}

/*
 * No packet may carry an IPv4-mapped address on the wire (RFC 4291 §2.5.5.2); believed, it would
 * be taken for the IPv4 VIP.
 */
static __always_inline enum kind about_ipv6(struct frame *frame, const void *octets, enum kind kind)
{
	__u32 words[4];

	__builtin_memcpy(words, octets, sizeof(words));
	if (!words[0] && !words[1] && words[2] == bpf_htonl(0xffff))
		return KIND_OTHER;
	__builtin_memcpy(&frame->about, words, sizeof(words));
	return kind;
}

static __always_inline enum kind parse_arp(struct frame *frame)
{
	struct arp_ipv4 *arp = frame->pos;

	if ((void *)(&arp->fixed + 1) > frame->end)
		return KIND_MALFORMED;
	if (arp->fixed.hardware != bpf_htons(ARP_ETHERNET) ||
	    arp->fixed.protocol != bpf_htons(ETH_P_IP) || arp->fixed.hardware_len != ETH_ALEN ||
	    arp->fixed.protocol_len != 4 || arp->fixed.operation != bpf_htons(ARP_REQUEST))
		return KIND_OTHER;
	if ((void *)(arp + 1) > frame->end)
		return KIND_MALFORMED;
	/*
	 * Sender and target alike: no question but an announcement (RFC 5227 §3). The VIP guard, a
	 * packet socket, wants to see it.
	 */
	if (!__builtin_memcmp(arp->sender_ip, arp->target_ip, sizeof(arp->target_ip)))
		return KIND_OTHER;
	about_ipv4(frame, arp->target_ip);
	return KIND_NEIGHBOUR;
}

static __always_inline __u32 ports(__be16 source, __be16 dest)
{
	return (__u32)bpf_ntohs(dest) << 16 | bpf_ntohs(source);
}

/* RFC 9293 §3.1, RFC 768: what user space refuses as malformed is no client's. */
static __always_inline void parse_client(struct frame *frame, __u8 protocol, void *header, __u64 len)
{
	const struct tcphdr *tcp = header;
	const struct udphdr *udp = header;

	if (protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > frame->end)
			return;
		if (tcp->doff * 4u < sizeof(*tcp) || tcp->doff * 4u > len)
			return;
		if ((((const __u8 *)tcp)[TCP_FLAGS] & TCP_MEANING) != TCP_ACK)
			return;
		frame->client.ports = ports(tcp->source, tcp->dest);
		frame->client.ack = bpf_ntohl(tcp->ack_seq);
		frame->client.checksum = bpf_ntohs(tcp->check);
		frame->client.len = len;
	} else if (protocol == IPPROTO_UDP) {
		if ((void *)(udp + 1) > frame->end)
			return;
		if (bpf_ntohs(udp->len) < sizeof(*udp) || bpf_ntohs(udp->len) > len)
			return;
		frame->client.ports = ports(udp->source, udp->dest);
		frame->client.checksum = bpf_ntohs(udp->check);
		frame->client.len = bpf_ntohs(udp->len);
	} else {
		return;
	}
	frame->client.protocol = protocol;
}

static __always_inline enum kind parse_ipv4(struct frame *frame)
{
	struct iphdr *ip = frame->pos;
	__u64 header, total;

	if ((void *)(ip + 1) > frame->end)
		return KIND_MALFORMED;
	header = ip->ihl * 4;
	total = length(ip->tot_len);
	if (ip->version != 4 || ip->ihl < IPV4_MIN_WORDS || total < header)
		return KIND_MALFORMED;
	if (frame->pos + total > frame->end)
		return KIND_MALFORMED;
	about_ipv4(frame, &ip->daddr);
	if (frame->wants_client && ip->ihl == IPV4_MIN_WORDS && !(ip->frag_off & bpf_htons(IPV4_FRAGMENT))) {
		frame->client.src[0] = 0;
		frame->client.src[1] = IPV4_MAPPED | bpf_ntohl(ip->saddr);
		parse_client(frame, ip->protocol, ip + 1, total - header);
	}
	return KIND_IP;
}

/*
 * An ICMPv6 message directly behind the fixed header. Neighbour discovery is the kernel's but for
 * solicitations; a solicitation that a host must ignore is the kernel's to ignore.
 */
static __always_inline enum kind parse_icmpv6(struct frame *frame, struct ipv6hdr *ip)
{
	struct solicitation *ns = (void *)(ip + 1);
	__u64 payload = length(ip->payload_len);

	if (!payload || (void *)(&ns->type + 1) > frame->end)
		return about_ipv6(frame, &ip->daddr, KIND_IP);
	if (ns->type < ND_ROUTER_SOLICITATION || ns->type > ND_REDIRECT)
		return about_ipv6(frame, &ip->daddr, KIND_IP);
	if (ns->type != ND_NEIGHBOUR_SOLICITATION || ip->hop_limit != ND_HOP_LIMIT)
		return KIND_OTHER;
	if (payload < sizeof(*ns) || (void *)(ns + 1) > frame->end)
		return KIND_MALFORMED;
	if (ns->code)
		return KIND_OTHER;
	return about_ipv6(frame, &ns->target, KIND_NEIGHBOUR);
}

static __always_inline enum kind parse_ipv6(struct frame *frame)
{
	struct ipv6hdr *ip = frame->pos;
	__u64 words[2];

	if ((void *)(ip + 1) > frame->end || ip->version != 6)
		return KIND_MALFORMED;
	if ((void *)(ip + 1) + length(ip->payload_len) > frame->end)
		return KIND_MALFORMED;
	if (ip->nexthdr == NEXT_ICMPV6)
		return parse_icmpv6(frame, ip);
	if (frame->wants_client) {
		__builtin_memcpy(words, &ip->saddr, sizeof(words));
		frame->client.src[0] = bpf_be64_to_cpu(words[0]);
		frame->client.src[1] = bpf_be64_to_cpu(words[1]);
		parse_client(frame, ip->nexthdr, ip + 1, length(ip->payload_len));
	}
	return about_ipv6(frame, &ip->daddr, KIND_IP);
}

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* A third VLAN tag is nobody's configuration: such a frame is KIND_OTHER. */
static __always_inline enum kind parse(struct frame *frame)
{
	struct ethhdr *eth = frame->pos;
	__be16 type;

	if ((void *)(eth + 1) > frame->end)
		return KIND_MALFORMED;
	frame->pos = eth + 1;
	frame->group = eth->h_dest[0] & 1;
	type = eth->h_proto;
#pragma unroll
	for (int tag_no = 0; tag_no < VLAN_TAGS; tag_no++) {
		struct vlan_tag *tag = frame->pos;

		if (!is_vlan(type))
			break;
		if ((void *)(tag + 1) > frame->end)
			return KIND_MALFORMED;
		frame->pos = tag + 1;
		type = tag->type;
	}
	if (type == bpf_htons(ETH_P_IP))
		return parse_ipv4(frame);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(frame);
	if (type == bpf_htons(ETH_P_ARP))
		return parse_arp(frame);
	return KIND_OTHER;
}

#endif
