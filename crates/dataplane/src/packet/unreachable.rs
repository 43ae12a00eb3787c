//! ICMP errors about packets to a VIP that nothing serves: port unreachable, and the frame around
//! every other one.

use super::answer::{address, asker};
use super::checksum::Sum;
use super::transport::{ICMP, ICMPV6};
use super::{Packet, ethernet, icmp, ipv4, ipv6, parse_opening};
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
    let Packet::Udp(FlowKey { src, dst, .. }) = parse_opening(buffer.get(..len)?) else {
        return None;
    };
    error(buffer, len, own, (src, dst), &PORT)
}

/// An ICMP error about a whole packet.
pub(super) struct Error {
    /// Type and code over IPv4.
    pub(super) v4: [u8; 2],
    /// Type and code over IPv6.
    pub(super) v6: [u8; 2],
    /// The octet of the IPv6 packet that is at fault; 0 where the error does not say.
    pub(super) pointer: u32,
}

/// Turns the packet in `buffer[..len]`, sent by the first address to the second, into an error about
/// it. As [`unreachable()`].
pub(super) fn error(
    buffer: &mut [u8],
    len: usize,
    own: Mac,
    (src, dst): (Addr, Addr),
    error: &Error,
) -> Option<usize> {
    let frame = buffer.get(..len)?;
    let to = asker(frame, src, dst)?;
    let (ethertype, payload) = ethernet::payload(frame)?;
    let quote = match ethertype {
        ethernet::IPV4 => {
            let (body, _) = ipv4::upper(payload)?;
            ipv4::header_len(payload)?.checked_add(ipv4::QUOTED.min(body.len()))?
        }
        _ => ipv6::packet_len(payload)?.min(MAX_QUOTE),
    };
    let link_len = len.checked_sub(payload.len())?;
    let (link, room) = buffer.split_at_mut_checked(link_len)?;
    let written = match ethertype {
        ethernet::IPV4 => write_v4(room, quote, (dst, src), error)?,
        _ => write_v6(room, quote, (dst, src), error)?,
    };
    address(link, to, own)?;
    link_len.checked_add(written)
}

fn write_v4(
    room: &mut [u8],
    quote: usize,
    (src, dst): (Addr, Addr),
    error: &Error,
) -> Option<usize> {
    let message_len = icmp::HEADER.checked_add(quote)?;
    let packet = make_way::<{ ipv4::HEADER }>(room, quote)?;
    let (header, message) = packet.split_first_chunk_mut::<{ ipv4::HEADER }>()?;
    ipv4::write_header(header, src, dst, ICMP, message_len)?;
    begin(message, error.v4, 0)?;
    finish(message, Sum::default().add(message).checksum())?;
    ipv4::HEADER.checked_add(message_len)
}

fn write_v6(
    room: &mut [u8],
    quote: usize,
    (src, dst): (Addr, Addr),
    error: &Error,
) -> Option<usize> {
    let message_len = icmp::HEADER.checked_add(quote)?;
    let packet = make_way::<{ ipv6::HEADER }>(room, quote)?;
    let (header, message) = packet.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    ipv6::write_header(header, src, dst, ICMPV6, message_len)?;
    begin(message, error.v6, error.pointer)?;
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

/// The error's header, without its checksum.
fn begin(message: &mut [u8], [kind, code]: [u8; 2], pointer: u32) -> Option<()> {
    let [a, b, c, d] = pointer.to_be_bytes();
    *message.first_chunk_mut::<{ icmp::HEADER }>()? = [kind, code, 0, 0, a, b, c, d];
    Some(())
}

fn finish(message: &mut [u8], checksum: [u8; 2]) -> Option<()> {
    let header = message.first_chunk_mut::<{ icmp::HEADER }>()?;
    [header[2], header[3]] = checksum;
    Some(())
}

/// Of a closed port.
const PORT: Error = Error { v4: icmp::PORT_UNREACHABLE, v6: icmp::PORT_UNREACHABLE_V6, pointer: 0 };

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
