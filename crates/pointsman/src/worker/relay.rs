//! Frames that leave by another port than they came in by.
//!
//! The workers of one queue number share a thread, so such a frame is copied once, from the one
//! port's UMEM to the other's, and sent in the same turn: nothing waits in between, and nothing can
//! overflow but the TX ring. Only where the other port has no queue of this number it goes through the
//! mailbox of another thread's worker.

use std::sync::atomic::AtomicU64;

use dataplane::{DropReason, Message, PortId, Snapshot, Tick};
use xsk::{Port, Rings};

use super::{Worker, WorkerId};

/// A worker and its port, one of several on a thread.
pub trait Seat {
    /// The port's rings.
    type Rings: Rings;

    /// The worker, and its port while there is one.
    fn parts(&mut self) -> (&mut Worker, Option<&mut Port<Self::Rings>>);
}

/// One turn of the worker at seat `at`, and of what it sends by ports of the others. Returns how much it
/// did; nothing without a port.
#[inline]
pub fn turn<S: Seat>(
    seats: &mut [S],
    at: usize,
    now: Tick,
    snapshot: &Snapshot,
    leases: &[AtomicU64],
) -> usize {
    let (before, rest) = seats.split_at_mut(at);
    let Some((seat, after)) = rest.split_first_mut() else { return 0 };
    let (worker, Some(port)) = seat.parts() else { return 0 };
    let done = worker.turn(port, now, snapshot, leases);
    if !worker.outbox.is_empty() {
        worker.relay(port, snapshot, [before, after]);
    }
    done
}

impl Worker {
    /// Sends what the last [`turn`](Self::turn) left for other ports: those of `peers`, which are on the
    /// same thread, or else those of other threads.
    #[cold]
    #[inline(never)]
    pub fn relay<S: Seat>(
        &mut self,
        port: &mut Port<S::Rings>,
        snapshot: &Snapshot,
        mut peers: [&mut [S]; 2],
    ) {
        let Self { id, outbox, counters, .. } = self;
        for (egress, mut frame) in outbox.drain(..) {
            let bytes = &*port.bytes(&mut frame);
            let mut parts = peers.iter_mut().flat_map(|some| some.iter_mut()).map(Seat::parts);
            match parts.find(|(peer, _)| peer.id.port == egress) {
                Some((peer, Some(out))) => {
                    counters.totals.handed_over.add(1);
                    peer.transmit(out, bytes);
                }
                Some((_, None)) => counters.dropped(DropReason::NoPort).add(1),
                None => match post(*id, snapshot, egress, bytes) {
                    Ok(()) => counters.totals.handed_over.add(1),
                    Err(reason) => counters.dropped(reason).add(1),
                },
            }
            port.recycle(frame);
        }
        for (peer, out) in peers.iter_mut().flat_map(|some| some.iter_mut()).map(Seat::parts) {
            if let (1.., Some(out)) = (peer.sent.count, out) {
                peer.flush(out);
            }
        }
    }

    /// Takes in a frame that is already rewritten, to leave by this worker's port.
    pub(super) fn transmit<R: Rings>(&mut self, port: &mut Port<R>, bytes: &[u8]) {
        self.counters.totals.adopted.add(1);
        match port.copy_in(bytes) {
            Some(frame) => {
                self.sent.count += 1;
                port.send(frame);
            }
            None => self.counters.dropped(DropReason::TxFull).add(1),
        }
    }
}

/// Copies a rewritten frame to a worker of the port it leaves by, on another thread: always the same one
/// for a queue, so that a flow stays in order.
fn post(
    from: WorkerId,
    snapshot: &Snapshot,
    egress: PortId,
    bytes: &[u8],
) -> Result<(), DropReason> {
    let mut on_port = snapshot.workers.iter().filter(|worker| worker.port == egress);
    let same_queue = on_port.clone().find(|worker| worker.queue == from.queue);
    let worker = same_queue.or_else(|| {
        let count = on_port.clone().count().max(1);
        on_port.nth(from.queue as usize % count)
    });
    match worker {
        Some(worker) if worker.mailbox.post_frame(bytes, Message::Transmit) => Ok(()),
        Some(_) => Err(DropReason::MailboxFull),
        None => Err(DropReason::NoPort),
    }
}
