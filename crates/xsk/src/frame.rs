//! The frame token: its holder owns one chunk of one UMEM.
//!
//! A token is made once per chunk when a UMEM is made, and from then on moves: into a ring when the
//! kernel gets the chunk, out of a ring when the kernel gives it back. Only the rings of this crate
//! make tokens, so two tokens for one chunk cannot exist. There is no `Drop`: a token that is
//! dropped is a chunk lost, which the port's accounting shows.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU32, Ordering};

/// One chunk of a UMEM and the length of the packet in it. Neither `Copy` nor `Clone`.
///
/// One word, so that a burst of tokens is copied like a burst of descriptors: from the top, 20 bits
/// of the chunk's number, 12 of the length, 32 of the UMEM.
#[must_use = "a frame that is dropped is lost to its UMEM: send or recycle it"]
#[derive(Debug)]
pub struct Frame(NonZeroU64);

impl Frame {
    /// The token of chunk `index` (below [`MAX_FRAMES`]) with a packet of `len` bytes (below 4,096).
    /// The caller vouches that no other token for it exists.
    #[inline]
    pub(crate) fn new(umem: UmemId, index: u32, len: u32) -> Self {
        Self::of_desc(umem, u64::from(index << LEN_BITS | len & LEN))
    }

    /// The token of the chunk that a descriptor of the memory-backed rings names. The caller
    /// vouches that no other token for it exists.
    #[inline]
    pub(crate) fn of_desc(umem: UmemId, desc: u64) -> Self {
        Self(NonZeroU64::from(umem.0) | desc << UMEM_BITS)
    }

    /// Length of the packet in bytes; 0 for a frame that holds none.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a received frame is never empty")]
    pub const fn len(&self) -> usize {
        len_of(self.desc())
    }

    /// The chunk's number, once it is certain that it is a chunk of `umem`.
    ///
    /// # Panics
    /// If the frame is of another UMEM: using it would alias a chunk that someone else owns.
    #[inline]
    pub(crate) fn slot(&self, umem: UmemId) -> usize {
        assert!(self.is_of(umem), "{FOREIGN}");
        chunk_of(self.desc())
    }

    /// Gives the packet another length, below 4,096.
    ///
    /// # Panics
    /// As [`slot`](Self::slot).
    #[inline]
    pub(crate) fn set_len(&mut self, umem: UmemId, len: usize) {
        assert!(self.is_of(umem), "{FOREIGN}");
        *self = Self::of_desc(umem, with_len(self.desc(), len));
    }

    /// The descriptor of the memory-backed rings: the chunk's number and the packet's length.
    #[inline]
    pub(crate) const fn desc(&self) -> u64 {
        self.0.get() >> UMEM_BITS
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
    const fn is_of(&self, umem: UmemId) -> bool {
        self.0.get() as u32 == umem.0.get()
    }
}

/// Makes sure that all are of `umem`.
///
/// # Panics
/// As [`Frame::slot`].
#[inline]
pub(crate) fn check_all(frames: &[Frame], umem: UmemId) {
    // Without an early exit, so that it is done with vector instructions.
    let ours = frames.iter().fold(true, |ours, frame| ours & frame.is_of(umem));
    assert!(ours, "{FOREIGN}");
}

/// The chunk's number in a descriptor.
#[inline]
pub(crate) const fn chunk_of(desc: u64) -> usize {
    (desc >> LEN_BITS) as usize
}

/// The packet's length in it.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "12 bits")]
pub(crate) const fn len_of(desc: u64) -> usize {
    (desc & LEN as u64) as usize
}

/// It with another length, below 4,096.
#[inline]
pub(crate) const fn with_len(desc: u64, len: usize) -> u64 {
    desc & !(LEN as u64) | len as u64 & LEN as u64
}

/// Frames that a UMEM has at most: their numbers must fit a token.
pub(crate) const MAX_FRAMES: u32 = 1 << (32 - LEN_BITS);

const UMEM_BITS: u32 = 32;
/// A frame is at most 4,096 bytes, and a packet starts behind its headroom.
const LEN_BITS: u32 = 12;
const LEN: u32 = (1 << LEN_BITS) - 1;

const FOREIGN: &str = "a frame was given to a port of another UMEM";

/// Distinguishes the tokens of one UMEM from those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UmemId(NonZeroU32);

impl UmemId {
    /// An id that none of the 2^32 - 2 UMEMs before has: a token does not live as long.
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        loop {
            if let Some(id) = NonZeroU32::new(NEXT.fetch_add(1, Ordering::Relaxed)) {
                return Self(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(size_of::<Frame>(), 8);
        assert_eq!(size_of::<Option<Frame>>(), 8);
    }

    #[test]
    fn the_largest_chunk_and_length_fit() {
        let umem = UmemId(NonZeroU32::MAX);
        let mut frame = Frame::new(umem, MAX_FRAMES - 1, 4095);
        assert_eq!((frame.slot(umem), frame.len()), (MAX_FRAMES as usize - 1, 4095));
        frame.set_len(umem, 60);
        assert_eq!((frame.slot(umem), frame.len()), (MAX_FRAMES as usize - 1, 60));
    }

    #[test]
    #[should_panic(expected = "another UMEM")]
    fn a_foreign_frame_among_others_is_noticed() {
        let (ours, theirs) = (UmemId::fresh(), UmemId::fresh());
        let frames = [Frame::new(ours, 0, 60), Frame::new(theirs, 1, 60), Frame::new(ours, 2, 60)];
        check_all(&frames, ours);
    }

    #[test]
    #[should_panic(expected = "another UMEM")]
    fn a_foreign_frame_has_no_slot() {
        let frame = Frame::new(UmemId::fresh(), 3, 60);
        frame.slot(UmemId::fresh());
    }
}
