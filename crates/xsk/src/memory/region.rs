//! The twin's UMEM: chunks that two sides write to, never at the same time.
#![expect(unsafe_code, reason = "chunks change owner by token and descriptor, not by borrow")]

use std::cell::UnsafeCell;
use std::sync::atomic::Ordering;

use super::ring::Track;
use super::state::State;
use crate::frame::{Frame, UmemId, chunk_of};

/// The chunks.
pub(super) struct Region {
    chunks: Box<[Chunk]>,
}

// SAFETY: a chunk's bytes are reached only through `packet_of` and `packet_given`, whose callers
// prove by a token, or by a position under the state's lock, that they own the chunk. Ownership
// passes between threads only with a position of a track, which is released and acquired.
unsafe impl Sync for Region {}

impl Region {
    /// The longest packet that a frame holds.
    pub(super) const CAPACITY: usize = CHUNK - HEADROOM;

    pub(super) fn new(frames: u32) -> Self {
        let chunk = || Chunk(UnsafeCell::new([0; CHUNK]));
        Self { chunks: (0..frames).map(|_| chunk()).collect() }
    }

    /// How many chunks there are.
    pub(super) fn frames(&self) -> usize {
        self.chunks.len()
    }

    /// The packet in the frame whose token the caller holds.
    #[inline]
    pub(super) fn packet_of<'a>(&'a self, frame: &'a mut Frame, umem: UmemId) -> &'a mut [u8] {
        let index = frame.slot(umem);
        // SAFETY: `frame` is of this UMEM (`slot` checked it) and there is one token per chunk, so
        // the caller alone owns the chunk, and the exclusive borrow of the token makes the result
        // the only reference to it. The kernel's side reaches only chunks without a token.
        unsafe { self.packet(index, frame.len()) }
    }

    /// A packet of `len` bytes in the frame that is `step` frames behind the first one which the
    /// kernel's side may take from `track`, a track of this UMEM.
    ///
    /// # Panics
    /// If there is no such frame.
    #[inline]
    pub(super) fn packet_given<'a>(
        &'a self,
        _kernel: &'a mut State,
        track: &Track,
        step: u32,
        len: usize,
    ) -> &'a mut [u8] {
        assert!(step < track.on_first(), "the kernel would touch a frame of user space");
        let index = chunk_of(track.next_given(step).load(Ordering::Relaxed));
        // SAFETY: user space gave up the chunk's token when it gave the frame to the track, and
        // gets one back only after the kernel's side has moved on. That takes the exclusive borrow
        // of the state, which this result holds: it is the only reference to the chunk.
        unsafe { self.packet(index, len) }
    }

    /// Puts the beginnings of the packets in these chunks out of all caches.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn flush(&self, chunks: impl Iterator<Item = usize>) {
        use std::arch::x86_64::{_mm_clflush, _mm_mfence};
        for index in chunks {
            let chunk = self.chunks[index].0.get().cast::<u8>();
            for line in [HEADROOM, HEADROOM + 64] {
                // SAFETY: the address is inside of the chunk, and flushing its line changes no byte,
                // the owner of the chunk.
                unsafe { _mm_clflush(chunk.wrapping_add(line)) };
            }
        }
        // SAFETY: all x86-64 processors have the instruction.
        unsafe { _mm_mfence() };
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn flush(&self, _chunks: impl Iterator<Item = usize>) {}

    /// # Safety
    /// The caller owns chunk `index`, and for the result's life no other reference to it exists.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "the chunk is owned by token, see the callers")]
    unsafe fn packet(&self, index: usize, len: usize) -> &mut [u8] {
        // SAFETY: the caller vouches that nothing else has a reference to this chunk.
        let chunk = unsafe { &mut *self.chunks[index].0.get() };
        &mut chunk[HEADROOM..HEADROOM + len]
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("chunks", &self.chunks.len()).finish()
    }
}

/// Aligned like a kernel chunk: packets then share the same few cache sets.
#[repr(C, align(2048))]
struct Chunk(UnsafeCell<[u8; CHUNK]>);

const CHUNK: usize = 2048;

/// Where the kernel puts a packet: `XDP_PACKET_HEADROOM`.
const HEADROOM: usize = 256;
