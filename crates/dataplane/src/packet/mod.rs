//! What the packet path knows about a frame, and the three things it may do to one: read it
//! ([`parse`]), point it at a backend ([`rewrite_macs`]), turn it into an answer ([`answer()`],
//! [`reset()`], [`unreachable()`]). And it may finish what a sender on the same host left to a card
//! ([`finish_checksum`]).
//!
//! No bytes can cause a panic: headers are read through `&[u8; N]`, whose type proves the bounds,
//! and the lints below refuse everything else. Lengths come from the IP header, never from the
//! frame, so padding is not mistaken for payload. Checksums are not verified where the frame is
//! only passed on: the backend does that, on the same bytes.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod answer;
mod checksum;
mod closed;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod neighbour;
mod reset;
mod rewrite;
mod transport;
mod unfinished;
mod unreachable;

pub use answer::answer;
pub(crate) use answer::is_answerable;
pub(crate) use closed::closed;
pub(crate) use ipv4::plain_tcp;
pub use reset::{RESET_LEN, reset, write_reset};
pub use rewrite::{EthernetSource, ethernet_source, rewrite_macs, source_mac};
pub(crate) use rewrite::{is_sent_to, is_sent_to_group};
pub use unfinished::finish_checksum;
pub use unreachable::unreachable;

use crate::addr::Addr;
use crate::key::{FlowKey, FragmentKey};

/// A frame, classified. Views and rewrites are in the sibling modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// TCP with its whole header's fixed part in the frame.
    Tcp(FlowKey, TcpFields),
    /// UDP with its header in the frame.
    Udp(FlowKey),
    /// The first of several fragments of TCP or UDP, with the transport header's fixed part.
    FirstFragment(FlowKey),
    /// A fragment that does not carry the transport header.
    Fragment(FragmentKey),
    /// An ICMP or ICMPv6 error about a packet that a backend sent from the VIP; the key is that of
    /// the client's half of the flow (addresses and ports swapped back), and its `dst` is the
    /// destination of the error itself.
    IcmpError(FlowKey),
    /// ICMP or ICMPv6 echo request to `dst`, unfragmented.
    EchoRequest {
        /// The address that is pinged.
        dst: Addr,
    },
    /// ARP request or IPv6 neighbour solicitation for `target`.
    WhoHas {
        /// The address asked for.
        target: Addr,
    },
    /// Well-formed, but neither balanced nor answered.
    Other {
        /// The IP destination; of ARP the target; `::` where there is neither.
        dst: Addr,
    },
    /// Sent to the MAC of another host. Not found by [`parse`], which does not know ours.
    OtherHost,
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
    /// Sequence number of the byte behind the payload: where the sender's stream goes on.
    pub next: u32,
}

impl TcpFields {
    /// Whether this asks for a new connection: SYN without ACK or RST.
    #[inline]
    pub const fn opens(self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN
    }

    /// Whether this is a reset.
    #[inline]
    pub const fn resets(self) -> bool {
        self.flags & RST != 0
    }

    /// Whether it acknowledges anything, as all segments of a connection but its first do.
    #[inline]
    pub const fn acknowledges(self) -> bool {
        self.flags & ACK != 0
    }

    /// Whether the client sends nothing more after this: FIN or RST.
    #[inline]
    pub const fn ends(self) -> bool {
        self.flags & (FIN | RST) != 0
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Classifies an Ethernet frame with up to two VLAN tags (IEEE 802.1Q, 802.1ad).
///
/// Reads nothing behind the frame, allocates nothing and never panics. IPv4 options, IPv6
/// hop-by-hop, routing, destination-option and fragment headers are walked over (at most
/// [`MAX_EXTENSIONS`]); no checksum is verified but that of a neighbour solicitation.
#[inline]
pub fn parse(frame: &[u8]) -> Packet {
    let mut packet = Packet::Malformed;
    parse_into(frame, &mut packet);
    packet
}

/// [`parse`] to where the packet shall stay.
///
/// A [`Packet`] that is moved right after it was made costs more than its making: the copy's wide
/// loads have to wait for the narrow stores before them. A burst's packets are written once, into
/// their array, and read there.
#[inline]
pub fn parse_into(frame: &[u8], packet: &mut Packet) {
    parse_others_into(frame, packet);
}

/// Of a [`Packet::FirstFragment`]: what the datagram's other fragments can be known by, and the
/// packet as it would be if it were whole.
#[cold]
pub(crate) fn first_fragment(frame: &[u8]) -> Option<(FragmentKey, Packet)> {
    let (ethertype, payload) = ethernet::payload(frame)?;
    let (id, packet) = match ethertype {
        ethernet::IPV4 => ipv4::first_fragment(payload)?,
        ethernet::IPV6 => ipv6::first_fragment(payload)?,
        _ => return None,
    };
    let (Packet::Tcp(key, _) | Packet::Udp(key)) = packet else { return None };
    let FlowKey { src, dst, protocol, .. } = key;
    Some((FragmentKey { src, dst, id, protocol }, packet))
}

/// [`parse`], and a first fragment as if the packet were whole.
fn parse_opening(frame: &[u8]) -> Packet {
    let packet = parse(frame);
    if let Packet::FirstFragment(_) = packet {
        first_fragment(frame).map_or(Packet::Malformed, |(_, whole)| whole)
    } else {
        packet
    }
}

/// [`TcpFields::next`] of a frame that is TCP; 0 of any other.
pub(crate) fn next_sequence(frame: &[u8]) -> u32 {
    if let Packet::Tcp(_, tcp) = parse(frame) { tcp.next } else { 0 }
}

/// [`parse_into`] for what is not [`plain_tcp`].
#[inline(never)]
pub(crate) fn parse_others_into(frame: &[u8], packet: &mut Packet) {
    let common = ethernet::payload(frame).and_then(|(ethertype, payload)| match ethertype {
        ethernet::IPV4 => ipv4::parse_common(payload),
        ethernet::IPV6 => ipv6::parse_common(payload),
        _ => None,
    });
    match common {
        Some(common) => *packet = common,
        None => *packet = parse_any(frame),
    }
}

/// Every kind of frame.
#[cold]
#[inline(never)]
fn parse_any(frame: &[u8]) -> Packet {
    let Some((ethertype, payload)) = ethernet::payload(frame) else {
        return Packet::Malformed;
    };
    match ethertype {
        ethernet::IPV4 => ipv4::parse(payload),
        ethernet::IPV6 => ipv6::parse(payload),
        ethernet::ARP => neighbour::parse_arp(payload),
        _ => Packet::Other { dst: Addr::default() },
    }
}

/// How many bytes an answer may be longer than its question: the headers of an ICMPv6 error.
pub const ANSWER_GROWTH: usize = ipv6::HEADER + icmp::HEADER;

/// IPv6 extension headers that are walked over before a packet is given up as [`Packet::Other`].
pub const MAX_EXTENSIONS: usize = 8;

#[cfg(test)]
#[allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may panic"
)]
mod samples;

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]
mod tests;
