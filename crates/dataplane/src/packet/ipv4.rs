//! IPv4 (RFC 791): a client's packet, or the beginning of one that an ICMP error quotes.

use super::Packet;
use super::icmp::{self, Quote};
use super::transport::{self, Extent, ICMP, TCP, UDP};
use crate::addr::Addr;

/// Whole TCP and UDP packets without options; `None` for what [`parse`] has to look at.
#[inline(always)]
pub(super) fn parse_common(bytes: &[u8]) -> Option<Packet> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // A total length below 20 wraps to one that no frame has.
    let body = rest.get(..total.wrapping_sub(HEADER))?;
    let (src, dst) = addresses(header);
    match header[9] {
        _ if is_fragment(header) || header[0] != 0x45 => None,
        TCP => Some(transport::tcp(src, dst, body, Extent::Whole)),
        UDP => Some(transport::udp(src, dst, body, Extent::Whole)),
        _ => None,
    }
}

/// Every IPv4 packet.
pub(super) fn parse(bytes: &[u8]) -> Packet {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Packet::Malformed;
    };
    let options = options_len(header);
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let Some(body) = rest.get(options..total.wrapping_sub(HEADER)) else {
        return Packet::Malformed;
    };
    if options > MAX_OPTIONS {
        return Packet::Malformed;
    }
    let (src, dst) = addresses(header);
    match header[9] {
        _ if is_fragment(header) => parse_fragment(header, body),
        TCP => transport::tcp(src, dst, body, Extent::Whole),
        UDP => transport::udp(src, dst, body, Extent::Whole),
        ICMP => icmp::parse_v4(dst, body, Extent::Whole),
        _ => Packet::Other { dst },
    }
}

fn parse_fragment(header: &[u8; HEADER], body: &[u8]) -> Packet {
    let (src, dst) = addresses(header);
    match header[9] {
        protocol if is_later_fragment(header) => transport::later_fragment(src, dst, protocol),
        TCP => transport::tcp(src, dst, body, Extent::FirstFragment),
        UDP => transport::udp(src, dst, body, Extent::FirstFragment),
        ICMP => icmp::parse_v4(dst, body, Extent::FirstFragment),
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
    if is_later_fragment(header) {
        return Quote::NoFlow;
    }
    let (src, dst) = addresses(header);
    Quote::new(src, dst, header[9], body)
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

/// More-fragments or an offset.
const fn is_fragment(header: &[u8; HEADER]) -> bool {
    fragment_field(header, 0x3fff)
}

const fn is_later_fragment(header: &[u8; HEADER]) -> bool {
    fragment_field(header, 0x1fff)
}

/// Masked in network order, which saves the packet path a swap.
const fn fragment_field(header: &[u8; HEADER], mask: u16) -> bool {
    u16::from_ne_bytes([header[6], header[7]]) & mask.to_be() != 0
}

/// The header without options.
pub(super) const HEADER: usize = 20;
/// An IHL of 15.
const MAX_OPTIONS: usize = 40;
