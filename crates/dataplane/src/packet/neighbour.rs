//! Who has this address: ARP requests (RFC 826) and neighbour solicitations (RFC 4861 §4.3).

use super::Packet;
use super::checksum::Sum;
use super::transport::ICMPV6;
use crate::addr::{Addr, Mac};

/// A request or a probe (RFC 5227), but not an announcement, in which sender and target are the
/// same.
pub(super) fn parse_arp(bytes: &[u8]) -> Packet {
    let Some(arp) = bytes.first_chunk::<ARP_LEN>() else {
        return Packet::Malformed;
    };
    let Some((kind, [operation_high, operation_low, ..])) = arp.split_first_chunk::<6>() else {
        return Packet::Malformed;
    };
    if *kind != ARP_ETHERNET_IPV4 {
        return Packet::Other { dst: Addr::default() };
    }
    let sender = Addr::from_v4([arp[14], arp[15], arp[16], arp[17]]);
    let target = Addr::from_v4([arp[24], arp[25], arp[26], arp[27]]);
    if [*operation_high, *operation_low] == ARP_REQUEST && sender != target {
        Packet::WhoHas { target }
    } else {
        Packet::Other { dst: target }
    }
}

/// A neighbour solicitation that passed all checks of RFC 4861 §7.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solicitation {
    pub(super) target: Addr,
    /// The source link-layer address option.
    pub(super) source: Option<Mac>,
}

impl Solicitation {
    /// From an ICMPv6 message of type 135 directly behind an IPv6 header.
    pub(super) fn parse(src: Addr, dst: Addr, hop_limit: u8, message: &[u8]) -> Option<Self> {
        let (header, options) = message.split_first_chunk::<SOLICITATION_LEN>()?;
        let (fixed, target) = header.split_first_chunk::<8>()?;
        let target = Addr::from_v6(*target.first_chunk()?);
        let source = source_option(options)?;
        let probe = src == Addr::default();
        let sound = hop_limit == HOP_LIMIT
            && fixed[1] == 0
            && !is_multicast(target)
            && (!probe || (source.is_none() && dst == solicited_node(target)))
            && Sum::upper(src, dst, ICMPV6, message).checksum() == [0, 0];
        sound.then_some(Self { target, source })
    }
}

/// The source link-layer address among the options; `None` when one of them is unsound.
fn source_option(mut options: &[u8]) -> Option<Option<Mac>> {
    let mut source = None;
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) << 3)?;
        // A length of zero would never end.
        let (_, value) = option.split_first_chunk::<2>()?;
        if kind == SOURCE_LINK_LAYER {
            source = Some(Mac(*value.first_chunk()?));
        }
        options = rest;
    }
    options.is_empty().then_some(source)
}

/// The solicited-node multicast address of `target` (RFC 4291 §2.7.1).
const fn solicited_node(target: Addr) -> Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Addr::from_v6((PREFIX | (target.bits() & 0xff_ffff)).to_be_bytes())
}

const fn is_multicast(addr: Addr) -> bool {
    addr.bits() >> 120 == 0xff
}

/// An ARP packet for IPv4 on Ethernet.
pub(super) const ARP_LEN: usize = 28;
/// Hardware type 1, protocol type 0x0800, address lengths 6 and 4.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
pub(super) const ARP_REPLY: [u8; 2] = [0, 2];

/// ICMPv6 types.
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// The fixed part of both, up to and including the target.
pub(super) const SOLICITATION_LEN: usize = 24;
/// A router would have lowered it: the sender is on this link.
pub(super) const HOP_LIMIT: u8 = 255;
/// Option types, both with one unit of eight bytes on Ethernet.
const SOURCE_LINK_LAYER: u8 = 1;
pub(super) const TARGET_LINK_LAYER: u8 = 2;
