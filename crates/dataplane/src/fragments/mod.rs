//! Fragments without a transport header: where the first one of their datagram went.
//!
//! Only the first fragment has ports. Its choice is noted under what all fragments of a datagram have
//! in common (RFC 791 §3.2, RFC 8200 §4.5), for the others to follow in any order and on any queue.
//! Nothing is reassembled. A fragment that comes before its first one waits, within the bounds of
//! [`WaitingRoom`].
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

mod waiting;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam::utils::CachePadded;

pub use self::waiting::{Released, WaitingRoom};
use crate::key::{FlowKey, FragmentKey};
use crate::pending::{PendingKey, PendingTable};
use crate::slots::BackendSlot;
use crate::tick::Tick;

/// Datagram → where its first fragment went. Shared by all workers, fixed and lossy: it can be
/// flooded, and then forgets the oldest datagrams.
#[derive(Debug)]
pub struct FragmentTable {
    choices: PendingTable,
    /// Counts the first fragments, so that a worker with waiting ones sees when to look.
    published: CachePadded<AtomicU64>,
}

impl FragmentTable {
    /// A table for `capacity` datagrams, 9 bytes each, its hash keyed with `seed`.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            choices: PendingTable::new(capacity, seed, REMEMBERED),
            published: CachePadded::default(),
        }
    }

    /// Notes where a first fragment went; `None`: to no backend, and neither will the others.
    pub fn publish(&self, key: &FragmentKey, backend: Option<BackendSlot>, now: Tick) {
        let backend = backend.unwrap_or(NOWHERE);
        let same = |other| other == backend;
        self.choices.choose_or_join(self.key(key), now, || Some(backend), same);
        self.published.fetch_add(1, Relaxed);
    }

    /// Where the datagram's first fragment went, if that is known.
    pub fn find(&self, key: &FragmentKey, now: Tick) -> Option<FirstWent> {
        let backend = self.choices.lookup(self.key(key), now)?;
        Some(if backend == NOWHERE { FirstWent::Nowhere } else { FirstWent::To(backend) })
    }

    /// Clears what is expired; one call after the other must come round within half an hour.
    pub fn sweep(&self, now: Tick) {
        self.choices.sweep(now, self.choices.sets().div_ceil(64));
    }

    fn is_known(&self, key: PendingKey, now: Tick) -> bool {
        self.choices.lookup(key, now).is_some()
    }

    fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    fn key(&self, key: &FragmentKey) -> PendingKey {
        let FragmentKey { src, dst, id, protocol } = *key;
        let [a, b, c, d] = id.to_be_bytes();
        let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        self.choices.flow_key(&FlowKey { src, dst, src_port, dst_port, protocol })
    }
}

/// Where a first fragment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstWent {
    /// To a backend.
    To(BackendSlot),
    /// It was dropped or answered.
    Nowhere,
}

/// A slot that no backend has.
const NOWHERE: BackendSlot = BackendSlot(u16::MAX);

/// How long a first fragment is remembered. Fragments of a datagram are sent one after the other; the
/// sender's next datagram with the same identification has to find nothing of this one.
const REMEMBERED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
