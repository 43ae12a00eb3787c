//! Where a new flow goes.

use crate::key::FlowKey;
use crate::tick::Tick;

use super::entry::{BUCKET, Record};
use super::state::FlowState;
use super::table::FlowTable;
use super::timeouts::millis_since;
use super::{EndedFlow, FlowHash, FlowId, NewFlow, Origin, TableFull};

impl FlowTable {
    /// Inserts a flow; what makes room for it is reported as ended first.
    ///
    /// Takes the first of these that there is: the entry of the same 5-tuple (it is expired, or the
    /// caller did not look), a free one, an expired one, the longest idle unconfirmed pick-up.
    ///
    /// The flow lives from here on. The flags of its first packet are not looked at: give a FIN or
    /// RST to [`observe`](Self::observe) as well.
    ///
    /// # Errors
    /// [`TableFull`]: the flow is to be served without an entry.
    pub fn insert(
        &mut self,
        hash: FlowHash,
        key: &FlowKey,
        new: &NewFlow,
        now: Tick,
        ended: &mut impl FnMut(EndedFlow),
    ) -> Result<FlowId, TableFull> {
        let at = self
            .position(hash, key)
            .or_else(|| self.free(hash))
            .or_else(|| self.candidates(hash).find(|&at| self.is_expired_at(at, now)))
            .or_else(|| self.unconfirmed(hash, now))
            .ok_or(TableFull)?;
        if let Some(flow) = self.take(at, now) {
            ended(flow);
        }
        let state = match new.origin {
            Origin::Handshake => FlowState::Established,
            Origin::PickUp => FlowState::PickedUp,
            Origin::Udp => FlowState::Udp,
        };
        let record = Record::new(key, state, new, now.wrapping_millis());
        self.put(at, hash.tag(), record).ok_or(TableFull)
    }

    /// A free entry: in the first bucket unless that is nearly full and the second is emptier.
    ///
    /// That keeps nine in ten in the bucket that is looked at first, and the table as full as a
    /// strict choice of the emptier bucket would.
    fn free(&self, hash: FlowHash) -> Option<u32> {
        let (first, second) = (self.free_in(hash.first), self.free_in(self.second(hash)));
        let stays = first.count_ones() >= KEPT_FREE || first.count_ones() >= second.count_ones();
        let (bucket, free) = if stays { (hash.first, first) } else { (self.second(hash), second) };
        (free != 0).then(|| bucket * BUCKET + free.trailing_zeros())
    }

    /// The free entries of a bucket, as [`Tags::matching`](super::entry::Tags::matching) has them.
    fn free_in(&self, bucket: u32) -> u32 {
        self.tags.get(bucket as usize).map_or(0, |tags| tags.matching(0))
    }

    fn unconfirmed(&self, hash: FlowHash, now: Tick) -> Option<u32> {
        let now = now.wrapping_millis();
        self.candidates(hash)
            .filter_map(|at| Some((at, self.records.get(at as usize)?)))
            .filter(|(_, record)| record.state == Some(FlowState::PickedUp))
            .max_by_key(|(_, record)| millis_since(now, record.last_seen))
            .map(|(at, _)| at)
    }

    /// All entries where a key may lie.
    fn candidates(&self, hash: FlowHash) -> impl Iterator<Item = u32> + use<> {
        let ways = |bucket: u32| bucket * BUCKET..(bucket + 1) * BUCKET;
        ways(hash.first).chain(ways(self.second(hash)))
    }
}

/// Entries that are left free in a key's first bucket while its second is emptier.
const KEPT_FREE: u32 = 4;
