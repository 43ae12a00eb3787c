//! How the table lies in memory: tags that tell where a key may be, and one line per entry that
//! holds everything about it.
//!
//! One worker writes; other threads, and the XDP program, may read at any time. An entry's *head*
//! tells them whether what they read belongs together: see [`fill`] and [`Head`].

use std::sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed, Ordering::Release};

use wide::u8x16;

use crate::addr::{Addr, Mac};
use crate::key::{FlowKey, Protocol};
use crate::packet::TcpFields;
use crate::persistence::{Epoch, TemplateKey, TemplateRef};
use crate::slots::{BackendSlot, ServiceSlot};

use super::state::FlowState;
use super::{Flow, Membership, NewFlow};

/// Entries of a bucket.
pub(super) const WAYS: usize = 16;

/// The same in the unit of entry indices.
pub(super) const BUCKET: u32 = 16;

/// Words of a cache line.
pub(super) const LINE: usize = 8;

/// A cache line.
pub(super) type Line = [AtomicU64; LINE];

/// The tags of a bucket's entries, 8 bits of the keyed hash each, the lowest first; 0: the entry is
/// free. Four buckets share a line, and the tags of a million flows stay in the cache when their
/// entries do not.
pub(super) type Tags = [AtomicU64; 2];

/// The entries with this tag, as a bit each.
#[inline]
pub(super) fn matching([low, high]: &Tags, tag: u8) -> u32 {
    let tags = u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed));
    u8x16::new(tags.to_le_bytes()).simd_eq(u8x16::splat(tag)).to_bitmask()
}

/// Changes the tag of an entry of the bucket.
pub(super) fn set_tag(tags: &Tags, way: usize, tag: u8) {
    let shift = way % TAGS_PER_WORD * 8;
    if let Some(word) = tags.get(way / TAGS_PER_WORD) {
        let others = word.load(Relaxed) & !(0xff << shift);
        word.store(others | u64::from(tag) << shift, Relaxed);
    }
}

const TAGS_PER_WORD: usize = 8;

/// Entries of a bucket.
pub(super) struct Positions {
    pub(super) bucket: u32,
    /// As [`matching`] has them.
    pub(super) mask: u32,
}

impl Iterator for Positions {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.mask == 0 {
            return None;
        }
        let way = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        Some(self.bucket * BUCKET + way)
    }
}

/// All that is known of a flow, in one line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a>(pub(super) &'a Line);

/// The words of an entry. The addresses are 128 bits each, the upper half first.
pub(super) const ADDRESSES: [usize; 4] = [0, 1, 2, 3];
/// [`Head`].
pub(super) const HEAD: usize = 4;
/// [`Seen`]: the one word that the XDP program writes as well.
pub(super) const SEEN: usize = 5;
/// The template's epoch (0: none) and [`Record::mark`].
const TEMPLATE: usize = 6;
/// The client's MAC (see [`Record::resettable`]), the length of the template's source prefix in the
/// 128-bit form, and a byte that is not used.
const CLIENT: usize = 7;

/// The VIP's port and the client's (16 bits each), backend (16), state (3; 0: the entry is free) and version (13) of an entry,
/// in one word from the top.
///
/// The version changes whenever the entry is filled. So a reader that finds the same head before and
/// after it read the addresses has read those of one flow, and the backend and state that this flow
/// had: for anything else the entry would have to be filled 8,192 times in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head(pub(super) u64);

impl Head {
    #[inline]
    pub(super) const fn ports(key: &FlowKey) -> Self {
        // As they lie in the key of most machines, so that one load takes both.
        Self((key.dst_port as u64) << 48 | (key.src_port as u64) << 32)
    }

    const fn with_backend(self, backend: BackendSlot) -> Self {
        Self(self.0 | (backend.0 as u64) << BACKEND_SHIFT)
    }

    #[inline]
    const fn with_state(self, state: FlowState) -> Self {
        Self(self.0 & !STATE | (state as u64) << STATE_SHIFT)
    }

    /// Of a free entry that has held as many flows as this one.
    const fn freed(self) -> Self {
        Self(self.0 & VERSION)
    }

    const fn with_version_after(self, other: Self) -> Self {
        Self(self.0 & !VERSION | other.0.wrapping_add(1) & VERSION)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the part that is asked for")]
    pub(super) const fn backend(self) -> BackendSlot {
        BackendSlot((self.0 >> BACKEND_SHIFT) as u16)
    }

    /// `None`: the entry is free.
    #[inline]
    pub(super) const fn state(self) -> Option<FlowState> {
        FlowState::from_bits((self.0 & STATE) >> STATE_SHIFT)
    }

    /// The 5-tuple of a flow between these addresses; that of a free entry says nothing.
    pub(super) fn key(self, src: Addr, dst: Addr) -> FlowKey {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        FlowKey {
            src,
            dst,
            src_port: u16::from_be_bytes([c, d]),
            dst_port: u16::from_be_bytes([a, b]),
            protocol: self.state().map_or(Protocol::Tcp, FlowState::protocol),
        }
    }

    /// Whether the ports are those of the other one.
    #[inline]
    const fn has_ports_of(self, other: Self) -> bool {
        (self.0 ^ other.0) >> 32 == 0
    }
}

const BACKEND_SHIFT: u32 = 16;
const STATE_SHIFT: u32 = 13;
const STATE: u64 = 7 << STATE_SHIFT;
const VERSION: u64 = (1 << STATE_SHIFT) - 1;

/// When the last packet came ([`Tick::wrapping_millis`](crate::Tick::wrapping_millis)), and what it
/// acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) millis: u32,
    pub(super) ack: u32,
}

/// What an entry is filled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents {
    words: [u64; LINE],
}

impl Contents {
    pub(super) fn new(key: &FlowKey, state: FlowState, new: &NewFlow, now: u32) -> Self {
        let (src, dst) = (halves(key.src), halves(key.dst));
        let seen = (now, new.tcp.map_or(0, |tcp| tcp.ack));
        let template = new.template.map_or(0, |template| template.epoch.number());
        let mark = new.tcp.map_or(0, |tcp| tcp.next);
        let prefix_len = new.template.map_or(0, |template| template.prefix_len);
        let head = Head::ports(key).with_backend(new.backend).with_state(state);
        Self {
            words: [
                src[0],
                src[1],
                dst[0],
                dst[1],
                head.0,
                join(seen.0, seen.1),
                join(template, mark),
                client_bits(new.client) | u64::from(prefix_len) << PREFIX_SHIFT,
            ],
        }
    }
}

/// What the protocol between writer and readers needs of a word: that of the standard library, and
/// that of a model.
pub(super) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn fence(order: Ordering);
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// Fills the entry whose words are `words` and whose head is `words[head_at]`, which must be that of a
/// free one.
///
/// The head goes first and last: no reader that finds the new flow's head twice, or the former one's,
/// has read a word of the other between.
pub(super) fn fill<W: Word>(words: &[W], head_at: usize, contents: &[u64]) {
    let Some((head, new_head)) = words.get(head_at).zip(contents.get(head_at)) else { return };
    let former = Head(head.load(Relaxed));
    let filling = Head(0).with_version_after(former);
    head.store(filling.0, Relaxed);
    W::fence(Release);
    for (at, (word, content)) in words.iter().zip(contents).enumerate() {
        if at != head_at {
            word.store(*content, Relaxed);
        }
    }
    head.store(Head(*new_head).with_version_after(former).0, Release);
}

impl Record<'_> {
    /// Fills a free entry.
    pub(super) fn fill(self, contents: &Contents) {
        fill(self.0, HEAD, &contents.words);
    }

    /// Frees the entry.
    pub(super) fn free(self) {
        self.set_head(self.head().freed());
    }

    #[inline]
    fn load(self, at: usize) -> u64 {
        // All indices are constants below `LINE`: nothing is left of this check.
        self.0.get(at).map_or(0, |word| word.load(Relaxed))
    }

    #[inline]
    fn store(self, at: usize, value: u64) {
        if let Some(word) = self.0.get(at) {
            word.store(value, Relaxed);
        }
    }

    #[inline]
    fn head(self) -> Head {
        Head(self.load(HEAD))
    }

    fn set_head(self, head: Head) {
        self.store(HEAD, head.0);
    }

    /// `None`: the entry is free.
    #[inline]
    pub(super) fn state(self) -> Option<FlowState> {
        self.head().state()
    }

    pub(super) fn set_state(self, state: FlowState) {
        self.set_head(self.head().with_state(state));
    }

    #[inline]
    pub(super) fn backend(self) -> BackendSlot {
        self.head().backend()
    }

    #[inline]
    pub(super) fn seen(self) -> Seen {
        seen_of(self.load(SEEN))
    }

    /// Takes note of a packet.
    #[inline]
    pub(super) fn note(self, seen: Seen) {
        self.store(SEEN, join(seen.millis, seen.ack));
    }

    /// Of an unproven flow: [`TcpFields::next`] of its last segment. Of one that ended: when a packet
    /// of it was last reported, in the unit of [`Seen::millis`].
    pub(super) fn mark(self) -> u32 {
        split(self.load(TEMPLATE)).1
    }

    pub(super) fn set_mark(self, mark: u32) {
        self.store(TEMPLATE, join(split(self.load(TEMPLATE)).0, mark));
    }

    fn source(self) -> Addr {
        self.address([ADDRESSES[0], ADDRESSES[1]])
    }

    fn address(self, halves: [usize; 2]) -> Addr {
        address_of(halves.map(|at| self.load(at)))
    }

    pub(super) fn key(self) -> FlowKey {
        self.head().key(self.source(), self.address([ADDRESSES[2], ADDRESSES[3]]))
    }

    /// Whether it is in use for `key`.
    #[inline]
    pub(super) fn is_of(self, key: &FlowKey) -> bool {
        self.is_between(key) && self.state().is_some_and(|state| state.protocol() == key.protocol)
    }

    /// Whether addresses and ports are those of `key`.
    #[inline]
    pub(super) fn is_between(self, key: &FlowKey) -> bool {
        self.address_bits_unlike(key) == 0 && self.head().has_ports_of(Head::ports(key))
    }

    /// The backend, if the entry is in use for `key` in this state.
    #[inline]
    pub(super) fn backend_of(self, key: &FlowKey, state: FlowState) -> Option<BackendSlot> {
        let head = self.head();
        let differs = (head.0 ^ Head::ports(key).with_state(state).0) & (PORTS | STATE);
        (differs | self.address_bits_unlike(key) == 0).then(|| head.backend())
    }

    /// 0: the addresses are those of `key`.
    #[inline]
    fn address_bits_unlike(self, key: &FlowKey) -> u64 {
        let ([a, b], [c, d]) = (halves(key.src), halves(key.dst));
        let [e, f, g, h] = ADDRESSES.map(|at| self.load(at));
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h)
    }

    pub(super) fn join(self, template: Membership) {
        self.store(TEMPLATE, join(template.epoch.number(), self.mark()));
        let others = self.load(CLIENT) & !(0xff << PREFIX_SHIFT);
        self.store(CLIENT, others | u64::from(template.prefix_len) << PREFIX_SHIFT);
    }

    /// Its template is another one by now.
    pub(super) fn leave(self) {
        self.store(TEMPLATE, join(0, self.mark()));
    }

    pub(super) fn template(self, service: ServiceSlot) -> Option<TemplateRef> {
        let epoch = Epoch::new(split(self.load(TEMPLATE)).0)?;
        let [.., prefix_len, _] = self.load(CLIENT).to_be_bytes();
        Some(TemplateRef { key: TemplateKey::new(service, self.source(), prefix_len), epoch })
    }

    /// Whether the segment's numbers lie ahead of those of the flow's last one, as they do when the
    /// client sent or received something in between. By no more than a window: one that has nothing
    /// to do with the flow, with numbers of any kind, is told apart from it in 127 of 128 cases.
    pub(super) fn advances(self, tcp: TcpFields) -> bool {
        is_ahead(tcp.ack, self.seen().ack) || is_ahead(tcp.next, self.mark())
    }

    /// Whether the segment's acknowledgment can be the client's: not further ahead of the last one than a
    /// window, nor further behind than segments overtake each other (RFC 5961 §3.2, §5.2).
    pub(super) fn fits(self, tcp: TcpFields) -> bool {
        let last = self.seen().ack;
        is_ahead(tcp.ack, last) || last.wrapping_sub(tcp.ack) <= OVERTAKEN
    }

    /// Takes note of where the client's frames come from now.
    pub(super) fn came_from(self, client: Mac) {
        let others = self.load(CLIENT) & !(u64::MAX << CLIENT_SHIFT);
        self.store(CLIENT, others | client_bits(client));
    }

    /// Where a reset to the client would go, and its sequence number; `None` if it cannot be sent:
    /// the MAC is all zero where the client's frames came from is not known, or of no use.
    pub(super) fn resettable(self) -> Option<(Mac, u32)> {
        let open = self.state().is_some_and(|state| {
            state.protocol() == Protocol::Tcp && (state.is_live() || state.is_unproven())
        });
        let [a, b, c, d, e, f, ..] = self.load(CLIENT).to_be_bytes();
        let client = Mac([a, b, c, d, e, f]);
        (open && client.is_unicast()).then(|| (client, self.seen().ack))
    }

    pub(super) fn view(self, service: ServiceSlot, state: FlowState) -> Flow {
        Flow {
            service,
            backend: self.backend(),
            state,
            last_ack: (state.protocol() == Protocol::Tcp).then(|| self.seen().ack),
            template: self.template(service),
        }
    }
}

const PORTS: u64 = u64::MAX << 32;
const CLIENT_SHIFT: u32 = 16;
const PREFIX_SHIFT: u32 = 8;

const fn client_bits(client: Mac) -> u64 {
    let [a, b, c, d, e, f] = client.0;
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves, each by itself")]
const fn halves(addr: Addr) -> [u64; 2] {
    [(addr.bits() >> 64) as u64, addr.bits() as u64]
}

/// The address of these halves, the upper one first.
pub(super) const fn address_of([upper, lower]: [u64; 2]) -> Addr {
    Addr::from_v6(((upper as u128) << 64 | lower as u128).to_be_bytes())
}

#[inline]
pub(super) const fn seen_of(word: u64) -> Seen {
    let (millis, ack) = split(word);
    Seen { millis, ack }
}

#[inline]
const fn join(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves, each by itself")]
const fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// Bytes that a segment's acknowledgment may lie behind one that came before it: the largest window
/// without scaling.
const OVERTAKEN: u32 = 1 << 16;

/// Bytes that a segment of a flow acknowledges beyond its last one, or fewer if it was overtaken; 0 where no
/// window is so large: then one of the two is forged. So all of them add up to what the client has, and a
/// forged one is taken back with the next that is not. `bpf/flows.h` has the same.
#[inline]
pub(crate) const fn acked(last: u32, ack: u32) -> i32 {
    let ahead = ack.wrapping_sub(last).cast_signed();
    if ahead.unsigned_abs() <= MAX_ADVANCE { ahead } else { 0 }
}

/// Whether a sequence number is ahead of another, by no more than the largest windows in use.
const fn is_ahead(number: u32, other: u32) -> bool {
    let ahead = number.wrapping_sub(other);
    0 < ahead && ahead <= MAX_ADVANCE
}

/// 16 MiB. More cannot be under way at once: the send and receive buffers of common systems are
/// smaller.
const MAX_ADVANCE: u32 = 1 << 24;

const _: () = assert!(size_of::<Tags>() == WAYS);
const _: () = assert!(size_of::<Line>() == 64);
