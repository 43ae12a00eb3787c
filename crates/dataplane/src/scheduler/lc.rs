//! `lc`: the backend with the fewest connections.

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

/// The member with the least load per weight. Among equals the cursor decides, so that they take
/// turns.
pub(super) fn least(
    members: &[Member],
    cursor: &Cursor,
    load: &impl Fn(BackendSlot) -> Load,
) -> Option<BackendSlot> {
    let (before, from) = members.split_at_checked(cursor.advance(members.len())?)?;
    let cost = |member: &Member| (overhead(load(member.slot)), u128::from(member.weight));
    let mut candidates = from.iter().chain(before).map(|member| (member.slot, cost(member)));
    let mut best = candidates.next()?;
    for candidate in candidates {
        let ((_, (load, weight)), (_, (least, its_weight))) = (candidate, best);
        if load * its_weight < least * weight {
            best = candidate;
        }
    }
    Some(best.0)
}

/// As `ip_vs` weighs them: an active connection costs as much as 256 that are not.
fn overhead(load: Load) -> u128 {
    u128::from(load.active) * 256 + u128::from(load.inactive)
}
