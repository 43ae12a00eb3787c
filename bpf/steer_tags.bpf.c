// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
/*
 * The steering program for a device that delivers a frame's VLAN tag beside the frame and cannot be
 * kept from it (veth). It can be loaded for one device only, needs Linux 6.8 and the kernel's BTF,
 * and is therefore a program of its own.
 */
#define READ_TAGS
#include "steer.bpf.c"
