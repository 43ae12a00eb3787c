/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * What the steering program and user space share: sizes, structures and the list of outcomes.
 * The other half is crates/steer/src/abi.rs and outcome.rs; a test there reads this file.
 */
#ifndef POINTSMAN_ABI_H
#define POINTSMAN_ABI_H

#include <linux/types.h>

/* Slots of the lease array: one per VRRP instance and one for VIPs without VRRP. */
#define INSTANCES 256

/* Addresses in the VIP map. */
#define VIPS 4096

/* Queues of an XSKMAP if user space asks for no more: an interface may grow while attached. */
#define XSKS 256

/* Backend slots. */
#define BACKENDS 4096

/* Interfaces that frames can be redirected to. */
#define EGRESSES 256

/* An address of either family in network order; IPv4 is mapped, ::ffff:a.b.c.d. */
struct addr {
	__u8 octets[16];
};

/* To whom an address belongs. */
struct vip {
	__u32 instance; /* slot in the lease array */
	__u32 ifindex;  /* the only interface that has the VIP; 0: all of them */
};

/* The interface that a program is attached to. */
struct port {
	__u8 mac[6]; /* frames to any other unicast MAC are another host's */
	__u16 local_longest; /* senders may be on this very host: their longest frame; 0: they are not */
	__u32 redirects; /* frames leave by this interface through `egress` as well, not by XDP_TX */
};

/* What became of a frame. Every frame is counted as exactly one of these, the counters' keys. */
enum outcome {
	OUTCOME_PASSED,              /* no VIP's business */
	OUTCOME_MALFORMED,           /* passed: a header is cut off or contradicts itself */
	OUTCOME_GROUP,               /* passed: for a VIP, but sent to an Ethernet group */
	OUTCOME_OTHER_INTERFACE,     /* passed: the VIP belongs to another interface */
	OUTCOME_OTHER_HOST,          /* passed: for a VIP, but sent to the MAC of another host */
	OUTCOME_FORWARDED,           /* next packet of a known flow, sent to its backend */
	OUTCOME_REDIRECTED,          /* IP packet for an active VIP, to the queue's socket */
	OUTCOME_NEIGHBOUR_REDIRECTED, /* ARP request or NS for an active VIP, likewise */
	OUTCOME_UNBOUND,             /* passed: active VIP, but the queue has no socket */
	OUTCOME_INACTIVE,            /* dropped: IP packet for a VIP that is not active here */
	OUTCOME_NEIGHBOUR_INACTIVE,  /* dropped: ARP request or NS for such a VIP */
	OUTCOME_COUNT
};

/* A line of a flow table. What is in it: flows.h. */
struct line {
	__u64 words[8];
};

/* Where a backend's frames go. */
struct next_hop {
	__u8 macs[12];     /* the backend's and the egress port's: the first bytes of the frame */
	__u32 ifindex;     /* the egress port */
	__u16 instance;    /* slot in the lease array */
	__u16 vip;         /* slot in the array of VIP states */
	__u8 usable;       /* frames can be sent to it */
	__u8 unused[11];
};

/* Bits of the filter of our own MACs. */
#define OWN_BITS 1024

/* What one snapshot of user space says: replaced as a whole. */
struct picture {
	__u64 own[OWN_BITS / 64]; /* a bit for the hash of each MAC of ours */
	struct next_hop hops[BACKENDS];
};

/* What one CPU sent to one backend. */
struct traffic {
	__u64 packets;
	__u64 bytes; /* Ethernet header included */
	__s64 acked; /* bytes that clients acknowledged */
};

/* Context of the `clock` program. */
struct clock {
	__u64 now_ns; /* out: the clock that leases are compared with */
};

_Static_assert(sizeof(struct addr) == 16, "key of the VIP map");
_Static_assert(sizeof(struct vip) == 8, "value of the VIP map");
_Static_assert(sizeof(struct port) == 12, "value of the port map");
_Static_assert(OUTCOME_COUNT == 11, "entries of the counter array");
_Static_assert(sizeof(struct line) == 64, "line of the cache");
_Static_assert(sizeof(struct next_hop) == 32, "never in two lines");
_Static_assert(sizeof(struct picture) == 128 + 32 * BACKENDS, "value of a picture");
_Static_assert(sizeof(struct traffic) == 24, "value of the traffic array");
_Static_assert(sizeof(struct clock) == 8, "context of the clock program");

#endif
