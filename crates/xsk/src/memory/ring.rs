//! Descriptors in the order in which they pass the kernel: two rings in one circle.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::short;
use crate::frame::{self, Frame, UmemId};

/// The way of frames through the kernel. User space gives a frame to the first ring (fill, TX), the
/// kernel accepts it from there and later returns it on the second (RX, completion), where user
/// space takes it back.
///
/// One circle of slots with free-running positions, large enough for every frame of a UMEM, so that
/// it never overflows as long as each frame is in it at most once. As with the kernel's rings, each
/// position has one writer, and a reader that sees a position moved sees all that was written before.
#[derive(Debug)]
pub(super) struct Track {
    slots: Box<[AtomicU64]>,
    mask: u32,
    /// Up to here user space gave frames.
    given: AtomicU32,
    /// Up to here the kernel took them from the first ring.
    accepted: AtomicU32,
    /// Up to here the kernel put them on the second ring.
    returned: AtomicU32,
    /// Up to here user space took them back.
    back: AtomicU32,
}

impl Track {
    pub(super) fn new(frames: u32) -> Self {
        Self::starting_at(frames, 0)
    }

    fn starting_at(frames: u32, position: u32) -> Self {
        let slots = frames.max(1).next_power_of_two();
        let position = || AtomicU32::new(position);
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            mask: slots - 1,
            given: position(),
            accepted: position(),
            returned: position(),
            back: position(),
        }
    }

    /// User space: puts frames of `umem` on the first ring, for which there must be room.
    ///
    /// # Panics
    /// If a frame is of another UMEM; nothing was put then.
    #[inline]
    pub(super) fn give(&self, frames: &[Frame], umem: UmemId) {
        frame::check_all(frames, umem);
        let (given, count) = (self.given.load(Ordering::Relaxed), short(frames.len()));
        let [first, rest] = self.stretch(given, count);
        let (to_first, to_rest) = frames.split_at(first.len());
        for (slots, frames) in [(first, to_first), (rest, to_rest)] {
            for (slot, frame) in slots.iter().zip(frames) {
                slot.store(frame.desc(), Ordering::Relaxed);
            }
        }
        self.given.store(given.wrapping_add(count), Ordering::Release);
    }

    /// User space: takes up to `limit` descriptors from the second ring, in at most two pieces;
    /// returns how many.
    #[inline]
    pub(super) fn take_back(&self, limit: u32, mut take: impl FnMut(&[AtomicU64])) -> u32 {
        let back = self.back.load(Ordering::Relaxed);
        let count = between(back, self.returned.load(Ordering::Acquire)).min(limit);
        for slots in self.stretch(back, count) {
            take(slots);
        }
        self.back.store(back.wrapping_add(count), Ordering::Release);
        count
    }

    /// The kernel: takes `count` frames from the first ring.
    pub(super) fn accept(&self, count: u32) {
        advance(&self.accepted, count);
    }

    /// The kernel: puts the `count` frames accepted first on the second ring.
    pub(super) fn finish(&self, count: u32) {
        advance(&self.returned, count);
    }

    /// The slot of the frame that is `step` frames behind the first one on the first ring.
    pub(super) fn next_given(&self, step: u32) -> &AtomicU64 {
        self.at(self.accepted.load(Ordering::Relaxed).wrapping_add(step))
    }

    /// The slot of the frame that was accepted first and is not yet on the second ring.
    pub(super) fn next_accepted(&self) -> &AtomicU64 {
        self.at(self.returned.load(Ordering::Relaxed))
    }

    /// Frames on the first ring.
    #[inline]
    pub(super) fn on_first(&self) -> u32 {
        between(self.accepted.load(Ordering::Acquire), self.given.load(Ordering::Acquire))
    }

    /// Frames between the rings.
    pub(super) fn between(&self) -> u32 {
        between(self.returned.load(Ordering::Relaxed), self.accepted.load(Ordering::Relaxed))
    }

    /// Frames on the second ring.
    #[inline]
    pub(super) fn on_second(&self) -> u32 {
        between(self.back.load(Ordering::Acquire), self.returned.load(Ordering::Acquire))
    }

    /// All descriptors between user space and user space, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = u64> + '_ {
        let back = self.back.load(Ordering::Acquire);
        let count = between(back, self.given.load(Ordering::Acquire));
        (0..count).map(move |step| self.at(back.wrapping_add(step)).load(Ordering::Relaxed))
    }

    /// `count` slots from `position` on: up to the end of the array, and on from its beginning.
    #[inline]
    fn stretch(&self, position: u32, count: u32) -> [&[AtomicU64]; 2] {
        let (before, from) = self.slots.split_at((position & self.mask) as usize);
        let count = count as usize;
        let straight = count.min(from.len());
        [&from[..straight], &before[..count - straight]]
    }

    #[inline]
    fn at(&self, position: u32) -> &AtomicU64 {
        &self.slots[(position & self.mask) as usize]
    }
}

/// What is in slots.
#[inline]
pub(super) fn descs(slots: &[AtomicU64]) -> impl ExactSizeIterator<Item = u64> {
    slots.iter().map(|slot| slot.load(Ordering::Relaxed))
}

/// Moves a position that has no other writer.
#[inline]
fn advance(position: &AtomicU32, count: u32) {
    position.store(position.load(Ordering::Relaxed).wrapping_add(count), Ordering::Release);
}

/// How many descriptors lie from one position to a later one; both may have wrapped.
#[inline]
const fn between(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_the_wrap() {
        let track = Track::starting_at(3, u32::MAX - 1);
        let umem = UmemId::fresh();
        track.give(&[0, 1, 2, 3].map(|desc| Frame::of_desc(umem, desc)), umem);
        assert_eq!(track.all().collect::<Vec<_>>(), [0, 1, 2, 3]);
        track.accept(3);
        track.finish(3);
        assert_eq!((track.on_first(), track.between(), track.on_second()), (1, 0, 3));
        let mut back = Vec::new();
        assert_eq!(track.take_back(9, |slots| back.extend(descs(slots))), 3);
        assert_eq!(back, [0, 1, 2]);
        assert_eq!(track.next_given(0).load(Ordering::Relaxed), 3);
    }
}
