//! The table: look-up, observation and expiry. Where a new entry goes is decided in `place`.

use std::ops::Range;

use crate::counters::MAX_BACKENDS;
use crate::key::FlowKey;
use crate::packet::TcpFields;
use crate::slots::{BackendSlot, ServiceSlot};
use crate::tick::Tick;

use super::entry::{self, BUCKET, Contents, Positions, Record, Seen};
use super::hash::{self, KeyedHash};
use super::memory::FlowMemory;
use super::place::Refusals;
use super::state::{self, FlowState, Segment, Step, Transition};
use super::timeouts::{IdleMillis, Timeouts, is_over, millis_since};
use super::{EndedFlow, Flow, FlowHash, FlowId, Found, Membership, NewFlow};

/// 5-tuple → backend, TCP state, last seen, last ACK, template.
///
/// One worker owns it and alone writes to it, but for the time and number of a flow's last packet,
/// which the XDP program notes as well where the memory is a map of its own. A key may lie in either of two buckets of 16 entries, nine times in ten
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
    pub(super) memory: FlowMemory,
    pub(super) hash: KeyedHash,
    pub(super) idle: IdleMillis,
    buckets: u32,
    /// By backend: [`NewFlow::service`], which is the same for all its flows. A slot is given to another
    /// backend only when no flow names it any more.
    services: Box<[ServiceSlot]>,
    len: usize,
    live: usize,
    unproven: usize,
    sweep_at: u32,
    pub(super) refused: Refusals,
}

impl FlowTable {
    /// A table for `capacity` flows (1 to 2^30), its hash keyed with `seed`, in memory of the heap.
    pub fn new(capacity: usize, seed: u64, timeouts: &Timeouts) -> Self {
        Self::over(FlowMemory::heap(capacity), seed, timeouts)
    }

    /// A table in this memory, its hash keyed with `seed`.
    pub fn over(memory: FlowMemory, seed: u64, timeouts: &Timeouts) -> Self {
        let hash = KeyedHash::new(seed);
        let idle = IdleMillis::new(timeouts);
        memory.describe(hash.keys(), idle.of_known());
        Self {
            hash,
            idle,
            buckets: u32::try_from(memory.buckets()).unwrap_or(u32::MAX),
            services: vec![ServiceSlot::NONE; MAX_BACKENDS].into_boxed_slice(),
            memory,
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
        self.memory.prefetch_tags(hash.first);
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
            self.memory.prefetch_tags(self.second(*hash));
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
            self.memory.prefetch_record(at);
        }
        found.is_some()
    }

    /// [`find`](Self::find) and [`observe`](Self::observe) in one for what nearly all packets are:
    /// an ACK of an established flow, or a datagram of a UDP flow (`tcp` is `None`, which is what
    /// tells the protocol here). The backend, and the bytes that the client [acknowledged](entry::acked) since
    /// its last packet; `None`, and nothing changed, if it is anything else.
    #[inline(always)]
    pub fn hit(
        &mut self,
        hash: FlowHash,
        key: &FlowKey,
        tcp: Option<TcpFields>,
        now: Tick,
    ) -> Option<(BackendSlot, i32)> {
        let state = match tcp {
            Some(tcp) if Segment::of(tcp.flags) != Segment::Ack => return None,
            Some(_) => FlowState::Established,
            None => FlowState::Udp,
        };
        let (now, idle) = (now.wrapping_millis(), self.idle.of(state, false));
        let record = self.memory.record(hash.likely)?;
        let backend = record.backend_of(key, state)?;
        let seen = record.seen();
        if is_over(idle, seen.millis, now) {
            return None;
        }
        let ack = tcp.map_or(seen.ack, |tcp| tcp.ack);
        record.note(Seen { millis: now, ack });
        Some((backend, entry::acked(seen.ack, ack)))
    }

    /// The flow of `key`, unless it is expired.
    #[inline]
    pub fn find(&self, hash: FlowHash, key: &FlowKey, now: Tick) -> Option<Found> {
        let at = if self.is_at(hash.likely, key) { hash.likely } else { self.position(hash, key)? };
        let record = self.memory.record(at)?;
        if self.is_expired(record, record.state()?, now.wrapping_millis()) {
            return None;
        }
        Some(Found { id: FlowId(at), backend: record.backend() })
    }

    /// The entry; `None` if there is no longer a flow in it.
    pub fn get(&self, id: FlowId) -> Option<Flow> {
        let record = self.memory.record(id.0)?;
        Some(self.view(record, record.state()?))
    }

    /// Takes note of a packet: last seen, last ACK, state. `tcp` is `None` for UDP. FIN and RST of an
    /// established flow whose acknowledgment cannot be the client's change nothing: they are forged.
    ///
    /// An id that is no longer in use is ignored.
    #[inline]
    pub fn observe(&mut self, id: FlowId, tcp: Option<TcpFields>, now: Tick) -> Option<Transition> {
        let now = now.wrapping_millis();
        let record = self.memory.record(id.0)?;
        let state = record.state()?;
        let Some(tcp) = tcp else {
            record.note(Seen { millis: now, ..record.seen() });
            return None;
        };
        let segment = Segment::of(tcp.flags);
        if state == FlowState::Established && segment == Segment::Ack {
            record.note(Seen { millis: now, ack: tcp.ack });
            return None;
        }
        if state == FlowState::Established && is_forged_end(record, segment, tcp) {
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
        match self.memory.record(id.0) {
            Some(record) if record.state().is_some_and(FlowState::is_live) => record.join(template),
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
        for _ in 0..buckets.min(self.buckets()) {
            let first = self.sweep_at * BUCKET;
            self.sweep_at = if self.sweep_at + 1 < self.buckets { self.sweep_at + 1 } else { 0 };
            for at in first..first + BUCKET {
                if self.is_expired_at(at, now) {
                    self.take(at, now).into_iter().for_each(&mut *ended);
                } else if let Some(record) = self.memory.record(at)
                    && let Some(state) = record.state()
                    && !visit(&record.key(), &self.view(record, state))
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
        self.memory.records(from, count).filter_map(move |record| {
            let state = record.state()?;
            let wanted = backend.is_none_or(|backend| backend == record.backend())
                && !self.is_expired(record, state, now);
            wanted.then(|| (record.key(), self.view(record, state)))
        })
    }

    /// Where it lies in memory, for advice to the kernel: every access is to another page.
    pub fn memory(&self) -> Range<*const u8> {
        self.memory.range()
    }

    /// Takes new timeouts over; they hold for the flows that are there as well.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) {
        self.idle = IdleMillis::new(timeouts);
        self.memory.describe(self.hash.keys(), self.idle.of_known());
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
        self.memory.capacity()
    }

    /// The number of buckets: the unit of [`sweep`](Self::sweep) and [`page`](Self::page).
    pub fn buckets(&self) -> usize {
        self.memory.buckets()
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
        let record = self.memory.record(id.0)?;
        let state = record.state()?;
        let acknowledges = tcp.flags & state::ACK != 0;
        let ack = if acknowledges { tcp.ack } else { record.seen().ack };
        record.note(Seen { millis: now, ack });
        if acknowledges && state.is_unproven() {
            record.set_mark(tcp.next);
        }
        match step {
            Step::Stay | Step::Renew => None,
            Step::Repeat => Some(Transition::Repeated),
            Step::Prove => {
                record.set_state(FlowState::Established);
                self.unproven -= 1;
                self.live += 1;
                Some(Transition::Proven { picked_up: state == FlowState::PickedUp })
            }
            Step::End(to) => {
                record.set_state(to);
                record.set_mark(now);
                if state.is_unproven() {
                    self.unproven -= 1;
                    return Some(Transition::Abandoned);
                }
                self.live -= 1;
                Some(Transition::Ended)
            }
            Step::Trail(to) => {
                record.set_state(to);
                let due = millis_since(now, record.mark()) >= TRAILING_MILLIS;
                if due {
                    record.set_mark(now);
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
        self.unproven > self.memory.capacity() / FEW_PART
    }

    /// Empties an entry and says what was in it.
    pub(super) fn take(&mut self, at: u32, now: Tick) -> Option<EndedFlow> {
        let record = self.memory.record(at)?;
        let state = record.state()?;
        let service = self.service_of(record);
        let ended = EndedFlow {
            key: record.key(),
            service,
            backend: record.backend(),
            state,
            at: self.end_of(record, state, now),
            template: record.template(service).filter(|_| state.is_live()),
            evicted: false,
        };
        record.free();
        self.set_tag(at, 0);
        self.len -= 1;
        self.count(state, false);
        Some(ended)
    }

    /// Fills a free entry.
    pub(super) fn put(
        &mut self,
        (at, tag): (u32, u8),
        key: &FlowKey,
        state: FlowState,
        new: &NewFlow,
        now: Tick,
    ) -> Option<FlowId> {
        let contents = Contents::new(key, state, new, now.wrapping_millis());
        self.memory.record(at)?.fill(&contents);
        self.set_tag(at, tag);
        if let Some(service) = self.services.get_mut(new.backend.index()) {
            *service = new.service;
        }
        self.len += 1;
        self.count(state, true);
        Some(FlowId(at))
    }

    fn set_tag(&self, at: u32, tag: u8) {
        if let Some(tags) = self.memory.tags(at / BUCKET) {
            entry::set_tag(tags, (at % BUCKET) as usize, tag);
        }
    }

    fn service_of(&self, record: Record<'_>) -> ServiceSlot {
        self.services.get(record.backend().index()).copied().unwrap_or(ServiceSlot::NONE)
    }

    fn view(&self, record: Record<'_>, state: FlowState) -> Flow {
        record.view(self.service_of(record), state)
    }

    /// The moment its timeout passed if it did, else now.
    fn end_of(&self, record: Record<'_>, state: FlowState, now: Tick) -> Tick {
        let idle_ms = millis_since(now.wrapping_millis(), record.seen().millis);
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
        let mask = self.memory.tags(bucket).map_or(0, |tags| entry::matching(tags, tag));
        Positions { bucket, mask }
    }

    #[inline]
    fn is_at(&self, at: u32, key: &FlowKey) -> bool {
        self.memory.record(at).is_some_and(|record| record.is_of(key))
    }

    pub(super) fn is_expired_at(&self, at: u32, now: Tick) -> bool {
        self.memory.record(at).is_some_and(|record| {
            let state = record.state();
            state.is_some_and(|state| self.is_expired(record, state, now.wrapping_millis()))
        })
    }

    #[inline]
    fn is_expired(&self, record: Record<'_>, state: FlowState, now: u32) -> bool {
        is_over(self.idle.of(state, self.is_crowded()), record.seen().millis, now)
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

/// Whether a segment that would end an established flow is not the client's: its acknowledgment cannot
/// be, or it is a FIN without one, which a host drops (RFC 9293 §3.10.7.4). A RST may come without.
fn is_forged_end(record: Record<'_>, segment: Segment, tcp: TcpFields) -> bool {
    match segment {
        Segment::Rst | Segment::Fin if tcp.acknowledges() => !record.fits(tcp),
        Segment::Fin => true,
        Segment::Rst | Segment::Syn | Segment::Ack | Segment::Other => false,
    }
}

/// Up to one in so many flows may stay unproven for as long as others are remembered: connections
/// on which nothing was sent yet.
const FEW_PART: usize = 16;

/// No entry's index.
const NOWHERE: u32 = u32::MAX;

/// Packets of an ended flow are reported at most this often.
const TRAILING_MILLIS: u32 = 1000;
