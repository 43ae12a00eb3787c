//! The balancer: threads, sockets, signals, metrics and the command line around the pure crates.
//!
//! | module | holds |
//! |---|---|
//! | [`worker`] | the hot path's frames part; worker threads |
//! | [`node`] | the control thread: carries out what `control::Controller` decides |
//! | [`fast_path`] | what the XDP program needs to forward known flows itself |
//! | [`vrrp`] | the VRRP thread: adverts, and the leases that make VIPs active |
//! | [`health`] | health checks: probes over sockets |
//! | [`netlink`], [`layers`] | links, addresses, neighbours; which device stands on which |
//! | [`explain`] | where a client would go, and why |
//! | [`listing`] | flows and templates, entry by entry |
//! | [`serve`] | HTTP and the control socket |
//! | [`metrics`] | the state as Prometheus text |
//! | [`configuration`] | the file, read for a start and a reload |
//! | [`cli`] | sub-commands |
//! | [`log`], [`panics`], [`signals`] | what must not end the daemon, or must end it in order |
//! | [`systemd`] | notifications to systemd |
//! | [`clock`], [`priority`], [`sys`] | the one clock; who goes first; system calls without a safe wrapper |

pub mod cli;
pub mod clock;
pub mod configuration;
pub mod explain;
pub mod fast_path;
pub mod health;
pub mod layers;
pub mod listing;
pub mod log;
pub mod metrics;
pub mod netlink;
pub mod node;
pub mod panics;
pub mod priority;
mod process;
pub mod serve;
pub mod signals;
pub mod sys;
pub mod systemd;
pub mod vrrp;
pub mod worker;
