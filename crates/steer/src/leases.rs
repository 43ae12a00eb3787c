//! The lease array as memory: `active_until` per instance slot, shared with the XDP programs.
//!
//! A view of the map and nothing else: its user decides who may write and how long a lease runs.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;

use crate::abi::INSTANCES;
use crate::mapping::Mapped;

/// `active_until` of every instance: nanoseconds of CLOCK_MONOTONIC, 0 from the start. A VIP is
/// active while the clock is below it. Clones view the same array, which lives as long as the
/// longest-lived of them and of the programs.
#[derive(Clone)]
pub struct Leases(Mapped);

impl Leases {
    /// Maps the array `map`, which must be a BPF array of at least [`INSTANCES`] values of 8 bytes
    /// made with `BPF_F_MMAPABLE`: the kernel refuses any other and any smaller.
    pub(crate) fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapped::new(map, INSTANCES as usize).map(Self)
    }
}

impl Deref for Leases {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
