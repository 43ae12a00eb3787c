//! IPv4 (RFC 791): a client's packet, or the beginning of one that an ICMP error quotes.

use super::Packet;
use super::icmp::{self, Quote};
use super::transport::{self, Extent, ICMP, TCP, UDP};
use crate::addr::Addr;

#[inline]
pub(super) fn parse(bytes: &[u8]) -> Packet {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Packet::Malformed;
    };
    let options = options_len(header);
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // A total length below 20 wraps to one that no frame has.
    let Some(body) = rest.get(options..total.wrapping_sub(HEADER)) else {
        return Packet::Malformed;
    };
    if options > MAX_OPTIONS {
        return Packet::Malformed;
    }
    let (src, dst) = addresses(header);
    let extent = match fragment_bits(header) {
        0 => Extent::Whole,
        MORE_FRAGMENTS => Extent::FirstFragment,
        _ => return transport::later_fragment(src, dst, header[9]),
    };
    match header[9] {
        TCP => transport::tcp(src, dst, body, extent),
        UDP => transport::udp(src, dst, body, extent),
        ICMP => icmp::parse_v4(dst, body, extent),
        _ => Packet::Other { dst },
    }
}

/// The flow that a quoted packet belongs to. Routers cut the quote off, so neither its total length
/// nor its checksum is looked at.
pub(super) fn quoted(bytes: &[u8]) -> Quote {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Quote::Malformed;
    };
    let options = options_len(header);
    let Some(body) = rest.get(options..).filter(|_| options <= MAX_OPTIONS) else {
        return Quote::Malformed;
    };
    match fragment_bits(header) {
        0 | MORE_FRAGMENTS => {
            let (src, dst) = addresses(header);
            Quote::new(src, dst, header[9], body)
        }
        _ => Quote::NoFlow,
    }
}

/// Bytes between the fixed header and the body: more than [`MAX_OPTIONS`] when the version is not 4
/// or the header length (IHL) is below 5.
const fn options_len(header: &[u8; HEADER]) -> usize {
    (header[0].wrapping_sub(0x45) as usize) << 2
}

pub(super) const fn addresses(header: &[u8; HEADER]) -> (Addr, Addr) {
    (
        Addr::from_v4([header[12], header[13], header[14], header[15]]),
        Addr::from_v4([header[16], header[17], header[18], header[19]]),
    )
}

/// More-fragments and the offset: zero for a whole datagram.
const fn fragment_bits(header: &[u8; HEADER]) -> u16 {
    u16::from_be_bytes([header[6], header[7]]) & 0x3fff
}

/// The header without options.
pub(super) const HEADER: usize = 20;
/// An IHL of 15.
const MAX_OPTIONS: usize = 40;
const MORE_FRAGMENTS: u16 = 0x2000;
