//! Resets are compared byte for byte with frames that etherparse builds, checksums included.

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Options, Ipv6RawExtHeader, PacketBuilder, TcpHeader,
};
use proptest::prelude::*;

use super::*;
use crate::key::Protocol;
use crate::packet::samples::{
    self, CLIENT_MAC, IPV4, IPV6, OWN_MAC, QINQ, VLAN, ethernet, key4, key6, v4, v6,
};

const OWN: Mac = Mac(OWN_MAC);
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const SEQ: u32 = 0xffff_fff0;
const ACKED: u32 = 0x0102_0304;

/// The reset in a buffer that has no room to grow.
fn answered(frame: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = frame.to_vec();
    match reset(&mut buffer, frame.len(), OWN) {
        Some(len) => Some(buffer[..len].to_vec()),
        None => {
            assert_eq!(buffer, frame, "no reset, but a change");
            None
        }
    }
}

/// The client's segment, with TCP options.
fn segment(ip: IpHeaders, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(40_000, 443, SEQ, 1024);
    (tcp.fin, tcp.syn, tcp.rst) = (flags & FIN != 0, flags & SYN != 0, flags & RST != 0);
    (tcp.ack, tcp.psh, tcp.urg) = (flags & ACK != 0, flags & PSH != 0, flags & URG != 0);
    tcp.acknowledgment_number = ACKED;
    tcp.set_options_raw(&[2, 4, 5, 0xb4, 1, 3, 3, 7]).unwrap();
    let mut bytes = Vec::new();
    PacketBuilder::ip(ip).tcp_header(tcp).write(&mut bytes, payload).unwrap();
    bytes
}

/// The reset that the client is to get.
fn expected(v6: bool, tags: &[u8], seq: u32, ack: Option<u32>) -> Vec<u8> {
    let mut tcp = TcpHeader::new(443, 40_000, seq, 0);
    (tcp.rst, tcp.ack) = (true, ack.is_some());
    tcp.acknowledgment_number = ack.unwrap_or(0);
    let mut packet = Vec::new();
    PacketBuilder::ip(back(v6)).tcp_header(tcp).write(&mut packet, &[]).unwrap();
    let ethertype = if v6 { IPV6 } else { IPV4 };
    [&CLIENT_MAC, &OWN_MAC, tags, &ethertype, &packet].concat()
}

fn back(of_v6: bool) -> IpHeaders {
    if of_v6 {
        return v6(|header, _| {
            std::mem::swap(&mut header.source, &mut header.destination);
            header.hop_limit = 64;
        });
    }
    v4(|header| {
        std::mem::swap(&mut header.source, &mut header.destination);
        header.time_to_live = 64;
    })
}

/// RFC 9293 §3.10.7.1, with sequence numbers that wrap.
#[test]
fn every_combination_of_flags() {
    // Flags, payload, and the reset's sequence and acknowledgment number.
    type Reply = Option<(u32, Option<u32>)>;
    let table: [(u8, &[u8], Reply); 14] = [
        (ACK, &[], Some((ACKED, None))),
        (ACK | PSH, b"GET /", Some((ACKED, None))),
        (ACK | FIN, &[], Some((ACKED, None))),
        (SYN | ACK, &[], Some((ACKED, None))),
        (SYN | ACK | FIN | URG, b"x", Some((ACKED, None))),
        (SYN, &[], Some((0, Some(0xffff_fff1)))),
        (SYN, b"fast open", Some((0, Some(0xffff_fffa)))),
        (SYN | FIN, &[0; 30], Some((0, Some(0x10)))),
        (FIN, &[], Some((0, Some(0xffff_fff1)))),
        (0, &[], Some((0, Some(SEQ)))),
        (PSH, &[0; 16], Some((0, Some(0)))),
        (RST, &[], None),
        (RST | ACK, &[], None),
        (RST | SYN | FIN, b"x", None),
    ];
    for (flags, payload, reply) in table {
        for tags in [&[][..], &VLAN, &QINQ] {
            for of_v6 in [false, true] {
                let (ip, ethertype) =
                    if of_v6 { (v6(|_, _| ()), IPV6) } else { (v4(|_| ()), IPV4) };
                let frame = ethernet(tags, ethertype, &segment(ip, flags, payload));
                let reply = reply.map(|(seq, ack)| expected(of_v6, tags, seq, ack));
                assert_eq!(answered(&frame), reply, "flags {flags:#04x}, IPv6: {of_v6}");
            }
        }
    }
}

#[test]
fn options_and_padding_are_left_out() {
    let options = Ipv4Options::try_from(&[7, 7, 4, 0, 0, 0, 0, 0][..]).unwrap();
    let packet = segment(v4(|header| header.options = options), SYN, b"data");
    let reply = expected(false, &[], 0, Some(SEQ.wrapping_add(5)));
    assert_eq!(answered(&ethernet(&[], IPV4, &packet)), Some(reply.clone()));
    let padded = [&ethernet(&[], IPV4, &packet)[..], &[0xee; 18]].concat();
    assert_eq!(answered(&padded), Some(reply), "padding is no payload");
    let extended = segment(
        v6(|_, extensions| {
            let header = Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[0; 6]).unwrap();
            extensions.destination_options = Some(header);
        }),
        FIN,
        b"data",
    );
    let reply = expected(true, &[], 0, Some(SEQ.wrapping_add(5)));
    assert_eq!(answered(&ethernet(&[], IPV6, &extended)), Some(reply));
}

#[test]
fn a_first_fragment_is_answered_if_its_length_does_not_matter() {
    let fragment = |flags| {
        let ip = v4(|header| {
            header.more_fragments = true;
            header.dont_fragment = false;
            header.fragment_offset = IpFragOffset::ZERO;
        });
        ethernet(&[], IPV4, &segment(ip, flags, &[0; 16]))
    };
    assert_eq!(answered(&fragment(ACK)), Some(expected(false, &[], ACKED, None)));
    assert_eq!(answered(&fragment(SYN)), None);
}

#[test]
fn what_must_not_be_answered_is_not() {
    let good = ethernet(&[], IPV4, &segment(v4(|_| ()), ACK, &[]));
    assert!(answered(&good).is_some());
    let changed = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let source = |address| ethernet(&[], IPV4, &segment(v4(|ip| ip.source = address), ACK, &[]));
    let table = [
        ("to a group of stations", changed(0, 3)),
        ("from a group of stations", changed(6, 3)),
        ("a damaged IP header", changed(24, 0xff)),
        ("from everybody", source([255; 4])),
        ("from a group", source([224, 0, 0, 1])),
        ("from itself", source(samples::VIP)),
        ("from nobody", source([0; 4])),
        ("a datagram", ethernet(&[], IPV4, &samples::udp(v4(|_| ()), b"x"))),
        ("half a header", good[..50].to_vec()),
        ("nothing", vec![]),
    ];
    for (what, frame) in table {
        assert_eq!(answered(&frame), None, "{what}");
    }
}

#[test]
fn a_reset_that_nobody_asked_for() {
    for (key, of_v6) in [(key4(Protocol::Tcp), false), (key6(Protocol::Tcp), true)] {
        let mut buffer = [0xee; RESET_LEN];
        let len = write_reset(&mut buffer, &key, ACKED, Mac(CLIENT_MAC), OWN).unwrap();
        assert_eq!(buffer[..len], expected(of_v6, &[], ACKED, None));
        for room in 0..len {
            assert_eq!(write_reset(&mut buffer[..room], &key, ACKED, Mac(CLIENT_MAC), OWN), None);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(frame in prop::collection::vec(any::<u8>(), 0..200), own in any::<[u8; 6]>()) {
        let mut buffer = frame.clone();
        match reset(&mut buffer, frame.len(), Mac(own)) {
            Some(len) => prop_assert!(len <= frame.len()),
            None => prop_assert_eq!(buffer, frame),
        }
    }

    /// A sound frame with one byte changed, which comes further than random bytes do.
    #[test]
    fn nor_do_nearly_right_ones(at in 0..120_usize, byte in any::<u8>(), of_v6 in any::<bool>()) {
        let (ip, ethertype) = if of_v6 { (v6(|_, _| ()), IPV6) } else { (v4(|_| ()), IPV4) };
        let mut frame = ethernet(&VLAN, ethertype, &segment(ip, FIN, b"payload"));
        let at = at % frame.len();
        frame[at] = byte;
        let mut buffer = frame.clone();
        if let Some(len) = reset(&mut buffer, frame.len(), OWN) {
            prop_assert!(len <= frame.len());
            prop_assert_eq!(reset(&mut buffer[..len].to_vec(), len, OWN), None, "no reset of a reset");
        }
    }
}
