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
	__u8 unused[2];
};

/* What became of a frame. Every frame is counted as exactly one of these, the counters' keys. */
enum outcome {
	OUTCOME_PASSED,              /* no VIP's business */
	OUTCOME_MALFORMED,           /* passed: a header is cut off or contradicts itself */
	OUTCOME_GROUP,               /* passed: for a VIP, but sent to an Ethernet group */
	OUTCOME_OTHER_INTERFACE,     /* passed: the VIP belongs to another interface */
	OUTCOME_OTHER_HOST,          /* passed: for a VIP, but sent to the MAC of another host */
	OUTCOME_REDIRECTED,          /* IP packet for an active VIP, to the queue's socket */
	OUTCOME_NEIGHBOUR_REDIRECTED, /* ARP request or NS for an active VIP, likewise */
	OUTCOME_UNBOUND,             /* passed: active VIP, but the queue has no socket */
	OUTCOME_INACTIVE,            /* dropped: IP packet for a VIP that is not active here */
	OUTCOME_NEIGHBOUR_INACTIVE,  /* dropped: ARP request or NS for such a VIP */
	OUTCOME_COUNT
};

/* Context of the `clock` program. */
struct clock {
	__u64 now_ns; /* out: the clock that leases are compared with */
};

_Static_assert(sizeof(struct addr) == 16, "key of the VIP map");
_Static_assert(sizeof(struct vip) == 8, "value of the VIP map");
_Static_assert(sizeof(struct port) == 8, "value of the port map");
_Static_assert(OUTCOME_COUNT == 10, "entries of the counter array");
_Static_assert(sizeof(struct clock) == 8, "context of the clock program");

#endif
