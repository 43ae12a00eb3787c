//! Fragments that wait for the first one of their datagram, in frames of the worker's UMEM.

use std::sync::atomic::AtomicU64;

use dataplane::{DropReason, Packet, Released, Snapshot, Tick};
use xsk::{Frame, Port, Rings};

use super::Worker;

/// Fragments that have waited and are sent in one turn: the next turn goes on.
pub(super) const RELEASED_PER_TURN: usize = 32;

impl Worker {
    /// Keeps a fragment until its first one is known. The oldest makes room if there are too many.
    #[cold]
    #[inline(never)]
    pub(super) fn wait<R: Rings>(&mut self, port: &mut Port<R>, mut frame: Frame, now: Tick) {
        let Packet::Fragment(key) = dataplane::parse(port.bytes(&mut frame)) else {
            // No other frame has to wait.
            self.counters.dropped(DropReason::Malformed).add(1);
            return port.recycle(frame);
        };
        match self.waiting.wait(self.forwarder.fragments(), &key, frame, now) {
            Some(oldest) => {
                self.counters.dropped(DropReason::FragmentFull).add(1);
                port.recycle(oldest);
            }
            None => self.counters.totals.waiting.add(1),
        }
    }

    /// Sends those whose first one was seen by now, on whatever queue, and gives up those whose time is
    /// over.
    #[cold]
    #[inline(never)]
    pub(super) fn release_fragments<R: Rings>(
        &mut self,
        port: &mut Port<R>,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[AtomicU64],
    ) {
        for _ in 0..RELEASED_PER_TURN {
            let released = self.waiting.release(self.forwarder.fragments(), now);
            let Some(Released { mut frame, late }) = released else { return };
            self.counters.totals.waiting.add(-1);
            let bytes = port.bytes(&mut frame);
            let verdict = self.forwarder.resume_fragment(now, snapshot, leases, bytes, late);
            self.carry_out(port, snapshot, frame, verdict);
        }
    }

    /// The socket is about to go, and its UMEM with it: what waits is lost. Call it before the port is
    /// dropped.
    pub fn forget_fragments(&mut self) {
        let lost = self.waiting.drain().count();
        self.counters.totals.waiting.add(-i32::try_from(lost).unwrap_or_default());
        self.counters.dropped(DropReason::NoPort).add(lost as u64);
    }

    /// Whether fragments wait, so that the worker must not sleep long.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
