//! The frame token: whoever holds it owns one chunk of one UMEM.
//!
//! A token is made once per chunk when a UMEM is made, and from then on moves: into a ring when the
//! kernel gets the chunk, out of a ring when the kernel gives it back. Only the rings of this crate
//! make tokens, so two tokens for one chunk cannot exist. There is no `Drop`: a token that is
//! dropped is a chunk lost, which the port's accounting shows.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

/// One chunk of a UMEM and the length of the packet in it. Neither `Copy` nor `Clone`.
#[must_use = "a frame that is dropped is lost to its UMEM: send or recycle it"]
#[derive(Debug)]
pub struct Frame {
    umem: UmemId,
    /// The chunk's number, then the packet's length, 32 bits each. Two fields and not three: a
    /// pair travels in registers, anything larger through memory.
    chunk_and_len: u64,
}

impl Frame {
    /// The token of chunk `index`. The caller vouches that no other token for it exists.
    #[inline]
    pub(crate) const fn new(umem: UmemId, index: u32, len: u32) -> Self {
        Self { umem, chunk_and_len: (index as u64) << 32 | len as u64 }
    }

    /// The token of the chunk that a descriptor of the memory-backed rings names. The caller
    /// vouches that no other token for it exists.
    #[inline]
    pub(crate) const fn of_desc(umem: UmemId, desc: u64) -> Self {
        Self { umem, chunk_and_len: desc }
    }

    /// The descriptor of the memory-backed rings: the chunk's number and the packet's length.
    ///
    /// # Panics
    /// As [`chunk`](Self::chunk).
    #[inline]
    pub(crate) fn desc(&self, umem: UmemId) -> u64 {
        self.check(umem);
        self.chunk_and_len
    }

    /// Length of the packet in bytes; 0 for a frame that holds none.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a received frame is never empty")]
    pub const fn len(&self) -> usize {
        len_of(self.chunk_and_len)
    }

    /// The chunk's number, once it is certain that it is a chunk of `umem`.
    ///
    /// # Panics
    /// If the frame is of another UMEM: using it would alias a chunk that someone else owns.
    #[inline]
    pub(crate) fn chunk(&self, umem: UmemId) -> u32 {
        self.check(umem);
        chunk_of(self.chunk_and_len)
    }

    /// [`chunk`](Self::chunk) as an index.
    #[inline]
    pub(crate) fn slot(&self, umem: UmemId) -> usize {
        self.chunk(umem) as usize
    }

    #[inline]
    pub(crate) const fn set_len(&mut self, len: usize) {
        self.chunk_and_len = with_len(self.chunk_and_len, len);
    }

    #[inline]
    fn check(&self, umem: UmemId) {
        assert!(self.umem == umem, "a frame was given to a port of another UMEM");
    }
}

/// The chunk's number in a token or descriptor.
#[inline]
pub(crate) const fn chunk_of(desc: u64) -> u32 {
    (desc >> 32) as u32
}

/// The packet's length in it.
#[inline]
pub(crate) const fn len_of(desc: u64) -> usize {
    (desc & !CHUNK) as usize
}

/// It with another length; a chunk is shorter than 4 GiB.
#[inline]
pub(crate) const fn with_len(desc: u64, len: usize) -> u64 {
    desc & CHUNK | len as u64 & !CHUNK
}

/// The half of a token that holds the chunk's number.
const CHUNK: u64 = !0 << 32;

/// Tells the tokens of one UMEM from those of all others that this process ever makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UmemId(NonZeroU64);

impl UmemId {
    /// An id that no other UMEM has: 64 bits do not run out.
    pub(crate) fn fresh() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(NonZeroU64::MIN.saturating_add(LAST.fetch_add(1, Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_one_register_pair() {
        assert_eq!(size_of::<Frame>(), 16);
        assert_eq!(size_of::<Option<Frame>>(), 16);
    }

    #[test]
    #[should_panic(expected = "another UMEM")]
    fn a_foreign_frame_has_no_slot() {
        let frame = Frame::new(UmemId::fresh(), 3, 60);
        frame.slot(UmemId::fresh());
    }
}
