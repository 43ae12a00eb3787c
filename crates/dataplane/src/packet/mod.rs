//! What the packet path knows about a frame.

use crate::addr::Addr;
use crate::key::{FlowKey, Protocol};

/// A frame, classified. Views and rewrites are in the sibling modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// TCP with its whole header's fixed part in the frame.
    Tcp(FlowKey, TcpFields),
    /// UDP with its header in the frame.
    Udp(FlowKey),
    /// A fragment that does not carry the transport header.
    Fragment {
        /// The client's address.
        src: Addr,
        /// The VIP.
        dst: Addr,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// An ICMP or ICMPv6 error about a packet that a backend sent from the VIP; the key is that of
    /// the client's half of the flow (addresses and ports swapped back).
    IcmpError(FlowKey),
    /// ICMP or ICMPv6 echo request to `dst`.
    EchoRequest {
        /// Who is asked.
        dst: Addr,
    },
    /// ARP request or IPv6 neighbour solicitation for `target`.
    WhoHas {
        /// The address asked for.
        target: Addr,
    },
    /// Well-formed, but neither balanced nor answered.
    Other {
        /// The IP destination.
        dst: Addr,
    },
    /// A header is cut off or contradicts itself.
    Malformed,
}

/// What the flow table wants to know of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFields {
    /// Byte 13 of the TCP header: `CWR ECE URG ACK PSH RST SYN FIN` (RFC 9293 §3.1).
    pub flags: u8,
    /// Acknowledgment number; meaningful with the ACK flag.
    pub ack: u32,
}
