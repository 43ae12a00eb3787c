//! Frames that tell a link where a VIP now is: gratuitous ARP and unsolicited neighbour
//! advertisements, as bytes. When they are sent is the router's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::Mac;

use super::checksum::Sum;

/// One frame, ready for the wire (without FCS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; NA_LEN],
    len: usize,
}

impl Frame {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// The announcement of a VIP of either family.
///
/// `router` is the Router flag of an IPv6 one; see [`unsolicited_na`].
pub fn announcement(mac: Mac, vip: IpAddr, router: bool) -> Frame {
    match vip {
        IpAddr::V4(v4) => gratuitous_arp(mac, v4),
        IpAddr::V6(v6) => unsolicited_na(mac, v6, router),
    }
}

/// A gratuitous ARP request: sender and target address are the VIP (RFC 9568 §6.4.2, RFC 5227
/// §3: the request form is what more stacks believe). Padded to the 60 bytes of Ethernet.
pub fn gratuitous_arp(mac: Mac, vip: Ipv4Addr) -> Frame {
    const ARP_REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    let mut frame = Frame { bytes: [0; NA_LEN], len: ARP_LEN };
    let mut out = Writer(&mut frame.bytes);
    out.put(&BROADCAST).put(&mac.0).put(&[0x08, 0x06]).put(&ARP_REQUEST);
    out.put(&mac.0).put(&vip.octets()).put(&[0; 6]).put(&vip.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes (RFC 9568 §6.4.2, RFC 4861 §7.2.6):
/// Solicited 0, Override 1, target link-layer address option.
///
/// RFC 9568 sets the Router flag; it must agree with what this node's answers to solicitations say,
/// or hosts drop it from their router list (RFC 4861 §7.2.5).
pub fn unsolicited_na(mac: Mac, vip: Ipv6Addr, router: bool) -> Frame {
    const IPV6: [u8; 8] = [0x60, 0, 0, 0, 0, 32, 58, 255];
    let flags = if router { 0xa0 } else { 0x20 };
    let sum = Sum::default().bytes(&vip.octets()).bytes(&ALL_NODES.octets());
    let sum = sum.bytes(&[0, 32, 0, 58]).bytes(&[136, 0, flags, 0]);
    let sum = !sum.bytes(&vip.octets()).bytes(&[2, 1]).bytes(&mac.0).fold();
    let [hi, lo] = sum.to_be_bytes();

    let mut frame = Frame { bytes: [0; NA_LEN], len: NA_LEN };
    let mut out = Writer(&mut frame.bytes);
    out.put(&ALL_NODES_MAC).put(&mac.0).put(&[0x86, 0xdd]).put(&IPV6);
    out.put(&vip.octets()).put(&ALL_NODES.octets());
    out.put(&[136, 0, hi, lo, flags, 0, 0, 0]).put(&vip.octets()).put(&[2, 1]).put(&mac.0);
    frame
}

/// Fills a buffer from its front; what does not fit is left out.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some((front, rest)) = std::mem::take(&mut self.0).split_at_mut_checked(bytes.len()) {
            front.copy_from_slice(bytes);
            self.0 = rest;
        }
        self
    }
}

const ARP_LEN: usize = 60;
const NA_LEN: usize = 14 + 40 + 32;
const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn gratuitous_arp_is_a_broadcast_request_for_itself() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(192, 0, 2, 10));
        let hex: String = frame.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let head = "ffffffffffff020000000007080600010800060400010200000000\
                    07c000020a000000000000c000020a"
            .replace(' ', "");
        assert_eq!(hex, head + &"00".repeat(18));
    }

    #[test]
    fn neighbour_advertisement_has_a_right_checksum() {
        let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
        for (router, flags) in [(true, 0xa0), (false, 0x20)] {
            let frame = unsolicited_na(MAC, vip, router);
            let bytes = frame.as_bytes();
            assert_eq!(bytes.len(), 86);
            assert_eq!(bytes[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
            assert_eq!((bytes[14], bytes[19], bytes[20], bytes[21]), (0x60, 32, 58, 255));
            assert_eq!(bytes[54..56], [136, 0]);
            assert_eq!(bytes[58], flags);
            assert_eq!(bytes[62..78], vip.octets());
            assert_eq!(bytes[78..], [2, 1, 2, 0, 0, 0, 0, 7]);
            let sum = Sum::default().bytes(&bytes[22..54]).bytes(&[0, 32, 0, 58]);
            assert_eq!(sum.bytes(&bytes[54..]).fold(), 0xffff);
        }
    }
}
