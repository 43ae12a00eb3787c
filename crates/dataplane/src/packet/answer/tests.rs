//! Answers are compared byte for byte with frames that etherparse builds, checksums included.

use etherparse::{ArpOperation, IcmpEchoHeader, Icmpv4Type, Icmpv6Type, Ipv4Options, SlicedPacket};
use proptest::prelude::*;

use super::*;
use crate::packet::samples::{
    self, ARP, CLIENT, CLIENT_MAC, CLIENT6, IPV4, IPV6, OWN_MAC, QINQ, SOURCE_OPTION, VIP, VIP6,
    VIP6_GROUP, VLAN, ethernet, solicitation, v4, v6,
};

const OWN: Mac = Mac(OWN_MAC);

/// The answer in a chunk of 2048 bytes.
fn answered(frame: &[u8]) -> Option<Vec<u8>> {
    let mut chunk = [0xee; 2048];
    chunk[..frame.len()].copy_from_slice(frame);
    let before = chunk;
    match answer(&mut chunk, frame.len(), OWN) {
        Some(len) => Some(chunk[..len].to_vec()),
        None => {
            assert_eq!(chunk, before, "no answer, but a change");
            None
        }
    }
}

fn from_own(to: [u8; 6], tags: &[u8], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to, &OWN_MAC, tags, &ethertype, payload].concat()
}

fn advertisement(to: [u8; 16], flags: u8) -> Vec<u8> {
    let ip = v6(|header, _| {
        (header.source, header.destination, header.hop_limit) = (VIP6, to, 255);
    });
    let body = [&VIP6[..], &[2, 1], &OWN_MAC].concat();
    let kind = Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [flags, 0, 0, 0] };
    samples::icmp6(ip, kind, &body)
}

#[test]
fn arp_requests_and_probes() {
    for tags in [&[][..], &VLAN, &QINQ] {
        for sender in [CLIENT, [0; 4]] {
            let request = ethernet(tags, ARP, &samples::arp(ArpOperation::REQUEST, sender, VIP));
            let expected = from_own(CLIENT_MAC, tags, ARP, &samples::arp_reply(sender, VIP));
            assert_eq!(answered(&request), Some(expected.clone()));
            // Padding to the minimum frame stays.
            let padded = [&request[..], &[0; 18]].concat();
            assert_eq!(answered(&padded), Some([&expected[..], &[0; 18]].concat()));
        }
    }
}

#[test]
fn arp_answers_go_to_the_hardware_address_in_the_request() {
    let mut request = ethernet(&[], ARP, &samples::arp(ArpOperation::REQUEST, CLIENT, VIP));
    request[27] = 9;
    let reply = answered(&request).unwrap();
    assert_eq!(&reply[..6], &[2, 0, 0, 0, 0, 9]);
    request[22] = 0xff;
    assert_eq!(answered(&request), None, "a group asks");
}

#[test]
fn solicitations() {
    let nonce = [&SOURCE_OPTION[..], &[14, 1, 1, 2, 3, 4, 5, 6]].concat();
    for tags in [&[][..], &VLAN, &QINQ] {
        for (dst, options) in
            [(VIP6_GROUP, &SOURCE_OPTION[..]), (VIP6, &[]), (VIP6_GROUP, &nonce), (VIP6, &nonce)]
        {
            let request = ethernet(tags, IPV6, &solicitation(CLIENT6, dst, options));
            let expected = from_own(CLIENT_MAC, tags, IPV6, &advertisement(CLIENT6, 0x60));
            assert_eq!(answered(&request), Some(expected));
        }
    }
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes() {
    let request = ethernet(&[], IPV6, &solicitation([0; 16], VIP6_GROUP, &[]));
    let expected = from_own(ALL_NODES_MAC.0, &[], IPV6, &advertisement(ALL_NODES, 0x20));
    assert_eq!(answered(&request), Some(expected));
}

#[test]
fn a_solicitation_needs_room_to_grow() {
    let request = ethernet(&[], IPV6, &solicitation(CLIENT6, VIP6, &[]));
    let len = request.len();
    for spare in 0..8 {
        let mut chunk = [&request[..], &vec![0; spare]].concat();
        let before = chunk.clone();
        assert_eq!(answer(&mut chunk, len, OWN), None);
        assert_eq!(chunk, before);
    }
    let mut chunk = [&request[..], &[0; 8]].concat();
    assert_eq!(answer(&mut chunk, len, OWN), Some(len + 8));
}

#[test]
fn echo_requests_v4() {
    let echo = IcmpEchoHeader { id: 5, seq: 6 };
    for payload_len in [0, 1, 2, 7, 56, 1472] {
        let payload: Vec<u8> = (0..=255).cycle().take(payload_len).collect();
        for options in [Ipv4Options::new(), Ipv4Options::from([7; 4]), Ipv4Options::from([68; 40])]
        {
            let request = v4(|header| header.options = options.clone());
            let request = samples::icmp4(request, Icmpv4Type::EchoRequest(echo), &payload);
            let reply = v4(|header| {
                (header.source, header.destination) = (VIP, CLIENT);
                header.time_to_live = 64;
                header.options = Ipv4Options::try_from(&vec![0; options.len()][..]).unwrap();
            });
            let reply = samples::icmp4(reply, Icmpv4Type::EchoReply(echo), &payload);
            let expected = from_own(CLIENT_MAC, &VLAN, IPV4, &reply);
            assert_eq!(answered(&ethernet(&VLAN, IPV4, &request)), Some(expected));
        }
    }
}

#[test]
fn echo_requests_v6() {
    let echo = IcmpEchoHeader { id: 5, seq: 6 };
    for payload_len in [0, 1, 2, 7, 56, 1452] {
        let payload: Vec<u8> = (0..=255).cycle().take(payload_len).collect();
        let request = samples::icmp6(v6(|_, _| ()), Icmpv6Type::EchoRequest(echo), &payload);
        let reply = v6(|header, _| {
            (header.source, header.destination, header.hop_limit) = (VIP6, CLIENT6, 64);
        });
        let reply = samples::icmp6(reply, Icmpv6Type::EchoReply(echo), &payload);
        let expected = from_own(CLIENT_MAC, &[], IPV6, &reply);
        assert_eq!(answered(&ethernet(&[], IPV6, &request)), Some(expected));
    }
}

#[test]
fn a_damaged_echo_request_does_not_become_sound() {
    let mut header = ethernet(&[], IPV4, &samples::echo4());
    header[19] ^= 1;
    assert_eq!(answered(&header), None, "the identification no longer fits the checksum");

    let mut payload = ethernet(&[], IPV4, &samples::echo4());
    *payload.last_mut().unwrap() ^= 1;
    let reply = answered(&payload).unwrap();
    let sliced = SlicedPacket::from_ethernet(&reply).unwrap();
    let Some(etherparse::TransportSlice::Icmpv4(icmp)) = sliced.transport else {
        panic!("not ICMP");
    };
    let right = icmp.icmp_type().calc_checksum(icmp.payload());
    assert_ne!(icmp.checksum(), right);
}

/// Nothing that the network would multiply, and nothing to oneself.
#[test]
fn groups_and_broadcasts_are_never_answered() {
    let echo = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 1 });
    let frame = |src, dst| {
        let ip = v4(|header| (header.source, header.destination) = (src, dst));
        ethernet(&[], IPV4, &samples::icmp4(ip, echo.clone(), b""))
    };
    assert!(answered(&frame(CLIENT, VIP)).is_some());
    for bad in [[224, 0, 0, 18], [255; 4], [0; 4], [127, 0, 0, 1], [0, 1, 2, 3], [240, 0, 0, 1]] {
        assert_eq!(answered(&frame(bad, VIP)), None, "from {bad:?}");
        assert_eq!(answered(&frame(CLIENT, bad)), None, "to {bad:?}");
    }
    assert_eq!(answered(&frame(VIP, VIP)), None);

    let echo = Icmpv6Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 1 });
    let frame = |src, dst| {
        let ip = v6(|header, _| (header.source, header.destination) = (src, dst));
        ethernet(&[], IPV6, &samples::icmp6(ip, echo, b""))
    };
    assert!(answered(&frame(CLIENT6, VIP6)).is_some());
    let loopback = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for bad in [ALL_NODES, [0; 16], loopback] {
        assert_eq!(answered(&frame(bad, VIP6)), None, "from {bad:?}");
        assert_eq!(answered(&frame(CLIENT6, bad)), None, "to {bad:?}");
    }
    let solicitation = solicitation(ALL_NODES, VIP6, &SOURCE_OPTION);
    assert_eq!(answered(&ethernet(&[], IPV6, &solicitation)), None);
}

#[test]
fn a_group_as_ethernet_source_gets_no_answer() {
    for sample in samples::all() {
        let mut frame = sample.frame;
        frame[6] |= 1;
        assert_eq!(answered(&frame), None, "{}", sample.name);
    }
}

#[test]
fn only_requests_are_answered() {
    for sample in samples::all() {
        let request = matches!(sample.packet, Packet::WhoHas { .. } | Packet::EchoRequest { .. });
        assert_eq!(answered(&sample.frame).is_some(), request, "{}", sample.name);
    }
}

#[test]
fn a_length_beyond_the_buffer_is_refused() {
    let mut frame = ethernet(&[], IPV4, &samples::echo4());
    let len = frame.len();
    assert_eq!(answer(&mut frame, len + 1, OWN), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..Default::default() })]

    /// No damage makes a panic, an answer longer than the buffer, or a change without an answer.
    #[test]
    fn damaged_requests_are_harmless(
        at in any::<prop::sample::Index>(),
        edits in prop::collection::vec((0usize..100, any::<u8>()), 0..4),
        cut in 0usize..120,
        room in 0usize..40,
    ) {
        let samples = samples::all();
        let mut frame = at.get(&samples).frame.clone();
        for (at, byte) in edits {
            if let Some(old) = frame.get_mut(at) {
                *old = byte;
            }
        }
        frame.truncate(cut.max(1));
        let len = frame.len();
        frame.resize(len + room, 0);
        let before = frame.clone();
        match answer(&mut frame, len, OWN) {
            Some(answer_len) => {
                prop_assert!(answer_len <= frame.len());
                prop_assert_eq!(&frame[6..12], &OWN_MAC);
                prop_assert_eq!(&frame[answer_len..], &before[answer_len..]);
            }
            None => prop_assert_eq!(frame, before),
        }
    }
}
