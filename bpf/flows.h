/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * The flow table of a worker, read where it lies: crates/dataplane/src/flow. The worker alone enters,
 * changes and removes flows, also while this reads them; here the last packet of a flow is noted.
 *
 * Line 0 is the header; then the tags, four buckets a line; then the records, 16 a bucket, one a line.
 */
#ifndef POINTSMAN_FLOWS_H
#define POINTSMAN_FLOWS_H

#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "parse.h"

#define WAYS 16
#define BUCKETS_PER_LINE 4
#define TAGS_PER_WORD 8

/* Words of the header. Of the hash there are six keys, from word 0 on. */
#define HEADER_IDLE 6 /* idle milliseconds of established flows in the upper half, and of UDP */
#define HEADER_BUCKETS 7

/* Words of a record. Source and destination are two words each, from word 0 on. */
#define RECORD_HEAD 4 /* ports (32 bits), backend (16), state (3), version (13) */
#define MAX_ADVANCE (1 << 24) /* bytes: no window is larger */
#define RECORD_SEEN 5 /* milliseconds of the last packet in the upper half, acknowledgment number */

#define HEAD_PORTS 0xffffffff00000000ull
#define HEAD_STATE_SHIFT 13
#define HEAD_STATE (7ull << HEAD_STATE_SHIFT)
#define HEAD_BACKEND_SHIFT 16

#define STATE_ESTABLISHED 2
#define STATE_UDP 5

#define EACH_BYTE 0x0101010101010101ull

/* Entries with the tag that are compared with the key, of half a bucket: more are user space's. */
#define TRIES 3

/*
 * Loads before it stay before loads behind it. On x86 they do in any case; elsewhere an access that
 * orders everything has to do, for BPF has no weaker one that all supported kernels know.
 */
#if defined(__TARGET_ARCH_x86)
#define keep_order(word) barrier()
#else
#define keep_order(word) __sync_fetch_and_add(word, 0)
#endif

/* A flow that was found. */
struct found {
	__u64 *seen;   /* where its last packet is noted */
	__u64 was;     /* what is noted there */
	__u64 idle;    /* milliseconds until it is over */
	__u32 backend;
};

/* What is looked for. */
struct wanted {
	__u64 src[2], dst[2];
	__u64 head;    /* ports and state */
	__u32 buckets;
	__u8 tag;
};

static __always_inline __u64 load(const __u64 *word)
{
	return *(const volatile __u64 *)word;
}

/* Both halves of the 128-bit product, one over the other: hash.rs. */
static __always_inline __u64 fold(__u64 a, __u64 b)
{
	__u64 al = (__u32)a, ah = a >> 32, bl = (__u32)b, bh = b >> 32;
	__u64 low = al * bl, one = al * bh, other = ah * bl, high = ah * bh;
	__u64 middle = (low >> 32) + (__u32)one + (__u32)other;

	return (a * b) ^ (high + (one >> 32) + (other >> 32) + (middle >> 32));
}

/*
 * Whether the record is of the flow, now and in one piece. The head comes first and last: it changes
 * whenever the record is filled anew, so what was read between two equal ones is one flow's.
 */
static __always_inline bool is_of(struct line *record, const struct wanted *wanted, struct found *found)
{
	__u64 *words = record->words;
	__u64 head = load(&words[RECORD_HEAD]);

	if ((head ^ wanted->head) & (HEAD_PORTS | HEAD_STATE))
		return false;
	keep_order(&words[RECORD_HEAD]);
	if (((load(&words[0]) ^ wanted->src[0]) | (load(&words[1]) ^ wanted->src[1]) |
	     (load(&words[2]) ^ wanted->dst[0]) | (load(&words[3]) ^ wanted->dst[1])))
		return false;
	found->seen = &words[RECORD_SEEN];
	found->was = load(found->seen);
	found->backend = (head >> HEAD_BACKEND_SHIFT) & 0xffff;
	keep_order(&words[RECORD_HEAD]);
	return load(&words[RECORD_HEAD]) == head;
}

static __always_inline bool find_in(void *table, __u32 bucket, const struct wanted *wanted,
				    struct found *found)
{
	__u32 at = 1 + bucket / BUCKETS_PER_LINE;
	__u32 records = 1 + (wanted->buckets + BUCKETS_PER_LINE - 1) / BUCKETS_PER_LINE;
	struct line *tags = bpf_map_lookup_elem(table, &at);

	if (!tags)
		return false;
#pragma unroll
	for (int half = 0; half < WAYS / TAGS_PER_WORD; half++) {
		__u64 unlike = load(&tags->words[(bucket % BUCKETS_PER_LINE) * 2 + half]) ^
			       wanted->tag * EACH_BYTE;
		/* The top bit of each byte that is zero, and now and then of one above such a byte. */
		__u64 hits = (unlike - EACH_BYTE) & ~unlike & EACH_BYTE << 7;

		for (int tries = 0; hits && tries < TRIES; tries++) {
			struct line *record;
			__u32 way;

			/* The number of the lowest byte: there is no instruction that counts zeros. */
			way = ((hits & -hits) >> 7) * 0x0001020304050607ull >> 56;
			at = records + bucket * WAYS + half * TAGS_PER_WORD + way;
			record = bpf_map_lookup_elem(table, &at);
			if (record && is_of(record, wanted, found))
				return true;
			hits &= hits - 1;
		}
	}
	return false;
}

/*
 * Notes the packet, unless the record was filled anew or another packet was noted meanwhile: then
 * `seen` is another flow's, or no older than this. The bytes that it acknowledges beyond the last one
 * (`acked` of `flow/entry.rs`).
 */
static __always_inline __s64 note(const struct found *found, const struct frame *frame, __u32 now_ms)
{
	__u32 ack = frame->client.protocol == IPPROTO_TCP ? frame->client.ack : (__u32)found->was;
	__u64 new = (__u64)now_ms << 32 | ack;
	__s32 ahead = ack - (__u32)found->was;

	if (__sync_val_compare_and_swap(found->seen, found->was, new) != found->was)
		return 0;
	return ahead > MAX_ADVANCE || ahead < -MAX_ADVANCE ? 0 : ahead;
}

/* The flow of the frame's client, if it is established (UDP: confirmed); it may be over. */
static __always_inline bool find(void *table, const struct frame *frame, struct found *found)
{
	bool is_tcp = frame->client.protocol == IPPROTO_TCP;
	struct wanted wanted;
	const struct line *header;
	const __u64 *keys;
	__u64 words[2], src, dst, tuple, hash;
	__u32 at = 0, first, second;

	header = bpf_map_lookup_elem(table, &at);
	if (!header)
		return false;
	wanted.buckets = load(&header->words[HEADER_BUCKETS]);
	if (!wanted.buckets)
		return false;
	keys = header->words;
	__builtin_memcpy(words, &frame->about, sizeof(words));
	wanted.src[0] = frame->client.src[0];
	wanted.src[1] = frame->client.src[1];
	wanted.dst[0] = bpf_be64_to_cpu(words[0]);
	wanted.dst[1] = bpf_be64_to_cpu(words[1]);
	wanted.head = (__u64)frame->client.ports << 32 |
		      (is_tcp ? STATE_ESTABLISHED : STATE_UDP) << HEAD_STATE_SHIFT;
	src = fold(wanted.src[0] ^ keys[0], wanted.src[1] ^ keys[1]);
	dst = fold(wanted.dst[0] ^ keys[2], wanted.dst[1] ^ keys[3]);
	tuple = (__u64)(frame->client.ports & 0xffff) << 32 | (frame->client.ports & 0xffff0000) |
		frame->client.protocol;
	hash = fold(src ^ tuple ^ keys[4], dst ^ keys[5]);
	wanted.tag = (__u8)hash ? (__u8)hash : 1;
	found->idle = is_tcp ? load(&header->words[HEADER_IDLE]) >> 32
			     : (__u32)load(&header->words[HEADER_IDLE]);
	first = (hash & 0xffffffff) * wanted.buckets >> 32;
	if (find_in(table, first, &wanted, found))
		return true;
	second = (hash >> 32) * wanted.buckets >> 32;
	if (second == first)
		second = first + 1 < wanted.buckets ? first + 1 : 0;
	return find_in(table, second, &wanted, found);
}

#endif
