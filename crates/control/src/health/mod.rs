//! Health of backends: what is checked, and what the results amount to.
//!
//! Pure: probes are made elsewhere, their outcomes and `now` are passed in.

mod check;
mod failure;

pub use check::{
    BodyPattern, Check, CheckKind, HttpCheck, ProbeTarget, StatusSet, TcpCheck, TlsCheck, UdpCheck,
};
pub use failure::Failure;

/// What is known of a backend, as the packet path has to take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Not checked, or every check passes.
    #[default]
    Up,
    /// It may be down: new connections go elsewhere if anybody else is there, its flows stay.
    Suspected,
    /// It is down.
    Down,
}
