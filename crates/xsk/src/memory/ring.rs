//! A descriptor ring with free-running positions, as the kernel's are.

/// A bounded queue of descriptors.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<[Desc]>,
    mask: u32,
    head: u32,
    tail: u32,
}

impl Ring {
    /// Room for `entries`, rounded up to a power of two.
    pub(super) fn new(entries: u32) -> Self {
        let entries = entries.max(1).next_power_of_two();
        Self {
            slots: vec![Desc::default(); entries as usize].into_boxed_slice(),
            mask: entries - 1,
            head: 0,
            tail: 0,
        }
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
    }

    #[inline]
    pub(super) const fn room(&self) -> usize {
        self.slots.len() - self.len()
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Appends `desc`.
    ///
    /// # Panics
    /// If there is no room: callers look first, so a frame would be lost silently.
    #[inline]
    pub(super) fn push(&mut self, desc: Desc) {
        assert!(self.room() > 0, "a descriptor was pushed to a full ring");
        self.slots[(self.tail & self.mask) as usize] = desc;
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Desc> {
        if self.is_empty() {
            return None;
        }
        let desc = self.slots[(self.head & self.mask) as usize];
        self.head = self.head.wrapping_add(1);
        Some(desc)
    }
}

/// What stands in a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Desc {
    pub(super) index: u32,
    pub(super) len: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_first_in_first_out_and_survives_the_wrap() {
        let mut ring = Ring::new(3);
        ring.head = u32::MAX - 1;
        ring.tail = u32::MAX - 1;
        for index in 0..4 {
            ring.push(Desc { index, len: index });
        }
        assert_eq!((ring.len(), ring.room()), (4, 0));
        let order: Vec<u32> = std::iter::from_fn(|| ring.pop()).map(|desc| desc.index).collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert!(ring.is_empty());
    }
}
