//! The templates of a node, shared by its workers.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, OccupiedEntry, VacantEntry};
use siphasher::sip::SipHasher13;

use crate::addr::Addr;
use crate::flow::hash::{KeyedHash, high, reduce};
use crate::slots::{BackendSlot, ServiceSlot};
use crate::tick::Tick;

use super::template::{Epoch, Joined, Record, Template, TemplateEntry, TemplateKey, TemplateRef};

/// (service, source prefix) → backend, expiry, live flows, epoch.
///
/// Every method takes `&self` and at most one lock, for one access. A template is made by
/// [`join`](Self::join) when a handshake completes, holds while a member flow lives, and dies its
/// timeout after the last handshake, the last end or the last trailing packet; an expired one is
/// as good as gone and is removed by [`sweep`](Self::sweep).
///
/// Memory is bounded: at most `capacity` templates of 49 bytes, in maps that are at worst a quarter
/// full (196 bytes each), and 256 KiB of gauges.
#[derive(Debug)]
pub struct PersistenceTable {
    maps: Box<[Map]>,
    map_of: KeyedHash,
    /// Templates by backend slot.
    backends: Box<[AtomicU32]>,
    capacity: usize,
    len: CachePadded<AtomicUsize>,
    epoch: CachePadded<AtomicU32>,
    sweep_at: AtomicUsize,
    reclaim: Budget,
    counts: Counts,
}

impl PersistenceTable {
    /// A table for `capacity` templates, its hash keyed with `seed`.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let maps = (capacity / TEMPLATES_PER_MAP).next_power_of_two().clamp(MIN_MAPS, MAX_MAPS);
        let hasher = Keyed(seed, seed.rotate_left(17) ^ KEY_TWIST);
        let map = || DashMap::with_hasher_and_shard_amount(hasher, SHARDS);
        Self {
            maps: std::iter::repeat_with(map).take(maps).collect(),
            map_of: KeyedHash::new(seed),
            backends: (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect(),
            capacity,
            len: CachePadded::default(),
            epoch: CachePadded::new(AtomicU32::new(1)),
            sweep_at: AtomicUsize::new(0),
            reclaim: Budget::default(),
            counts: Counts::default(),
        }
    }

    /// Where the source goes, unless its template is expired. Changes nothing.
    pub fn get(&self, key: &TemplateKey, now: Tick) -> Option<Template> {
        let record = self.map(key)?.get(&Packed::from(*key))?;
        (!record.is_expired(now)).then(|| record.template())
    }

    /// The same, with all that is known of the template.
    pub fn entry(&self, key: &TemplateKey, now: Tick) -> Option<TemplateEntry> {
        let record = self.map(key)?.get(&Packed::from(*key))?;
        (!record.is_expired(now)).then(|| record.entry(*key))
    }

    /// A handshake to `backend` completed: the flow becomes a member of the source's template,
    /// which is made if there is none and refreshed if there is. `replace` says what becomes of a
    /// template that names another backend: a new one takes its place (its members' ends no longer
    /// count), or it is kept and the flow is a member of none.
    pub fn join(
        &self,
        key: &TemplateKey,
        backend: BackendSlot,
        timeout: Duration,
        replace: bool,
        now: Tick,
    ) -> Joined {
        let make = |table: &Self| Record::new(backend, table.next_epoch(), timeout, now);
        // Without a lock: what makes room takes others.
        self.has_room(now);
        let Some(map) = self.map(key) else { return Joined::Full };
        match map.entry(Packed::from(*key)) {
            Entry::Vacant(vacant) => self.create(vacant, make),
            Entry::Occupied(mut found) => {
                let record = found.get_mut();
                if record.is_expired(now) {
                    count(&self.counts.expired);
                    count(&self.counts.created);
                    Joined::Created(self.renew(found, make(self)))
                } else if record.backend == backend {
                    Joined::Refreshed(record.refresh(timeout, now))
                } else if replace {
                    count(&self.counts.replaced);
                    Joined::Replaced(self.renew(found, make(self)))
                } else {
                    Joined::Kept(record.template())
                }
            }
        }
    }

    /// A connection picked up from its middle, confirmed by a second packet, becomes a member of
    /// its source's template if that names its backend: a flow that changed its queue keeps its
    /// template. No template is made, and none refreshed.
    pub fn attach(&self, key: &TemplateKey, backend: BackendSlot, now: Tick) -> Option<Epoch> {
        let mut record = self.map(key)?.get_mut(&Packed::from(*key))?;
        (record.backend == backend && !record.is_expired(now)).then(|| record.attach())
    }

    /// A member's life ended at `at`, which may be past. Ignored if the template was replaced.
    pub fn end(&self, template: &TemplateRef, at: Tick) {
        self.with(template, |record| record.end(at));
    }

    /// A packet trailed a member's end. Ignored if the template was replaced.
    pub fn touch(&self, template: &TemplateRef, now: Tick) {
        self.with(template, |record| record.touch(now));
    }

    /// Removes what is expired from the next `maps` of all [`maps`](Self::maps), round robin, and
    /// says how many templates that were.
    ///
    /// Locks half a map at a time, about 2,000 templates in a full table.
    pub fn sweep(&self, now: Tick, maps: usize) -> usize {
        (0..maps.min(self.maps.len())).map(|_| self.sweep_next(now)).sum()
    }

    /// Whether one more template finds room. Makes some in a full table: expired templates do not
    /// count. Looks at no more than 4,096 templates per millisecond over all workers, so that a
    /// full table costs a handshake no more than some tens of microseconds, and seldom.
    pub fn has_room(&self, now: Tick) -> bool {
        let is_full = || self.len() >= self.capacity;
        for _ in 0..self.maps.len() {
            if !is_full() {
                return true;
            }
            let next = self.sweep_at.load(Relaxed) % self.maps.len().max(1);
            let size = self.maps.get(next).map_or(0, DashMap::len);
            if !self.reclaim.allow(size.max(EMPTY_MAP), now) {
                return false;
            }
            self.sweep_next(now);
        }
        !is_full()
    }

    /// Whether there are fewer templates than there may be; makes no room.
    pub fn is_roomy(&self) -> bool {
        self.len() < self.capacity
    }

    /// Removes all templates that name `backend` and says how many that were.
    ///
    /// Goes through the whole table, one map after the other: for the control thread.
    pub fn forget(&self, backend: BackendSlot) -> usize {
        let forgotten = (0..self.maps.len())
            .map(|at| self.remove_where(at, |_, record| record.backend == backend))
            .sum();
        self.counts.forgotten.fetch_add(forgotten as u64, Relaxed);
        forgotten
    }

    /// Removes the templates of one of all [`maps`](Self::maps) whose key is `meant`, and says how many
    /// that were. Their flows go on.
    ///
    /// Locks half a map at a time, as [`sweep`](Self::sweep).
    pub fn flush(&self, map: usize, meant: impl Fn(&TemplateKey) -> bool) -> usize {
        let flushed = self.remove_where(map, |key, _| meant(&TemplateKey::from(*key)));
        self.counts.forgotten.fetch_add(flushed as u64, Relaxed);
        flushed
    }

    /// Up to `limit` templates after the key `after` that are not expired, in an order of their
    /// own that stays the same. One page of a dump: go on with [`PersistencePage::next`].
    ///
    /// Sorts one map at a time outside of its lock.
    pub fn page(&self, after: Option<TemplateKey>, limit: usize, now: Tick) -> PersistencePage {
        let mut entries = Vec::new();
        let first = after.map_or(0, |key| self.map_index(&key));
        for (at, map) in self.maps.iter().enumerate().skip(first) {
            let floor = after.filter(|_| at == first);
            let mut more: Vec<_> = map
                .iter()
                .map(|item| item.value().entry(TemplateKey::from(*item.key())))
                .filter(|entry| floor.is_none_or(|floor| entry.key > floor))
                .filter(|entry| entry.live_flows > 0 || now < entry.deadline)
                .collect();
            more.sort_unstable_by_key(|entry| entry.key);
            entries.append(&mut more);
            if entries.len() >= limit {
                entries.truncate(limit);
                return PersistencePage { next: entries.last().map(|entry| entry.key), entries };
            }
        }
        PersistencePage { entries, next: None }
    }

    /// Templates that name `backend`, expired ones included until they are swept.
    pub fn templates_of(&self, backend: BackendSlot) -> u32 {
        self.backends.get(backend.index()).map_or(0, |count| count.load(Relaxed))
    }

    /// Templates, expired ones included until they are swept.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Whether there is no template.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most templates that the table holds.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of maps: the unit of [`sweep`](Self::sweep) and [`flush`](Self::flush).
    pub const fn maps(&self) -> usize {
        self.maps.len()
    }

    /// What happened since the start.
    pub fn stats(&self) -> PersistenceStats {
        let Counts { created, expired, replaced, forgotten, refused } = &self.counts;
        PersistenceStats {
            created: created.load(Relaxed),
            expired: expired.load(Relaxed),
            replaced: replaced.load(Relaxed),
            forgotten: forgotten.load(Relaxed),
            refused: refused.load(Relaxed),
        }
    }

    fn create(
        &self,
        vacant: VacantEntry<'_, Packed, Record>,
        make: impl FnOnce(&Self) -> Record,
    ) -> Joined {
        let below = |len: usize| (len < self.capacity).then_some(len + 1);
        if self.len.fetch_update(Relaxed, Relaxed, below).is_err() {
            count(&self.counts.refused);
            return Joined::Full;
        }
        let record = make(self);
        count(&self.counts.created);
        self.gauge(record.backend, 1);
        let epoch = record.template().epoch;
        vacant.insert(record);
        Joined::Created(epoch)
    }

    /// Puts a new template in the place of an old one.
    fn renew(&self, mut found: OccupiedEntry<'_, Packed, Record>, record: Record) -> Epoch {
        self.gauge(record.backend, 1);
        self.gauge(found.insert(record).backend, -1);
        record.template().epoch
    }

    fn sweep_next(&self, now: Tick) -> usize {
        let at = self.sweep_at.fetch_add(1, Relaxed) % self.maps.len().max(1);
        let swept = self.remove_where(at, |_, record| record.is_expired(now));
        self.counts.expired.fetch_add(swept as u64, Relaxed);
        swept
    }

    fn remove_where(&self, at: usize, mut gone: impl FnMut(&Packed, &Record) -> bool) -> usize {
        let Some(map) = self.maps.get(at) else { return 0 };
        let mut removed = 0;
        map.retain(|key, record| {
            let goes = gone(key, record);
            if goes {
                removed += 1;
                self.gauge(record.backend, -1);
            }
            !goes
        });
        self.len.fetch_sub(removed, Relaxed);
        removed
    }

    fn with(&self, template: &TemplateRef, change: impl FnOnce(&mut Record)) {
        let Some(map) = self.map(&template.key) else { return };
        if let Some(mut record) = map.get_mut(&Packed::from(template.key))
            && record.is(template.epoch)
        {
            change(&mut record);
        }
    }

    /// Unique until 2^32 templates were made; then the oldest numbers come again.
    fn next_epoch(&self) -> Epoch {
        loop {
            if let Some(epoch) = Epoch::new(self.epoch.fetch_add(1, Relaxed)) {
                return epoch;
            }
        }
    }

    fn gauge(&self, backend: BackendSlot, change: i32) {
        if let Some(count) = self.backends.get(backend.index()) {
            count.fetch_add(change.cast_unsigned(), Relaxed);
        }
    }

    fn map(&self, key: &TemplateKey) -> Option<&Map> {
        self.maps.get(self.map_index(key))
    }

    fn map_index(&self, key: &TemplateKey) -> usize {
        let maps = u32::try_from(self.maps.len()).unwrap_or(u32::MAX);
        reduce(high(self.map_of.source(key.service, key.source)), maps) as usize
    }
}

/// One page of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistencePage {
    /// The templates.
    pub entries: Vec<TemplateEntry>,
    /// What to ask for the next page with; `None`: this was the last.
    pub next: Option<TemplateKey>,
}

/// What happened to templates: `len = created − expired − forgotten`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersistenceStats {
    /// Made where there was none, or an expired one.
    pub created: u64,
    /// Expired, and noticed.
    pub expired: u64,
    /// Replaced by one for another backend.
    pub replaced: u64,
    /// Removed with their backend, or by an operator.
    pub forgotten: u64,
    /// Not made because the table was full.
    pub refused: u64,
}

/// [`PersistenceStats`] as they are counted.
#[derive(Debug, Default)]
struct Counts {
    created: CachePadded<AtomicU64>,
    expired: CachePadded<AtomicU64>,
    replaced: CachePadded<AtomicU64>,
    forgotten: CachePadded<AtomicU64>,
    refused: CachePadded<AtomicU64>,
}

/// How many templates may be looked at for room: a token bucket, kept as the time when it is full
/// again.
#[derive(Debug, Default)]
pub(super) struct Budget(CachePadded<AtomicU64>);

impl Budget {
    pub(super) fn allow(&self, templates: usize, now: Tick) -> bool {
        let (now, cost) = (now.as_nanos(), templates as u64 * NANOS_PER_TEMPLATE);
        let spend = |full_at: u64| {
            let ready = full_at.saturating_sub(now) < BUDGET_NANOS;
            ready.then(|| full_at.max(now).saturating_add(cost))
        };
        self.0.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

type Map = DashMap<Packed, Record, Keyed>;

/// [`TemplateKey`] without the padding that 128-bit alignment costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Packed {
    source: [u64; 2],
    service: ServiceSlot,
}

impl From<TemplateKey> for Packed {
    fn from(key: TemplateKey) -> Self {
        let bits = key.source.bits();
        Self { source: [high64(bits), high64(bits << 64)], service: key.service }
    }
}

impl From<Packed> for TemplateKey {
    fn from(packed: Packed) -> Self {
        let [high, low] = packed.source;
        let bits = u128::from(high) << 64 | u128::from(low);
        Self { service: packed.service, source: Addr::from_v6(bits.to_be_bytes()) }
    }
}

const fn high64(bits: u128) -> u64 {
    (bits >> 64) as u64
}

/// SipHash-1-3 under a secret key: no sender can choose which templates share a bucket.
#[derive(Clone, Copy, Debug)]
struct Keyed(u64, u64);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// A sweep or a dump locks half a map: some tens of microseconds.
const TEMPLATES_PER_MAP: usize = 4096;

/// 4,096 templates per millisecond.
const NANOS_PER_TEMPLATE: u64 = BUDGET_NANOS / 4096;
const BUDGET_NANOS: u64 = 1_000_000;

/// Looking at an empty map costs as much as looking at so many templates.
const EMPTY_MAP: usize = 8;

/// Workers seldom meet even in a small table.
const MIN_MAPS: usize = 64;

/// 8,192 locks.
const MAX_MAPS: usize = 4096;

/// The least that `DashMap` takes.
const SHARDS: usize = 2;

/// Arbitrary.
const KEY_TWIST: u64 = 0x6a09_e667_f3bc_c908;

const _: () = assert!(size_of::<(Packed, Record)>() == 48);
