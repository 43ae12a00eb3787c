//! The choices made at SYNs whose handshakes are not complete yet.
//!
//! Shared by all workers, because a client's SYN, its first ACK and its other connections may
//! arrive on other queues. Fixed and lossy: it can be flooded, and then forgets the oldest choices.
//! With persistence a SYN leaves two, for its source and for its 5-tuple: half as many SYNs fill the
//! table, but a handshake is lost only with both. A flood that sends a quarter of the table's
//! capacity in SYNs between a SYN and its ACK costs about one handshake in seven; without
//! persistence one in five. A lost choice costs a connection its backend only where the scheduler
//! would choose otherwise the second time. The table chooses nothing itself.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

use std::sync::atomic::{
    AtomicU16, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::time::Duration;

use prefetch_index::prefetch_index;

use crate::addr::Addr;
use crate::flow::hash::{KeyedHash, high, low, reduce};
use crate::key::FlowKey;
use crate::slots::{BackendSlot, ServiceSlot};
use crate::tick::Tick;

/// Key → the backend that a SYN chose, for as long as a connection may be half open.
///
/// Sets of one cache line: a count of moves and seven words, each a 32-bit tag, the time and the
/// backend. Nine bytes per choice, allocated once.
///
/// **One choice per key.** A key is only ever published in its *home* word of its set, by
/// compare-and-exchange from the value that was read before the set was searched: of several that
/// publish the same key at once one succeeds, and the others search again. A choice that has to
/// give way is first copied over the oldest other word, then the moves are counted, then it is
/// overwritten: a reader that missed it in both places sees another count and searches again.
#[derive(Debug)]
pub struct PendingTable {
    sets: Box<[Set]>,
    hash: KeyedHash,
    /// Coarse units that a choice is good for.
    lifetime: AtomicU16,
    sweep_at: AtomicUsize,
}

impl PendingTable {
    /// A table for `capacity` choices (rounded up to a multiple of 7, at most 2^30), each good for
    /// `half_open`, its hash keyed with `seed`.
    pub fn new(capacity: usize, seed: u64, half_open: Duration) -> Self {
        let sets = capacity.min(MAX_CAPACITY).div_ceil(WAYS).max(1);
        Self {
            sets: std::iter::repeat_with(Set::default).take(sets).collect(),
            hash: KeyedHash::new(seed),
            lifetime: AtomicU16::new(units(half_open)),
            sweep_at: AtomicUsize::new(0),
        }
    }

    /// The key of a source of a service with persistence; `source` is masked to the prefix.
    pub fn source_key(&self, service: ServiceSlot, source: Addr) -> PendingKey {
        PendingKey::new(self.hash.source(service, source))
    }

    /// The key of a single connection.
    pub fn flow_key(&self, key: &FlowKey) -> PendingKey {
        PendingKey::new(self.hash.flow(key))
    }

    /// The key's choice if it has one that is `valid`, made to last longer; else `choose` is called
    /// (once at most), and its choice is published. Of several workers that call this for a key at
    /// once, all return the same choice. `None` only if `choose` says so.
    pub fn choose_or_join(
        &self,
        key: PendingKey,
        now: Tick,
        choose: impl FnOnce() -> Option<BackendSlot>,
        valid: impl Fn(BackendSlot) -> bool,
    ) -> Option<Choice> {
        let clock = self.clock(now);
        let set = self.set(key)?;
        let mut choose = Some(choose);
        let mut backend = None;
        for _ in 0..ATTEMPTS {
            let seen = Word(set.home(key)?.load(Acquire));
            let good = |word: Word| clock.is_good(word) && valid(word.backend());
            if let Some((way, word)) = set.search(key, good) {
                clock.refresh(way, word, key);
                return Some(Choice { backend: word.backend(), fresh: false });
            }
            if let Some(choose) = choose.take() {
                backend = Some(choose()?);
            }
            let backend = backend?;
            if set.publish(key, seen, Word::new(key.tag(), backend, clock.stamp(key)), clock) {
                return Some(Choice { backend, fresh: true });
            }
        }
        backend.map(|backend| Choice { backend, fresh: true })
    }

    /// The key's choice, whether it is still valid or not.
    pub fn lookup(&self, key: PendingKey, now: Tick) -> Option<BackendSlot> {
        Some(self.find(key, now)?.backend)
    }

    /// The same, and whether it is held.
    pub fn find(&self, key: PendingKey, now: Tick) -> Option<Found> {
        let clock = self.clock(now);
        let (_, word) = self.set(key)?.search(key, |word| clock.is_good(word))?;
        Some(Found { backend: word.backend(), held: clock.age(word) < -SKEW })
    }

    /// Makes `backend` the key's choice, for `longer` than other choices are good for: of a
    /// connection that has no other memory which all workers see. Repeat it in time.
    pub fn hold(&self, key: PendingKey, backend: BackendSlot, longer: Duration, now: Tick) {
        let lasting = self.lifetime.load(Relaxed).saturating_add(coarse_units(longer));
        let key = PendingKey { lasting, ..key };
        self.choose_or_join(key, now, || Some(backend), |other| other == backend);
    }

    /// Makes a choice that was held one that is not, so that it is soon forgotten.
    pub fn release(&self, key: PendingKey, now: Tick) {
        if let Some(backend) = self.take(key, now) {
            self.choose_or_join(key, now, || Some(backend), |_| true);
        }
    }

    /// The key's choice as [`lookup`](Self::lookup) has it, which is forgotten: the handshake is
    /// complete. A choice that another worker makes for the key meanwhile may be forgotten too.
    pub fn take(&self, key: PendingKey, now: Tick) -> Option<BackendSlot> {
        let backend = self.lookup(key, now)?;
        for way in &self.set(key)?.words {
            let word = Word(way.load(Acquire));
            if word.tag() == key.tag() {
                // Lost the race: another worker refreshed or moved it, and it expires by itself.
                let _ = way.compare_exchange(word.0, Word::EMPTY.0, AcqRel, Relaxed);
            }
        }
        Some(backend)
    }

    /// Clears what is expired from the next `sets` sets of seven, round robin.
    ///
    /// The coarse clock wraps: sweeps must come round once in 36 minutes, or a dead choice seems
    /// young again.
    pub fn sweep(&self, now: Tick, sets: usize) {
        let clock = self.clock(now);
        let from = self.sweep_at.fetch_add(sets, Relaxed) % self.sets.len().max(1);
        let (before, after) = self.sets.split_at(from);
        for way in after.iter().chain(before).take(sets).flat_map(|set| &set.words) {
            let word = Word(way.load(Relaxed));
            if word != Word::EMPTY && !clock.is_good(word) {
                // Lost the race: another worker put a younger choice there.
                let _ = way.compare_exchange(word.0, Word::EMPTY.0, AcqRel, Relaxed);
            }
        }
    }

    /// Choices are good for another time from now on, existing ones as well.
    pub fn set_half_open(&self, half_open: Duration) {
        self.lifetime.store(units(half_open), Relaxed);
    }

    /// The number of choices that the table has room for.
    pub const fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// The number of sets: the unit of [`sweep`](Self::sweep).
    pub const fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Asks for the cache line of a key, for a call soon.
    #[inline]
    pub(crate) fn prefetch(&self, key: PendingKey) {
        prefetch_index(&*self.sets, self.position(key));
    }

    fn set(&self, key: PendingKey) -> Option<&Set> {
        self.sets.get(self.position(key))
    }

    fn position(&self, key: PendingKey) -> usize {
        let sets = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        reduce(high(key.hash), sets) as usize
    }

    fn clock(&self, now: Tick) -> Clock {
        Clock { now: coarse(now), lifetime: self.lifetime.load(Relaxed) }
    }
}

/// What a choice is for, as a keyed hash, and how long it is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingKey {
    hash: u64,
    /// Coarse units; the table's own lifetime if that is longer.
    lasting: u16,
}

impl PendingKey {
    const fn new(hash: u64) -> Self {
        Self { hash, lasting: 0 }
    }

    /// The same key, whose choice is good for so long when it is made and whenever it is joined, if
    /// that is longer than `half_open`. At most 72 minutes and `half_open`.
    #[must_use]
    pub fn lasting(self, lasting: Duration) -> Self {
        Self { lasting: coarse_units(lasting), ..self }
    }

    /// Never 0, so that no choice looks like an empty word.
    pub(crate) const fn tag(self) -> u32 {
        let tag = low(self.hash);
        if tag == 0 { 1 } else { tag }
    }

    /// The place of its home word in the set: bits that neither the tag nor the set depends on.
    const fn home(self) -> usize {
        (high(self.hash) as usize) % WAYS
    }
}

/// What [`PendingTable::find`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the connection goes.
    pub backend: BackendSlot,
    /// It was [held](PendingTable::hold) of late, or lasts longer for another reason: a connection,
    /// not a handshake.
    pub held: bool,
}

/// What [`PendingTable::choose_or_join`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the connection goes.
    pub backend: BackendSlot,
    /// Chosen by this call, not joined.
    pub fresh: bool,
}

/// One cache line of choices.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Set {
    moves: AtomicU64,
    words: [AtomicU64; WAYS],
}

impl Set {
    fn home(&self, key: PendingKey) -> Option<&AtomicU64> {
        self.words.get(key.home())
    }

    /// The key's choice, if it is good, wherever it is.
    fn search(&self, key: PendingKey, good: impl Fn(Word) -> bool) -> Option<(&AtomicU64, Word)> {
        let hit = |&(_, word): &(_, Word)| word.tag() == key.tag() && good(word);
        // Home first: what is there is younger than a copy that was left elsewhere.
        let (after, from) = self.words.split_at_checked(key.home())?;
        for _ in 0..ATTEMPTS {
            let moves = self.moves.load(Acquire);
            let words = from.iter().chain(after).map(|way| (way, Word(way.load(Acquire))));
            let found = words.into_iter().find(hit);
            if found.is_some() || self.moves.load(Acquire) == moves {
                return found;
            }
        }
        None
    }

    /// Puts `new` into the key's home word if that still holds `seen`, which is kept elsewhere if
    /// it is still good and not the oldest of the set. `false`: search again.
    fn publish(&self, key: PendingKey, seen: Word, new: Word, clock: Clock) -> bool {
        let gives_way = clock.is_good(seen) && seen.tag() != new.tag();
        if gives_way && !self.keep(seen, key.home(), clock) {
            return false;
        }
        let published = |home: &AtomicU64| home.compare_exchange(seen.0, new.0, AcqRel, Relaxed);
        self.home(key).is_some_and(|home| published(home).is_ok())
    }

    /// Copies a choice to where it does the least harm: into a word that is empty or expired, or
    /// over the oldest. `false`: another worker wrote there first.
    ///
    /// Never over another copy of the same choice, which may be about to be overwritten by a worker
    /// that made a copy too: as each makes its own first, one is always left.
    fn keep(&self, word: Word, home: usize, clock: Clock) -> bool {
        let others = self.words.iter().enumerate().filter(|&(way, _)| way != home);
        let stalest = others
            .map(|(_, way)| (way, Word(way.load(Acquire))))
            .filter(|&(_, other)| other.tag() != word.tag())
            .max_by_key(|&(_, other)| clock.staleness(other))
            .filter(|&(_, other)| clock.staleness(other) >= clock.staleness(word));
        let Some((way, other)) = stalest else { return true };
        let copied = way.compare_exchange(other.0, word.0, AcqRel, Relaxed).is_ok();
        self.moves.fetch_add(1, AcqRel);
        copied
    }
}

/// Tag, coarse time, backend: 32, 16 and 16 bits. Zero: empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const EMPTY: Self = Self(0);

    fn new(tag: u32, backend: BackendSlot, time: u16) -> Self {
        Self(u64::from(tag) << 32 | u64::from(time) << 16 | u64::from(backend.0))
    }

    const fn tag(self) -> u32 {
        high(self.0)
    }

    const fn time(self) -> u16 {
        low16(self.0 >> 16)
    }

    const fn backend(self) -> BackendSlot {
        BackendSlot(low16(self.0))
    }
}

/// The time of a call, and how long choices are good for, in coarse units.
#[derive(Clone, Copy, Debug)]
struct Clock {
    now: u16,
    lifetime: u16,
}

impl Clock {
    /// Below 0 for a choice that lasts longer than others, and for one of a worker that read the
    /// clock a little later.
    const fn age(self, word: Word) -> i16 {
        self.now.wrapping_sub(word.time()).cast_signed()
    }

    const fn is_good(self, word: Word) -> bool {
        word.tag() != 0 && self.age(word) < self.lifetime.cast_signed()
    }

    /// The time of the key's choice: ahead, if that is to last longer than others.
    fn stamp(self, key: PendingKey) -> u16 {
        let ahead = key.lasting.saturating_sub(self.lifetime).min(MAX_AHEAD);
        self.now.wrapping_add(ahead)
    }

    /// What gives way first, the highest: what is over, old choices of handshakes, choices that last
    /// longer than others, the choices of the last second.
    const fn staleness(self, word: Word) -> i16 {
        match self.age(word) {
            _ if !self.is_good(word) => i16::MAX,
            age if age < -SKEW => PATIENCE,
            age => age,
        }
    }

    /// Makes a choice last from now on.
    fn refresh(self, way: &AtomicU64, word: Word, key: PendingKey) {
        let stamp = self.stamp(key);
        if stamp.wrapping_sub(word.time()).cast_signed() > 0 {
            let fresh = Word::new(word.tag(), word.backend(), stamp);
            // Lost the race: another worker refreshed, moved or replaced it, which may stand.
            let _ = way.compare_exchange(word.0, fresh.0, AcqRel, Relaxed);
        }
    }
}

/// The coarse clock: units of 2^27 ns (134 ms), wrapping after 146 minutes.
const fn coarse(now: Tick) -> u16 {
    low16(now.as_nanos() >> UNIT_SHIFT)
}

/// So many units that a choice lives no shorter than asked for, and at most two units longer.
fn units(half_open: Duration) -> u16 {
    coarse_units(half_open).min(MAX_UNITS)
}

fn coarse_units(duration: Duration) -> u16 {
    u16::try_from((duration.as_nanos() >> UNIT_SHIFT) + 2).unwrap_or(u16::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower bits are what is asked for")]
const fn low16(bits: u64) -> u16 {
    bits as u16
}

const UNIT_SHIFT: u32 = 27;

/// A quarter of the coarse clock's range, 36 minutes: half of it parts past from future, and what
/// is left is the time in which a sweep must come by.
const MAX_UNITS: u16 = 1 << 14;

/// How far ahead the time of a choice may lie: not quite half of the range, for workers read the
/// clock at different times.
const MAX_AHEAD: u16 = (1 << 15) - (1 << 9);

/// What lies further ahead than this, two seconds, does so on purpose.
const SKEW: i16 = 16;

/// Choices that last long are as stale as others are after so many units, one second: by then the
/// ACK of a handshake is there, or late.
const PATIENCE: i16 = 8;

/// Words in one cache line, beside the count of moves.
const WAYS: usize = 7;

const MAX_CAPACITY: usize = 1 << 30;

/// Each lost race means that another worker published in that very set within nanoseconds.
const ATTEMPTS: usize = 64;

const _: () = assert!(size_of::<Set>() == 64);

#[cfg(test)]
mod tests;
