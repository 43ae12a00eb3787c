//! `rr`: each new source to the next backend.

use std::sync::Arc;

use super::Member;
use super::cursor::Cursor;
use crate::slots::BackendSlot;

#[derive(Clone, Debug)]
pub(super) struct RoundRobin(Arc<[BackendSlot]>);

impl RoundRobin {
    pub(super) fn new(members: &[Member]) -> Self {
        Self(members.iter().map(|member| member.slot).collect())
    }

    #[inline]
    pub(super) fn choose(&self, cursor: &Cursor) -> Option<BackendSlot> {
        cursor.next(&self.0)
    }
}
