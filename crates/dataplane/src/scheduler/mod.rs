//! Choosing a backend for a source that has no history.
//!
//! A [`Scheduler`] belongs to one service and is shared by all workers without a lock: tables that
//! never change, and one cursor. It neither keeps loads nor remembers choices; the former are asked
//! for, the latter are kept by the pending and persistence tables.
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod cursor;
mod hash;
mod lc;
mod maglev;
mod rr;
mod turns;
mod wlc;
mod wrr;

pub use hash::{flow_hash, source_hash};
pub use maglev::MaglevTable;

use std::fmt;

use self::cursor::Cursor;
use self::lc::LeastConnections;
use self::rr::RoundRobin;
use self::wlc::WeightedLeastConnections;
use self::wrr::WeightedRoundRobin;
use crate::addr::Addr;
use crate::key::ServiceKey;
use crate::slots::BackendSlot;

/// The schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchedulerKind {
    /// Maglev hashing of the source prefix (NSDI'16 §3.4). Alias `sh`.
    Maglev,
    /// Round robin; of the weights only zero counts, as in `ip_vs`.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections; of the weights only zero counts, as in `ip_vs`.
    Lc,
    /// Weighted least connections.
    Wlc,
}

impl SchedulerKind {
    /// Lower-case name, as in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
        }
    }

    /// Whether a weight above 0 makes a difference.
    pub const fn weighs(self) -> bool {
        match self {
            Self::Maglev | Self::Wrr | Self::Wlc => true,
            Self::Rr | Self::Lc => false,
        }
    }
}

/// A backend that may take new sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What a choice is called on this node.
    pub slot: BackendSlot,
    /// What a choice is, on every node.
    pub address: Addr,
    /// Its share in relation to the others'; with 0 it is never chosen.
    pub weight: u32,
}

/// What a backend is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Established connections.
    pub active: u32,
    /// All others: half-open, closing, and UDP.
    pub inactive: u32,
}

/// How one service's new sources are spread over its backends.
#[derive(Clone)]
pub struct Scheduler {
    key: ServiceKey,
    kind: SchedulerKind,
    /// Sorted, and without weight 0.
    members: Vec<Member>,
    stable: MaglevTable,
    policy: Policy,
    cursor: Cursor,
}

#[derive(Clone)]
enum Policy {
    Maglev,
    Rr(RoundRobin),
    Wrr(WeightedRoundRobin),
    Lc(LeastConnections),
    Wlc(WeightedLeastConnections),
}

impl Scheduler {
    /// For a service with these members, in any order. Takes a few milliseconds: not for a worker.
    pub fn new(kind: SchedulerKind, key: ServiceKey, members: &[Member]) -> Self {
        Self::build(kind, key, eligible(members), Cursor::default())
    }

    /// With other members, and going on where this one stands. Without a change the tables are
    /// shared with this one.
    pub fn rebuilt(&self, members: &[Member]) -> Self {
        let members = eligible(members);
        if members == self.members {
            return self.clone();
        }
        Self::build(self.kind, self.key, members, self.cursor.clone())
    }

    /// A backend for a new source; `None` without members. `hash` is [`source_hash`] of the source
    /// prefix, or [`flow_hash`] without persistence.
    #[inline]
    pub fn choose(&self, hash: u64, load: &impl Fn(BackendSlot) -> Load) -> Option<BackendSlot> {
        match &self.policy {
            Policy::Maglev => self.stable.lookup_hash(hash),
            Policy::Rr(rr) => rr.choose(&self.cursor),
            Policy::Wrr(wrr) => wrr.choose(&self.cursor),
            Policy::Lc(lc) => lc.choose(&self.cursor, load),
            Policy::Wlc(wlc) => wlc.choose(&self.cursor, load),
        }
    }

    /// The choice that every worker and every node with the same members makes, whatever the
    /// scheduler: for packets of flows that are not known here.
    #[inline]
    pub fn stable(&self, hash: u64) -> Option<BackendSlot> {
        self.stable.lookup_hash(hash)
    }

    /// The same, but never one that is `refused`: then the next one that the hash leads to.
    pub fn stable_but(
        &self,
        hash: u64,
        refused: &impl Fn(BackendSlot) -> bool,
    ) -> Option<BackendSlot> {
        let taken = |slot: &BackendSlot| !refused(*slot);
        let mut tries = (0..STABLE_TRIES).map_while(|at| self.stable(hash::nth(hash, at)));
        tries.find(taken).or_else(|| {
            // Nearly all the weight is that of the one that is refused.
            self.members.iter().map(|member| member.slot).find(taken)
        })
    }

    /// Which scheduler this is.
    pub const fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// The members that can be chosen.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    fn build(kind: SchedulerKind, key: ServiceKey, members: Vec<Member>, cursor: Cursor) -> Self {
        let policy = match kind {
            SchedulerKind::Maglev => Policy::Maglev,
            SchedulerKind::Rr => Policy::Rr(RoundRobin::new(&members)),
            SchedulerKind::Wrr => Policy::Wrr(WeightedRoundRobin::new(&members)),
            SchedulerKind::Lc => Policy::Lc(LeastConnections::new(&members)),
            SchedulerKind::Wlc => Policy::Wlc(WeightedLeastConnections::new(&members)),
        };
        let stable = MaglevTable::build(&key, &members);
        Self { key, kind, members, stable, policy, cursor }
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, kind, members, .. } = self;
        f.debug_struct("Scheduler")
            .field("key", key)
            .field("kind", kind)
            .field("members", members)
            .finish_non_exhaustive()
    }
}

/// Entries of the table that are looked at for a backend that is not refused: with two of equal
/// weights, all of them are refused once in 2³².
const STABLE_TRIES: u64 = 32;

/// The members that can be chosen, in an order that every node agrees on.
fn eligible(members: &[Member]) -> Vec<Member> {
    let mut members: Vec<Member> =
        members.iter().copied().filter(|member| member.weight > 0).collect();
    members.sort_unstable_by_key(|member| (member.address, member.weight, member.slot));
    members
}

#[cfg(test)]
#[allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]
mod tests;
