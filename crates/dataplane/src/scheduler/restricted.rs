//! A table of which only some members may be chosen.

use std::sync::Arc;

use super::hash::nth;
use super::maglev::MaglevTable;
use super::{HashSeed, Member};
use crate::slots::BackendSlot;

/// A table as it would be with the entries of all but some members given to these, in proportion to
/// their weights. That is worked out for each hash anew, so that a verdict costs next to nothing: a
/// start of many services comes with thousands of them.
///
/// The entry of another member leads on to further entries, until one is of a member that may be
/// chosen: a verdict moves only what led to its backend.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Restricted {
    table: MaglevTable,
    /// `None`: all members of the table.
    stays: Option<Membership>,
    /// A table of the members that may be chosen alone, where they are few.
    rest: Option<MaglevTable>,
}

/// Whether a backend is among some members, without a search for each entry.
#[derive(Clone, PartialEq, Eq)]
struct Membership {
    first: usize,
    /// By slot, from the first one on.
    among: Arc<[bool]>,
}

impl Restricted {
    /// All members of the table may be chosen.
    pub(super) fn all(table: MaglevTable) -> Self {
        Self { table, stays: None, rest: None }
    }

    /// Only `members` may be chosen, which are among `all`, for whom `table` was built.
    pub(super) fn to(
        table: MaglevTable,
        seed: HashSeed,
        all: &[Member],
        members: &[Member],
    ) -> Self {
        if members.len() == all.len() || members.is_empty() {
            let table = if members.is_empty() { MaglevTable::build(seed, &[]) } else { table };
            return Self::all(table);
        }
        let weight = |members: &[Member]| members.iter().map(|m| u64::from(m.weight)).sum::<u64>();
        let few = weight(members).saturating_mul(FEW) < weight(all);
        let rest = few.then(|| MaglevTable::build(seed, members));
        Self { table, stays: Some(Membership::of(members)), rest }
    }

    /// As [`MaglevTable::lookup_hash`].
    #[inline]
    pub(super) fn lookup_hash(&self, hash: u64) -> Option<BackendSlot> {
        let position = MaglevTable::position(hash);
        let entry = self.table.at(position)?;
        match &self.stays {
            Some(stays) if !stays.has(entry) => self.lead_on(position, stays),
            _ => Some(entry),
        }
    }

    #[cold]
    fn lead_on(&self, position: usize, stays: &Membership) -> Option<BackendSlot> {
        let stay = |slot: &BackendSlot| stays.has(*slot);
        let mut tries = (1..=TRIES).map_while(|n| self.table.lookup_hash(nth(position as u64, n)));
        tries.find(stay).or_else(|| match &self.rest {
            Some(rest) => rest.at(position),
            None => self.table.from(position).find(stay),
        })
    }

    /// Whether both are one table in memory.
    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.table.is_same(&other.table) && self.stays == other.stays
    }
}

impl Membership {
    fn of(members: &[Member]) -> Self {
        let slots = members.iter().map(|member| member.slot.index());
        let (first, last) = slots
            .clone()
            .fold((usize::MAX, 0), |(first, last), slot| (first.min(slot), last.max(slot)));
        let mut among = vec![false; (last + 1).saturating_sub(first)];
        for slot in slots {
            if let Some(entry) = among.get_mut(slot - first) {
                *entry = true;
            }
        }
        Self { first, among: among.into() }
    }

    #[inline]
    fn has(&self, slot: BackendSlot) -> bool {
        let at = slot.index().checked_sub(self.first);
        at.and_then(|at| self.among.get(at)).copied().unwrap_or_default()
    }
}

/// Entries that are looked at. With a sixteenth of the weight left, none of them will do once in 3,900.
const TRIES: u64 = 128;
/// Members are few below this fraction of the weight: then those tries often fail, and the next entry in
/// the table may be far.
const FEW: u64 = 16;
