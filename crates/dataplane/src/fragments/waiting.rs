//! Fragments that came before the first one of their datagram.

use std::collections::VecDeque;
use std::time::Duration;

use super::FragmentTable;
use crate::key::FragmentKey;
use crate::pending::PendingKey;
use crate::tick::Tick;

/// The waiting fragments of one worker, oldest first: at most [`WaitingRoom::MOST`], each for
/// [`WaitingRoom::LONGEST`]. A flood of them costs a bounded time per turn, and the oldest gives way:
/// what overtook its first fragment needs milliseconds.
#[derive(Debug)]
pub struct WaitingRoom<T> {
    queue: VecDeque<Waiting<T>>,
    /// First fragments that had been published when the last look began.
    seen: u64,
    /// Whether a fragment came since.
    due: bool,
    /// Where the look that is under way goes on.
    at: Option<usize>,
    next_look: Tick,
}

#[derive(Debug)]
struct Waiting<T> {
    key: PendingKey,
    since: Tick,
    frame: T,
}

/// A fragment that need not wait any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Released<T> {
    /// The fragment.
    pub frame: T,
    /// Whether its time is over; else its first fragment was seen.
    pub late: bool,
}

impl<T> Default for WaitingRoom<T> {
    fn default() -> Self {
        let queue = VecDeque::with_capacity(Self::MOST);
        Self { queue, seen: 0, due: false, at: None, next_look: Tick::default() }
    }
}

impl<T> WaitingRoom<T> {
    /// Fragments at most. Each holds a frame of its worker's UMEM, which has 4,096 or more.
    pub const MOST: usize = 256;
    /// How long a fragment waits at most.
    pub const LONGEST: Duration = Duration::from_millis(100);

    /// Lets a fragment wait. Returns the one that has to make room, if there are too many.
    pub fn wait(
        &mut self,
        table: &FragmentTable,
        key: &FragmentKey,
        frame: T,
        now: Tick,
    ) -> Option<T> {
        let oldest = if self.queue.len() < Self::MOST { None } else { self.take_oldest() };
        self.queue.push_back(Waiting { key: table.key(key), since: now, frame });
        self.due = true;
        oldest
    }

    /// The next fragment whose time is over, or whose first one is known by now. Call it until it
    /// returns none, or for as many as can be taken at a time; then go on later.
    pub fn release(&mut self, table: &FragmentTable, now: Tick) -> Option<Released<T>> {
        let oldest = self.queue.front()?;
        if now.saturating_since(oldest.since) >= Self::LONGEST {
            return self.take_oldest().map(|frame| Released { frame, late: true });
        }
        let from = self.at.or_else(|| self.begin_look(table, now))?;
        let mut rest = self.queue.range(from.min(self.queue.len())..);
        match rest.position(|waiting| table.is_known(waiting.key, now)) {
            Some(behind) => {
                self.at = Some(from + behind);
                let waiting = self.queue.remove(from + behind)?;
                Some(Released { frame: waiting.frame, late: false })
            }
            None => {
                self.at = None;
                None
            }
        }
    }

    /// Begins to look for the first fragments of all, if there may be news of any.
    fn begin_look(&mut self, table: &FragmentTable, now: Tick) -> Option<usize> {
        let published = table.published();
        if !self.due && published == self.seen || now < self.next_look {
            return None;
        }
        (self.seen, self.due) = (published, false);
        self.next_look = now + LOOK_INTERVAL;
        Some(0)
    }

    fn take_oldest(&mut self) -> Option<T> {
        self.at = self.at.map(|at| at.saturating_sub(1));
        self.queue.pop_front().map(|waiting| waiting.frame)
    }

    /// Takes all out: they cannot be sent any more.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.at = None;
        self.queue.drain(..).map(|waiting| waiting.frame)
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

/// So often at most are all of them looked for: some microseconds of work.
const LOOK_INTERVAL: Duration = Duration::from_micros(250);
