//! Where frames wait in user space: a burst in order, and the free list.
//!
//! Both have their full capacity from the start; nothing here allocates after construction.

use std::ops::{Deref, DerefMut};

use arrayvec::ArrayVec;

use crate::frame::{Frame, UmemId};

/// Up to [`BURST`] frames, in order.
#[derive(Debug, Default)]
pub struct Batch(ArrayVec<Frame, BURST>);

impl Batch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// Appends `frame`.
    ///
    /// # Errors
    /// Gives the frame back when the batch holds [`BURST`] frames.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        self.0.try_push(frame).map_err(arrayvec::CapacityError::element)
    }

    /// Takes the last frame.
    #[inline]
    pub fn pop(&mut self) -> Option<Frame> {
        self.0.pop()
    }

    /// Takes all frames, first to last. Frames left in the iterator when it is dropped are lost:
    /// run it to its end.
    #[inline]
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Frame> {
        self.0.drain(..)
    }

    /// How many frames still fit.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.0.remaining_capacity()
    }

    /// Whether nothing fits any more.
    #[inline]
    pub const fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// Adds frames, for which there must be room.
    #[inline]
    pub(crate) fn extend(&mut self, frames: impl Iterator<Item = Frame>) {
        self.0.extend(frames);
    }

    /// Takes the first `count` frames. As with [`drain`](Self::drain), run it to its end.
    #[inline]
    pub(crate) fn take_first(&mut self, count: usize) -> impl Iterator<Item = Frame> {
        self.0.drain(..count)
    }

    /// Forgets the first `count` tokens: the kernel owns their chunks now.
    #[inline]
    pub(crate) fn surrender(&mut self, count: usize) {
        if count == self.0.len() {
            self.0.clear();
        } else {
            self.0.drain(..count);
        }
    }
}

impl Deref for Batch {
    type Target = [Frame];

    #[inline]
    fn deref(&self) -> &[Frame] {
        &self.0
    }
}

impl DerefMut for Batch {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Frame] {
        &mut self.0
    }
}

/// Frames that are in no ring. Last in, first out: the frame used last is the one most likely still
/// in the cache.
#[derive(Debug, Default)]
pub struct FreeList(Vec<Frame>);

impl FreeList {
    /// The tokens of all `count` chunks of a UMEM, lowest on top.
    pub(crate) fn of_umem(umem: UmemId, count: u32) -> Self {
        Self((0..count).rev().map(|index| Frame::new(umem, index, 0)).collect())
    }

    /// Adds a frame.
    #[inline]
    pub fn push(&mut self, frame: Frame) {
        self.0.push(frame);
    }

    /// Adds frames.
    #[inline]
    pub(crate) fn extend(&mut self, frames: impl Iterator<Item = Frame>) {
        self.0.extend(frames);
    }

    /// Takes the frame added last.
    #[inline]
    pub fn pop(&mut self) -> Option<Frame> {
        self.0.pop()
    }

    /// How many frames are free.
    #[inline]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no frame is free.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `count` frames on top (all, if there are fewer), the newest last.
    #[inline]
    pub(crate) fn top(&self, count: usize) -> &[Frame] {
        &self.0[self.0.len().saturating_sub(count)..]
    }

    /// Forgets the `count` tokens on top: the kernel owns their chunks now.
    #[inline]
    pub(crate) fn surrender(&mut self, count: usize) {
        self.0.truncate(self.0.len().saturating_sub(count));
    }
}

/// The largest number of frames that one ring operation moves.
pub const BURST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_gives_the_frame_back() {
        let umem = UmemId::fresh();
        let mut batch = Batch::new();
        for index in 0..64 {
            batch.push(Frame::new(umem, index, 60)).expect("there is room for a burst");
        }
        assert!(batch.is_full());
        let back = batch.push(Frame::new(umem, 64, 60)).expect_err("the batch is full");
        assert_eq!(back.slot(umem), 64);
        batch.surrender(62);
        let rest: Vec<usize> = batch.drain().map(|frame| frame.slot(umem)).collect();
        assert_eq!(rest, [62, 63]);
    }

    #[test]
    fn the_free_list_hands_out_the_warmest_frame() {
        let umem = UmemId::fresh();
        let mut free = FreeList::of_umem(umem, 4);
        let first = free.pop().expect("four frames");
        assert_eq!(first.slot(umem), 0);
        free.push(first);
        assert_eq!(free.top(9).len(), 4);
        free.surrender(3);
        assert_eq!(free.pop().map(|frame| frame.slot(umem)), Some(3));
        assert!(free.is_empty());
    }
}
