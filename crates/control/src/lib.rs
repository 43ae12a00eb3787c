//! The control plane without its sockets: events in, commands out.
//!
//! Pure: no clock, socket, file or thread; `now` is passed in.
#![forbid(unsafe_code)]

mod controller;
mod desired;
pub mod health;
mod neighbour;
pub mod nic;
pub mod operator;
mod port;
mod rates;
pub mod readiness;
mod registry;
pub mod reload;
mod repeats;
mod resolution;
mod reuse;
pub mod vrrp;
mod watchdog;

pub use controller::{
    BackendChange, BackendState, BackendStatus, Command, Controller, Event, Owner, Report,
    STANDALONE, ServiceChange, ServiceStatus, Takers,
};
pub use desired::{
    Backend, ClosedPorts, Damping, Dataplane, Desired, FailurePolicy, FastPath, Interface,
    MinHealthy, Notify, OnAllDown, OnDown, Persistence, Poll, Service, TaggedFrames, Track,
    TrackTarget, Vrrp, XdpMode, ZeroCopy,
};
pub use neighbour::{Neighbour, Unusable};
pub use port::{Link, Network, Port, silent_ports};
pub use rates::Meter;
pub use registry::Registry;
pub use repeats::Repeats;
pub use reuse::Reuse;
pub use watchdog::{DEAD_AFTER, Feed, Watchdog};
