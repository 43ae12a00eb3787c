//! IPv4 (RFC 791): a client's packet, or the beginning of one that an ICMP error quotes.

use super::answer::TTL;
use super::checksum::Sum;
use super::icmp::{self, Quote};
use super::transport::{self, Extent, ICMP, TCP, UDP};
use super::{Packet, TcpFields, ethernet};
use crate::addr::Addr;
use crate::key::{FlowKey, Protocol};

/// The most common frame: a whole TCP packet in IPv4 without options, without VLAN tags. `None` for
/// everything else, damaged packets among it.
///
/// [`TcpFields::next`] is left out: established flows do not need it.
///
/// All headers at once: one check of the frame's length, two words that tell the kind.
#[inline(always)]
pub(crate) fn plain_tcp(frame: &[u8]) -> Option<(FlowKey, TcpFields)> {
    let h = frame.first_chunk::<PLAIN_HEADERS>()?;
    // EtherType, version and IHL; then more-fragments, offset and protocol: no bit is another one.
    let kind = (word_at(h, 12) ^ PLAIN) & 0xffff_ff00;
    let part = (word_at(h, 20) ^ u32::from(TCP)) & 0x3fff_00ff;
    let total = usize::from(u16::from_be_bytes([h[16], h[17]]));
    let tcp_header = usize::from(h[46] >> 4) << 2;
    let is_plain = kind | part == 0;
    let is_sound = tcp_header >= transport::TCP_HEADER
        && tcp_header.wrapping_add(HEADER) <= total
        && total.wrapping_add(ethernet::HEADER) <= frame.len();
    if !is_plain || !is_sound {
        return None;
    }
    let [src_port, dst_port] = halves(word_at(h, 34));
    let key = FlowKey {
        src: Addr::from_v4([h[26], h[27], h[28], h[29]]),
        dst: Addr::from_v4([h[30], h[31], h[32], h[33]]),
        src_port,
        dst_port,
        protocol: Protocol::Tcp,
    };
    Some((key, TcpFields { flags: h[47], ack: word_at(h, 42), next: 0 }))
}

/// Four bytes in one load; `at` lies in the headers.
#[inline(always)]
fn word_at(headers: &[u8; PLAIN_HEADERS], at: usize) -> u32 {
    headers.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_be_bytes(*word))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn halves(word: u32) -> [u16; 2] {
    [(word >> 16) as u16, word as u16]
}

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
        protocol if is_later_fragment(header) => {
            transport::later_fragment((src, dst), identification(header), protocol)
        }
        ICMP => icmp::parse_v4(dst, body, Extent::FirstFragment),
        _ => transport::first_fragment(parse_first(header, body)),
    }
}

/// The beginning of a datagram, as if all of it were there.
fn parse_first(header: &[u8; HEADER], body: &[u8]) -> Packet {
    let (src, dst) = addresses(header);
    match header[9] {
        TCP => transport::tcp(src, dst, body, Extent::FirstFragment),
        UDP => transport::udp(src, dst, body, Extent::FirstFragment),
        _ => Packet::Other { dst },
    }
}

/// The identification of a first fragment that [`parse`] took, and the packet as if it were whole.
pub(super) fn first_fragment(bytes: &[u8]) -> Option<(u32, Packet)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let body = rest.get(options_len(header)..total.wrapping_sub(HEADER))?;
    Some((identification(header), parse_first(header, body)))
}

fn identification(header: &[u8; HEADER]) -> u32 {
    u16::from_be_bytes([header[4], header[5]]).into()
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

/// What is behind the header of a packet that [`parse`] took; `None` if the header is damaged: an
/// answer has a checksum of its own, which must not launder a wrong one.
pub(super) fn upper(bytes: &[u8]) -> Option<(&[u8], Extent)> {
    let header_len = header_len(bytes)?;
    let header = bytes.first_chunk::<HEADER>()?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let extent = if is_fragment(header) { Extent::FirstFragment } else { Extent::Whole };
    Some((bytes.get(header_len..total)?, extent))
}

/// The length of the header with its options; `None` if it is damaged.
pub(super) fn header_len(bytes: &[u8]) -> Option<usize> {
    let header_len = usize::from(bytes.first()? & 0xf) << 2;
    let header = bytes.get(..header_len)?;
    (Sum::default().add(header).checksum() == [0, 0]).then_some(header_len)
}

/// Writes the header of a packet that starts here with `body_len` bytes behind it, not to be
/// fragmented, so that it needs no identification (RFC 6864 §4.1).
pub(super) fn write_header(
    header: &mut [u8; HEADER],
    src: Addr,
    dst: Addr,
    protocol: u8,
    body_len: usize,
) -> Option<()> {
    let [high, low] = u16::try_from(HEADER.checked_add(body_len)?).ok()?.to_be_bytes();
    let ([.., a, b, c, d], [.., e, f, g, h]) = (src.octets(), dst.octets());
    *header =
        [0x45, 0, high, low, 0, 0, DONT_FRAGMENT, 0, TTL, protocol, 0, 0, a, b, c, d, e, f, g, h];
    [header[10], header[11]] = Sum::default().add(header).checksum();
    Some(())
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
pub(super) const fn is_fragment(header: &[u8; HEADER]) -> bool {
    fragment_field(header, 0x3fff)
}

const fn is_later_fragment(header: &[u8; HEADER]) -> bool {
    fragment_field(header, 0x1fff)
}

/// Masked in network order, which saves the packet path a swap.
const fn fragment_field(header: &[u8; HEADER], mask: u16) -> bool {
    u16::from_ne_bytes([header[6], header[7]]) & mask.to_be() != 0
}

/// The headers of [`plain_tcp`].
const PLAIN_HEADERS: usize = ethernet::HEADER + HEADER + transport::TCP_HEADER;
/// IPv4 as EtherType, version 4 and an IHL of 5.
const PLAIN: u32 = (ethernet::IPV4 as u32) << 16 | 0x4500;

/// The header without options.
pub(super) const HEADER: usize = 20;
/// What an ICMP error quotes behind the header (RFC 792).
pub(super) const QUOTED: usize = 8;
/// In the upper half of the fragment field.
const DONT_FRAGMENT: u8 = 0x40;
/// An IHL of 15.
const MAX_OPTIONS: usize = 40;
