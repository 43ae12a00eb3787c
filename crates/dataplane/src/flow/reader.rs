//! Reading a worker's table from another thread: no lock, and nothing that the worker notices.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use yoke::Yoke;

use super::FlowTable;
use super::entry::{ADDRESSES, HEAD, Head, Line, SEEN, WAYS, Word, address_of, seen_of};
use super::memory::Words;
use super::state::FlowState;
use super::timeouts::{IdleMillis, Timeouts, is_over, millis_since};
use crate::key::FlowKey;
use crate::slots::BackendSlot;
use crate::tick::Tick;

/// The entries of a [`FlowTable`], for other threads than its worker's. It keeps their memory, not the
/// table: after [`FlowTable::move_to`] it shows what was there before.
#[derive(Clone)]
pub struct FlowReader {
    records: Yoke<&'static [Line], Arc<dyn Words>>,
}

/// A flow as a reader finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenFlow {
    /// The 5-tuple.
    pub key: FlowKey,
    /// Where its packets go.
    pub backend: BackendSlot,
    /// How far it has come.
    pub state: FlowState,
    /// Since its last packet.
    pub idle: Duration,
    /// How long it is remembered if nothing more comes.
    pub left: Duration,
    /// What its last packet acknowledged; 0 for UDP.
    pub last_ack: u32,
}

impl FlowReader {
    /// The number of buckets: the unit of [`page`](Self::page).
    pub fn buckets(&self) -> usize {
        self.records.get().len() / WAYS
    }

    /// The flows in `count` buckets from bucket `from` on that are not idle for longer than `timeouts`
    /// say. A flow that is entered, changed or removed meanwhile is there as it was before or after that,
    /// or not at all; never with parts of another one.
    pub fn page(
        &self,
        from: usize,
        count: usize,
        timeouts: &Timeouts,
        now: Tick,
    ) -> impl Iterator<Item = SeenFlow> + '_ {
        let (idle, now) = (IdleMillis::new(timeouts), now.wrapping_millis());
        let lines = self.records.get().chunks(WAYS).skip(from).take(count).flatten();
        lines.filter_map(move |line| seen(line, &idle, now))
    }
}

impl FlowTable {
    /// For other threads: the entries as they are where the table lies now.
    pub fn reader(&self) -> FlowReader {
        FlowReader { records: self.memory.lines() }
    }
}

impl fmt::Debug for FlowReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowReader").field("buckets", &self.buckets()).finish()
    }
}

fn seen(line: &Line, idle: &IdleMillis, now: u32) -> Option<SeenFlow> {
    let (head, [a, b, c, d, seen]) = read(line, HEAD, WANTED)?;
    let state = head.state()?;
    let seen = seen_of(seen);
    let limit = idle.of(state, false);
    if is_over(limit, seen.millis, now) {
        return None;
    }
    let passed = millis_since(now, seen.millis);
    let millis = |count: u32| Duration::from_millis(count.into());
    Some(SeenFlow {
        key: head.key(address_of([a, b]), address_of([c, d])),
        backend: head.backend(),
        state,
        idle: millis(passed),
        left: millis(limit.saturating_sub(passed)),
        last_ack: seen.ack,
    })
}

/// Some words of an entry whose words are `words` and whose head is `words[head_at]`, with its head:
/// those of one flow. `None`: the entry is free, or was freed or filled meanwhile.
///
/// A change of state meanwhile makes another head as well; then it is read once more.
pub(super) fn read<W: Word, const N: usize>(
    words: &[W],
    head_at: usize,
    wanted: [usize; N],
) -> Option<(Head, [u64; N])> {
    let head = words.get(head_at)?;
    for _ in 0..TRIES {
        let before = Head(head.load(Acquire));
        before.state()?;
        let found = wanted.map(|at| words.get(at).map_or(0, |word| word.load(Relaxed)));
        W::fence(Acquire);
        if head.load(Relaxed) == before.0 {
            return Some((before, found));
        }
    }
    None
}

const WANTED: [usize; 5] = [ADDRESSES[0], ADDRESSES[1], ADDRESSES[2], ADDRESSES[3], SEEN];

/// A flow changes its state a few times in its life.
const TRIES: usize = 3;
