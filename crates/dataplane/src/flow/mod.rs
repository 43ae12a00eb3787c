//! The flow table of one worker: which backend a connection has, and how far it has come.
//!
//! Owns the entries and their states. It chooses no backend, and knows templates only by name:
//! what an ended flow means to the persistence table is the forwarder's business, which is told of
//! each end exactly once. A SYN makes no entry (half-open choices live in the pending table), so a
//! flood of them pushes no proven flow out.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod entry;
pub(crate) mod hash;
mod memory;
mod orphan;
mod place;
mod reader;
mod state;
mod table;
mod timeouts;

pub(crate) use entry::acked;
pub use memory::{FlowMemory, Words, WrongMemory};
pub use orphan::Orphan;
pub use reader::{FlowReader, SeenFlow};
pub use state::{FlowState, Transition};
pub use table::FlowTable;
pub use timeouts::Timeouts;

use crate::addr::Mac;
use crate::key::FlowKey;
use crate::packet::TcpFields;
use crate::persistence::{Epoch, TemplateRef};
use crate::slots::{BackendSlot, ServiceSlot};
use crate::tick::Tick;

/// Where a key may lie in the table that made the hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowHash {
    bits: u64,
    /// The bucket that is looked at first.
    first: u32,
    /// The entry that is looked at first.
    likely: u32,
}

/// An entry of the table; valid until the next `insert`, `remove`, `sweep` or `clear`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(u32);

/// A flow as [`FlowTable::find`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The entry.
    pub id: FlowId,
    /// Where its packets go.
    pub backend: BackendSlot,
}

/// An entry, but for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where its template is kept: its service's slot, or that of its service's group.
    pub service: ServiceSlot,
    /// Where its packets go.
    pub backend: BackendSlot,
    /// How far it has come.
    pub state: FlowState,
    /// The client's last acknowledgment number: the sequence number that a reset on behalf of the
    /// backend would carry (RFC 5961 §3.2). `None` for UDP.
    pub last_ack: Option<u32>,
    /// The template that it holds, or held while it lived.
    pub template: Option<TemplateRef>,
}

/// A flow to insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// Where its template is kept: its service's slot, or that of its service's group.
    pub service: ServiceSlot,
    /// Where its packets go.
    pub backend: BackendSlot,
    /// How it came to be known.
    pub origin: Origin,
    /// Its first segment, which acknowledges something; `None` for UDP.
    pub tcp: Option<TcpFields>,
    /// Where a reset to the client would go: the Ethernet source of its first packet. All zero if
    /// no frame can simply be sent there.
    pub client: Mac,
    /// The template that it joined.
    pub template: Option<Membership>,
}

/// How a flow came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The ACK that completes a handshake whose SYN is pending.
    Handshake,
    /// A packet from the middle of a connection: no entry and no pending choice here.
    PickUp,
    /// The second datagram of a UDP flow.
    Udp,
}

/// A flow's part in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Which template of that source.
    pub epoch: Epoch,
    /// The length of the template's source prefix in the 128-bit form (an IPv4 /24 is 120).
    pub prefix_len: u8,
}

/// An entry that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedFlow {
    /// The 5-tuple.
    pub key: FlowKey,
    /// Where its template is kept: its service's slot, or that of its service's group.
    pub service: ServiceSlot,
    /// Where its packets went.
    pub backend: BackendSlot,
    /// Its last state. [Live](FlowState::is_live): its life ends with the entry. Otherwise that was
    /// reported as [`Transition::Ended`] before.
    pub state: FlowState,
    /// When: for one that idled out, the moment its timeout passed, however late it is noticed.
    pub at: Tick,
    /// The template whose live flows it has to leave; `None` when it left before.
    pub template: Option<TemplateRef>,
    /// It made room for another flow before its time.
    pub evicted: bool,
}

/// Both buckets of the key are full of flows that live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room in the flow table for this 5-tuple")]
pub struct TableFull {
    /// That was known: it was so less than a second ago, and nothing was looked at.
    pub again: bool,
}

#[cfg(test)]
mod tests;
