//! Frames of senders on the same host, which no card has ever seen: checksums are not finished, and
//! several packets may be one frame. Only for the interfaces where that occurs.

use dataplane::{DropReason, finish_checksum};
use xsk::{Batch, Port, Rings};

use super::Worker;

impl Worker {
    /// From now on frames may come from senders on this host (or not): `longest` is what a frame
    /// has at most, bytes.
    pub fn set_local_senders(&mut self, longest: Option<usize>) {
        self.local_senders = longest;
    }

    /// Finishes checksums, and drops frames that no link of this MTU could carry.
    #[cold]
    pub(super) fn mend<R: Rings>(&mut self, port: &mut Port<R>, batch: &mut Batch, longest: usize) {
        let mut finished = 0;
        for frame in batch.iter_mut() {
            finished += u64::from(finish_checksum(port.bytes(frame)));
        }
        if finished > 0 {
            self.counters.totals.checksums_finished.add(finished);
        }
        if batch.iter().any(|frame| frame.len() > longest) {
            self.drop_longer(port, batch, longest);
        }
    }

    /// The rest keeps its order.
    fn drop_longer<R: Rings>(&mut self, port: &mut Port<R>, batch: &mut Batch, longest: usize) {
        let mut all = std::mem::take(batch);
        for frame in all.drain() {
            if frame.len() > longest {
                // The rest is counted as received by the forwarder.
                self.counters.totals.received.add(1);
                self.counters.dropped(DropReason::TooLong).add(1);
                port.recycle(frame);
            } else if let Err(frame) = batch.push(frame) {
                // There is room: as many came out of a batch of this size.
                port.recycle(frame);
            }
        }
    }
}
