//! The table: look-up, observation and expiry. Where a new entry goes is decided in `place`.

use std::ops::Range;

use prefetch_index::prefetch_index;

use crate::key::FlowKey;
use crate::packet::TcpFields;
use crate::slots::BackendSlot;
use crate::tick::Tick;

use super::entry::{BUCKET, Positions, Record, Tags, WAYS};
use super::hash::{self, KeyedHash};
use super::place::Refusals;
use super::state::{self, FlowState, Segment, Step, Transition};
use super::timeouts::{IdleMillis, Timeouts, is_over, millis_since};
use super::{EndedFlow, Flow, FlowHash, FlowId, Found, Membership};

/// 5-tuple → backend, TCP state, last seen, last ACK, template.
///
/// Private to one worker. A key may lie in either of two buckets of 16 entries, nine times in ten
/// in the first. A bucket's tags (8 bits of the keyed hash each) lie in one cache line and say which
/// entry to compare with the full key, rightly in 49 of 50 cases when the table is full; an entry is
/// one more line, which holds everything else. So a hit reads two lines and writes one, and both can
/// be prefetched: [`hash`] and [`prefetch`] for a whole burst, then [`prefetch_entry`] for a whole
/// burst, then [`hit`], and [`find`] and [`observe`] for what is none.
///
/// Memory is fixed when it is made: 65 bytes per entry and 25 % more entries than `capacity`, so
/// 82 bytes per flow. Up to `capacity` flows fewer than 1 in 10,000 are refused; beyond it the
/// table goes on to fill, but refuses more and more.
///
/// An idle flow expires when it is next looked at: [`find`] does not see it, and its end is
/// reported when `insert` reuses the entry or [`sweep`] comes by. Time is 32 bits of milliseconds,
/// so sweeps must come round once in 12 days, or a dead entry seems young again.
///
/// [`hash`]: Self::hash
/// [`prefetch`]: Self::prefetch
/// [`prefetch_entry`]: Self::prefetch_entry
/// [`hit`]: Self::hit
/// [`find`]: Self::find
/// [`observe`]: Self::observe
/// [`sweep`]: Self::sweep
#[derive(Debug)]
pub struct FlowTable {
    pub(super) tags: Box<[Tags]>,
    pub(super) records: Box<[Record]>,
    hash: KeyedHash,
    idle: IdleMillis,
    buckets: u32,
    capacity: usize,
    len: usize,
    live: usize,
    unproven: usize,
    sweep_at: u32,
    pub(super) refused: Refusals,
}

impl FlowTable {
    /// A table for `capacity` flows (1 to 2^30), its hash keyed with `seed`.
    pub fn new(capacity: usize, seed: u64, timeouts: &Timeouts) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        let entries = capacity + capacity.div_ceil(SPARE_PART);
        let buckets = entries.div_ceil(WAYS).max(MIN_BUCKETS);
        Self {
            tags: vec![Tags::FREE; buckets].into_boxed_slice(),
            records: vec![Record::FREE; buckets * WAYS].into_boxed_slice(),
            hash: KeyedHash::new(seed),
            idle: IdleMillis::new(timeouts),
            buckets: u32::try_from(buckets).unwrap_or(u32::MAX),
            capacity,
            len: 0,
            live: 0,
            unproven: 0,
            sweep_at: 0,
            refused: Refusals::new(),
        }
    }

    /// Where `key` may lie.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        let bits = self.hash.flow(key);
        FlowHash { bits, first: hash::reduce(hash::low(bits), self.buckets), likely: NOWHERE }
    }

    /// The bucket that is looked at second; never the first.
    #[inline]
    pub(super) fn second(&self, hash: FlowHash) -> u32 {
        let second = hash::reduce(hash::high(hash.bits), self.buckets);
        let next = if hash.first + 1 < self.buckets { hash.first + 1 } else { 0 };
        if second == hash.first { next } else { second }
    }

    /// Brings the tags of the first candidate bucket into the cache.
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) {
        prefetch_index(&*self.tags, hash.first as usize);
    }

    /// Brings the likely entry into the cache and notes it in `hash`, so that [`find`](Self::find)
    /// need not read the tags again. Call it for a burst after [`prefetch`](Self::prefetch) for the
    /// burst; `find` is right without it, but slower.
    ///
    /// False if the entry is not in the first bucket; then it brings the second one's tags into the
    /// cache, for [`prefetch_second`](Self::prefetch_second).
    #[inline]
    pub fn prefetch_entry(&self, hash: &mut FlowHash) -> bool {
        let found = self.note_entry(hash, hash.first);
        if !found {
            prefetch_index(&*self.tags, self.second(*hash) as usize);
        }
        found
    }

    /// [`prefetch_entry`](Self::prefetch_entry) from the second bucket.
    #[inline]
    pub fn prefetch_second(&self, hash: &mut FlowHash) {
        self.note_entry(hash, self.second(*hash));
    }

    #[inline]
    fn note_entry(&self, hash: &mut FlowHash, bucket: u32) -> bool {
        let found = self.tagged(bucket, hash.tag()).next();
        if let Some(at) = found {
            hash.likely = at;
            prefetch_index(&*self.records, at as usize);
        }
        found.is_some()
    }

    /// [`find`](Self::find) and [`observe`](Self::observe) in one for what nearly all packets are:
    /// an ACK of an established flow, or a datagram of a UDP flow (`tcp` is `None`, which is what
    /// tells the protocol here). The backend; `None`, and nothing changed, if it is anything else.
    #[inline(always)]
    pub fn hit(
        &mut self,
        hash: FlowHash,
        key: &FlowKey,
        tcp: Option<TcpFields>,
        now: Tick,
    ) -> Option<BackendSlot> {
        let state = match tcp {
            Some(tcp) if Segment::of(tcp.flags) != Segment::Ack => return None,
            Some(_) => FlowState::Established,
            None => FlowState::Udp,
        };
        let (now, idle) = (now.wrapping_millis(), self.idle.of(state, false));
        let record = self.records.get_mut(hash.likely as usize)?;
        let known = record.state == Some(state) && record.is_between(key);
        if !known || is_over(idle, record.last_seen, now) {
            return None;
        }
        record.last_seen = now;
        if let Some(tcp) = tcp {
            record.acknowledge(tcp);
        }
        Some(record.backend)
    }

    /// The flow of `key`, unless it is expired.
    #[inline]
    pub fn find(&self, hash: FlowHash, key: &FlowKey, now: Tick) -> Option<Found> {
        let at = if self.is_at(hash.likely, key) { hash.likely } else { self.position(hash, key)? };
        let record = self.records.get(at as usize)?;
        if self.is_expired(record, record.state?, now.wrapping_millis()) {
            return None;
        }
        Some(Found { id: FlowId(at), backend: record.backend })
    }

    /// The entry; `None` if there is no longer a flow in it.
    pub fn get(&self, id: FlowId) -> Option<Flow> {
        let record = self.records.get(id.index())?;
        Some(record.view(record.state?))
    }

    /// Takes note of a packet: last seen, last ACK, state. `tcp` is `None` for UDP.
    ///
    /// An id that is no longer in use is ignored.
    #[inline]
    pub fn observe(&mut self, id: FlowId, tcp: Option<TcpFields>, now: Tick) -> Option<Transition> {
        let now = now.wrapping_millis();
        let record = self.records.get_mut(id.index())?;
        let state = record.state?;
        let Some(tcp) = tcp else {
            record.last_seen = now;
            return None;
        };
        let segment = Segment::of(tcp.flags);
        if state == FlowState::Established && segment == Segment::Ack {
            record.last_seen = now;
            record.acknowledge(tcp);
            return None;
        }
        let advances = state.is_unproven() && record.advances(tcp);
        let step = state::step(state, segment, advances);
        self.take_step(id, step, tcp, now)
    }

    /// Makes a flow a member of a template, in place of the one it held; `false` if it does not
    /// live, so that its end will not be reported (again).
    #[must_use]
    pub fn join(&mut self, id: FlowId, template: Membership) -> bool {
        match self.records.get_mut(id.index()) {
            Some(record) if record.state.is_some_and(FlowState::is_live) => record.join(template),
            _ => return false,
        }
        true
    }

    /// Removes an entry, whatever its state; `None` if there is no longer a flow in it.
    pub fn remove(&mut self, id: FlowId, now: Tick) -> Option<EndedFlow> {
        self.take(id.0, now)
    }

    /// Reports and removes what is expired in the next `buckets` buckets of 16, round robin.
    pub fn sweep(&mut self, now: Tick, buckets: usize, ended: &mut impl FnMut(EndedFlow)) {
        self.sweep_and_visit(now, buckets, ended, &mut |_, _| true);
    }

    /// The same, and shows all other flows to `visit`, which says whether a flow still holds its
    /// template: one that does not is a member of none from then on.
    pub fn sweep_and_visit(
        &mut self,
        now: Tick,
        buckets: usize,
        ended: &mut impl FnMut(EndedFlow),
        visit: &mut impl FnMut(&FlowKey, &Flow) -> bool,
    ) {
        for _ in 0..buckets.min(self.tags.len()) {
            let first = self.sweep_at * BUCKET;
            self.sweep_at = if self.sweep_at + 1 < self.buckets { self.sweep_at + 1 } else { 0 };
            for at in first..first + BUCKET {
                if self.is_expired_at(at, now) {
                    self.take(at, now).into_iter().for_each(&mut *ended);
                } else if let Some(record) = self.records.get_mut(at as usize)
                    && let Some(state) = record.state
                    && !visit(&record.key(), &record.view(state))
                {
                    record.leave();
                }
            }
        }
    }

    /// Reports and removes every flow: the worker goes, or its queue does.
    pub fn clear(&mut self, now: Tick, ended: &mut impl FnMut(EndedFlow)) {
        for at in 0..self.buckets * BUCKET {
            if let Some(flow) = self.take(at, now) {
                ended(flow);
            }
        }
    }

    /// The flows in `count` buckets from bucket `from` on that are not expired, only those of
    /// `backend` if one is named. One page of a dump: go on at `from + count` until
    /// [`buckets`](Self::buckets).
    pub fn page(
        &self,
        from: usize,
        count: usize,
        backend: Option<BackendSlot>,
        now: Tick,
    ) -> impl Iterator<Item = (FlowKey, Flow)> + '_ {
        let now = now.wrapping_millis();
        let records = self.records.chunks(WAYS).skip(from).take(count).flatten();
        records.filter_map(move |record| {
            let state = record.state?;
            let wanted = backend.is_none_or(|backend| backend == record.backend)
                && !self.is_expired(record, state, now);
            wanted.then(|| (record.key(), record.view(state)))
        })
    }

    /// Where it lies in memory, for advice to the kernel: every access is to another page.
    pub fn memory(&self) -> [Range<*const u8>; 2] {
        let (tags, records) = (self.tags.as_ptr_range(), self.records.as_ptr_range());
        [tags.start.cast()..tags.end.cast(), records.start.cast()..records.end.cast()]
    }

    /// Takes new timeouts over; they hold for the flows that are there as well.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) {
        self.idle = IdleMillis::new(timeouts);
    }

    /// Entries in use, expired ones included until they are swept.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no entry is in use.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries whose flow lives, expired ones included until they are swept.
    pub const fn live(&self) -> usize {
        self.live
    }

    /// Entries whose flow is unproven, expired ones included until they are swept.
    pub const fn unproven(&self) -> usize {
        self.unproven
    }

    /// The number of flows that the table was made for.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of buckets: the unit of [`sweep`](Self::sweep) and [`page`](Self::page).
    pub const fn buckets(&self) -> usize {
        self.tags.len()
    }

    /// The rest of [`observe`](Self::observe): all but an ACK of an established flow.
    #[cold]
    #[inline(never)]
    fn take_step(
        &mut self,
        id: FlowId,
        step: Step,
        tcp: TcpFields,
        now: u32,
    ) -> Option<Transition> {
        if step == Step::Renew {
            return Some(Transition::NewConnection);
        }
        let record = self.records.get_mut(id.index())?;
        record.last_seen = now;
        let state = record.state?;
        if tcp.flags & state::ACK != 0 {
            record.acknowledge(tcp);
            if state.is_unproven() {
                record.mark = tcp.next;
            }
        }
        match step {
            Step::Stay | Step::Renew => None,
            Step::Repeat => Some(Transition::Repeated),
            Step::Prove => {
                record.state = Some(FlowState::Established);
                self.unproven -= 1;
                self.live += 1;
                Some(Transition::Proven { picked_up: state == FlowState::PickedUp })
            }
            Step::End(to) => {
                record.state = Some(to);
                record.mark = now;
                if state.is_unproven() {
                    self.unproven -= 1;
                    return Some(Transition::Abandoned);
                }
                self.live -= 1;
                Some(Transition::Ended)
            }
            Step::Trail(to) => {
                record.state = Some(to);
                let due = millis_since(now, record.mark) >= TRAILING_MILLIS;
                if due {
                    record.mark = now;
                }
                due.then_some(Transition::Trailing)
            }
        }
    }

    /// Counts an entry of this state more, or less.
    const fn count(&mut self, state: FlowState, more: bool) {
        let counter = if state.is_live() {
            &mut self.live
        } else if state.is_unproven() {
            &mut self.unproven
        } else {
            return;
        };
        *counter = if more { *counter + 1 } else { *counter - 1 };
    }

    /// Whether so many flows are unproven that none may stay so for long.
    #[inline]
    pub(super) const fn is_crowded(&self) -> bool {
        self.unproven > self.capacity / FEW_PART
    }

    /// Empties an entry and says what was in it.
    pub(super) fn take(&mut self, at: u32, now: Tick) -> Option<EndedFlow> {
        let record = self.records.get_mut(at as usize)?;
        let state = record.state?;
        let gone = std::mem::replace(record, Record::FREE);
        self.set_tag(at, 0);
        self.len -= 1;
        self.count(state, false);
        Some(EndedFlow {
            key: gone.key(),
            service: gone.service,
            backend: gone.backend,
            state,
            at: self.end_of(&gone, state, now),
            template: gone.template().filter(|_| state.is_live()),
            evicted: false,
        })
    }

    /// Fills a free entry.
    pub(super) fn put(&mut self, at: u32, tag: u8, record: Record) -> Option<FlowId> {
        *self.records.get_mut(at as usize)? = record;
        self.set_tag(at, tag);
        self.len += 1;
        if let Some(state) = record.state {
            self.count(state, true);
        }
        Some(FlowId(at))
    }

    fn set_tag(&mut self, at: u32, tag: u8) {
        let (bucket, way) = (at as usize / WAYS, at as usize % WAYS);
        if let Some(slot) = self.tags.get_mut(bucket).and_then(|tags| tags.0.get_mut(way)) {
            *slot = tag;
        }
    }

    /// The moment its timeout passed if it did, else now.
    fn end_of(&self, record: &Record, state: FlowState, now: Tick) -> Tick {
        let idle_ms = millis_since(now.wrapping_millis(), record.last_seen);
        let overdue_ms = u64::from(idle_ms.saturating_sub(self.idle.of(state, self.is_crowded())));
        Tick::from_nanos(now.as_nanos().saturating_sub(overdue_ms * 1_000_000))
    }

    /// The entry that holds `key`, expired or not.
    #[cold]
    #[inline(never)]
    pub(super) fn position(&self, hash: FlowHash, key: &FlowKey) -> Option<u32> {
        let tagged = |bucket| self.tagged(bucket, hash.tag());
        tagged(hash.first).chain(tagged(self.second(hash))).find(|&at| self.is_at(at, key))
    }

    /// The entries of a bucket with this tag: mostly one or none.
    #[inline]
    fn tagged(&self, bucket: u32, tag: u8) -> Positions {
        let mask = self.tags.get(bucket as usize).map_or(0, |tags| tags.matching(tag));
        Positions { bucket, mask }
    }

    #[inline]
    fn is_at(&self, at: u32, key: &FlowKey) -> bool {
        self.records.get(at as usize).is_some_and(|record| record.is_of(key))
    }

    pub(super) fn is_expired_at(&self, at: u32, now: Tick) -> bool {
        self.records.get(at as usize).is_some_and(|record| {
            record.state.is_some_and(|state| self.is_expired(record, state, now.wrapping_millis()))
        })
    }

    #[inline]
    const fn is_expired(&self, record: &Record, state: FlowState, now: u32) -> bool {
        is_over(self.idle.of(state, self.is_crowded()), record.last_seen, now)
    }
}

impl FlowId {
    #[inline]
    const fn index(self) -> usize {
        self.0 as usize
    }
}

impl FlowHash {
    /// What the tags of the key's entry say. The bucket numbers depend on the upper bits of each
    /// half of the hash: on these eight only when there are more than 2^24 buckets.
    #[inline]
    pub(super) const fn tag(self) -> u8 {
        let [tag, ..] = self.bits.to_le_bytes();
        if tag == 0 { 1 } else { tag }
    }
}

/// A fourth more entries than `capacity`, so that it can be filled: at this load fewer than 1 in
/// 100,000 is refused.
const SPARE_PART: usize = 4;

/// Up to one in so many flows may stay unproven for as long as others are remembered: connections
/// on which nothing was sent yet.
const FEW_PART: usize = 16;

/// No entry's index.
const NOWHERE: u32 = u32::MAX;

/// Entry indices are 32 bits.
const MAX_CAPACITY: usize = 1 << 30;

/// Two, or a key had one candidate only.
const MIN_BUCKETS: usize = 2;

/// Packets of an ended flow are reported at most this often.
const TRAILING_MILLIS: u32 = 1000;
