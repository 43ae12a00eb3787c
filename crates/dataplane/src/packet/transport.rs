//! TCP and UDP: ports, flags and the sanity that keeps nonsense out of the flow table.

use super::{Packet, TcpFields};
use crate::addr::Addr;
use crate::key::{FlowKey, FragmentKey, Protocol};

/// How much of a datagram the packet at hand carries. A later fragment has no transport header
/// and never gets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    FirstFragment,
}

/// RFC 9293 §3.1. Of a whole segment the options must be there too.
#[inline(always)]
pub(super) fn tcp(src: Addr, dst: Addr, segment: &[u8], extent: Extent) -> Packet {
    let Some(header) = segment.first_chunk::<TCP_HEADER>() else {
        return Packet::Malformed;
    };
    let header_len = usize::from(header[12] >> 4) << 2;
    if header_len < header.len() || (extent == Extent::Whole && header_len > segment.len()) {
        return Packet::Malformed;
    }
    let key = FlowKey {
        src,
        dst,
        src_port: u16::from_be_bytes([header[0], header[1]]),
        dst_port: u16::from_be_bytes([header[2], header[3]]),
        protocol: Protocol::Tcp,
    };
    let ack = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let next = advance(seq, segment.len().saturating_sub(header_len));
    Packet::Tcp(key, TcpFields { flags: header[13], ack, next })
}

/// The sequence number so many bytes further on.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
const fn advance(seq: u32, bytes: usize) -> u32 {
    seq.wrapping_add(bytes as u32)
}

/// RFC 768. The length field may be smaller than the packet, as every stack accepts it; zero
/// (RFC 2675 jumbograms) is not: such a datagram does not fit a frame.
#[inline(always)]
pub(super) fn udp(src: Addr, dst: Addr, datagram: &[u8], extent: Extent) -> Packet {
    let Some(header) = datagram.first_chunk::<8>() else {
        return Packet::Malformed;
    };
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if len < header.len() || (extent == Extent::Whole && len > datagram.len()) {
        return Packet::Malformed;
    }
    Packet::Udp(FlowKey {
        src,
        dst,
        src_port: u16::from_be_bytes([header[0], header[1]]),
        dst_port: u16::from_be_bytes([header[2], header[3]]),
        protocol: Protocol::Udp,
    })
}

/// The first of several fragments, of which the transport header is parsed already.
pub(super) const fn first_fragment(packet: Packet) -> Packet {
    if let Packet::Tcp(key, _) | Packet::Udp(key) = packet {
        Packet::FirstFragment(key)
    } else {
        packet
    }
}

/// A fragment with a non-zero offset.
pub(super) fn later_fragment((src, dst): (Addr, Addr), id: u32, protocol: u8) -> Packet {
    match balanced(protocol) {
        Some(protocol) => Packet::Fragment(FragmentKey { src, dst, id, protocol }),
        None => Packet::Other { dst },
    }
}

/// The TCP header without options.
pub(super) const TCP_HEADER: usize = 20;

/// The protocol of an IP protocol number, if it is one that is balanced.
pub(super) const fn balanced(protocol: u8) -> Option<Protocol> {
    match protocol {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// IP protocol numbers.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
