//! Where the next choice starts: the only thing that workers write to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

/// Shared between the workers and between a scheduler and the one that is rebuilt from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor(Arc<CachePadded<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    next: AtomicUsize,
    noted: AtomicUsize,
}

impl Cursor {
    /// One of its own that stands where this one does.
    pub(super) fn copied(&self) -> Self {
        let copy = |number: &AtomicUsize| AtomicUsize::new(number.load(Ordering::Relaxed));
        let Shared { next, noted } = &**self.0;
        Self(Arc::new(CachePadded::new(Shared { next: copy(next), noted: copy(noted) })))
    }

    /// An element, and with every call the next one; `None` of none.
    #[inline]
    pub(super) fn next<T: Copy>(&self, of: &[T]) -> Option<T> {
        of.get(self.advance(of.len())?).copied()
    }

    /// A number below `len`, and with every call the next one; `None` when `len` is 0.
    #[inline]
    pub(super) fn advance(&self, len: usize) -> Option<usize> {
        // Nothing else is published with the cursor, so no order is needed.
        self.0.next.fetch_add(1, Ordering::Relaxed).checked_rem(len)
    }

    /// Keeps an element's index for the next choices.
    pub(super) fn note(&self, index: usize) {
        self.0.noted.store(index, Ordering::Relaxed);
    }

    /// The index that was last noted, perhaps for other elements.
    pub(super) fn noted(&self) -> usize {
        self.0.noted.load(Ordering::Relaxed)
    }
}
