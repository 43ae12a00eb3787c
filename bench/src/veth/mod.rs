//! Whole programs on a veth: packets a second that arrive, of established flows.
//!
//! | module | holds |
//! |---|---|
//! | [`programs`] | the BPF programs: traffic, sink, and the two loops |
//! | [`traffic`] | what is sent: frames, flows, rates |
//! | [`contestant`] | a loop or a balancer with a wire of its own |
//! | [`rounds`] | interleaved rounds, medians and ratios |
//! | [`child`] | what runs in processes of its own |
//!
//! ```text
//!  CPU 0: BPF_PROG_RUN with live frames ──► eth0 far ══ eth0 near ──► XDP program ──► (ring, CPU 1) ──┐
//!                                    sink ◄── eth0 far ◄══════════════════════════════════════════────┘
//! ```
//!
//! The sender, both ends of the veth and the XDP programs share CPU 0; what needs a process has CPU 1. Contestants
//! have wires of their own and are stopped (SIGSTOP) while another one runs.

pub mod child;
pub mod contestant;
pub mod programs;
pub mod rounds;
pub mod traffic;
