//! Flows whose backend is gone, and whose clients are to get a reset.

use crate::addr::Mac;
use crate::key::FlowKey;
use crate::slots::BackendSlot;
use crate::tick::Tick;

use super::FlowId;
use super::entry::{Positions, Record, matching};
use super::table::FlowTable;

/// What a reset on behalf of a flow's backend needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The entry.
    pub id: FlowId,
    /// The client's half of the flow.
    pub key: FlowKey,
    /// The backend.
    pub backend: BackendSlot,
    /// The client's last acknowledgment number: the reset's sequence number (RFC 5961 §3.2).
    pub seq: u32,
    /// Where the client's frames come from.
    pub client: Mac,
}

impl FlowTable {
    /// The first flow in a bucket, if there is one, whose backend is one of those that are `gone`,
    /// and whose client can get a reset: it is TCP, lives, is not expired, and its frames had no VLAN
    /// tag.
    pub fn orphan(
        &self,
        bucket: usize,
        now: Tick,
        gone: impl Fn(BackendSlot) -> bool,
    ) -> Option<Orphan> {
        let bucket = u32::try_from(bucket).ok()?;
        // Free entries cost nothing but their tag.
        let mask = 0xffff & !matching(self.memory.tags(bucket)?, 0);
        Positions { bucket, mask }
            .filter_map(|at| Some((at, self.memory.record(at)?)))
            .filter(|(at, record)| gone(record.backend()) && !self.is_expired_at(*at, now))
            .find_map(|(at, record)| Orphan::of(FlowId(at), record))
    }

    /// Takes note of where a client's frames come from now.
    pub fn came_from(&mut self, id: FlowId, client: Mac) {
        if let Some(record) = self.memory.record(id.0) {
            record.came_from(client);
        }
    }
}

impl Orphan {
    fn of(id: FlowId, record: Record<'_>) -> Option<Self> {
        let (client, seq) = record.resettable()?;
        Some(Self { id, key: record.key(), backend: record.backend(), seq, client })
    }
}
