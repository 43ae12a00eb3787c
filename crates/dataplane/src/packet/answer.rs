//! Requests turned into their answers, in place: ARP, neighbour discovery and echo for a VIP.
//!
//! Whether the address asked for is a VIP that is active here is for the caller to decide, before.
//! Nothing is ever answered to or from a group, broadcast, loopback or unspecified address, so no
//! answer can be multiplied by the network.

use std::net::IpAddr;

use super::checksum::{Sum, updated};
use super::neighbour::{self, ARP_LEN, Solicitation};
use super::transport::ICMPV6;
use super::{Packet, ethernet, icmp, ipv4, ipv6, parse, source_mac};
use crate::addr::{Addr, Mac};
use crate::key::FlowKey;

/// Turns the request in `buffer[..len]` into its answer from the address asked for, at `own`.
///
/// `buffer` is the whole room there is for the frame: a neighbour solicitation without its source's
/// link-layer address grows by eight bytes. Returns how many bytes of `buffer` are the answer, or
/// `None`, and then nothing was changed, when the frame is no request ([`Packet::WhoHas`] or
/// [`Packet::EchoRequest`]), must not be answered, or has no room to grow. VLAN tags stay.
pub fn answer(buffer: &mut [u8], len: usize, own: Mac) -> Option<usize> {
    let frame = buffer.get(..len)?;
    let packet = parse(frame);
    let source = source_mac(frame).filter(|mac| mac.is_unicast())?;
    let (ethertype, payload) = ethernet::payload(frame)?;
    let payload_len = payload.len();
    let link_len = len.checked_sub(payload_len)?;
    let (link, room) = buffer.split_at_mut_checked(link_len)?;

    let (to, answer_len) = match (packet, ethertype) {
        (Packet::WhoHas { .. }, ethernet::ARP) => (answer_arp(room, own)?, payload_len),
        (Packet::WhoHas { .. }, ethernet::IPV6) => advertise(room, own, source)?,
        (Packet::EchoRequest { .. }, ethernet::IPV4) => {
            answer_echo_v4(room)?;
            (source, payload_len)
        }
        (Packet::EchoRequest { .. }, ethernet::IPV6) => {
            answer_echo_v6(room)?;
            (source, payload_len)
        }
        _ => return None,
    };
    address(link, to, own)?;
    link_len.checked_add(answer_len)
}

/// The receiver of an answer to a frame from `src` to `dst`; `None` without one: one of the two is
/// no host, or the frame came from or to a group of stations.
pub(super) fn asker(frame: &[u8], src: Addr, dst: Addr) -> Option<Mac> {
    let to = Mac(*frame.first_chunk::<6>()?);
    let source = source_mac(frame)?;
    (to.is_unicast() && source.is_unicast() && answerable(src, dst)).then_some(source)
}

/// Writes the Ethernet addresses of an answer.
pub(super) fn address(link: &mut [u8], to: Mac, own: Mac) -> Option<()> {
    let (destination, rest) = link.split_first_chunk_mut::<6>()?;
    *rest.first_chunk_mut::<6>()? = own.0;
    *destination = to.0;
    Some(())
}

/// RFC 826: swaps the halves, and the sender is the target's owner. A probe (RFC 5227), whose
/// sender has no address yet, is answered too. Returns to whom.
fn answer_arp(room: &mut [u8], own: Mac) -> Option<Mac> {
    let arp = room.first_chunk_mut::<ARP_LEN>()?;
    let (head, addresses) = arp.split_first_chunk_mut::<8>()?;
    let (sender, target) = addresses.split_first_chunk_mut::<10>()?;
    let target = target.first_chunk_mut::<10>()?;
    let [a, b, c, d, e, f, ..] = *sender;
    let asker = Some(Mac([a, b, c, d, e, f])).filter(|mac| mac.is_unicast())?;

    let [.., operation_high, operation_low] = head;
    [*operation_high, *operation_low] = neighbour::ARP_REPLY;
    std::mem::swap(sender, target);
    *sender.first_chunk_mut::<6>()? = own.0;
    Some(asker)
}

/// RFC 4861 §7.2.4: a solicited, overriding advertisement with the target's link-layer address. To a
/// source without an address (duplicate address detection) it goes to all nodes, unsolicited.
/// Returns to whom, and the length from the IPv6 header on.
fn advertise(room: &mut [u8], own: Mac, link_source: Mac) -> Option<(Mac, usize)> {
    let (header, rest) = room.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    let message_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let (src, dst) = ipv6::addresses(header)?;
    let Solicitation { target, source } =
        Solicitation::parse(src, dst, header[7], rest.get(..message_len)?)?;
    let (to, to_mac, flags) = if src == Addr::default() {
        (Addr::from_v6(ALL_NODES), ALL_NODES_MAC, OVERRIDE)
    } else {
        let mac = source.unwrap_or(link_source);
        if !is_host(src) || !mac.is_unicast() {
            return None;
        }
        (src, mac, SOLICITED | OVERRIDE)
    };

    let message = rest.first_chunk_mut::<ADVERTISEMENT_LEN>()?;
    let (fixed, behind) = message.split_first_chunk_mut::<8>()?;
    let (_target, option) = behind.split_first_chunk_mut::<16>()?;
    let [a, b, c, d, e, f] = own.0;
    *fixed = [neighbour::ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    *option.first_chunk_mut()? = [neighbour::TARGET_LINK_LAYER, 1, a, b, c, d, e, f];
    let [high, low] = Sum::upper(target, to, ICMPV6, message).checksum();
    (message[2], message[3]) = (high, low);

    [header[4], header[5]] = ADVERTISEMENT_BYTES;
    header[7] = neighbour::HOP_LIMIT;
    ipv6::set_addresses(header, target, to);
    Some((to_mac, ipv6::HEADER.checked_add(ADVERTISEMENT_LEN)?))
}

/// RFC 792 and RFC 1122 §3.2.2.6. IP options are blanked: record-route and source-route would have
/// to be rewritten, which no host has to do.
fn answer_echo_v4(room: &mut [u8]) -> Option<()> {
    let header_len = usize::from(room.first()? & 0xf) << 2;
    let (header, message) = room.split_at_mut_checked(header_len)?;
    // The header's checksum is made anew, which must not launder a damaged one.
    if Sum::default().add(header).checksum() != [0, 0] {
        return None;
    }
    let (fixed, options) = header.split_first_chunk_mut::<{ ipv4::HEADER }>()?;
    let (src, dst) = ipv4::addresses(fixed);
    let echo = message.first_chunk_mut::<4>()?;
    if !answerable(src, dst) {
        return None;
    }

    let (head, addresses) = fixed.split_first_chunk_mut::<12>()?;
    addresses.rotate_left(4);
    options.fill(END_OF_OPTIONS);
    head[8] = TTL;
    [head[10], head[11]] = [0, 0];
    let checksum = Sum::default().add(head).add(addresses).add(options).checksum();
    [head[10], head[11]] = checksum;
    turn_echo(echo, icmp::ECHO_REPLY);
    Some(())
}

/// RFC 4443 §4.2. The pseudo header's sum does not change when its addresses are swapped.
fn answer_echo_v6(room: &mut [u8]) -> Option<()> {
    let (header, message) = room.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    let (src, dst) = ipv6::addresses(header)?;
    let echo = message.first_chunk_mut::<4>()?;
    if !answerable(src, dst) {
        return None;
    }
    header[7] = TTL;
    ipv6::set_addresses(header, dst, src);
    turn_echo(echo, icmp::ECHO_REPLY_V6);
    Some(())
}

/// Type, code and checksum of an echo message; a wrong checksum stays wrong.
fn turn_echo(head: &mut [u8; 4], reply: [u8; 2]) {
    let [kind, code, high, low] = *head;
    let [new_high, new_low] = updated([high, low], [kind, code], reply);
    let [new_kind, new_code] = reply;
    *head = [new_kind, new_code, new_high, new_low];
}

/// Whether a packet of this 5-tuple may be answered at all.
pub(crate) fn is_answerable(key: &FlowKey) -> bool {
    answerable(key.src, key.dst)
}

fn answerable(src: Addr, dst: Addr) -> bool {
    src != dst && is_host(src) && is_host(dst)
}

/// Whether the address can be that of one host on a network (RFC 1122 §3.2.1.3, RFC 4291 §2).
fn is_host(addr: Addr) -> bool {
    match addr.ip() {
        IpAddr::V4(v4) => {
            !(v4.octets()[0] == 0 || v4.is_loopback() || v4.is_multicast() || v4.octets()[0] >= 240)
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast()),
    }
}

/// Fixed part and target link-layer address option.
const ADVERTISEMENT_LEN: usize = neighbour::SOLICITATION_LEN + 8;
/// The same as an IPv6 payload length.
const ADVERTISEMENT_BYTES: [u8; 2] = [0, 32];
const _: () = assert!(ADVERTISEMENT_LEN == 32);
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// `ff02::1` and its Ethernet group (RFC 2464 §7).
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
/// What IANA recommends as the initial TTL and hop limit.
pub(super) const TTL: u8 = 64;
const END_OF_OPTIONS: u8 = 0;

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
