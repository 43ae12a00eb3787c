//! Where a new flow goes.

use std::cmp::Reverse;

use crate::key::FlowKey;
use crate::tick::Tick;

use super::entry::{BUCKET, Record, matching};
use super::hash::{high, low};
use super::state::FlowState;
use super::table::FlowTable;
use super::timeouts::millis_since;
use super::{EndedFlow, FlowHash, FlowId, NewFlow, Origin, TableFull};

impl FlowTable {
    /// Inserts a flow; what makes room for it is reported as ended first.
    ///
    /// Takes the first of these that there is: the entry of the same 5-tuple (it is expired, or the
    /// caller did not look), a free one, an expired one, the one that is missed least
    /// ([`Worth`]). A flow that was picked up pushes out nothing but ended and picked-up ones; no
    /// flow pushes out one that lives, but for UDP that has been quiet for half a minute.
    ///
    /// The flow of a handshake or pick-up is unproven, that of UDP lives from here on. The flags of
    /// its first packet are not looked at.
    ///
    /// # Errors
    /// [`TableFull`]: the flow is to be served without an entry. It is looked for room for it once
    /// a second.
    pub fn insert(
        &mut self,
        hash: FlowHash,
        key: &FlowKey,
        new: &NewFlow,
        now: Tick,
        ended: &mut impl FnMut(EndedFlow),
    ) -> Result<FlowId, TableFull> {
        if self.refused.is_known(hash, now) {
            return Err(TableFull { again: true });
        }
        let room = self
            .position(hash, key)
            .or_else(|| self.free(hash))
            .or_else(|| self.candidates(hash).find(|&at| self.is_expired_at(at, now)));
        let victim = room.or_else(|| self.victim(hash, new.origin, now));
        let Some(at) = victim else {
            self.refused.note(hash, now);
            return Err(TableFull { again: false });
        };
        if let Some(flow) = self.take(at, now) {
            ended(EndedFlow { evicted: room.is_none(), ..flow });
        }
        let state = match new.origin {
            Origin::Handshake => FlowState::Opening,
            Origin::PickUp => FlowState::PickedUp,
            Origin::Udp => FlowState::Udp,
        };
        self.put((at, hash.tag()), key, state, new, now).ok_or(TableFull { again: false })
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

    /// The free entries of a bucket, as [`matching`] has them.
    fn free_in(&self, bucket: u32) -> u32 {
        self.memory.tags(bucket).map_or(0, |tags| matching(tags, 0))
    }

    /// The entry that is missed least: of those of one kind one in the bucket that has more of them,
    /// which keeps the others even, and there the longest idle one.
    fn victim(&self, hash: FlowHash, origin: Origin, now: Tick) -> Option<u32> {
        let most = match origin {
            Origin::PickUp => Worth::PickedUp,
            Origin::Handshake | Origin::Udp => Worth::QuietUdp,
        };
        let now = now.wrapping_millis();
        let in_bucket = |bucket: u32| {
            let entries = (bucket * BUCKET..(bucket + 1) * BUCKET)
                .filter_map(|at| Some((at, Worth::of(self.memory.record(at)?, now)?)))
                .filter(|&(_, (worth, _))| worth <= most);
            let (at, (worth, _)) =
                entries.clone().min_by_key(|&(_, (worth, idle))| (worth, Reverse(idle)))?;
            Some((worth, Reverse(entries.count()), at))
        };
        let buckets = [hash.first, self.second(hash)].into_iter();
        buckets.filter_map(in_bucket).min().map(|(_, _, at)| at)
    }

    /// All entries where a key may lie.
    fn candidates(&self, hash: FlowHash) -> impl Iterator<Item = u32> + use<> {
        let ways = |bucket: u32| bucket * BUCKET..(bucket + 1) * BUCKET;
        ways(hash.first).chain(ways(self.second(hash)))
    }
}

/// How much an entry is missed that is not expired, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// The client sent RST.
    Reset,
    /// The client sent FIN, and nothing more of late.
    Closed,
    /// Unproven, and its SYN was not seen.
    PickedUp,
    /// Unproven.
    Opening,
    /// The client sent FIN, and still acknowledges.
    EndingDownload,
    /// UDP of which nothing came of late: two datagrams from a forged address make as much.
    QuietUdp,
}

impl Worth {
    /// With the milliseconds for which it has been idle; `None` for a flow that never makes room.
    fn of(record: Record<'_>, now: u32) -> Option<(Self, u32)> {
        let idle = millis_since(now, record.seen().millis);
        let worth = match record.state()? {
            FlowState::Reset => Self::Reset,
            FlowState::Closing if idle >= QUIET_MILLIS => Self::Closed,
            FlowState::Closing => Self::EndingDownload,
            FlowState::PickedUp => Self::PickedUp,
            FlowState::Opening => Self::Opening,
            FlowState::Udp if idle >= QUIET_UDP_MILLIS => Self::QuietUdp,
            FlowState::Established | FlowState::Udp => return None,
        };
        Some((worth, idle))
    }
}

/// Where room was sought in vain of late: a direct-mapped table of keys and seconds.
#[derive(Debug)]
pub(super) struct Refusals(Box<[(u32, u32)]>);

impl Refusals {
    pub(super) fn new() -> Self {
        Self(vec![(0, u32::MAX); REFUSALS].into_boxed_slice())
    }

    fn is_known(&self, hash: FlowHash, now: Tick) -> bool {
        let (index, key) = Self::place(hash);
        self.0.get(index) == Some(&(key, second(now)))
    }

    fn note(&mut self, hash: FlowHash, now: Tick) {
        let (index, key) = Self::place(hash);
        if let Some(refusal) = self.0.get_mut(index) {
            *refusal = (key, second(now));
        }
    }

    const fn place(hash: FlowHash) -> (usize, u32) {
        (low(hash.bits) as usize % REFUSALS, high(hash.bits))
    }
}

/// Wraps after 49 days; [`u32::MAX`] is none.
const fn second(now: Tick) -> u32 {
    now.wrapping_millis() / 1000
}

/// Connections that are not looked at again within the second: 32 KiB.
const REFUSALS: usize = 4096;

/// A client that acknowledges a download does so more often than this.
const QUIET_MILLIS: u32 = 2000;

/// A client of UDP that is in the middle of something sends more often than this.
const QUIET_UDP_MILLIS: u32 = 30_000;

/// Entries that are left free in a key's first bucket while its second is emptier.
const KEPT_FREE: u32 = 4;
