// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
/*
 * Counts the frames that the steering program sent and the driver dropped, of the device that they
 * should have left by: no counter that all devices have shows that, but tracepoints do.
 *
 * Needs the kernel's BTF, and is therefore a program of its own.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Interfaces that are watched. */
#define WATCHED 256

/* An interface index means nothing without its network namespace. */
struct device {
	__u32 netns; /* inode number of the namespace */
	__u32 ifindex;
};

/* The kernel's structures, as far as they are read; where the fields are its BTF says. */
struct ns_common {
	unsigned int inum;
} __attribute__((preserve_access_index));

struct net {
	struct ns_common ns;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} __attribute__((preserve_access_index));

/* User space enters the interfaces. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, WATCHED);
	__type(key, struct device);
	__type(value, __u64);
} losses SEC(".maps");

static __always_inline struct device key_of(const struct net_device *dev)
{
	struct device device = {
		.netns = BPF_CORE_READ(dev, nd_net.net, ns.inum),
		.ifindex = BPF_CORE_READ(dev, ifindex),
	};

	return device;
}

static __always_inline bool is_watched(const struct net_device *dev)
{
	struct device device = key_of(dev);

	return bpf_map_lookup_elem(&losses, &device);
}

static __always_inline void add(struct device device, __u64 frames)
{
	__u64 *lost = bpf_map_lookup_elem(&losses, &device);

	if (lost)
		__sync_fetch_and_add(lost, frames);
}

/* XDP_TX of cards, and in generic mode: device, program, action; one frame. */
SEC("tp_btf/xdp_exception")
int on_exception(__u64 *args)
{
	if ((__u32)args[2] == XDP_TX)
		add(key_of((const void *)args[0]), 1);
	return 0;
}

/* XDP_TX of veth: device, how many were sent, how many were dropped. */
SEC("tp_btf/xdp_bulk_tx")
int on_bulk_tx(__u64 *args)
{
	if ((int)args[2] > 0)
		add(key_of((const void *)args[0]), (int)args[2]);
	return 0;
}

/* Redirected: from and to which device, how many were sent, how many were dropped. */
SEC("tp_btf/xdp_devmap_xmit")
int on_devmap_xmit(__u64 *args)
{
	if ((int)args[3] > 0 && is_watched((const void *)args[0]))
		add(key_of((const void *)args[1]), (int)args[3]);
	return 0;
}

/*
 * Refused before it came to that, as too long or with the device down: from which device, program,
 * target, error, kind of the map, its number, the key there, which is an interface index in ours.
 */
SEC("tp_btf/xdp_redirect_err")
int on_redirect_error(__u64 *args)
{
	const struct net_device *from = (const void *)args[0];
	struct device to = key_of(from);

	if ((__u32)args[4] != BPF_MAP_TYPE_DEVMAP_HASH || !is_watched(from))
		return 0;
	to.ifindex = args[6];
	add(to, 1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
