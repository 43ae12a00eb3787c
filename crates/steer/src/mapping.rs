//! A BPF array as memory of this process.

#![expect(unsafe_code, reason = "maps BPF arrays into this process")]

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The words of a BPF array that was made with `BPF_F_MMAPABLE`. Clones view the same array, which
/// lives as long as the longest-lived of them and of the programs.
#[derive(Clone)]
pub struct Mapped(Arc<View>);

impl Mapped {
    /// The first `words` words of the array `map`: the kernel refuses any other kind of map, and any
    /// that is smaller.
    pub(crate) fn new(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let len_bytes = words * size_of::<AtomicU64>();
        // SAFETY: the address is the kernel's choice, so no memory of this process is replaced.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(Arc::new(View { first, words })))
    }
}

impl Deref for Mapped {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `first` is page-aligned and starts a mapping of `words` words, which `View` unmaps
        // only when it is dropped, and `self` holds it. Any bytes are a valid `AtomicU64`, and the
        // other users of the memory (programs, other clones) access these words only as a whole.
        unsafe { slice::from_raw_parts(self.0.first.as_ptr(), self.0.words) }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("words", &self.0.words).finish()
    }
}

/// Owns the mapping.
struct View {
    first: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached only as atomics.
unsafe impl Send for View {}
// SAFETY: as above; `&View` gives out nothing but `&[AtomicU64]`.
unsafe impl Sync for View {}

impl Drop for View {
    fn drop(&mut self) {
        let len_bytes = self.words * size_of::<AtomicU64>();
        // SAFETY: exactly what `Mapped::new` mapped; no reference into it outlives the last `Arc`.
        // It cannot fail for a whole mapping, and there is nothing to do if it did.
        unsafe { libc::munmap(self.first.as_ptr().cast(), len_bytes) };
    }
}
