//! ICMP port unreachable on behalf of a service that nobody serves.

use super::answer::{address, asker};
use super::checksum::Sum;
use super::transport::{ICMP, ICMPV6};
use super::{Packet, ethernet, icmp, ipv4, ipv6, parse};
use crate::addr::{Addr, Mac};
use crate::key::FlowKey;

/// Turns the datagram in `buffer[..len]` into the error that says that its port is closed, from
/// `own` to where it came from: RFC 792 with the IP header and eight bytes more, RFC 4443 §3.1 with
/// as much as fits the least MTU. VLAN tags stay.
///
/// `buffer` is the whole room there is for the frame: the error is at most
/// [`ANSWER_GROWTH`](super::ANSWER_GROWTH) bytes longer. Returns how many bytes of `buffer` it
/// takes, or `None`, and then nothing was changed: when there is no room, for a damaged IPv4
/// header, and where a group address asks or is asked (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
pub fn unreachable(buffer: &mut [u8], len: usize, own: Mac) -> Option<usize> {
    let frame = buffer.get(..len)?;
    let Packet::Udp(key) = parse(frame) else { return None };
    let to = asker(frame, key.src, key.dst)?;
    let (ethertype, payload) = ethernet::payload(frame)?;
    let quote = match ethertype {
        ethernet::IPV4 => ipv4::header_len(payload)?.checked_add(ipv4::QUOTED)?,
        _ => ipv6::packet_len(payload)?.min(MAX_QUOTE),
    };
    let link_len = len.checked_sub(payload.len())?;
    let (link, room) = buffer.split_at_mut_checked(link_len)?;
    let written = match ethertype {
        ethernet::IPV4 => write_unreachable_v4(room, quote, &key)?,
        _ => write_unreachable_v6(room, quote, &key)?,
    };
    address(link, to, own)?;
    link_len.checked_add(written)
}

fn write_unreachable_v4(room: &mut [u8], quote: usize, key: &FlowKey) -> Option<usize> {
    let message_len = icmp::HEADER.checked_add(quote)?;
    let packet = make_way::<{ ipv4::HEADER }>(room, quote)?;
    let (header, message) = packet.split_first_chunk_mut::<{ ipv4::HEADER }>()?;
    ipv4::write_header(header, key.dst, key.src, ICMP, message_len)?;
    begin(message, icmp::PORT_UNREACHABLE)?;
    finish(message, Sum::default().add(message).checksum())?;
    ipv4::HEADER.checked_add(message_len)
}

fn write_unreachable_v6(room: &mut [u8], quote: usize, key: &FlowKey) -> Option<usize> {
    let message_len = icmp::HEADER.checked_add(quote)?;
    let packet = make_way::<{ ipv6::HEADER }>(room, quote)?;
    let (header, message) = packet.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    let (src, dst): (Addr, Addr) = (key.dst, key.src);
    ipv6::write_header(header, src, dst, ICMPV6, message_len)?;
    begin(message, icmp::PORT_UNREACHABLE_V6)?;
    finish(message, Sum::upper(src, dst, ICMPV6, message).checksum())?;
    ipv6::HEADER.checked_add(message_len)
}

/// Moves the first `quote` bytes behind an IP header of `HEADER` bytes and that of the error;
/// returns all three.
fn make_way<const HEADER: usize>(room: &mut [u8], quote: usize) -> Option<&mut [u8]> {
    let at = HEADER.checked_add(icmp::HEADER)?;
    let packet = room.get_mut(..at.checked_add(quote)?)?;
    packet.copy_within(..quote, at);
    Some(packet)
}

/// Type and code; the rest of the error's header is zero.
fn begin(message: &mut [u8], [kind, code]: [u8; 2]) -> Option<()> {
    *message.first_chunk_mut::<{ icmp::HEADER }>()? = [kind, code, 0, 0, 0, 0, 0, 0];
    Some(())
}

fn finish(message: &mut [u8], checksum: [u8; 2]) -> Option<()> {
    let header = message.first_chunk_mut::<{ icmp::HEADER }>()?;
    [header[2], header[3]] = checksum;
    Some(())
}

/// What is left of the least MTU of IPv6 (RFC 8200 §5).
const MAX_QUOTE: usize = 1280 - ipv6::HEADER - icmp::HEADER;

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
