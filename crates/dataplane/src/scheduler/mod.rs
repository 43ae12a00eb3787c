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
mod restricted;
mod rr;
mod turns;
mod wlc;
mod wrr;

pub use hash::{flow_hash, source_hash};
pub use maglev::MaglevTable;

use std::fmt;

use self::cursor::Cursor;
use self::lc::LeastConnections;
use self::restricted::Restricted;
use self::rr::RoundRobin;
use self::wlc::WeightedLeastConnections;
use self::wrr::WeightedRoundRobin;
use crate::addr::Addr;
use crate::key::ServiceKey;
use crate::slots::BackendSlot;

label::labels! {
    /// The schedulers.
    pub enum SchedulerKind {
        Maglev => "maglev", "Maglev hashing of the source prefix (NSDI'16 §3.4). Alias `sh`.";
        Rr => "rr", "Round robin; of the weights only zero counts, as in `ip_vs`.";
        Wrr => "wrr", "Weighted round robin.";
        Lc => "lc", "Least connections; of the weights only zero counts, as in `ip_vs`.";
        Wlc => "wlc", "Weighted least connections.";
    }
}

impl SchedulerKind {
    /// Whether it chooses by a hash.
    pub const fn hashes(self) -> bool {
        matches!(self, Self::Maglev)
    }

    /// Whether a weight above 0 makes a difference.
    pub const fn weighs(self) -> bool {
        match self {
            Self::Maglev | Self::Wrr | Self::Wlc => true,
            Self::Rr | Self::Lc => false,
        }
    }
}

label::labels! {
    /// What is hashed to find a backend.
    pub enum HashInput {
        Source => "source", "The source address: all connections of a client go to one backend.";
        Flow => "flow", "The 5-tuple.";
    }
}

#[expect(clippy::derivable_impls, reason = "the enum is made by a macro")]
impl Default for HashInput {
    fn default() -> Self {
        Self::Flow
    }
}

/// What the permutations of a table depend on beside the members' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashSeed {
    /// The service: two services with the same members choose independently.
    Service(ServiceKey),
    /// Nothing: services with the same members choose alike for a source.
    Members,
}

impl From<ServiceKey> for HashSeed {
    fn from(key: ServiceKey) -> Self {
        Self::Service(key)
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
///
/// Two lists of members: the *configured* ones, with the weights of the configuration and whatever
/// their health, and the *eligible* ones, which take new sources now. A verdict changes the second
/// list only. A source whose configured member is eligible never moves because of a verdict.
#[derive(Clone)]
pub struct Scheduler {
    seed: HashSeed,
    kind: SchedulerKind,
    /// Sorted, and without weight 0, like `members`.
    configured: Vec<Member>,
    /// The eligible members.
    members: Vec<Member>,
    /// Over the configured members.
    home: MaglevTable,
    /// To the eligible members.
    stable: Restricted,
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
    /// For a service with these configured members, in any order, all of which are eligible. Takes a
    /// few milliseconds: not for a worker.
    pub fn new(kind: SchedulerKind, seed: impl Into<HashSeed>, members: &[Member]) -> Self {
        let (seed, members) = (seed.into(), weighted(members));
        let home = MaglevTable::build(seed, &members);
        let stable = Restricted::all(home.clone());
        let policy = Policy::new(kind, &members);
        let (configured, cursor) = (members.clone(), Cursor::default());
        Self { seed, kind, configured, members, home, stable, policy, cursor }
    }

    /// With other members, and going on where this one stands. What does not change is shared with
    /// this one.
    pub fn rebuilt(&self, configured: &[Member], eligible: &[Member]) -> Self {
        let (configured, members) = (weighted(configured), weighted(eligible));
        if (&configured, &members) == (&self.configured, &self.members) {
            return self.clone();
        }
        let home = if configured == self.configured {
            self.home.clone()
        } else {
            MaglevTable::build(self.seed, &configured)
        };
        // Weights that grow (`slow_start`) and a fallback need tables of their own.
        let stable = if members.iter().all(|member| configured.contains(member)) {
            Restricted::to(home.clone(), self.seed, &configured, &members)
        } else {
            Restricted::all(MaglevTable::build(self.seed, &members))
        };
        let policy = Policy::new(self.kind, &members);
        let cursor = self.cursor.clone();
        Self { seed: self.seed, kind: self.kind, configured, members, home, stable, policy, cursor }
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

    /// The choice for a new source that every worker and every node with the same members makes,
    /// whatever the scheduler.
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
        let stable = |hash| self.stable.lookup_hash(hash);
        first_of(&stable, &self.members, hash, &|slot| !refused(slot))
    }

    /// The choice for packets of flows that are not known here: the configured member of the hash
    /// if it is `usable`, whatever the others are; else one of the eligible members, as for a new
    /// source; else any that is usable.
    pub fn stray(&self, hash: u64, usable: &impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        let (home, stable) =
            (|hash| self.home.lookup_hash(hash), |hash| self.stable.lookup_hash(hash));
        home(hash)
            .filter(|&slot| usable(slot))
            .or_else(|| first_of(&stable, &self.members, hash, usable))
            .or_else(|| first_of(&home, &self.configured, hash, usable))
    }

    /// What its tables depend on beside the members.
    pub const fn seed(&self) -> HashSeed {
        self.seed
    }

    /// Where a hash leads among the configured members, whatever their health.
    pub fn home(&self, hash: u64) -> Option<BackendSlot> {
        self.home.lookup_hash(hash)
    }

    /// The same scheduler, whose turns are no longer those of this one.
    #[must_use]
    pub fn with_turns_of_its_own(&self) -> Self {
        Self { cursor: self.cursor.copied(), ..self.clone() }
    }

    /// Which scheduler this is.
    pub const fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// The members that can be chosen for a new source.
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Policy {
    fn new(kind: SchedulerKind, members: &[Member]) -> Self {
        match kind {
            SchedulerKind::Maglev => Self::Maglev,
            SchedulerKind::Rr => Self::Rr(RoundRobin::new(members)),
            SchedulerKind::Wrr => Self::Wrr(WeightedRoundRobin::new(members)),
            SchedulerKind::Lc => Self::Lc(LeastConnections::new(members)),
            SchedulerKind::Wlc => Self::Wlc(WeightedLeastConnections::new(members)),
        }
    }
}

/// The first acceptable backend that the hash leads to in a table of these members.
fn first_of(
    table: &impl Fn(u64) -> Option<BackendSlot>,
    members: &[Member],
    hash: u64,
    acceptable: &impl Fn(BackendSlot) -> bool,
) -> Option<BackendSlot> {
    let taken = |slot: &BackendSlot| acceptable(*slot);
    let mut tries = (0..TRIES).map_while(|at| table(hash::nth(hash, at)));
    tries.find(taken).or_else(|| {
        // Nearly all the weight is that of backends that are not acceptable.
        members.iter().map(|member| member.slot).find(taken)
    })
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, kind, members, .. } = self;
        f.debug_struct("Scheduler")
            .field("seed", seed)
            .field("kind", kind)
            .field("members", members)
            .finish_non_exhaustive()
    }
}

/// Entries of a table that are looked at for an acceptable backend: with two of equal weights, none
/// of them is acceptable once in 2³².
const TRIES: u64 = 32;

/// The members with a weight above 0, in an order that every node agrees on.
fn weighted(members: &[Member]) -> Vec<Member> {
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
