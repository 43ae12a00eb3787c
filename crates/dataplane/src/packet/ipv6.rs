//! IPv6 (RFC 8200) and its extension headers.

use super::answer::TTL;
use super::icmp::{self, Quote};
use super::transport::{self, Extent, ICMPV6, TCP, UDP};
use super::{MAX_EXTENSIONS, Packet};
use crate::addr::Addr;

/// TCP and UDP without extension headers; `None` for what [`parse`] has to look at.
#[inline(always)]
pub(super) fn parse_common(bytes: &[u8]) -> Option<Packet> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (body, (src, dst)) = (rest.get(..len)?, addresses(header)?);
    match header[6] {
        _ if header[0] >> 4 != 6 => None,
        TCP => Some(transport::tcp(src, dst, body, Extent::Whole)),
        UDP => Some(transport::udp(src, dst, body, Extent::Whole)),
        _ => None,
    }
}

/// Every IPv6 packet.
pub(super) fn parse(bytes: &[u8]) -> Packet {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Packet::Malformed;
    };
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (Some(body), Some((src, dst))) = (rest.get(..len), addresses(header)) else {
        return Packet::Malformed;
    };
    match header[6] {
        _ if header[0] >> 4 != 6 => Packet::Malformed,
        TCP => transport::tcp(src, dst, body, Extent::Whole),
        UDP => transport::udp(src, dst, body, Extent::Whole),
        ICMPV6 => icmp::parse_v6(src, dst, header[7], body),
        next => parse_extended(src, dst, next, body),
    }
}

/// A packet with extension headers. Echo requests and neighbour solicitations with such are not
/// answered (fragmented solicitations must not be, RFC 6980 §5).
fn parse_extended(src: Addr, dst: Addr, next: u8, body: &[u8]) -> Packet {
    match walk(next, body) {
        Walk::Upper { protocol: ICMPV6, body, .. } => icmp::parse_v6_error(dst, body),
        Walk::Upper { protocol, body, extent } => {
            let packet = parse_first((src, dst), protocol, body, extent);
            match extent {
                Extent::Whole => packet,
                Extent::FirstFragment => transport::first_fragment(packet),
            }
        }
        Walk::LaterFragment { id, protocol } => transport::later_fragment((src, dst), id, protocol),
        Walk::Unwalkable => Packet::Other { dst },
        Walk::Malformed => Packet::Malformed,
    }
}

/// The beginning of a packet, as if all of it were there.
fn parse_first((src, dst): (Addr, Addr), protocol: u8, body: &[u8], extent: Extent) -> Packet {
    match protocol {
        TCP => transport::tcp(src, dst, body, extent),
        UDP => transport::udp(src, dst, body, extent),
        _ => Packet::Other { dst },
    }
}

/// The identification of a first fragment that [`parse`] took, and the packet as if it were whole.
pub(super) fn first_fragment(bytes: &[u8]) -> Option<(u32, Packet)> {
    let header = bytes.first_chunk::<HEADER>()?;
    let body = bytes.get(HEADER..packet_len(bytes)?)?;
    let id = identification(header[6], body)?;
    let Walk::Upper { protocol, body, extent } = walk(header[6], body) else { return None };
    Some((id, parse_first(addresses(header)?, protocol, body, extent)))
}

/// The identification in the fragment header, if there is one among the extension headers.
fn identification(mut next: u8, mut body: &[u8]) -> Option<u32> {
    for _ in 0..=MAX_EXTENSIONS {
        let (header, behind) = body.split_first_chunk::<8>()?;
        match next {
            FRAGMENT => {
                return Some(u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            _ => return None,
        }
        next = header[0];
        body = behind.get(usize::from(header[1]) << 3..)?;
    }
    None
}

/// The flow that a quoted packet belongs to; as in IPv4 the quote may be cut off.
pub(super) fn quoted(bytes: &[u8]) -> Quote {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Quote::Malformed;
    };
    let Some((src, dst)) = addresses(header).filter(|_| header[0] >> 4 == 6) else {
        return Quote::Malformed;
    };
    match walk(header[6], rest) {
        Walk::Upper { protocol, body, .. } => Quote::new(src, dst, protocol, body),
        Walk::LaterFragment { .. } | Walk::Unwalkable => Quote::NoFlow,
        Walk::Malformed => Quote::Malformed,
    }
}

/// What is behind the headers of a packet that [`parse`] took.
pub(super) fn upper(bytes: &[u8]) -> Option<(&[u8], Extent)> {
    upper_protocol(bytes).map(|(_, body, extent)| (body, extent))
}

/// The same with its protocol number.
pub(super) fn upper_protocol(bytes: &[u8]) -> Option<(u8, &[u8], Extent)> {
    let header = bytes.first_chunk::<HEADER>()?;
    match walk(header[6], bytes.get(HEADER..packet_len(bytes)?)?) {
        Walk::Upper { protocol, body, extent } => Some((protocol, body, extent)),
        Walk::LaterFragment { .. } | Walk::Unwalkable | Walk::Malformed => None,
    }
}

/// The length of the packet with its header.
pub(super) fn packet_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    HEADER.checked_add(u16::from_be_bytes([header[4], header[5]]).into())
}

/// Writes the header of a packet that starts here with `body_len` bytes behind it.
pub(super) fn write_header(
    header: &mut [u8; HEADER],
    src: Addr,
    dst: Addr,
    next: u8,
    body_len: usize,
) -> Option<()> {
    let [high, low] = u16::try_from(body_len).ok()?.to_be_bytes();
    *header.first_chunk_mut()? = [0x60, 0, 0, 0, high, low, next, TTL];
    set_addresses(header, src, dst);
    Some(())
}

/// What is found behind the extension headers.
enum Walk<'a> {
    Upper {
        protocol: u8,
        body: &'a [u8],
        extent: Extent,
    },
    LaterFragment {
        id: u32,
        protocol: u8,
    },
    /// Too many headers, or a routing header that has not reached its end: the transport header
    /// is not there, or not meant for this address.
    Unwalkable,
    Malformed,
}

fn walk(mut next: u8, mut body: &[u8]) -> Walk<'_> {
    let mut extent = Extent::Whole;
    for position in 0..=MAX_EXTENSIONS {
        // RFC 8200 §4.1: hop-by-hop options only at the beginning.
        let known = matches!(next, ROUTING | FRAGMENT | DESTINATION_OPTIONS)
            || (next == HOP_BY_HOP && position == 0);
        if !known {
            return Walk::Upper { protocol: next, body, extent };
        }
        let Some((header, behind)) = body.split_first_chunk::<8>() else {
            return Walk::Malformed;
        };
        let mut skipped = usize::from(header[1]) << 3;
        match next {
            FRAGMENT => {
                let bits = u16::from_be_bytes([header[2], header[3]]);
                if bits & FRAGMENT_OFFSET != 0 {
                    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    return Walk::LaterFragment { id, protocol: header[0] };
                }
                // Neither offset nor successor: an atomic fragment is a whole packet (RFC 6946).
                if bits & MORE_FRAGMENTS != 0 {
                    extent = Extent::FirstFragment;
                }
                skipped = 0;
            }
            ROUTING if header[3] != 0 => return Walk::Unwalkable,
            _ => {}
        }
        let Some(rest) = behind.get(skipped..) else {
            return Walk::Malformed;
        };
        next = header[0];
        body = rest;
    }
    Walk::Unwalkable
}

/// Whether this next header is one of IPv6 itself, or none (RFC 8200 §4, §4.7).
pub(super) const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS | NO_NEXT_HEADER)
}

/// Source and destination; always `Some`, as the types say so only in steps.
#[inline(always)]
pub(super) fn addresses(header: &[u8; HEADER]) -> Option<(Addr, Addr)> {
    let (_, addresses) = header.split_first_chunk::<8>()?;
    let (src, dst) = addresses.split_first_chunk::<16>()?;
    Some((Addr::from_v6(*src), Addr::from_v6(*dst.first_chunk()?)))
}

/// Writes source and destination.
pub(super) fn set_addresses(header: &mut [u8; HEADER], src: Addr, dst: Addr) {
    let octets = src.octets().into_iter().chain(dst.octets());
    for (byte, octet) in header.iter_mut().skip(8).zip(octets) {
        *byte = octet;
    }
}

/// The fixed header.
pub(super) const HEADER: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT_OFFSET: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 1;
