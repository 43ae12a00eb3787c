//! Descriptors in the order in which they pass the kernel, and free-running positions in it.

/// A circle of descriptor slots, large enough for every frame of a UMEM, so that it never overflows
/// as long as each frame is in it at most once.
#[derive(Debug)]
pub(super) struct Track {
    slots: Box<[Desc]>,
    mask: u32,
}

impl Track {
    pub(super) fn new(frames: u32) -> Self {
        let slots = frames.max(1).next_power_of_two();
        Self { slots: vec![Desc::default(); slots as usize].into_boxed_slice(), mask: slots - 1 }
    }

    #[inline]
    pub(super) fn at(&mut self, position: u32) -> &mut Desc {
        &mut self.slots[(position & self.mask) as usize]
    }

    /// Writes descriptors from `position` on.
    #[inline]
    pub(super) fn put(&mut self, position: u32, descs: impl Iterator<Item = Desc>) {
        for (step, desc) in (0_u32..).zip(descs) {
            *self.at(position.wrapping_add(step)) = desc;
        }
    }

    /// The `count` descriptors from `position` on.
    #[inline]
    pub(super) fn from(&self, position: u32, count: u32) -> impl Iterator<Item = Desc> + Clone {
        let slot = move |step| (position.wrapping_add(step) & self.mask) as usize;
        (0..count).map(move |step| self.slots[slot(step)])
    }
}

/// What stands in a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Desc {
    pub(super) index: u32,
    pub(super) len: u32,
}

/// How many descriptors lie from one position to a later one; both may have wrapped.
#[inline]
pub(super) const fn between(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_the_wrap() {
        let mut track = Track::new(3);
        let start = u32::MAX - 1;
        for step in 0..4 {
            track.at(start.wrapping_add(step)).index = step;
        }
        let order = [0, 1, 2, 3].map(|step| track.at(start.wrapping_add(step)).index);
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(between(start, start.wrapping_add(4)), 4);
    }
}
