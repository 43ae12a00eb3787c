//! Errors are compared byte for byte with frames that etherparse builds, checksums included.

use etherparse::{Icmpv4Type, Icmpv6Type, IpHeaders, Ipv4Options, PacketBuilder, icmpv4, icmpv6};
use proptest::prelude::*;

use super::*;
use crate::packet::ANSWER_GROWTH;
use crate::packet::samples::{self, CLIENT_MAC, IPV4, IPV6, OWN_MAC, QINQ, VLAN, ethernet, v4, v6};

const OWN: Mac = Mac(OWN_MAC);

/// The error in a buffer with no more room than is promised.
fn answered(frame: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = [frame, &[0xee; ANSWER_GROWTH]].concat();
    let before = buffer.clone();
    match unreachable(&mut buffer, frame.len(), OWN) {
        Some(len) => Some(buffer[..len].to_vec()),
        None => {
            assert_eq!(buffer, before, "no error, but a change");
            None
        }
    }
}

fn expected_v4(tags: &[u8], quote: &[u8]) -> Vec<u8> {
    let ip = v4(|header| {
        std::mem::swap(&mut header.source, &mut header.destination);
        header.time_to_live = 64;
    });
    let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
    [&CLIENT_MAC, &OWN_MAC, tags, &IPV4, &samples::icmp4(ip, kind, quote)].concat()
}

fn expected_v6(tags: &[u8], quote: &[u8]) -> Vec<u8> {
    let ip = v6(|header, _| {
        std::mem::swap(&mut header.source, &mut header.destination);
        header.hop_limit = 64;
    });
    let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
    [&CLIENT_MAC, &OWN_MAC, tags, &IPV6, &samples::icmp6(ip, kind, quote)].concat()
}

#[test]
fn ipv4_quotes_the_header_and_eight_bytes() {
    let options = Ipv4Options::try_from(&[7, 7, 4, 0, 0, 0, 0, 0][..]).unwrap();
    for tags in [&[][..], &VLAN, &QINQ] {
        for len in [0, 1, 20, 28, 29, 1400] {
            let packet = samples::udp(v4(|_| ()), &vec![7; len]);
            let reply = expected_v4(tags, &packet[..28]);
            assert_eq!(answered(&ethernet(tags, IPV4, &packet)), Some(reply), "{len} bytes");
            let packet = samples::udp(v4(|header| header.options = options.clone()), &vec![7; len]);
            let reply = expected_v4(tags, &packet[..36]);
            assert_eq!(answered(&ethernet(tags, IPV4, &packet)), Some(reply), "and options");
        }
    }
    let packet = samples::udp(v4(|_| ()), b"x");
    let padded = [&ethernet(&[], IPV4, &packet)[..], &[0xee; 18]].concat();
    assert_eq!(answered(&padded), Some(expected_v4(&[], &packet[..28])));
}

#[test]
fn ipv6_quotes_as_much_as_fits_the_least_mtu() {
    for tags in [&[][..], &VLAN, &QINQ] {
        for len in [0, 1, 100, 1183, 1184, 1185, 1400] {
            let packet = samples::udp(v6(|_, _| ()), &vec![7; len]);
            let quote = &packet[..packet.len().min(1232)];
            let frame = ethernet(tags, IPV6, &packet);
            let reply = answered(&frame).unwrap();
            assert_eq!(reply, expected_v6(tags, quote), "{len} bytes");
            assert!(reply.len() <= frame.len() + ANSWER_GROWTH);
        }
    }
    let packet = samples::udp(v6(|_, _| ()), b"x");
    let padded = [&ethernet(&[], IPV6, &packet)[..], &[0xee; 18]].concat();
    assert_eq!(answered(&padded), Some(expected_v6(&[], &packet)), "padding is no payload");
}

#[test]
fn a_long_datagram_needs_no_room() {
    let frame = ethernet(&[], IPV6, &samples::udp(v6(|_, _| ()), &[7; 1400]));
    let mut buffer = frame.clone();
    assert_eq!(unreachable(&mut buffer, frame.len(), OWN), Some(14 + 1280));
    let short = ethernet(&[], IPV4, &samples::udp(v4(|_| ()), b"x"));
    let mut buffer = short.clone();
    assert_eq!(unreachable(&mut buffer, short.len(), OWN), None, "but a short one does");
    assert_eq!(buffer, short);
}

#[test]
fn what_must_not_be_answered_is_not() {
    let good = ethernet(&[], IPV4, &samples::udp(v4(|_| ()), b"x"));
    assert!(answered(&good).is_some());
    let changed = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let from = |ip: IpHeaders| {
        let mut bytes = Vec::new();
        PacketBuilder::ip(ip).udp(1, 2).write(&mut bytes, b"x").unwrap();
        ethernet(&[], IPV4, &bytes)
    };
    let table = [
        ("to a group of stations", changed(0, 3)),
        ("from a group of stations", changed(6, 3)),
        ("a damaged IP header", changed(24, 0xff)),
        ("from everybody", from(v4(|ip| ip.source = [255; 4]))),
        ("to a group", from(v4(|ip| ip.destination = [224, 0, 0, 1]))),
        ("a segment", ethernet(&[], IPV4, &samples::tcp(v4(|_| ()), b"x"))),
        ("half a header", good[..38].to_vec()),
        ("nothing", vec![]),
    ];
    for (what, frame) in table {
        assert_eq!(answered(&frame), None, "{what}");
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        answered(&frame);
    }

    #[test]
    fn nor_do_nearly_right_ones(at in 0..120_usize, byte in any::<u8>(), of_v6 in any::<bool>()) {
        let (packet, ethertype) = match of_v6 {
            true => (samples::udp(v6(|_, _| ()), b"payload"), IPV6),
            false => (samples::udp(v4(|_| ()), b"payload"), IPV4),
        };
        let mut frame = ethernet(&VLAN, ethertype, &packet);
        let at = at % frame.len();
        frame[at] = byte;
        answered(&frame);
    }
}
