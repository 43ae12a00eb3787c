//! AF_XDP: sockets, rings and UMEM over `xsk-rs`, behind frame tokens that only their holder may use.
//!
//! [`open`] binds a socket to one queue of an interface and hands back a [`Port`]: what a worker
//! receives from, sends to and recycles into. [`memory_port`] makes the same port over plain memory,
//! with a [`MemoryKernel`] that plays the other side, so that everything above this crate is tested
//! and measured without root.
//!
//! This crate loads no XDP program and fills no XSKMAP (put [`Port::fd`] there), parses no packet,
//! starts no thread and reads no clock but while [`open`] waits for a busy queue. A UMEM belongs to
//! one port and dies with it: to bind again, drop the port and open a new one.

mod batch;
mod error;
mod frame;
mod kernel;
mod memory;
mod port;
mod rings;

pub use batch::{BURST, Batch, FreeList};
pub use error::{OpenError, zero_copy_remedy};
pub use frame::Frame;
pub use kernel::{
    Bound, Feature, Features, KernelRings, OpenConfig, ZeroCopy, driver, inheriting_nothing, open,
    rx_queues,
};
pub use memory::{Census, MemoryConfig, MemoryKernel, MemoryRings, memory_port};
pub use port::{Accounting, Counters, Flushed, KickError, KickErrors, Link, Port, WayOut};
pub use rings::{Rings, Statistics, TxPath, Waiting};

/// A system call's error number, as [`Rings::kick`] and [`Link::Down`] report it.
pub use rustix::io::Errno;
