//! The 5-tuple and the service key.

use label::schemars::JsonSchema;
use label::serde::{Deserialize, Serialize};

use crate::addr::Addr;

/// A transport protocol that is balanced.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(crate = "label::serde", rename_all = "lowercase")]
#[schemars(crate = "label::schemars")]
#[repr(u8)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp = 6,
    /// UDP, IP protocol 17.
    Udp = 17,
}

impl Protocol {
    /// Lower-case name, as in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The 5-tuple of a client's packet: from the client to the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The client's address.
    pub src: Addr,
    /// The VIP.
    pub dst: Addr,
    /// The client's port, host order.
    pub src_port: u16,
    /// The VIP's port, host order.
    pub dst_port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// What the fragments of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// The client's address.
    pub src: Addr,
    /// The VIP.
    pub dst: Addr,
    /// The identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// What a service listens on. `first_port..=last_port` is `0..=65535` for "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The virtual address.
    pub vip: Addr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// First port, host order.
    pub first_port: u16,
    /// Last port, inclusive.
    pub last_port: u16,
}

impl ServiceKey {
    /// Whether a packet to this port of the VIP belongs to the service.
    pub const fn covers(&self, port: u16) -> bool {
        self.first_port <= port && port <= self.last_port
    }
}
