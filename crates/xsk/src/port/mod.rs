//! A port: rings, the free list, what waits to be sent, and the books about all of it.
//!
//! One worker owns it; nothing here is shared, allocated or blocking. The only system calls are the
//! kick in [`Port::flush`] and those whose documentation says so.

mod accounting;
mod counters;

use std::io;
use std::os::fd::BorrowedFd;

use prefetch_index::prefetch_index;
use rustix::io::Errno;

pub use self::accounting::Accounting;
pub use self::counters::{Counters, KickError, KickErrors};
use crate::batch::{BURST, Batch, FreeList};
use crate::frame::Frame;
use crate::rings::{Rings, Statistics, TxPath};

/// One queue of one interface, ready to receive and send. A worker's turn is
///
/// ```
/// # let (mut port, kernel) = xsk::memory_port(xsk::MemoryConfig::default());
/// # kernel.inject(&[0xff; 60]);
/// # let mut batch = xsk::Batch::new();
/// port.reap();
/// port.receive(&mut batch);
/// for mut frame in batch.drain() {
///     port.bytes(&mut frame)[..6].fill(0x02);
///     port.send(frame);
/// }
/// let flushed = port.flush();
/// # assert_eq!(flushed.sent, 1);
/// # assert!(port.accounting().is_balanced());
/// ```
///
/// A frame that was received or copied in must end in [`send`](Self::send) or
/// [`recycle`](Self::recycle) of the same port.
#[derive(Debug)]
pub struct Port<R: Rings> {
    rings: R,
    free: FreeList,
    /// Sent by the worker, not yet on the TX ring.
    queue: Batch,
    /// Tokens that the worker holds.
    held: u64,
    total: u64,
    /// Frames that the fill ring leaves for [`Port::copy_in`].
    reserve: usize,
    /// Frames went to the TX ring after the last kick.
    unkicked: bool,
    /// Frames that the last kick left on the TX ring, and those that went there since.
    on_ring: u64,
    kick_pending: bool,
    link: Link,
    flushed: Flushed,
    counters: Counters,
}

impl<R: Rings> Port<R> {
    /// Takes over `rings` with all their frames and fills the fill ring.
    pub fn new(mut rings: R) -> Self {
        let free = rings.frames();
        let mut port = Self {
            rings,
            total: free.len() as u64,
            reserve: (free.len() / FRAMES_PER_RESERVED).min(BURST),
            free,
            queue: Batch::new(),
            held: 0,
            unkicked: false,
            on_ring: 0,
            kick_pending: false,
            link: Link::Up,
            flushed: Flushed::default(),
            counters: Counters::default(),
        };
        port.top_up();
        port
    }

    /// Appends received frames to `batch`, as many as fit and as the TX ring has room for: what
    /// would be dropped for want of room costs less if it stays with the kernel. Returns how many.
    #[inline]
    pub fn receive(&mut self, batch: &mut Batch) -> usize {
        let limit = match self.link {
            Link::Up => self.rings.tx_room(),
            // What cannot leave must not keep out what needs no TX ring.
            Link::Down(_) => BURST,
        };
        let count = self.rings.receive(batch, limit);
        self.held += count as u64;
        self.counters.received += count as u64;
        count
    }

    /// Asks for the headers of all packets in `batch`, which another core or a device wrote: their
    /// cache misses overlap then, instead of being waited for one after the other.
    #[inline]
    pub fn prefetch(&self, batch: &mut Batch) {
        for frame in batch.iter_mut() {
            prefetch_index(&*self.rings.data(frame), 0);
        }
    }

    /// The packet in `frame`, to read and to change. Takes `&self`, so that the packets of a whole
    /// burst can be looked at together.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.rings.data(frame)
    }

    /// Makes the packet in `frame` longer or shorter at its end; new bytes are whatever was there.
    /// False, and nothing changed, if `len` is 0 or the frame does not hold it.
    #[inline]
    pub fn resize(&mut self, frame: &mut Frame, len: usize) -> bool {
        self.rings.resize(frame, len)
    }

    /// Queues `frame` to be sent by the next [`flush`](Self::flush). A queue that is full moves to
    /// the TX ring at once.
    #[inline]
    pub fn send(&mut self, frame: Frame) {
        self.held -= 1;
        if self.queue.is_full() {
            self.push_out();
        }
        // There is room: `push_out` leaves the queue empty.
        if let Err(frame) = self.queue.push(frame) {
            self.free.push(frame);
        }
    }

    /// [`send`](Self::send) for all frames of `batch`, in order; leaves it empty. What fits goes to
    /// the TX ring at once, without a stay in the queue.
    #[inline]
    pub fn send_all(&mut self, batch: &mut Batch) {
        self.held -= batch.len() as u64;
        self.push_out();
        let count = self.rings.transmit(batch);
        self.note_transmitted(count);
        // There is room: `push_out` leaves the queue empty.
        self.queue.extend(batch.drain());
    }

    /// Takes `frame` back unsent.
    #[inline]
    pub fn recycle(&mut self, frame: Frame) {
        self.held -= 1;
        self.counters.recycled += 1;
        self.free.push(frame);
    }

    /// Moves everything queued to the TX ring and kicks the kernel, if it has to be kicked: also
    /// when nothing new is sent but an earlier kick left frames behind. One kick does unless the
    /// kernel sends fewer packets a kick (before Linux 6.17: 32 in copy mode). Call it once per turn.
    ///
    /// Frames that do not fit, even after completions were reaped, are recycled and reported as
    /// refused. The result covers all frames sent since the last call.
    #[inline]
    pub fn flush(&mut self) -> Flushed {
        let kicks = self.counters.kicks;
        self.push_out();
        let due = self.unkicked || (self.counters.kicks == kicks && self.kick_overdue());
        if due && self.rings.tx_needs_wakeup() {
            self.kick();
        }
        self.unkicked = false;
        std::mem::take(&mut self.flushed)
    }

    /// Completion ring → free list → fill ring. Returns how many frames were completed.
    #[inline]
    pub fn reap(&mut self) -> usize {
        let mut completed = 0;
        // Ends: nothing is sent meanwhile.
        while self.counters.in_flight_tx() > 0 {
            let count = self.rings.complete(&mut self.free);
            self.counters.completed += count as u64;
            completed += count;
            if count < BURST {
                break;
            }
        }
        self.top_up();
        completed
    }

    /// Wakes the driver's receiving side if it sleeps (or is busy polled): a system call then, else
    /// nothing. Call it on turns that received nothing.
    ///
    /// # Errors
    /// What `recvfrom` reports, unless that only says "nothing yet".
    pub fn wake_rx(&mut self) -> Result<(), Errno> {
        if !self.rings.rx_needs_wakeup() {
            return Ok(());
        }
        self.counters.rx_wakeups += 1;
        match self.rings.wake_rx() {
            Ok(()) | Err(Errno::AGAIN | Errno::BUSY | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// A frame of this port with a copy of `bytes`, which came from another port. None, and
    /// counted, if no frame is free or the packet is empty or too long.
    pub fn copy_in(&mut self, bytes: &[u8]) -> Option<Frame> {
        let Some(mut frame) = self.free.pop() else {
            self.counters.copy_in_refused += 1;
            return None;
        };
        if !self.rings.write(&mut frame, bytes) {
            self.free.push(frame);
            self.counters.copy_in_refused += 1;
            return None;
        }
        self.held += 1;
        self.counters.copied_in += 1;
        Some(frame)
    }

    /// Where every frame is. Reads the rings; no system call.
    pub fn accounting(&mut self) -> Accounting {
        let waiting = self.rings.waiting();
        Accounting {
            fill: self.counters.in_flight_rx().wrapping_sub(waiting.rx),
            rx: waiting.rx,
            tx: self.counters.in_flight_tx().wrapping_sub(waiting.completion),
            completion: waiting.completion,
            queued: self.queue.len() as u64,
            free: self.free.len() as u64,
            held: self.held,
            total: self.total,
        }
    }

    /// Frames on the way out: on the TX ring, in the driver or on the completion ring.
    #[inline]
    pub const fn outstanding_tx(&self) -> u64 {
        self.counters.in_flight_tx()
    }

    /// Frames on the TX ring, which the kernel has not taken. Reads the ring; no system call.
    pub fn on_tx_ring(&mut self) -> u64 {
        self.rings.waiting().tx
    }

    /// Whether the last kick left frames on the TX ring, so that the worker must not sleep long.
    #[inline]
    pub const fn kick_pending(&self) -> bool {
        self.kick_pending
    }

    /// How packets leave, and whether they do: up to three system calls. Call it now and then, after a
    /// [`flush`](Self::flush).
    pub fn way_out(&mut self) -> WayOut {
        match self.rings.tx_path() {
            TxPath::PacketSocket => WayOut::PacketSocket,
            TxPath::Ring { emptied_by_kicks } => {
                // The kick succeeded.
                let done = !self.kick_pending && !self.unkicked && self.link == Link::Up;
                if emptied_by_kicks && done && self.rings.waiting().tx > 0 {
                    WayOut::None
                } else {
                    WayOut::Ring
                }
            }
        }
    }

    /// What the last kick said about the link.
    #[inline]
    pub const fn link(&self) -> Link {
        self.link
    }

    /// What this port counted.
    #[inline]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the kernel counted: a system call.
    ///
    /// # Errors
    /// What `getsockopt(XDP_STATISTICS)` reports.
    pub fn statistics(&self) -> io::Result<Statistics> {
        self.rings.statistics()
    }

    /// The socket, for poll(2) and the XSKMAP; none for rings in plain memory.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.rings.fd()
    }

    /// Queue → TX ring; what does not fit after a bounded number of tries is refused. Leaves the
    /// queue empty.
    #[inline]
    fn push_out(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        self.transmit();
        if !self.queue.is_empty() {
            self.push_out_full();
        }
    }

    /// The TX ring is full: make the kernel take from it, then try again.
    #[cold]
    fn push_out_full(&mut self) {
        for _ in 0..FULL_RING_TRIES {
            self.reap();
            if self.rings.tx_needs_wakeup() {
                self.kick();
            }
            self.transmit();
            if self.queue.is_empty() || self.link != Link::Up {
                break;
            }
        }
        let refused = self.queue.len();
        self.flushed.refused += refused;
        self.counters.tx_full += refused as u64;
        for frame in self.queue.drain() {
            self.free.push(frame);
        }
    }

    #[inline]
    fn transmit(&mut self) {
        let count = self.rings.transmit(&mut self.queue);
        self.note_transmitted(count);
    }

    #[inline]
    fn note_transmitted(&mut self, count: usize) {
        self.unkicked |= count > 0;
        self.on_ring += count as u64;
        self.flushed.sent += count;
        self.counters.transmitted += count as u64;
    }

    /// Whether frames wait on the TX ring though nothing was sent in this turn. Beside kicks that
    /// failed this finds the wakeup that is lost when the driver goes to sleep between our write to
    /// the ring and our look at its flag.
    #[inline]
    fn kick_overdue(&mut self) -> bool {
        self.kick_pending || (self.counters.in_flight_tx() > 0 && self.rings.waiting().tx > 0)
    }

    /// Kicks until the TX ring is empty or the kernel takes nothing more from it.
    #[inline]
    fn kick(&mut self) {
        if !self.kick_once() {
            self.kick_on();
        }
    }

    /// The kernel did not send everything: each kick has a budget.
    #[cold]
    fn kick_on(&mut self) {
        for _ in 0..MOST_KICKS {
            let before = self.on_ring;
            self.on_ring = self.rings.waiting().tx;
            let progress = self.on_ring < before;
            if !progress || self.on_ring == 0 || self.link != Link::Up || self.kick_once() {
                return;
            }
        }
    }

    /// Whether nothing is left on the TX ring.
    fn kick_once(&mut self) -> bool {
        self.counters.kicks += 1;
        self.unkicked = false;
        let Err(errno) = self.rings.kick() else {
            self.kick_pending = false;
            self.link = Link::Up;
            self.on_ring = 0;
            return true;
        };
        self.kick_pending = true;
        match self.counters.kick_errors.count(errno) {
            KickError::Again | KickError::Busy | KickError::NoBufs => self.link = Link::Up,
            KickError::Interrupted => {}
            KickError::NetDown | KickError::NoDevice | KickError::Other => {
                self.link = Link::Down(errno);
            }
        }
        false
    }

    /// Free list → fill ring, down to the reserve.
    #[inline]
    fn top_up(&mut self) {
        loop {
            let spare = self.free.len().saturating_sub(self.reserve);
            if spare == 0 {
                break;
            }
            let count = self.rings.fill(&mut self.free, spare);
            self.counters.filled += count as u64;
            if count == 0 {
                break;
            }
        }
    }
}

/// What became of the frames sent since the last flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "refused frames are dropped packets, to be counted as such"]
pub struct Flushed {
    /// Handed to the kernel.
    pub sent: usize,
    /// Recycled because the TX ring stayed full.
    pub refused: usize,
}

/// How packets leave a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// By the TX ring.
    Ring,
    /// By a packet socket, since the device has no TX queue for this socket.
    PacketSocket,
    /// Not at all: the kernel reports success and leaves them on the TX ring, since the device has no
    /// TX queue for this socket any more. Bind it again.
    None,
}

/// Whether the last kick found the device able to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It did, or there was no kick yet.
    Up,
    /// It did not, and this is why: `ENETDOWN` link down, `ENXIO` device gone (bind again), others
    /// unexpected. Every flush tries again.
    Down(Errno),
}

/// How often the kernel is kicked again at a time: 16 packets a kick (Linux before 5.17) for a burst
/// and as many that waited.
const MOST_KICKS: usize = 8;

/// How often a full TX ring is kicked and tried again before frames are refused.
const FULL_RING_TRIES: usize = 2;

/// One in so many frames, but at most a burst, is kept from the fill ring.
const FRAMES_PER_RESERVED: usize = 64;

#[cfg(test)]
mod tests;
