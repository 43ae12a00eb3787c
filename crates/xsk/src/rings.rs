//! The four rings of an AF_XDP socket as a trait, so that a port runs over the kernel's or over
//! plain memory.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::batch::{Batch, FreeList};
use crate::frame::Frame;

/// RX, TX, fill and completion ring of one socket and the memory behind them.
///
/// Operations move frame tokens: a token that a method takes out of its argument belongs to the
/// kernel afterwards. Each moves at most [`BURST`](crate::BURST) frames and allocates nothing; only
/// [`kick`](Self::kick), [`wake_rx`](Self::wake_rx) and [`statistics`](Self::statistics) are system
/// calls. Frames can be made only in this crate, so it has all implementations.
///
/// Methods that take a frame panic if it is of another UMEM: that is a mistake in the program, and
/// going on would let two owners write to one chunk.
pub trait Rings {
    /// The tokens of all frames of the UMEM. The second call returns none.
    fn frames(&mut self) -> FreeList;

    /// RX ring → `into`, at most `limit` and as far as there is room; returns how many.
    fn receive(&mut self, into: &mut Batch, limit: usize) -> usize;

    /// Up to `limit` of `from`, the newest, → fill ring, as far as there is room; returns how many.
    fn fill(&mut self, from: &mut FreeList, limit: usize) -> usize;

    /// How many frames the TX ring takes now; beyond a burst it need not be exact.
    fn tx_room(&mut self) -> usize;

    /// `from` → TX ring, in order; what does not fit stays in `from`, in order. Returns how many
    /// went. Nothing is sent before the next [`kick`](Self::kick) where one is needed.
    fn transmit(&mut self, from: &mut Batch) -> usize;

    /// Completion ring → `into`; returns how many.
    fn complete(&mut self, into: &mut FreeList) -> usize;

    /// The packet in `frame`: exactly [`Frame::len`] bytes.
    fn data<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8];

    /// Makes `bytes` the packet in `frame`. False, and nothing changed, if `bytes` is empty (the
    /// kernel swallows such a descriptor without completing it) or longer than a frame holds.
    fn write(&mut self, frame: &mut Frame, bytes: &[u8]) -> bool;

    /// Makes the packet in `frame` longer or shorter at its end; new bytes are whatever was there.
    /// False, and nothing changed, if `len` is 0 or the frame does not hold it.
    fn resize(&mut self, frame: &mut Frame, len: usize) -> bool;

    /// Whether the kernel sends only after a [`kick`](Self::kick). Always true in copy mode.
    fn tx_needs_wakeup(&self) -> bool;

    /// Whether the kernel receives only after a [`wake_rx`](Self::wake_rx).
    fn rx_needs_wakeup(&self) -> bool;

    /// Asks the kernel to send what is on the TX ring: one non-blocking `sendto`.
    ///
    /// # Errors
    /// The error number as it is. `EAGAIN`, `EBUSY`, `ENOBUFS`: some frames are still on the ring,
    /// kick again. `ENETDOWN`: the link is down. `ENXIO`: the device is gone.
    fn kick(&mut self) -> Result<(), Errno>;

    /// Asks the kernel to take frames from the fill ring: one non-blocking `recvfrom`.
    ///
    /// # Errors
    /// The error number as it is.
    fn wake_rx(&mut self) -> Result<(), Errno>;

    /// How many descriptors wait in the rings now.
    fn waiting(&mut self) -> Waiting;

    /// Which way packets leave, after a look whether the way has changed: up to three system calls.
    fn tx_path(&mut self) -> TxPath;

    /// The kernel's counters of this socket.
    ///
    /// # Errors
    /// What `getsockopt(XDP_STATISTICS)` reports.
    fn statistics(&self) -> io::Result<Statistics>;

    /// The socket, for poll(2) and the XSKMAP; none for rings in plain memory.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// Descriptors that wait in three of the rings. (The kernel empties the fill ring into its own
/// lists, so its length says nothing.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Received, not yet taken by user space.
    pub rx: u64,
    /// Handed over, not yet taken by the kernel.
    pub tx: u64,
    /// Sent, not yet taken back by user space.
    pub completion: u64,
}

/// Which way packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxPath {
    /// By the TX ring of the AF_XDP socket.
    Ring {
        /// Whether a kick that succeeds leaves nothing on the ring: so it is in copy mode, unless
        /// the device has no TX queue for this socket.
        emptied_by_kicks: bool,
    },
    /// By a packet socket: the device has an RX queue of this number and no TX queue.
    PacketSocket,
}

/// `struct xdp_statistics`, and what a packet socket in the place of the TX ring counts: packets or descriptors since the socket was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received packets dropped for other reasons than those below (too long for a frame).
    pub rx_dropped: u64,
    /// Descriptors on the fill ring that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Descriptors on the TX ring that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Received packets dropped because the RX ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// How often the kernel found the fill ring empty: frames came back too late.
    pub rx_fill_ring_empty_descs: u64,
    /// How often the kernel found the TX ring empty; normal.
    pub tx_ring_empty_descs: u64,
    /// Packets that the device did not take from the packet socket.
    pub tx_dropped: u64,
}
