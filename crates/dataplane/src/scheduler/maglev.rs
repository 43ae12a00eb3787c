//! Maglev hashing (Eisenbud et al., NSDI'16 §3.4), with weights.
//!
//! Every backend has its own permutation of the table's entries, and in its turn takes the first of
//! them that is still free; weights say how often it is whose turn. Permutations depend on the
//! service (or not: [`HashSeed`]) and on the backend's address alone, so the order, names and slots of the members do not
//! matter, and when one goes, the others keep nearly all of their entries.

use std::fmt;
use std::sync::Arc;

use super::hash::{backend_hash, source_hash};
use super::turns::Turns;
use super::{HashSeed, Member, weighted};
use crate::addr::Addr;
use crate::slots::BackendSlot;

/// From a hash to a backend: 128 KiB, immutable, cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct MaglevTable {
    /// [`Self::SIZE`] entries, or none without members.
    entries: Arc<[BackendSlot]>,
}

impl MaglevTable {
    /// Entries: a prime, much larger than the number of backends (the paper's small table).
    pub const SIZE: usize = 65_537;

    /// For the members with a weight above 0, in any order. Every one of them gets at least one
    /// entry; of `n` members each gets its share but for at most `1 + share × n` entries.
    pub fn build(seed: impl Into<HashSeed>, members: &[Member]) -> Self {
        let (seed, members) = (seed.into(), weighted(members));
        let mut walks: Vec<Walk> =
            members.iter().map(|member| Walk::new(seed, member.address)).collect();
        let mut free = Free::all();
        let mut entries =
            vec![BackendSlot::default(); if members.is_empty() { 0 } else { Self::SIZE }];
        let turns = Turns::all_first(members.iter().map(|member| member.weight));
        for rank in turns.take(Self::SIZE) {
            if let (Some(walk), Some(member)) = (walks.get_mut(rank), members.get(rank)) {
                let position = walk.take(&mut free);
                if let Some(entry) = entries.get_mut(position) {
                    *entry = member.slot;
                }
            }
        }
        Self { entries: entries.into() }
    }

    /// The backend of a source prefix; `None` without members.
    #[inline]
    pub fn lookup(&self, source_prefix: Addr) -> Option<BackendSlot> {
        self.lookup_hash(source_hash(source_prefix))
    }

    /// The backend of a [`source_hash`] or [`flow_hash`](super::flow_hash); `None` without members.
    #[inline]
    pub fn lookup_hash(&self, hash: u64) -> Option<BackendSlot> {
        self.at(Self::position(hash))
    }

    /// Where a hash leads.
    #[inline]
    pub(super) fn position(hash: u64) -> usize {
        // The upper half of the hash, scaled to the table: no division on the packet path.
        let position = ((hash >> 32) * Self::SIZE as u64) >> 32;
        usize::try_from(position).unwrap_or_default()
    }

    #[inline]
    pub(super) fn at(&self, position: usize) -> Option<BackendSlot> {
        self.entries.get(position).copied()
    }

    /// All entries, those from a position on first.
    pub(super) fn from(&self, position: usize) -> impl Iterator<Item = BackendSlot> {
        let (before, after) = self.entries.split_at(position.min(self.entries.len()));
        after.iter().chain(before).copied()
    }

    /// Whether both are one table in memory.
    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries)
    }
}

impl fmt::Debug for MaglevTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaglevTable").field("entries", &self.entries.len()).finish()
    }
}

/// A backend's permutation: `position` goes round the table in steps of `skip`, and the entry is its
/// cube plus `shift`.
///
/// The paper takes the position itself (NSDI'16 §3.4). But two backends' arithmetic progressions can
/// run along each other for long stretches, and when one of them goes, up to 2.7 % of the others'
/// entries move with it (14 of 4,000 pairs of VIP and backend: more than 1 %). Cubed, the worst of
/// the 4,000 is 0.46 %. Cubing permutes the residues, for 3 does not divide 65,537 − 1.
struct Walk {
    position: usize,
    skip: usize,
    shift: usize,
}

impl Walk {
    fn new(seed: HashSeed, backend: Addr) -> Self {
        let below = |purpose, limit: usize| {
            let hash = backend_hash(seed, backend, purpose) % limit as u64;
            usize::try_from(hash).unwrap_or_default()
        };
        Self {
            position: below(0, MaglevTable::SIZE),
            skip: below(1, MaglevTable::SIZE - 1) + 1,
            shift: below(2, MaglevTable::SIZE),
        }
    }

    /// The first free entry that this walk comes by; there must be one. The size is a prime, so
    /// every walk comes by all entries.
    fn take(&mut self, free: &mut Free) -> usize {
        loop {
            let cube = self.position * self.position % MaglevTable::SIZE * self.position;
            let here = (cube + self.shift) % MaglevTable::SIZE;
            self.position += self.skip;
            if self.position >= MaglevTable::SIZE {
                self.position -= MaglevTable::SIZE;
            }
            if free.take(here) {
                return here;
            }
        }
    }
}

/// The entries that are free: one bit each, which stay in the first-level cache.
struct Free(Vec<u64>);

impl Free {
    fn all() -> Self {
        Self(vec![u64::MAX; MaglevTable::SIZE.div_ceil(64)])
    }

    /// Whether the entry was free; now it is not.
    fn take(&mut self, position: usize) -> bool {
        let bit = 1 << (position % 64);
        match self.0.get_mut(position / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }
}
