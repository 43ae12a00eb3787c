//! Idle timeouts by connection state.

use std::time::Duration;

/// Idle timeouts by connection state. The defaults are those of ip_vs (`ip_vs_proto_tcp.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// SYN seen, no ACK yet.
    pub half_open: Duration,
    /// The client acknowledged the handshake.
    pub established: Duration,
    /// The client sent FIN.
    pub closing: Duration,
    /// The client sent RST.
    pub reset: Duration,
    /// UDP has no states.
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            half_open: Duration::from_secs(60),
            established: Duration::from_secs(900),
            closing: Duration::from_secs(120),
            reset: Duration::from_secs(10),
            udp: Duration::from_secs(300),
        }
    }
}
