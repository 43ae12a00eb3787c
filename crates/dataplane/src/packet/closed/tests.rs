//! Answers of closed ports: as reset and unreachable give them, and their own, byte for
//! byte as etherparse builds them.

use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, icmpv4, icmpv6};

use super::*;
use crate::packet::ANSWER_GROWTH;
use crate::packet::samples::{self, CLIENT_MAC, IPV4, IPV6, OWN_MAC, VLAN, ethernet, v4, v6};

const OWN: Mac = Mac(OWN_MAC);

fn answered(frame: &[u8]) -> Option<Vec<u8>> {
    by(closed, frame)
}

fn by(answer: fn(&mut [u8], usize, Mac) -> Option<usize>, frame: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = [frame, &[0xee; ANSWER_GROWTH]].concat();
    let before = buffer.clone();
    match answer(&mut buffer, frame.len(), OWN) {
        Some(len) => Some(buffer[..len].to_vec()),
        None => {
            assert_eq!(buffer, before, "no answer, but a change");
            None
        }
    }
}

#[test]
fn tcp_is_reset_and_udp_unreachable_with_a_right_checksum_only() {
    let (tcp4, tcp6) = (samples::tcp(v4(|_| ()), b"data"), samples::tcp(v6(|_, _| ()), b"data"));
    let (udp4, udp6) = (samples::udp(v4(|_| ()), b"data"), samples::udp(v6(|_, _| ()), b"data"));
    type Answer = fn(&mut [u8], usize, Mac) -> Option<usize>;
    let cases: [(&[u8; 2], Vec<u8>, Answer); 4] = [
        (&IPV4, tcp4, reset),
        (&IPV6, tcp6, reset),
        (&IPV4, udp4, unreachable),
        (&IPV6, udp6, unreachable),
    ];
    for (kind, packet, answer) in cases {
        for tags in [&[][..], &VLAN] {
            let frame = ethernet(tags, *kind, &packet);
            assert!(answered(&frame).is_some());
            assert_eq!(answered(&frame), by(answer, &frame));
            let mut padded = frame.clone();
            padded.extend([0xee; 9]);
            assert!(answered(&padded).is_some(), "padding is no part of it");
            let mut damaged = frame;
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(answered(&damaged), None);
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_is_answered_over_ipv4_only() {
    for (kind, mut packet, header) in [
        (IPV4, samples::udp(v4(|_| ()), b"data"), ipv4::HEADER),
        (IPV6, samples::udp(v6(|_, _| ()), b"data"), ipv6::HEADER),
    ] {
        packet[header + 6..header + 8].fill(0);
        assert_eq!(answered(&ethernet(&[], kind, &packet)).is_some(), kind == IPV4);
    }
}

#[test]
fn a_protocol_that_is_not_served_is_said_to_be() {
    for body in [&b""[..], b"four", b"more than eight bytes"] {
        let packet = samples::raw(v4(|_| ()), IpNumber(132), body);
        let ip = v4(|header| {
            std::mem::swap(&mut header.source, &mut header.destination);
            header.time_to_live = 64;
        });
        let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Protocol);
        let quote = &packet[..20 + body.len().min(8)];
        let reply = [&CLIENT_MAC[..], &OWN_MAC, &IPV4, &samples::icmp4(ip, kind, quote)].concat();
        let padded = [&ethernet(&[], IPV4, &packet)[..], &[0xee; 18]].concat();
        assert_eq!(answered(&padded), Some(reply), "{} bytes", body.len());

        let packet = samples::raw(v6(|_, _| ()), IpNumber(132), body);
        let ip = v6(|header, _| {
            std::mem::swap(&mut header.source, &mut header.destination);
            header.hop_limit = 64;
        });
        let kind = Icmpv6Type::ParameterProblem(icmpv6::ParameterProblemHeader {
            code: icmpv6::ParameterProblemCode::UnrecognizedNextHeader,
            pointer: 6,
        });
        let reply = [&CLIENT_MAC[..], &OWN_MAC, &IPV6, &samples::icmp6(ip, kind, &packet)].concat();
        assert_eq!(answered(&ethernet(&[], IPV6, &packet)), Some(reply), "{} bytes", body.len());
    }
}

/// RFC 1122 §3.2.2, RFC 4443 §2.4 (e).
#[test]
fn nothing_answers_fragments_groups_and_icmp() {
    let udp = ethernet(&[], IPV4, &samples::udp(v4(|_| ()), b"data"));
    assert!(answered(&udp).is_some());
    let mut to_group = udp.clone();
    to_group[0] |= 1;
    let mut from_group = udp;
    from_group[6] |= 1;
    let first = |header: &mut etherparse::Ipv4Header| header.more_fragments = true;
    let later = |header: &mut etherparse::Ipv4Header| {
        header.fragment_offset = etherparse::IpFragOffset::try_new(5).unwrap();
    };
    let source = |source: [u8; 4]| {
        ethernet(&[], IPV4, &samples::udp(v4(|header| header.source = source), b"data"))
    };
    let icmp = |kind: u8| {
        ethernet(&[], IPV4, &samples::raw(v4(|_| ()), IpNumber(1), &[kind, 0, 0, 0, 0, 0, 0, 0]))
    };
    let icmp6 = |kind: u8| {
        ethernet(
            &[],
            IPV6,
            &samples::raw(v6(|_, _| ()), IpNumber(58), &[kind, 0, 0, 0, 0, 0, 0, 0]),
        )
    };
    for (what, frame) in [
        ("to a group of stations", to_group),
        ("from a group of stations", from_group),
        ("first fragment", ethernet(&[], IPV4, &samples::udp(v4(first), b"data"))),
        ("first fragment of TCP", ethernet(&[], IPV4, &samples::tcp(v4(first), b"data"))),
        (
            "first fragment of SCTP",
            ethernet(&[], IPV4, &samples::raw(v4(first), IpNumber(132), b"data")),
        ),
        ("later fragment", ethernet(&[], IPV4, &samples::raw(v4(later), IpNumber(17), b"data"))),
        ("from a multicast address", source([224, 0, 0, 1])),
        ("from the broadcast address", source([255; 4])),
        ("from loopback", source([127, 0, 0, 1])),
        ("from nowhere", source([0; 4])),
        ("ICMP redirect", icmp(5)),
        ("ICMP source quench", icmp(4)),
        ("ICMP of no known type", icmp(200)),
        ("ICMPv6 of no known type", icmp6(200)),
        ("no next header", ethernet(&[], IPV6, &samples::raw(v6(|_, _| ()), IpNumber(59), b""))),
        ("ARP", ethernet(&[], [8, 6], &[0; 28])),
        ("no IP at all", ethernet(&[], [0x88, 0xcc], &[0; 40])),
    ] {
        assert_eq!(answered(&frame), None, "{what}");
    }
}
