//! How the table lies in memory: one line of tags that tells where a key may be, and one line per
//! entry that holds everything about it.

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

/// The tags of a bucket's entries, 8 bits of the keyed hash each; 0: the entry is free. Four buckets
/// share a line, and the tags of a million flows stay in the cache when their entries do not.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(super) struct Tags(pub(super) [u8; WAYS]);

impl Tags {
    pub(super) const FREE: Self = Self([0; WAYS]);

    /// The entries with this tag, as a bit each.
    #[inline]
    pub(super) fn matching(&self, tag: u8) -> u32 {
        u8x16::new(self.0).simd_eq(u8x16::splat(tag)).to_bitmask()
    }
}

/// Entries of a bucket.
pub(super) struct Positions {
    pub(super) bucket: u32,
    /// As [`Tags::matching`] has them.
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

/// All that is known of a flow, in one line. Fields in the order that leaves no gaps.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Record {
    src: Addr,
    dst: Addr,
    /// [`Tick::wrapping_millis`](crate::Tick::wrapping_millis) of the last packet.
    pub(super) last_seen: u32,
    last_ack: u32,
    template: Option<Epoch>,
    /// Of an unproven flow: [`TcpFields::next`] of its last segment. Of one that ended: when a packet
    /// of it was last reported, in the unit of `last_seen`.
    pub(super) mark: u32,
    src_port: u16,
    dst_port: u16,
    pub(super) backend: BackendSlot,
    pub(super) service: ServiceSlot,
    /// Where the client's frames came from when that was last looked at; all zero: not known, or
    /// of no use.
    client: Mac,
    /// `None`: the entry is free.
    pub(super) state: Option<FlowState>,
    /// Of the template's source, in the 128-bit form.
    prefix_len: u8,
}

impl Record {
    pub(super) const FREE: Self = Self {
        src: Addr::from_v6([0; 16]),
        dst: Addr::from_v6([0; 16]),
        last_seen: 0,
        last_ack: 0,
        template: None,
        mark: 0,
        src_port: 0,
        dst_port: 0,
        backend: BackendSlot(0),
        service: ServiceSlot(0),
        client: Mac([0; 6]),
        state: None,
        prefix_len: 0,
    };

    pub(super) fn new(key: &FlowKey, state: FlowState, new: &NewFlow, now: u32) -> Self {
        let mut record = Self {
            src: key.src,
            dst: key.dst,
            last_seen: now,
            last_ack: new.tcp.map_or(0, |tcp| tcp.ack),
            mark: new.tcp.map_or(0, |tcp| tcp.next),
            src_port: key.src_port,
            dst_port: key.dst_port,
            backend: new.backend,
            service: new.service,
            client: new.client,
            state: Some(state),
            ..Self::FREE
        };
        if let Some(template) = new.template {
            record.join(template);
        }
        record
    }

    pub(super) const fn key(&self) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            src_port: self.src_port,
            dst_port: self.dst_port,
            protocol: self.protocol(),
        }
    }

    /// A free entry's says nothing.
    const fn protocol(&self) -> Protocol {
        match self.state {
            Some(state) => state.protocol(),
            None => Protocol::Tcp,
        }
    }

    /// Whether it is in use for `key`.
    #[inline]
    pub(super) fn is_of(&self, key: &FlowKey) -> bool {
        self.is_between(key) && self.state.is_some_and(|state| state.protocol() == key.protocol)
    }

    /// Whether addresses and ports are those of `key`: two branches, vectors for the addresses.
    #[inline]
    pub(super) fn is_between(&self, key: &FlowKey) -> bool {
        let addresses = (self.src == key.src) & (self.dst == key.dst);
        addresses && [self.src_port, self.dst_port] == [key.src_port, key.dst_port]
    }

    pub(super) const fn join(&mut self, template: Membership) {
        self.template = Some(template.epoch);
        self.prefix_len = template.prefix_len;
    }

    /// Its template is another one by now.
    pub(super) const fn leave(&mut self) {
        self.template = None;
    }

    pub(super) fn template(&self) -> Option<TemplateRef> {
        let key = TemplateKey::new(self.service, self.src, self.prefix_len);
        self.template.map(|epoch| TemplateRef { key, epoch })
    }

    /// Whether the segment's numbers lie ahead of those of the flow's last one, as they do when the
    /// client sent or received something in between. By no more than a window: one that has nothing
    /// to do with the flow, with numbers of any kind, is told apart from it in 127 of 128 cases.
    pub(super) const fn advances(&self, tcp: TcpFields) -> bool {
        is_ahead(tcp.ack, self.last_ack) || is_ahead(tcp.next, self.mark)
    }

    /// Takes note of the segment's acknowledgment number.
    #[inline]
    pub(super) const fn acknowledge(&mut self, tcp: TcpFields) {
        self.last_ack = tcp.ack;
    }

    /// Takes note of where the client's frames come from now.
    pub(super) const fn came_from(&mut self, client: Mac) {
        self.client = client;
    }

    /// Where a reset to the client would go, and its sequence number; `None` if it cannot be sent.
    pub(super) fn resettable(&self) -> Option<(Mac, u32)> {
        let open = self.state.is_some_and(|state| {
            state.protocol() == Protocol::Tcp && (state.is_live() || state.is_unproven())
        });
        (open && self.client.is_unicast()).then_some((self.client, self.last_ack))
    }

    pub(super) fn view(&self, state: FlowState) -> Flow {
        Flow {
            service: self.service,
            backend: self.backend,
            state,
            last_ack: (state.protocol() == Protocol::Tcp).then_some(self.last_ack),
            template: self.template(),
        }
    }
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
const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64);
