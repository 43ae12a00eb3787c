//! What a host says of a port or a protocol that nothing serves.

use super::checksum::Sum;
use super::transport::{Extent, ICMP, ICMPV6, TCP, UDP};
use super::unreachable::{Error, error, unreachable};
use super::{Packet, ethernet, icmp, ipv4, ipv6, parse, reset};
use crate::addr::{Addr, Mac};
use crate::key::FlowKey;

/// Turns the packet in `buffer[..len]` into the answer of a host whose port or protocol is closed: a
/// TCP reset (RFC 9293 §3.10.7.1), ICMP port unreachable (RFC 1122 §4.1.3.1, RFC 4443 §3.1), ICMP
/// protocol unreachable (RFC 1122 §3.2.2.1) or "unrecognized next header" (RFC 4443 §3.4).
///
/// As [`unreachable`](super::unreachable()); and never about a fragment, an ICMP message or a packet
/// whose checksum is wrong. A UDP datagram without a checksum is answered over IPv4 only, where it
/// may have none.
pub(crate) fn closed(buffer: &mut [u8], len: usize, own: Mac) -> Option<usize> {
    let frame = buffer.get(..len)?;
    match parse(frame) {
        Packet::Tcp(key, _) => {
            let (segment, _) = whole(frame)?;
            is_sound(&key, TCP, segment)?;
            reset(buffer, len, own)
        }
        Packet::Udp(key) => {
            let (datagram, is_v4) = whole(frame)?;
            let header = datagram.first_chunk::<8>()?;
            let len_field = usize::from(u16::from_be_bytes([header[4], header[5]]));
            match [header[6], header[7]] {
                [0, 0] if is_v4 => {}
                [0, 0] => return None,
                _ => is_sound(&key, UDP, datagram.get(..len_field)?)?,
            }
            unreachable(buffer, len, own)
        }
        Packet::Other { .. } => {
            let addresses = unknown_protocol(frame)?;
            error(buffer, len, own, addresses, &PROTOCOL)
        }
        Packet::FirstFragment(_)
        | Packet::Fragment(_)
        | Packet::IcmpError(_)
        | Packet::EchoRequest { .. }
        | Packet::WhoHas { .. }
        | Packet::OtherHost
        | Packet::Malformed => None,
    }
}

/// What is behind the IP headers of a packet that is no fragment, and whether it is IPv4.
fn whole(frame: &[u8]) -> Option<(&[u8], bool)> {
    let (ethertype, payload) = ethernet::payload(frame)?;
    let is_v4 = ethertype == ethernet::IPV4;
    let (upper, extent) = if is_v4 { ipv4::upper(payload)? } else { ipv6::upper(payload)? };
    (extent == Extent::Whole).then_some((upper, is_v4))
}

fn is_sound(key: &FlowKey, protocol: u8, message: &[u8]) -> Option<()> {
    (Sum::upper(key.src, key.dst, protocol, message).checksum() == [0, 0]).then_some(())
}

/// Source and destination of a whole packet whose protocol is neither balanced nor ICMP, and stands
/// in the IP header itself.
fn unknown_protocol(frame: &[u8]) -> Option<(Addr, Addr)> {
    let (ethertype, payload) = ethernet::payload(frame)?;
    match ethertype {
        ethernet::IPV4 => {
            let (_, extent) = ipv4::upper(payload)?;
            let header = payload.first_chunk::<{ ipv4::HEADER }>()?;
            let unknown = !matches!(header[9], ICMP | TCP | UDP) && extent == Extent::Whole;
            unknown.then(|| ipv4::addresses(header))
        }
        ethernet::IPV6 => {
            let header = payload.first_chunk::<{ ipv6::HEADER }>()?;
            let unknown =
                !matches!(header[6], ICMPV6 | TCP | UDP) && !ipv6::is_extension(header[6]);
            ipv6::addresses(header).filter(|_| unknown)
        }
        _ => None,
    }
}

const PROTOCOL: Error =
    Error { v4: icmp::PROTOCOL_UNREACHABLE, v6: icmp::UNKNOWN_NEXT_HEADER, pointer: NEXT_HEADER };
/// Where the IPv6 header names what follows it.
const NEXT_HEADER: u32 = 6;

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
