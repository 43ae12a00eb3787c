//! Frames that announce a VIP on a link (gratuitous ARP, unsolicited neighbour advertisements) or
//! ask for its owner, as bytes. Router and guard decide when they are sent.

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

/// A request for the owner of a VIP, in a form that changes no host's entry for it.
///
/// IPv4: an ARP probe, whose sender is 0.0.0.0 (RFC 5227 §2.1.1). IPv6: a neighbour solicitation to
/// the VIP's multicast group (RFC 4861 §4.3) from `own`, which must then be an IPv6 address of this
/// node: to one without a source everybody would hear the answer.
pub fn question(mac: Mac, own: IpAddr, vip: IpAddr) -> Frame {
    match (vip, own) {
        (IpAddr::V4(vip), _) => arp_request(mac, Ipv4Addr::UNSPECIFIED, vip),
        (IpAddr::V6(vip), own) => {
            let source = match own {
                IpAddr::V6(own) => own,
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            };
            let [.., a, b, c] = vip.octets();
            let mut group = SOLICITED_NODE.octets();
            let [.., x, y, z] = &mut group;
            (*x, *y, *z) = (a, b, c);
            let to = (Mac([0x33, 0x33, 0xff, a, b, c]), group.into());
            neighbour_message(
                mac,
                source,
                to,
                vip,
                Kind { message: SOLICITATION, flags: 0, option: 1 },
            )
        }
    }
}

/// A gratuitous ARP request: sender and target address are the VIP (RFC 9568 §6.4.2, RFC 5227
/// §3: the request form is what more stacks believe). Padded to the 60 bytes of Ethernet.
pub fn gratuitous_arp(mac: Mac, vip: Ipv4Addr) -> Frame {
    arp_request(mac, vip, vip)
}

/// An unsolicited neighbour advertisement to all nodes (RFC 9568 §6.4.2, RFC 4861 §7.2.6):
/// Solicited 0, Override 1, target link-layer address option.
///
/// RFC 9568 sets the Router flag; it must agree with what this node's answers to solicitations say,
/// or hosts drop it from their router list (RFC 4861 §7.2.5).
pub fn unsolicited_na(mac: Mac, vip: Ipv6Addr, router: bool) -> Frame {
    let flags = if router { 0xa0 } else { 0x20 };
    let to = (ALL_NODES_MAC, ALL_NODES);
    neighbour_message(mac, vip, to, vip, Kind { message: ADVERTISEMENT, flags, option: 2 })
}

fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Frame {
    const ARP_REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    let mut frame = Frame { bytes: [0; NA_LEN], len: ARP_LEN };
    let mut out = Writer(&mut frame.bytes);
    out.put(&BROADCAST).put(&mac.0).put(&[0x08, 0x06]).put(&ARP_REQUEST);
    out.put(&mac.0).put(&sender.octets()).put(&[0; 6]).put(&target.octets());
    frame
}

/// What differs between the two neighbour discovery messages.
#[derive(Clone, Copy)]
struct Kind {
    message: u8,
    flags: u8,
    /// Source (1) or target (2) link-layer address.
    option: u8,
}

/// Solicitation and advertisement have one layout (RFC 4861 §4.3, §4.4).
fn neighbour_message(
    mac: Mac,
    source: Ipv6Addr,
    (to_mac, to): (Mac, Ipv6Addr),
    target: Ipv6Addr,
    kind: Kind,
) -> Frame {
    const IPV6: [u8; 8] = [0x60, 0, 0, 0, 0, 32, 58, 255];
    let Kind { message, flags, option } = kind;
    let sum = Sum::default().bytes(&source.octets()).bytes(&to.octets());
    let sum = sum.bytes(&[0, 32, 0, 58]).bytes(&[message, 0, flags, 0]);
    let sum = !sum.bytes(&target.octets()).bytes(&[option, 1]).bytes(&mac.0).fold();
    let [hi, lo] = sum.to_be_bytes();

    let mut frame = Frame { bytes: [0; NA_LEN], len: NA_LEN };
    let mut out = Writer(&mut frame.bytes);
    out.put(&to_mac.0).put(&mac.0).put(&[0x86, 0xdd]).put(&IPV6);
    out.put(&source.octets()).put(&to.octets());
    out.put(&[message, 0, hi, lo, flags, 0, 0, 0]).put(&target.octets());
    out.put(&[option, 1]).put(&mac.0);
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
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
/// Its last three bytes are those of the address that is asked for (RFC 4291 §2.7.1).
const SOLICITED_NODE: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

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

    #[test]
    fn a_question_names_no_sender_that_somebody_could_learn() {
        let own = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 7]);
        let frame = question(MAC, own, IpAddr::from([192, 0, 2, 10]));
        let bytes = frame.as_bytes();
        assert_eq!((bytes.len(), &bytes[..6]), (60, &BROADCAST[..]));
        assert_eq!(bytes[22..42], [2, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10]);

        let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
        let frame = question(MAC, own, vip.into());
        let bytes = frame.as_bytes();
        assert_eq!(bytes[..14], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff12, 0x3456);
        assert_eq!((&bytes[38..54], bytes[54]), (&group.octets()[..], 135));
        assert_eq!(bytes[62..], [&vip.octets()[..], &[1, 1, 2, 0, 0, 0, 0, 7]].concat());
        let sum = Sum::default().bytes(&bytes[22..54]).bytes(&[0, 32, 0, 58]);
        assert_eq!(sum.bytes(&bytes[54..]).fold(), 0xffff);
    }
}
