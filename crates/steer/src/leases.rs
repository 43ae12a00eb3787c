//! The lease array as memory: `active_until` per instance slot, shared with the XDP programs.
//!
//! A map view and nothing else: who may write what, and when a lease is good, is its user's.

#![expect(unsafe_code, reason = "maps the lease array into this process")]

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::abi::INSTANCES;

/// `active_until` of every instance: nanoseconds of CLOCK_MONOTONIC, 0 from the start. A VIP is
/// active while the clock is below it. Clones view the same array, which lives as long as the
/// longest-lived of them and of the programs.
#[derive(Clone)]
pub struct Leases(Arc<View>);

impl Leases {
    /// Maps the array `map`, which must be a BPF array of at least [`INSTANCES`] values of 8 bytes
    /// made with `BPF_F_MMAPABLE`: the kernel refuses any other and any smaller.
    pub(crate) fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the address is the kernel's choice, so no memory of this process is replaced.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                LEN_BYTES,
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
        Ok(Self(Arc::new(View { first })))
    }
}

impl Deref for Leases {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `first` is page-aligned and starts a mapping of `LEN_BYTES`, that is of
        // `INSTANCES` words, which `View` unmaps only when it is dropped, and `self` holds it. Any
        // bytes are a valid `AtomicU64`, and the other users of the memory (programs, other
        // clones) access these words only atomically.
        unsafe { slice::from_raw_parts(self.0.first.as_ptr(), INSTANCES as usize) }
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Owns the mapping.
struct View {
    first: NonNull<AtomicU64>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached only as atomics.
unsafe impl Send for View {}
// SAFETY: as above; `&View` gives out nothing but `&[AtomicU64]`.
unsafe impl Sync for View {}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: exactly what `Leases::map` mapped; no reference into it outlives the last `Arc`.
        // It cannot fail for a whole mapping, and there is nothing to do if it did.
        unsafe { libc::munmap(self.first.as_ptr().cast(), LEN_BYTES) };
    }
}

const LEN_BYTES: usize = INSTANCES as usize * size_of::<AtomicU64>();
