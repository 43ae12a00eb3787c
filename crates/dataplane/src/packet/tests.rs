//! The parser against golden frames, against etherparse, and against every kind of damage.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::samples::{
    self, ARP, CLIENT, CLIENT6, IPV4, IPV6, SOURCE_OPTION, VIP, VIP6, VIP6_GROUP, ethernet, key6,
    solicitation, v4, v6,
};
use super::*;
use crate::key::Protocol;

#[test]
fn golden_frames_are_what_they_are() {
    for sample in samples::all() {
        assert_eq!(parse(&sample.frame), sample.packet, "{}", sample.name);
    }
}

#[test]
fn every_truncation_is_malformed() {
    for sample in samples::all() {
        for len in 0..sample.frame.len() {
            let packet = parse(&sample.frame[..len]);
            assert_eq!(packet, Packet::Malformed, "{} cut to {len}", sample.name);
        }
    }
}

#[test]
fn padding_changes_nothing() {
    for sample in samples::all() {
        for padding in 1..64 {
            let padded = [&sample.frame[..], &vec![0xff; padding]].concat();
            assert_eq!(parse(&padded), sample.packet, "{} and {padding}", sample.name);
        }
    }
}

/// Each line damages one byte of a frame that is otherwise sound.
#[test]
fn contradictions_are_malformed() {
    let tcp4 = ethernet(&[], IPV4, &samples::tcp(v4(|_| ()), b"GET"));
    let udp4 = ethernet(&[], IPV4, &samples::udp(v4(|_| ()), b"GET"));
    let tcp6 = ethernet(&[], IPV6, &samples::tcp(v6(|_, _| ()), b"GET"));
    let ns = ethernet(&[], IPV6, &solicitation(CLIENT6, VIP6_GROUP, &SOURCE_OPTION));
    let cases: &[(&str, &[u8], usize, u8)] = &[
        ("IP version 5", &tcp4, 14, 0x55),
        ("IHL of 4", &tcp4, 14, 0x44),
        ("IHL beyond the total length", &tcp4, 14, 0x4f),
        ("total length of 19", &tcp4, 17, 19),
        ("total length beyond the frame", &tcp4, 17, 44),
        ("total length without the whole TCP header", &tcp4, 17, 39),
        ("data offset of 4", &tcp4, 46, 0x40),
        ("data offset beyond the segment", &tcp4, 46, 0x60),
        ("UDP length of 7", &udp4, 39, 7),
        ("UDP length of 0", &udp4, 39, 0),
        ("UDP length beyond the packet", &udp4, 39, 12),
        ("IP version 4 in an IPv6 frame", &tcp6, 14, 0x40),
        ("payload length beyond the frame", &tcp6, 19, 24),
        ("payload length of 19", &tcp6, 19, 19),
        ("payload length of 0", &tcp6, 19, 0),
        ("solicitation from behind a router", &ns, 21, 254),
        ("solicitation with code 1", &ns, 55, 1),
        ("solicitation with a wrong checksum", &ns, 85, 8),
        ("solicitation with an option of no length", &ns, 79, 0),
        ("solicitation with an option cut off", &ns, 79, 2),
        ("solicitation for a group", &ns, 62, 0xff),
    ];
    for (name, frame, at, byte) in cases {
        let mut frame = frame.to_vec();
        assert_ne!(frame[*at], *byte, "{name} is no damage");
        frame[*at] = *byte;
        assert_eq!(parse(&frame), Packet::Malformed, "{name}");
    }
}

#[test]
fn a_fragment_must_hold_its_whole_transport_header() {
    let first = samples::tcp(samples::fragment4(0, true), &[]);
    let mut tiny = first[..36].to_vec();
    tiny[3] = 36;
    assert_eq!(parse(&ethernet(&[], IPV4, &tiny)), Packet::Malformed);
    // The TCP options may follow in the next fragment.
    let mut long = first;
    long[32] = 0xf0;
    let (key, long) = (samples::key4(Protocol::Tcp), ethernet(&[], IPV4, &long));
    assert_eq!(parse(&long), Packet::FirstFragment(key));
    assert_eq!(parse_opening(&long), Packet::Tcp(key, samples::fields(0)));
}

#[test]
fn an_error_that_quotes_someone_elses_packet_is_forged() {
    let port = etherparse::Icmpv4Type::DestinationUnreachable(
        etherparse::icmpv4::DestUnreachableHeader::Port,
    );
    let frame =
        |quote: &[u8]| ethernet(&[], IPV4, &samples::icmp4(v4(|_| ()), port.clone(), quote));
    let mut quote = samples::reply4(Protocol::Tcp);
    quote[12] = 10;
    assert_eq!(parse(&frame(&quote)), Packet::Malformed);

    let other = Packet::Other { dst: Addr::from_v4(VIP) };
    let mut quote = samples::reply4(Protocol::Tcp);
    quote[9] = 50;
    assert_eq!(parse(&frame(&quote)), other, "ESP");
    let mut quote = samples::reply4(Protocol::Tcp);
    quote[7] = 1;
    assert_eq!(parse(&frame(&quote)), other, "a later fragment");
}

#[test]
fn fragmented_and_unknown_icmp_is_not_answered() {
    let other = Packet::Other { dst: Addr::from_v4(VIP) };
    let mut fragment = samples::echo4();
    fragment[6] = 0x20;
    assert_eq!(parse(&ethernet(&[], IPV4, &fragment)), other);
    for kind in [0, 4, 5, 9, 13, 17] {
        let mut message = samples::echo4();
        message[20] = kind;
        assert_eq!(parse(&ethernet(&[], IPV4, &message)), other, "type {kind}");
    }
    let mut advertisement = samples::echo6();
    advertisement[40] = 136;
    assert_eq!(
        parse(&ethernet(&[], IPV6, &advertisement)),
        Packet::Other { dst: Addr::from_v6(VIP6) }
    );
}

#[test]
fn duplicate_address_detection_has_its_own_rules() {
    let frame = |dst, options: &[u8]| ethernet(&[], IPV6, &solicitation([0; 16], dst, options));
    assert_eq!(parse(&frame(VIP6, &[])), Packet::Malformed, "not to the group");
    assert_eq!(parse(&frame(VIP6_GROUP, &SOURCE_OPTION)), Packet::Malformed, "with a source");
}

#[test]
fn extension_headers_are_bounded() {
    let chain = |count: usize| {
        let options = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        let segment = samples::tcp(v6(|_, _| ()), b"GET");
        let mut bytes = [&segment[..40], &options, &segment[40..]].concat();
        bytes[5] += 8 * u8::try_from(count).unwrap();
        bytes[6] = 60;
        bytes[40 + 8 * (count - 1)] = 6;
        ethernet(&[], IPV6, &bytes)
    };
    assert_eq!(parse(&chain(MAX_EXTENSIONS)), Packet::Tcp(key6(Protocol::Tcp), samples::fields(3)));
    let other = Packet::Other { dst: Addr::from_v6(VIP6) };
    assert_eq!(parse(&chain(MAX_EXTENSIONS + 1)), other);
    // A hop-by-hop header that is not the first is invalid (RFC 8200 §4.1).
    let mut misplaced = chain(2);
    misplaced[54] = 0;
    assert_eq!(parse(&misplaced), other);
    // A routing header with a segment left: the VIP is not the destination.
    let mut routed = chain(1);
    (routed[20], routed[57]) = (43, 1);
    assert_eq!(parse(&routed), other);
}

#[test]
fn foreign_frames_have_no_destination() {
    let none = Packet::Other { dst: Addr::default() };
    let segment = samples::tcp(v4(|_| ()), b"GET");
    assert_eq!(parse(&ethernet(&[], [0x88, 0xcc], &segment)), none, "LLDP");
    let three = [samples::QINQ.as_slice(), &samples::VLAN].concat();
    assert_eq!(parse(&ethernet(&three, IPV4, &segment)), none, "three tags");
    let mut infiniband = samples::arp(etherparse::ArpOperation::REQUEST, CLIENT, VIP);
    infiniband[1] = 32;
    assert_eq!(parse(&ethernet(&[], ARP, &infiniband)), none, "ARP of another link layer");
}

/// What etherparse makes of the frame, if it is TCP or UDP without fragments.
fn oracle(frame: &[u8]) -> Option<Packet> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (Addr::from_v4(header.source()), Addr::from_v4(header.destination()))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (Addr::from_v6(header.source()), Addr::from_v6(header.destination()))
        }
        NetSlice::Arp(_) => return None,
    };
    let key = |src_port, dst_port, protocol| FlowKey { src, dst, src_port, dst_port, protocol };
    match sliced.transport? {
        TransportSlice::Tcp(tcp) => {
            let key = key(tcp.source_port(), tcp.destination_port(), Protocol::Tcp);
            let flags = tcp.header_slice()[13];
            let payload = u32::try_from(tcp.payload().len()).unwrap();
            let next = tcp.sequence_number().wrapping_add(payload);
            Some(Packet::Tcp(key, TcpFields { flags, ack: tcp.acknowledgment_number(), next }))
        }
        TransportSlice::Udp(udp) => {
            Some(Packet::Udp(key(udp.source_port(), udp.destination_port(), Protocol::Udp)))
        }
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => None,
    }
}

/// What etherparse takes and the parser refuses on purpose: link headers other than up to two tags
/// of 802.1Q or 802.1ad, UDP and IPv6 of length zero (which etherparse takes as "until the end"), and
/// authentication headers, unspent routes and more than eight extension headers of IPv6.
fn refused_on_purpose(frame: &[u8]) -> bool {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else {
        return false;
    };
    let Some((ethertype, _)) = ethernet::payload(frame) else {
        return false;
    };
    let zero_udp = matches!(&sliced.transport, Some(TransportSlice::Udp(udp)) if udp.length() == 0);
    let odd_ip = match &sliced.net {
        Some(NetSlice::Ipv6(ip)) => {
            let headers: Vec<_> = ip.extensions().clone().into_iter().collect();
            ip.header().payload_length() == 0
                || headers.len() > MAX_EXTENSIONS
                || headers.iter().any(|header| match header {
                    etherparse::Ipv6ExtensionSlice::Authentication(_) => true,
                    etherparse::Ipv6ExtensionSlice::Routing(route) => route.payload()[1] != 0,
                    etherparse::Ipv6ExtensionSlice::HopByHop(_)
                    | etherparse::Ipv6ExtensionSlice::DestinationOptions(_)
                    | etherparse::Ipv6ExtensionSlice::Fragment(_) => false,
                })
        }
        Some(NetSlice::Ipv4(ip)) => ip.extensions().auth.is_some(),
        Some(NetSlice::Arp(_)) | None => false,
    };
    zero_udp || odd_ip || !matches!(ethertype, ethernet::IPV4 | ethernet::IPV6)
}

fn agrees_with_oracle(frame: &[u8]) {
    let packet = parse(frame);
    assert_eq!(packet, parse_any(frame), "the short way and the long one differ");
    match oracle(frame) {
        Some(expected) if packet != expected => {
            assert!(refused_on_purpose(frame), "{packet:?} for {expected:?}");
        }
        Some(_) => {}
        // Only of a first fragment does the parser know more than etherparse.
        None if matches!(packet, Packet::Tcp(..) | Packet::Udp(_) | Packet::FirstFragment(_)) => {
            let sliced = SlicedPacket::from_ethernet(frame).expect("etherparse refuses it");
            let fragmented = match sliced.net {
                Some(NetSlice::Ipv4(ip)) => ip.is_payload_fragmented(),
                Some(NetSlice::Ipv6(ip)) => ip.is_payload_fragmented(),
                Some(NetSlice::Arp(_)) | None => false,
            };
            assert!(fragmented, "{packet:?} is nothing to etherparse");
        }
        None => {}
    }
    match (packet, first_fragment(frame)) {
        (
            Packet::FirstFragment(key),
            Some((fragment, Packet::Tcp(flow, _) | Packet::Udp(flow))),
        ) => {
            assert_eq!((key, key.src, key.dst), (flow, fragment.src, fragment.dst));
        }
        (Packet::FirstFragment(_), other) => panic!("the parser took it for the first: {other:?}"),
        _ => {}
    }
}

/// What belongs together is known by the same key, and only that.
#[test]
fn fragments_of_a_datagram_have_one_key() {
    let named = |name| samples::all().into_iter().find(|it| it.name == name).unwrap().frame;
    for (first, later, id) in
        [("udp4 first", "udp4 last", 0x1234), ("udp6 first", "udp6 later", 77)]
    {
        let (key, whole) = first_fragment(&named(first)).unwrap();
        assert!(matches!(whole, Packet::Udp(_)), "{whole:?}");
        assert_eq!(parse(&named(later)), Packet::Fragment(key));
        assert_eq!(key.id, id);
    }
    let (key, whole) = first_fragment(&named("tcp4 first")).unwrap();
    assert!(matches!(whole, Packet::Tcp(_, fields) if fields == samples::fields(24)), "{whole:?}");
    assert_eq!(parse(&named("tcp4 later")), Packet::Fragment(key));
}

/// A golden frame with some bytes replaced, cut off or padded.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let frames: Vec<Vec<u8>> = samples::all().into_iter().map(|sample| sample.frame).collect();
    let byte = prop_oneof![any::<u8>(), Just(0), Just(0x45), Just(6), Just(17), Just(44), Just(60)];
    let edits = prop::collection::vec((0usize..110, byte), 0..5);
    let tail = prop_oneof![3 => Just(None), 1 => (0usize..120).prop_map(Some)];
    (prop::sample::select(frames), edits, tail).prop_map(|(mut frame, edits, tail)| {
        for (at, byte) in edits {
            if let Some(old) = frame.get_mut(at) {
                *old = byte;
            }
        }
        if let Some(len) = tail {
            frame.resize(len, 0xa5);
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_frames_are_seen_as_etherparse_sees_them(frame in damaged()) {
        agrees_with_oracle(&frame);
    }

    #[test]
    fn random_bytes_are_seen_as_etherparse_sees_them(
        mut frame in prop::collection::vec(any::<u8>(), 0..200),
        ethertype in prop::sample::select(vec![IPV4, IPV6, ARP, [0x81, 0], [0x88, 0xa8]]),
        first in prop::sample::select(vec![0x45u8, 0x46, 0x60, 0x00]),
    ) {
        if let Some([high, low, byte]) = frame.get_mut(12..15) {
            (*high, *low, *byte) = (ethertype[0], ethertype[1], first);
        }
        agrees_with_oracle(&frame);
    }

    #[test]
    fn any_addresses_and_ports_come_out_as_they_went_in(
        src: [u8; 4], dst: [u8; 4], src6: [u8; 16], dst6: [u8; 16], ports: (u16, u16),
    ) {
        let key = |src, dst, protocol| {
            FlowKey { src, dst, src_port: ports.0, dst_port: ports.1, protocol }
        };
        let ip = v4(|header| (header.source, header.destination) = (src, dst));
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ip(ip).udp(ports.0, ports.1).write(&mut bytes, &[]).unwrap();
        let expected = key(Addr::from_v4(src), Addr::from_v4(dst), Protocol::Udp);
        prop_assert_eq!(parse(&ethernet(&[], IPV4, &bytes)), Packet::Udp(expected));

        let ip = v6(|header, _| (header.source, header.destination) = (src6, dst6));
        let mut bytes = Vec::new();
        let segment = etherparse::PacketBuilder::ip(ip).tcp(ports.0, ports.1, 0, 0).syn();
        segment.write(&mut bytes, &[]).unwrap();
        let expected = key(Addr::from_v6(src6), Addr::from_v6(dst6), Protocol::Tcp);
        let fields = TcpFields { flags: 2, ack: 0, next: 0 };
        prop_assert_eq!(parse(&ethernet(&[], IPV6, &bytes)), Packet::Tcp(expected, fields));
    }
}
