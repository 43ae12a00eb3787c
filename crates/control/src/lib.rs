//! The control plane without its sockets: events in, commands out.
//!
//! Pure: no clock, socket, file or thread; `now` is passed in.
#![forbid(unsafe_code)]

mod desired;
pub mod vrrp;

pub use desired::{
    Backend, Dataplane, Desired, Interface, Persistence, Poll, Service, XdpMode, ZeroCopy,
};
