//! `wlc`: the backend with the fewest connections for its weight.

use std::sync::Arc;

use super::cursor::Cursor;
use super::lc::least;
use super::{Load, Member};
use crate::slots::BackendSlot;

#[derive(Clone, Debug)]
pub(super) struct WeightedLeastConnections(Arc<[Member]>);

impl WeightedLeastConnections {
    pub(super) fn new(members: &[Member]) -> Self {
        Self(members.into())
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
