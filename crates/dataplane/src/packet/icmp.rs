//! ICMP (RFC 792) and ICMPv6 (RFC 4443): errors that must reach the backend they are about, echo
//! requests, and neighbour solicitations.
//!
//! Redirects and source quench (RFC 6633) are not passed on: no backend should obey them.

use super::transport::{Extent, balanced};
use super::{Packet, ipv4, ipv6, neighbour};
use crate::addr::Addr;
use crate::key::FlowKey;

/// What the packet quoted in an error says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quote {
    /// The client's half of the flow.
    Flow(FlowKey),
    /// A later fragment, or a protocol that is not balanced.
    NoFlow,
    Malformed,
}

impl Quote {
    /// From the addresses of the quoted packet (which a backend sent to the client) and its
    /// transport header, of which eight bytes must be there (RFC 792).
    pub(super) fn new(src: Addr, dst: Addr, protocol: u8, transport: &[u8]) -> Self {
        let Some(protocol) = balanced(protocol) else {
            return Self::NoFlow;
        };
        let Some(header) = transport.first_chunk::<8>() else {
            return Self::Malformed;
        };
        Self::Flow(FlowKey {
            src: dst,
            dst: src,
            src_port: u16::from_be_bytes([header[2], header[3]]),
            dst_port: u16::from_be_bytes([header[0], header[1]]),
            protocol,
        })
    }

    /// An error goes to the source of the packet that it quotes; one that does not is forged.
    fn sent_to(self, dst: Addr) -> Packet {
        match self {
            Self::Flow(key) if key.dst == dst => Packet::IcmpError(key),
            Self::NoFlow => Packet::Other { dst },
            Self::Flow(_) | Self::Malformed => Packet::Malformed,
        }
    }
}

/// An ICMP message.
pub(super) fn parse_v4(dst: Addr, message: &[u8], extent: Extent) -> Packet {
    let Some((header, quote)) = message.split_first_chunk::<HEADER>() else {
        return Packet::Malformed;
    };
    match [header[0], header[1]] {
        [UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, _] => ipv4::quoted(quote).sent_to(dst),
        ECHO_REQUEST if extent == Extent::Whole => Packet::EchoRequest { dst },
        _ => Packet::Other { dst },
    }
}

/// An ICMPv6 message directly behind the IPv6 header.
pub(super) fn parse_v6(src: Addr, dst: Addr, hop_limit: u8, message: &[u8]) -> Packet {
    let Some(header) = message.first_chunk::<HEADER>() else {
        return Packet::Malformed;
    };
    match [header[0], header[1]] {
        ECHO_REQUEST_V6 => Packet::EchoRequest { dst },
        [neighbour::SOLICITATION, _] => {
            match neighbour::Solicitation::parse(src, dst, hop_limit, message) {
                Some(solicitation) => Packet::WhoHas { target: solicitation.target },
                None => Packet::Malformed,
            }
        }
        _ => parse_v6_error(dst, message),
    }
}

/// Of ICMPv6 only the errors: unreachable, too big, time exceeded, parameter problem.
pub(super) fn parse_v6_error(dst: Addr, message: &[u8]) -> Packet {
    let Some((header, quote)) = message.split_first_chunk::<HEADER>() else {
        return Packet::Malformed;
    };
    match header[0] {
        1..=4 => ipv6::quoted(quote).sent_to(dst),
        _ => Packet::Other { dst },
    }
}

/// Type, code, checksum and four bytes that depend on the type.
pub(super) const HEADER: usize = 8;

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Type and code of echo messages.
pub(super) const ECHO_REQUEST: [u8; 2] = [8, 0];
pub(super) const ECHO_REPLY: [u8; 2] = [0, 0];
pub(super) const ECHO_REQUEST_V6: [u8; 2] = [128, 0];
pub(super) const ECHO_REPLY_V6: [u8; 2] = [129, 0];

/// Type and code of a protocol that is not served: RFC 792, and RFC 4443 §3.4 (the next header).
pub(super) const PROTOCOL_UNREACHABLE: [u8; 2] = [UNREACHABLE, 2];
pub(super) const UNKNOWN_NEXT_HEADER: [u8; 2] = [4, 1];

/// Type and code of a closed port.
pub(super) const PORT_UNREACHABLE: [u8; 2] = [UNREACHABLE, 3];
pub(super) const PORT_UNREACHABLE_V6: [u8; 2] = [1, 4];
