//! The XDP steering program `bpf/steer.bpf.c`: loads it, attaches it, owns its maps.
//!
//! | module | holds |
//! |---|---|
//! | [`abi`] | what `bpf/abi.h` has, for Rust |
//! | `outcome` | what the program counts: [`Outcome`], [`Counters`] |
//! | `steer` | [`Steer`]: the shared maps, the VIPs |
//! | `attach` | [`Attached`]: one interface's program, sockets and counters |
//! | `leases` | [`Leases`]: the lease array, mapped |
//! | `fast_path` | [`FastPath`]: what the program needs to forward known flows itself |
//! | `losses` | [`Losses`]: frames that programs sent and drivers dropped |
//! | `egress` | [`Egress`]: whether a device takes frames from programs |
//! | `mapping` | [`Mapped`]: a BPF array as memory of this process |
//! | `clock` | that the program and this process read the same clock |
//! | `kernel` | [`KernelVersion`]: which kernels are supported |
//! | `object` | the compiled program and libbpf's log |
//! | `link` | the system calls that libbpf-rs does not offer |
//! | `foreign` | other XDP programs on the interface |
//! | `trial` | `Trial`: the program without an interface, for tests |
//! | `error` | [`SteerError`] |
//!
//! Nothing here is pinned: program, maps and attachment go when the process goes, however it ends.
//! The crate decides nothing: which VIPs exist and how long they are active, its user says.

pub mod abi;

mod attach;
mod clock;
mod egress;
mod error;
mod fast_path;
mod foreign;
mod kernel;
mod leases;
mod link;
mod losses;
mod mapping;
mod object;
mod outcome;
mod restore_tags;
mod steer;
#[cfg(any(test, feature = "trial"))]
mod trial;

pub use attach::{AttachMode, Attached, AttachedMode, Interface, TagPlace};
pub use egress::Egress;
pub use error::SteerError;
pub use fast_path::{FastPath, FlowMap, Picture, Traffic};
pub use foreign::{Foreign, ForeignLink, Process};
pub use kernel::KernelVersion;
pub use leases::Leases;
pub use losses::Losses;
pub use mapping::Mapped;
pub use outcome::{Counters, Outcome};
pub use restore_tags::{Restored, TagRestorer};
pub use steer::Steer;
#[cfg(any(test, feature = "trial"))]
pub use trial::{Action, Trial};

#[cfg(test)]
mod tests;
