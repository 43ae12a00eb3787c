//! The twin of the kernel's rings in plain memory: no root, no system call, same trait.
//!
//! [`MemoryRings`] is what a port holds; [`MemoryKernel`] plays the other side, from the same or
//! another thread: it receives packets into fill frames, takes packets from the TX ring when it is
//! kicked, completes them at once or later, and fails as it is set to. Frames lie in memory as the
//! kernel's do (2 KiB chunks, the packet 256 bytes in), so that benches meet the same cache lines,
//! and the rings are read and written without a lock, as the kernel's are.

mod region;
mod ring;
mod state;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use self::region::Region;
use self::ring::{Track, descs};
pub use self::state::Census;
use self::state::{Policy, State};
use crate::batch::{BURST, Batch, FreeList};
use crate::frame::{Frame, MAX_FRAMES, UmemId, chunk_of, len_of, with_len};
use crate::port::Port;
use crate::rings::{Rings, Statistics, TxPath, Waiting};

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
    fn receive(&mut self, into: &mut Batch, limit: usize) -> usize {
        let room = short(into.remaining().min(limit));
        let id = self.id;
        let frame = |desc| Frame::of_desc(id, desc);
        self.shared.inbound.take_back(room, |slots| into.extend(descs(slots).map(frame))) as usize
    }

    #[inline]
    fn fill(&mut self, from: &mut FreeList, limit: usize) -> usize {
        let room = self.shared.room(&self.shared.inbound);
        let count = room.min(from.len()).min(limit).min(BURST);
        self.shared.inbound.give(from.top(count), self.id);
        from.surrender(count);
        count
    }

    #[inline]
    fn tx_room(&mut self) -> usize {
        self.shared.room(&self.shared.outbound)
    }

    #[inline]
    fn transmit(&mut self, from: &mut Batch) -> usize {
        let refuses = self.shared.refuses_transmit.load(Ordering::Relaxed);
        let room = if refuses { 0 } else { self.tx_room() };
        let count = room.min(from.len());
        self.shared.outbound.give(&from[..count], self.id);
        from.surrender(count);
        count
    }

    #[inline]
    fn complete(&mut self, into: &mut FreeList) -> usize {
        let id = self.id;
        let frame = |desc| Frame::of_desc(id, with_len(desc, 0));
        let take = |slots: &_| into.extend(descs(slots).map(frame));
        self.shared.outbound.take_back(short(BURST), take) as usize
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
        let fits = (1..=Region::CAPACITY).contains(&len);
        if fits {
            frame.set_len(self.id, len);
        }
        fits
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
        self.shared.kick()
    }

    fn wake_rx(&mut self) -> Result<(), Errno> {
        self.shared.state().wakes += 1;
        Ok(())
    }

    fn waiting(&mut self) -> Waiting {
        self.shared.waiting()
    }

    fn tx_path(&mut self) -> TxPath {
        TxPath::Ring { emptied_by_kicks: self.tx_needs_wakeup() }
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
        if !self.shared.can_deliver(&mut state, len) {
            return false;
        }
        let Shared { region, inbound, .. } = &*self.shared;
        write(region.packet_given(&mut state, inbound, 0, len));
        let slot = inbound.next_given(0);
        slot.store(with_len(slot.load(Ordering::Relaxed), len), Ordering::Relaxed);
        inbound.accept(1);
        inbound.finish(1);
        true
    }

    /// Puts the packets on the RX ring out of all caches, as if a device had written them: the first
    /// look at each is a miss then. Changes nothing but how long that takes, and nothing at all on
    /// other processors than x86-64.
    pub fn cool(&self) {
        let _kernel = self.state();
        let Shared { region, inbound, .. } = &*self.shared;
        let received = inbound.all().take(inbound.on_second() as usize);
        region.flush(received.map(chunk_of));
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
        let _kernel = self.state();
        let count = count.min(self.shared.outbound.between());
        self.shared.outbound.finish(count);
        count
    }

    /// Loops back up to `count` packets that were sent and not completed: each is received again,
    /// in the frame it was sent in, and a frame of the fill ring is completed in its stead. Copies
    /// nothing. Returns how many; fewer if the fill ring is empty or the RX ring full. Wants
    /// [`complete_later`](Self::complete_later).
    pub fn turn(&self, count: u32) -> u32 {
        let _kernel = self.state();
        let Shared { inbound, outbound, .. } = &*self.shared;
        let room = self.shared.entries - inbound.on_second();
        let count = count.min(room).min(outbound.between()).min(inbound.on_first());
        for _ in 0..count {
            let (spare, sent) = (inbound.next_given(0), outbound.next_accepted());
            let received = sent.swap(spare.load(Ordering::Relaxed), Ordering::Relaxed);
            spare.store(received, Ordering::Relaxed);
            inbound.accept(1);
            inbound.finish(1);
            outbound.finish(1);
        }
        count
    }

    /// Sends what is on the TX ring, as a driver does that needs no wakeup.
    pub fn run(&self) {
        // "Try again" is for user space; a driver just comes back.
        let _ = self.shared.send(&mut self.state());
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
        self.shared.refuses_transmit.store(refuse, Ordering::Relaxed);
    }

    /// How many packets one kick sends before it says `EAGAIN`; `None`: all.
    pub fn budget(&self, packets: Option<u32>) {
        self.state().policy.budget = packets;
    }

    /// Whether the device has no TX queue of the socket's number: kicks succeed and send nothing.
    pub fn no_tx_queue(&self, none: bool) {
        self.state().policy.no_tx_queue = none;
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
    /// If a frame is in two places.
    pub fn census(&self) -> Census {
        let _kernel = self.state();
        self.shared.census()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

/// What both sides see.
#[derive(Debug)]
struct Shared {
    region: Region,
    /// Entries of each ring.
    entries: u32,
    /// Fill and RX ring.
    inbound: Track,
    /// TX and completion ring.
    outbound: Track,
    /// The need_wakeup flags of TX and fill ring.
    tx_sleeps: AtomicBool,
    rx_sleeps: AtomicBool,
    refuses_transmit: AtomicBool,
    state: Mutex<State>,
}

impl Shared {
    /// A panic of one side must not hide from the other what a test wants to see.
    #[inline]
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room on the ring that user space gives frames to.
    #[inline]
    fn room(&self, track: &Track) -> usize {
        (self.entries - track.on_first()) as usize
    }

    fn waiting(&self) -> Waiting {
        Waiting {
            rx: self.inbound.on_second().into(),
            tx: self.outbound.on_first().into(),
            completion: self.outbound.on_second().into(),
        }
    }

    /// Whether a packet of `len` bytes can be received now; counts why not.
    fn can_deliver(&self, state: &mut State, len: usize) -> bool {
        let statistics = &mut state.statistics;
        if len == 0 || len > Region::CAPACITY {
            statistics.rx_dropped += 1;
        } else if self.inbound.on_second() == self.entries {
            statistics.rx_ring_full += 1;
        } else if self.inbound.on_first() == 0 {
            statistics.rx_fill_ring_empty_descs += 1;
        } else {
            return true;
        }
        false
    }

    fn kick(&self) -> Result<(), Errno> {
        let mut state = self.state();
        state.kicks += 1;
        let Policy { script, fail, no_tx_queue, .. } = &mut state.policy;
        match script.pop_front().or(*fail) {
            Some(errno) => Err(errno),
            None if *no_tx_queue => Ok(()),
            None => self.send(&mut state),
        }
    }

    /// Takes from the TX ring as the kernel does in copy mode: up to the budget, and never more
    /// than the completion ring can take back.
    fn send(&self, state: &mut State) -> Result<(), Errno> {
        let outbound = &self.outbound;
        let room = self.entries.saturating_sub(outbound.between() + outbound.on_second());
        let waiting = outbound.on_first();
        let count = waiting.min(room).min(state.policy.budget.unwrap_or(u32::MAX));
        if state.capture {
            for step in 0..count {
                let len = len_of(outbound.next_given(step).load(Ordering::Relaxed));
                let packet = self.region.packet_given(state, outbound, step, len).to_vec();
                state.captured.push_back(packet);
            }
        }
        outbound.accept(count);
        state.transmitted += u64::from(count);
        if !state.policy.complete_later {
            outbound.finish(outbound.between());
        }
        if count == waiting { Ok(()) } else { Err(Errno::AGAIN) }
    }

    fn census(&self) -> Census {
        let mut seen = vec![false; self.region.frames()];
        for desc in self.inbound.all().chain(self.outbound.all()) {
            let index = chunk_of(desc);
            let seen = &mut seen[index];
            assert!(!*seen, "frame {index} is in two rings");
            *seen = true;
        }
        let Waiting { rx, tx, completion } = self.waiting();
        Census {
            user: seen.iter().filter(|seen| !**seen).count() as u64,
            fill: self.inbound.on_first().into(),
            rx,
            tx,
            wire: self.outbound.between().into(),
            completion,
        }
    }
}

/// A number of frames, at most a burst, as positions count.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most a burst")]
const fn short(count: usize) -> u32 {
    count as u32
}

/// Sizes of a twin.
#[derive(Clone, Copy, Debug)]
pub struct MemoryConfig {
    /// Frames in all: 1 to 2^20.
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
    let frames = config.frames.clamp(1, MAX_FRAMES);
    let id = UmemId::fresh();
    let shared = Arc::new(Shared {
        region: Region::new(frames),
        entries: config.ring.max(1).next_power_of_two(),
        inbound: Track::new(frames),
        outbound: Track::new(frames),
        tx_sleeps: AtomicBool::new(true),
        rx_sleeps: AtomicBool::new(false),
        refuses_transmit: AtomicBool::new(false),
        state: Mutex::new(State::new(config.capture)),
    });
    let kernel = MemoryKernel { shared: Arc::clone(&shared) };
    let tokens = FreeList::of_umem(id, frames);
    (Port::new(MemoryRings { id, shared, tokens }), kernel)
}

#[cfg(test)]
mod tests;
