//! The twin of the kernel's rings in plain memory: no root, no system call, same trait.
//!
//! [`MemoryRings`] is what a port holds; [`MemoryKernel`] plays the other side, from the same or
//! another thread: it receives packets into fill frames, takes packets from the TX ring when it is
//! kicked, completes them at once or later, and fails as it is told to. Frames lie in memory as the
//! kernel's do (2 KiB chunks, the packet 256 bytes in), so that benches meet the same cache lines.
//!
//! It checks what the kernel would not: a frame that turns up where it cannot be is a panic.

mod region;
mod ring;
mod state;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use self::region::Region;
pub use self::state::Census;
use self::state::State;
use crate::batch::{Batch, FreeList};
use crate::frame::{Frame, UmemId};
use crate::port::Port;
use crate::rings::{Rings, Statistics, Waiting};

/// Rings in plain memory. Made by [`memory_port`].
#[derive(Debug)]
pub struct MemoryRings {
    id: UmemId,
    shared: Arc<Shared>,
    tokens: FreeList,
}

impl Rings for MemoryRings {
    fn frames(&mut self) -> FreeList {
        std::mem::take(&mut self.tokens)
    }

    #[inline]
    fn receive(&mut self, into: &mut Batch) -> usize {
        self.shared.state().receive(into)
    }

    #[inline]
    fn fill(&mut self, from: &mut FreeList, limit: usize) -> usize {
        self.shared.state().fill(from, limit)
    }

    #[inline]
    fn transmit(&mut self, from: &mut Batch) -> usize {
        self.shared.state().transmit(from)
    }

    #[inline]
    fn complete(&mut self, into: &mut FreeList) -> usize {
        self.shared.state().reap(into)
    }

    #[inline]
    fn data<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.shared.region.packet_of(frame, self.id)
    }

    fn write(&mut self, frame: &mut Frame, bytes: &[u8]) -> bool {
        let done = self.resize(frame, bytes.len());
        if done {
            self.data(frame).copy_from_slice(bytes);
        }
        done
    }

    fn resize(&mut self, frame: &mut Frame, len: usize) -> bool {
        match u32::try_from(len) {
            Ok(short) if (1..=Region::CAPACITY).contains(&len) => {
                frame.set_len(short);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    #[inline]
    fn tx_needs_wakeup(&self) -> bool {
        self.shared.tx_sleeps.load(Ordering::Relaxed)
    }

    #[inline]
    fn rx_needs_wakeup(&self) -> bool {
        self.shared.rx_sleeps.load(Ordering::Relaxed)
    }

    fn kick(&mut self) -> Result<(), Errno> {
        self.shared.state().kick(&self.shared.region)
    }

    fn wake_rx(&mut self) -> Result<(), Errno> {
        self.shared.state().wakes += 1;
        Ok(())
    }

    fn waiting(&mut self) -> Waiting {
        self.shared.state().waiting()
    }

    fn statistics(&self) -> io::Result<Statistics> {
        Ok(self.shared.state().statistics)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The other side of [`MemoryRings`]: the driver, the wire and the kernel's moods. Clones play the
/// same kernel.
#[derive(Clone, Debug)]
pub struct MemoryKernel {
    shared: Arc<Shared>,
}

impl MemoryKernel {
    /// Receives `packet`: a frame of the fill ring goes to the RX ring. False, and counted in the
    /// statistics, if the packet is empty or too long, the fill ring empty or the RX ring full.
    pub fn inject(&self, packet: &[u8]) -> bool {
        self.inject_with(packet.len(), |bytes| bytes.copy_from_slice(packet))
    }

    /// Receives a packet of `len` bytes that `write` writes in place; the bytes are those of the
    /// frame's last packet until then. Copies and allocates nothing. `write` must not use the handle.
    pub fn inject_with(&self, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        let mut state = self.state();
        let Some(index) = state.frame_for_packet(len) else { return false };
        write(self.shared.region.packet_of_kernel(&mut state, index, len));
        state.deliver(len);
        true
    }

    /// The oldest packet sent and not yet looked at; always none unless
    /// [`MemoryConfig::capture`] is set.
    pub fn take_transmitted(&self) -> Option<Vec<u8>> {
        self.state().captured.pop_front()
    }

    /// How many packets were taken from the TX ring.
    pub fn transmitted(&self) -> u64 {
        self.state().transmitted
    }

    /// Whether packets, once sent, are completed only by [`complete`](Self::complete) or
    /// [`turn`](Self::turn).
    pub fn complete_later(&self, later: bool) {
        self.state().policy.complete_later = later;
    }

    /// Completes up to `count` sent packets; returns how many.
    pub fn complete(&self, count: u32) -> u32 {
        self.state().complete(count)
    }

    /// Loops back up to `count` packets that were sent and not completed: each is received again,
    /// in the frame it was sent in, and a frame of the fill ring is completed in its stead. Copies
    /// nothing. Returns how many; fewer if the fill ring is empty or the RX ring full. Wants
    /// [`complete_later`](Self::complete_later).
    pub fn turn(&self, count: u32) -> u32 {
        self.state().turn(count)
    }

    /// Sends what is on the TX ring, as a driver does that needs no wakeup.
    pub fn run(&self) {
        // "Try again" is for user space; a driver just comes back.
        let _ = self.state().send(&self.shared.region);
    }

    /// The next kicks fail with these error numbers, in order, and do nothing; an earlier list is
    /// forgotten.
    pub fn fail_next_kicks(&self, errors: impl IntoIterator<Item = Errno>) {
        self.state().policy.script = errors.into_iter().collect();
    }

    /// All kicks fail with `error`, until this is called with `None`.
    pub fn fail_kicks(&self, error: Option<Errno>) {
        self.state().policy.fail = error;
    }

    /// Whether the TX ring takes nothing, as if it were full.
    pub fn refuse_transmit(&self, refuse: bool) {
        self.state().policy.refuse_transmit = refuse;
    }

    /// How many packets one kick sends before it says `EAGAIN`; `None`: all.
    pub fn budget(&self, packets: Option<u32>) {
        self.state().policy.budget = packets;
    }

    /// Whether the driver sleeps until it is kicked (`tx`) or woken (`rx`). At first it needs
    /// kicks, as in copy mode, but no wakeups.
    pub fn needs_wakeup(&self, tx: bool, rx: bool) {
        self.shared.tx_sleeps.store(tx, Ordering::Relaxed);
        self.shared.rx_sleeps.store(rx, Ordering::Relaxed);
    }

    /// How many kicks came.
    pub fn kicks(&self) -> u64 {
        self.state().kicks
    }

    /// How many wakeups of the receiving side came.
    pub fn wakes(&self) -> u64 {
        self.state().wakes
    }

    /// Counts the frames by looking at each: the oracle for
    /// [`Port::accounting`](crate::Port::accounting). Allocates.
    ///
    /// # Panics
    /// If a frame is in two places, or nowhere.
    pub fn census(&self) -> Census {
        self.state().census()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

/// What both sides see.
#[derive(Debug)]
struct Shared {
    region: Region,
    /// The need_wakeup flags of TX and fill ring.
    tx_sleeps: AtomicBool,
    rx_sleeps: AtomicBool,
    state: Mutex<State>,
}

impl Shared {
    /// A panic of one side must not hide from the other what a test wants to see.
    #[inline]
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sizes of a twin.
#[derive(Clone, Copy, Debug)]
pub struct MemoryConfig {
    /// Frames in all; at least 1.
    pub frames: u32,
    /// Entries of each of the four rings; rounded up to a power of two.
    pub ring: u32,
    /// Whether sent packets are kept for [`MemoryKernel::take_transmitted`]: that allocates.
    pub capture: bool,
}

impl Default for MemoryConfig {
    /// As a small kernel port: 4,096 frames and rings of 1,024, packets kept.
    fn default() -> Self {
        Self { frames: 4096, ring: 1024, capture: true }
    }
}

/// A port over plain memory, and the handle that plays its kernel.
pub fn memory_port(config: MemoryConfig) -> (Port<MemoryRings>, MemoryKernel) {
    let frames = config.frames.max(1);
    let id = UmemId::fresh();
    let shared = Arc::new(Shared {
        region: Region::new(frames),
        tx_sleeps: AtomicBool::new(true),
        rx_sleeps: AtomicBool::new(false),
        state: Mutex::new(State::new(id, frames, config.ring, config.capture)),
    });
    let kernel = MemoryKernel { shared: Arc::clone(&shared) };
    let tokens = FreeList::of_umem(id, frames);
    (Port::new(MemoryRings { id, shared, tokens }), kernel)
}

#[cfg(test)]
mod tests;
