//! `lc`: the backend with the fewest connections, of a bounded number that is looked at.

use std::sync::Arc;

use super::cursor::Cursor;
use super::{Load, Member};
use crate::slots::BackendSlot;

#[derive(Clone, Debug)]
pub(super) struct LeastConnections(Arc<[Member]>);

impl LeastConnections {
    pub(super) fn new(members: &[Member]) -> Self {
        Self(members.iter().map(|member| Member { weight: 1, ..*member }).collect())
    }

    #[inline]
    pub(super) fn choose(
        &self,
        cursor: &Cursor,
        load: &impl Fn(BackendSlot) -> Load,
    ) -> Option<BackendSlot> {
        least(&self.0, cursor, load)
    }
}

/// The member with the least load per weight of the ones looked at: all of up to
/// [`SAMPLES`], and of more as many, spread evenly over the list and one further with each choice,
/// and the best one that earlier choices left (Mitzenmacher, Prabhakar, Shah: "Load Balancing with
/// Memory", FOCS 2002). So a choice costs the same whatever the number of members, and one that
/// has less load than the others is found within a few choices and then chosen until it has not.
///
/// Among equals the cursor decides, so that they take turns.
pub(super) fn least(
    members: &[Member],
    cursor: &Cursor,
    load: &impl Fn(BackendSlot) -> Load,
) -> Option<BackendSlot> {
    let first = cursor.advance(members.len())?;
    let samples = members.len().min(SAMPLES);
    let sampled = (0..samples).map(|at| (first + at * members.len() / samples) % members.len());
    let noted = (members.len() > samples).then(|| cursor.noted());
    let mut candidates = sampled
        .chain(noted)
        .filter_map(|index| members.get(index).map(|member| Candidate::new(index, member, load)));
    let mut best = candidates.next()?;
    let mut second = best;
    for candidate in candidates {
        if candidate.costs_less_than(&best) {
            (best, second) = (candidate, best);
        } else if second.index == best.index || candidate.costs_less_than(&second) {
            second = candidate;
        }
    }
    let chosen = best.slot;
    best.cost += ACTIVE;
    cursor.note(if second.costs_less_than(&best) { second.index } else { best.index });
    Some(chosen)
}

#[derive(Clone, Copy)]
struct Candidate {
    index: usize,
    slot: BackendSlot,
    cost: u128,
    weight: u128,
}

impl Candidate {
    fn new(index: usize, member: &Member, load: &impl Fn(BackendSlot) -> Load) -> Self {
        let cost = overhead(load(member.slot));
        Self { index, slot: member.slot, cost, weight: member.weight.into() }
    }

    const fn costs_less_than(&self, other: &Self) -> bool {
        self.cost * other.weight < other.cost * self.weight
    }
}

/// As `ip_vs` weighs them: an active connection costs as much as 256 that are not.
fn overhead(load: Load) -> u128 {
    u128::from(load.active) * ACTIVE + u128::from(load.inactive)
}

/// What an active connection costs, where an inactive one costs 1.
const ACTIVE: u128 = 256;

/// Members whose load is looked at for one choice: each costs a cache line per worker.
const SAMPLES: usize = 8;
