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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use self::region::Region;
use self::ring::Desc;
pub use self::state::Census;
use self::state::{Place, State};
use crate::batch::{BURST, Batch, FreeList};
use crate::frame::{Frame, UmemId};
use crate::port::Port;
use crate::rings::{Rings, Statistics, Waiting};

/// Rings in plain memory. Made by [`memory_port`].
#[derive(Debug)]
pub struct MemoryRings {
    id: UmemId,
    region: Arc<Region>,
    state: Arc<Mutex<State>>,
    tokens: FreeList,
}

impl MemoryRings {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Rings for MemoryRings {
    fn frames(&mut self) -> FreeList {
        std::mem::take(&mut self.tokens)
    }

    fn receive(&mut self, into: &mut Batch) -> usize {
        let mut state = lock(&self.state);
        let count = state.rx.len().min(into.remaining());
        for _ in 0..count {
            let Some(desc) = state.rx.pop() else { break };
            state.passes(desc.index, Place::Rx, Place::User);
            if into.push(Frame::new(self.id, desc.index, desc.len)).is_err() {
                break;
            }
        }
        count
    }

    fn fill(&mut self, from: &mut FreeList, limit: usize) -> usize {
        let mut state = lock(&self.state);
        let count = state.fill.room().min(from.len()).min(limit).min(BURST);
        for frame in from.top(count).iter().rev() {
            let index = frame.chunk(self.id);
            state.passes(index, Place::User, Place::Fill);
            state.fill.push(Desc { index, len: 0 });
        }
        from.surrender(count);
        count
    }

    fn transmit(&mut self, from: &mut Batch) -> usize {
        let mut state = lock(&self.state);
        let room = if state.policy.refuse_transmit { 0 } else { state.tx.room() };
        let count = room.min(from.len());
        for frame in from.iter().take(count) {
            let index = frame.chunk(self.id);
            state.passes(index, Place::User, Place::Tx);
            state.tx.push(Desc { index, len: frame.len32() });
        }
        from.surrender(count);
        count
    }

    fn complete(&mut self, into: &mut FreeList) -> usize {
        let mut state = lock(&self.state);
        let count = state.completion.len().min(BURST);
        for _ in 0..count {
            let Some(desc) = state.completion.pop() else { break };
            state.passes(desc.index, Place::Completion, Place::User);
            into.push(Frame::new(self.id, desc.index, 0));
        }
        count
    }

    #[inline]
    fn data<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.region.packet_of(frame, self.id)
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

    fn tx_needs_wakeup(&self) -> bool {
        self.state().policy.tx_needs_wakeup
    }

    fn rx_needs_wakeup(&self) -> bool {
        self.state().policy.rx_needs_wakeup
    }

    fn kick(&mut self) -> Result<(), Errno> {
        lock(&self.state).kick(&self.region)
    }

    fn wake_rx(&mut self) -> Result<(), Errno> {
        self.state().wakes += 1;
        Ok(())
    }

    fn waiting(&mut self) -> Waiting {
        let state = self.state();
        Waiting {
            rx: state.rx.len() as u64,
            tx: state.tx.len() as u64,
            completion: state.completion.len() as u64,
        }
    }

    fn statistics(&self) -> io::Result<Statistics> {
        Ok(self.state().statistics)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The other side of [`MemoryRings`]: the driver, the wire and the kernel's moods. Clones play the
/// same kernel.
#[derive(Clone, Debug)]
pub struct MemoryKernel {
    region: Arc<Region>,
    state: Arc<Mutex<State>>,
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
        write(self.region.packet_of_kernel(&mut state, index, len));
        state.deliver(index, len);
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
    pub fn complete(&self, count: usize) -> usize {
        self.state().complete(count)
    }

    /// Loops back up to `count` packets that were sent and not completed: each is received again,
    /// in the frame it was sent in, and a frame of the fill ring is completed in its stead. Copies
    /// nothing. Returns how many; fewer if the fill ring is empty or the RX ring full. Wants
    /// [`complete_later`](Self::complete_later).
    pub fn turn(&self, count: usize) -> usize {
        self.state().turn(count)
    }

    /// Sends what is on the TX ring, as a driver does that needs no wakeup.
    pub fn run(&self) {
        // "Try again" is for user space; a driver just comes back.
        let _ = self.state().send(&self.region);
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
    pub fn budget(&self, packets: Option<usize>) {
        self.state().policy.budget = packets;
    }

    /// Whether the driver sleeps until it is kicked (`tx`) or woken (`rx`). At first it needs
    /// kicks, as in copy mode, but no wakeups.
    pub fn needs_wakeup(&self, tx: bool, rx: bool) {
        let policy = &mut self.state().policy;
        policy.tx_needs_wakeup = tx;
        policy.rx_needs_wakeup = rx;
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
    /// [`Port::accounting`](crate::Port::accounting).
    pub fn census(&self) -> Census {
        self.state().census()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
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
    let region = Arc::new(Region::new(frames));
    let state = Arc::new(Mutex::new(State::new(frames, config.ring, config.capture)));
    let kernel = MemoryKernel { region: Arc::clone(&region), state: Arc::clone(&state) };
    let tokens = FreeList::of_umem(id, frames);
    (Port::new(MemoryRings { id, region, state, tokens }), kernel)
}

/// A panic of the other side must not hide what the test wants to see.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
