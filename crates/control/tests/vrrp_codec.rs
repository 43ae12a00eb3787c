//! The wire format: what is read back, what is rejected and why, and that nothing panics.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use control::vrrp::{
    Addresses, AuthPass, ChecksumStyle, Config, EncodeError, Envelope, Event, GROUP_V4, GROUP_V6,
    MAX_MESSAGE_LEN, Outgoing, Reject, Router, Version, Vrid, accept, decode, encode,
};
use proptest::prelude::*;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn ip6(last: u16) -> IpAddr {
    IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last])
}

fn v4() -> Envelope {
    Envelope { source: PEER, destination: GROUP_V4.into(), ttl: 255 }
}

fn v6() -> Envelope {
    Envelope { source: ip6(3), destination: GROUP_V6.into(), ttl: 255 }
}

fn config() -> Config {
    Config::new(Vrid::new(51).unwrap(), ip(2), vec![ip(10)])
}

fn outgoing<'a>(config: &Config, from: &Envelope, vips: &'a [IpAddr]) -> Outgoing<'a> {
    Outgoing {
        version: config.version,
        vrid: config.vrid,
        priority: 150,
        interval: config.interval,
        vips,
        checksum: ChecksumStyle::Plain,
        source: from.source,
        destination: from.destination,
        auth: config.auth_pass,
    }
}

fn message(outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut buffer = [0xa5; MAX_MESSAGE_LEN];
    let len = encode(outgoing, &mut buffer).expect("encodable");
    buffer[..len].to_vec()
}

/// Makes the checksum right again after a change (no pseudo-header).
fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[6..8].fill(0);
    let sum: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16));
    bytes[6..8].copy_from_slice(&sum.to_be_bytes()[2..]);
    bytes
}

#[test]
fn a_version_3_message_byte_by_byte() {
    let bytes = message(&outgoing(&config(), &v4(), &[ip(10)]));
    // 0x3133 + 0x9601 + 0x0064 + 0xc000 + 0x020a = 0x189a2, folded 0x89a3.
    assert_eq!(bytes, [0x31, 51, 150, 1, 0x00, 100, 0x76, 0x5c, 192, 0, 2, 10]);
}

#[test]
fn a_version_2_message_byte_by_byte() {
    let config = Config { version: Version::V2, ..config() };
    let bytes = message(&outgoing(&config, &v4(), &[ip(10)]));
    // 0x2133 + 0x9601 + 0x0001 + 0xc000 + 0x020a = 0x1793f, folded 0x7940.
    let head = [0x21, 51, 150, 1, 0, 1, 0x86, 0xbf, 192, 0, 2, 10];
    assert_eq!(bytes[..12], head);
    assert_eq!(bytes[12..], [0; 8], "authentication data");
}

#[test]
fn both_checksums_are_accepted_and_told_apart() {
    for style in [ChecksumStyle::Plain, ChecksumStyle::PseudoHeader] {
        let vips = [ip(10)];
        let sent = Outgoing { checksum: style, ..outgoing(&config(), &v4(), &vips) };
        let bytes = message(&sent);
        assert_eq!(decode(&bytes, &v4()).unwrap().checksum, style);
        // The pseudo-header covers the addresses, the plain checksum does not.
        let elsewhere = Envelope { destination: ip(77), ..v4() };
        let expected = match style {
            ChecksumStyle::Plain => Ok(style),
            ChecksumStyle::PseudoHeader => Err(Reject::Checksum),
        };
        assert_eq!(decode(&bytes, &elsewhere).map(|a| a.checksum), expected);
    }
}

#[test]
fn ipv6_always_has_a_pseudo_header() {
    let vips = [ip6(0x10)];
    for checksum in [ChecksumStyle::Plain, ChecksumStyle::PseudoHeader] {
        let bytes = message(&Outgoing { checksum, ..outgoing(&config(), &v6(), &vips) });
        let advert = decode(&bytes, &v6()).unwrap();
        assert_eq!(advert.checksum, ChecksumStyle::PseudoHeader);
        assert!(advert.addresses.same_as(&vips));
        assert!(!advert.addresses.same_as(&[ip6(0x11)]));
    }
}

#[test]
fn version_2_has_no_pseudo_header() {
    let config = Config { version: Version::V2, ..config() };
    let style = ChecksumStyle::PseudoHeader;
    let vips = [ip(10)];
    let sent = Outgoing { checksum: style, ..outgoing(&config, &v4(), &vips) };
    assert_eq!(decode(&message(&sent), &v4()).unwrap().checksum, ChecksumStyle::Plain);
}

type Case = (Config, Vec<u8>, Envelope, Result<(), Reject>);

/// Messages that are wrong whoever the receiver is.
fn bad_messages() -> Vec<Case> {
    let good = message(&outgoing(&config(), &v4(), &[ip(10)]));
    let v2 = Config { version: Version::V2, ..config() };
    let good_v2 = message(&outgoing(&v2, &v4(), &[ip(10)]));
    let with = |good: &[u8], at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        repaired(bytes)
    };
    let mut flipped = good.clone();
    flipped[9] ^= 1;
    vec![
        (config(), good.clone(), Envelope { ttl: 254, ..v4() }, Err(Reject::Ttl)),
        (config(), good.clone(), Envelope { ttl: 64, ..v4() }, Err(Reject::Ttl)),
        (config(), good[..11].to_vec(), v4(), Err(Reject::Length)),
        (config(), [&good[..], &[0; 4]].concat(), v4(), Err(Reject::Length)),
        (config(), good[..7].to_vec(), v4(), Err(Reject::Length)),
        (config(), vec![], v4(), Err(Reject::Length)),
        (v2.clone(), good_v2[..12].to_vec(), v4(), Err(Reject::Length)),
        (config(), with(&good, 0, 0x41), v4(), Err(Reject::Version)),
        (config(), with(&good, 0, 0x32), v4(), Err(Reject::Type)),
        (config(), flipped, v4(), Err(Reject::Checksum)),
        (v2, with(&good_v2, 4, 1), v4(), Err(Reject::Auth)),
        (config(), with(&good, 1, 0), v4(), Err(Reject::Vrid)),
        (config(), repaired(vec![0x31, 51, 1, 0, 0, 100, 0, 0]), v4(), Err(Reject::Count)),
        (config(), with(&good, 5, 0), v4(), Err(Reject::Interval)),
        (config(), good, Envelope { source: ip6(1), ..v4() }, Err(Reject::Family)),
    ]
}

/// Good messages, not all for this instance.
fn misdirected() -> Vec<Case> {
    let good = message(&outgoing(&config(), &v4(), &[ip(10)]));
    let v2 = Config { version: Version::V2, ..config() };
    let good_v2 = message(&outgoing(&v2, &v4(), &[ip(10)]));
    let slow_v2 = Config { interval: Duration::from_secs(2), ..v2.clone() };
    let other = Config { vrid: Vrid::new(52).unwrap(), ..config() };
    let from = |source| Envelope { source, ..v4() };
    let to = |destination| Envelope { destination, ..v4() };
    let other_vip = Config { vips: vec![ip(11)], ..config() };
    let only = Config { peers: vec![ip(4)], ..config() };
    let unicast = Config { peers: vec![PEER], unicast: true, ..config() };
    vec![
        (config(), good.clone(), v4(), Ok(())),
        (v2.clone(), good_v2.clone(), v4(), Ok(())),
        (unicast.clone(), good.clone(), to(ip(2)), Ok(())),
        (config(), good_v2.clone(), v4(), Err(Reject::Version)),
        (v2, good.clone(), v4(), Err(Reject::Version)),
        (slow_v2, good_v2, v4(), Err(Reject::Interval)),
        (other, good.clone(), v4(), Err(Reject::Vrid)),
        (config(), good.clone(), from(ip(2)), Err(Reject::Own)),
        (config(), good.clone(), from([224, 0, 0, 1].into()), Err(Reject::Family)),
        (config(), good.clone(), from([0; 4].into()), Err(Reject::Family)),
        (only, good.clone(), v4(), Err(Reject::Source)),
        (other_vip, good.clone(), v4(), Err(Reject::Addresses)),
        (config(), good.clone(), to(ip(2)), Err(Reject::Destination)),
        (unicast, good, v4(), Err(Reject::Destination)),
    ]
}

#[test]
fn each_reason_has_its_message() {
    let cases = [bad_messages(), misdirected()].concat();
    for reason in Reject::ALL {
        assert!(cases.iter().any(|case| case.3 == Err(reason)), "{}", reason.name());
    }
    for (config, bytes, envelope, expected) in cases {
        let got = accept(&config, &bytes, &envelope).map(|_| ());
        assert_eq!(got, expected, "{bytes:02x?} {envelope:?}");
    }
}

#[test]
fn a_password_of_version_2_is_sent_and_must_be_the_same() {
    let with = |pass: Option<&str>| Config {
        version: Version::V2,
        auth_pass: pass.map(|text| AuthPass::new(text).unwrap()),
        ..config()
    };
    let sent = message(&outgoing(&with(Some("1111")), &v4(), &[ip(10)]));
    assert_eq!((sent[4], &sent[12..]), (1, &b"1111\0\0\0\0"[..]), "RFC 2338 §5.3.6, §5.3.10");
    let plain = message(&outgoing(&with(None), &v4(), &[ip(10)]));
    for (own, message, expected) in [
        (Some("1111"), &sent, Ok(())),
        (Some("1112"), &sent, Err(Reject::Auth)),
        (Some("11110"), &sent, Err(Reject::Auth)),
        (None, &sent, Err(Reject::Auth)),
        (Some("1111"), &plain, Err(Reject::Auth)),
        (None, &plain, Ok(())),
    ] {
        assert_eq!(accept(&with(own), message, &v4()).map(drop), expected, "{own:?}");
    }
    let mut other_type = sent;
    other_type[4] = 2;
    assert_eq!(decode(&repaired(other_type), &v4()), Err(Reject::Auth), "IPsec");
}

#[test]
fn another_list_of_addresses_is_discarded() {
    let own =
        |vips: &[u8]| Config { vips: vips.iter().map(|last| ip(*last)).collect(), ..config() };
    for (sent, vips, same) in [
        (&[10][..], &[10][..], true),
        (&[11, 10], &[10, 11], true),
        (&[10, 10, 11], &[10, 11], true),
        (&[10], &[10, 11], false),
        (&[10, 11], &[10], false),
        (&[12], &[10], false),
        (&[10, 10], &[10, 11], false),
    ] {
        let sent = message(&outgoing(&config(), &v4(), &own(sent).vips));
        let expected = if same { Ok(()) } else { Err(Reject::Addresses) };
        assert_eq!(accept(&own(vips), &sent, &v4()).map(drop), expected, "{vips:?}");
    }
}

#[test]
fn an_ipv6_list_may_begin_with_the_routers_link_local_address() {
    let global = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let config = Config { primary: ip6(2), vips: vec![global(10), global(11)], ..config() };
    for (sent, same) in [
        (vec![ip6(0x5e), global(10), global(11)], true),
        (vec![global(11), global(10)], true),
        (vec![global(10), global(11), ip6(0x5e)], false),
        (vec![ip6(0x5e), global(10)], false),
        (vec![ip6(0x5e), global(10), global(12)], false),
    ] {
        let message = message(&outgoing(&config, &v6(), &sent));
        let expected = if same { Ok(()) } else { Err(Reject::Addresses) };
        assert_eq!(accept(&config, &message, &v6()).map(drop), expected, "{sent:?}");
    }
}

#[test]
fn reserved_bits_are_ignored() {
    // RFC 9568 §5.2.6: set to 0, ignored on reception.
    let mut bytes = message(&outgoing(&config(), &v4(), &[ip(10)]));
    bytes[4] |= 0xf0;
    let bytes = repaired(bytes);
    assert_eq!(decode(&bytes, &v4()).unwrap().interval, Duration::from_secs(1));
}

#[test]
fn what_cannot_be_said_is_not_written() {
    let (config, from) = (config(), v4());
    let vips = [ip(10)];
    let good = outgoing(&config, &from, &vips);
    let mut buffer = [0; MAX_MESSAGE_LEN];
    let ms = Duration::from_millis;
    for interval in [ms(0), ms(9), ms(40_960), Duration::MAX] {
        let sent = Outgoing { interval, ..good };
        assert_eq!(encode(&sent, &mut buffer), Err(EncodeError::Interval(interval)));
    }
    for interval in [ms(999), ms(256_000)] {
        let sent = Outgoing { version: Version::V2, interval, ..good };
        assert_eq!(encode(&sent, &mut buffer), Err(EncodeError::Interval(interval)));
    }
    let many = vec![ip(10); 256];
    for vips in [&[][..], &[ip6(1)], &many] {
        assert_eq!(encode(&Outgoing { vips, ..good }, &mut buffer), Err(EncodeError::Addresses));
    }
    let room = EncodeError::Room { needed: 12, room: 11 };
    assert_eq!(encode(&good, &mut buffer[..11]), Err(room));
    let v6_in_v2 = Outgoing { version: Version::V2, source: ip6(1), vips: &[ip6(2)], ..good };
    assert_eq!(encode(&v6_in_v2, &mut buffer), Err(EncodeError::Addresses));
}

#[test]
fn a_full_address_list_fits() {
    let vips: Vec<IpAddr> = (0..=254).map(ip).collect();
    let advert = message(&outgoing(&config(), &v4(), &vips));
    assert!(decode(&advert, &v4()).unwrap().addresses.same_as(&vips));
    let vips: Vec<IpAddr> = (0..90).map(ip6).collect();
    let advert = message(&outgoing(&config(), &v6(), &vips));
    assert_eq!(advert.len(), MAX_MESSAGE_LEN);
    let addresses = decode(&advert, &v6()).unwrap().addresses;
    assert!(matches!(addresses, Addresses::V6(list) if list.len() == 90));
}

#[test]
fn all_lengths_and_all_first_two_bytes_decode_without_a_panic() {
    let mut accepted = 0u32;
    for first in 0..=u16::MAX {
        let mut bytes = [0u8; 64];
        bytes[..2].copy_from_slice(&first.to_be_bytes());
        bytes[2..6].copy_from_slice(&[100, 1, 0, 100]);
        for len in 0..=64 {
            for envelope in [v4(), v6()] {
                accepted += u32::from(decode(&bytes[..len], &envelope).is_ok());
            }
        }
        let valid = repaired(bytes[..12].to_vec());
        accepted += u32::from(decode(&valid, &v4()).is_ok());
    }
    assert_eq!(accepted, 255, "version 3, type 1, every ID but 0");
}

#[test]
fn all_lengths_of_any_filling_decode_without_a_panic() {
    let crossed = Envelope { destination: ip(1), ..v6() };
    for len in 0..=64 {
        for fill in 0..=255 {
            for envelope in [v4(), v6(), crossed] {
                let bytes = vec![fill; len];
                assert!(decode(&bytes, &envelope).is_err(), "{len} times {fill:#x}");
            }
        }
    }
}

/// Any instant will do.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
fn origin() -> Instant {
    Instant::now()
}

fn any_outgoing() -> impl Strategy<Value = (Config, Envelope, u8, ChecksumStyle)> {
    let style = prop_oneof![Just(ChecksumStyle::Plain), Just(ChecksumStyle::PseudoHeader)];
    (0..3u8, 1..=255u8, 1..=255u8, 1..=4095u32, any::<u8>(), style).prop_map(
        |(kind, vrid, count, centis, priority, style)| {
            let (version, envelope) = match kind {
                0 => (Version::V2, v4()),
                1 => (Version::V3, v4()),
                _ => (Version::V3, v6()),
            };
            let interval = match version {
                Version::V2 => Duration::from_secs(u64::from(centis % 255 + 1)),
                Version::V3 => Duration::from_millis(10) * centis,
            };
            let vips = match kind {
                2 => (1..=u16::from(count.min(90))).map(ip6).collect(),
                _ => (1..=count).map(|n| IpAddr::from([10, 0, 0, n])).collect(),
            };
            let own = if kind == 2 { ip6(2) } else { ip(2) };
            let config = Config::new(Vrid::new(vrid).unwrap(), own, vips);
            (Config { version, interval, ..config }, envelope, priority, style)
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((config, from, priority, style) in any_outgoing()) {
        let sent = Outgoing { priority, checksum: style, ..outgoing(&config, &from, &config.vips) };
        let bytes = message(&sent);
        let advert = accept(&config, &bytes, &from).unwrap();
        prop_assert_eq!(advert.version, config.version);
        prop_assert_eq!(advert.vrid, config.vrid);
        prop_assert_eq!(advert.priority, priority);
        prop_assert_eq!(advert.interval, config.interval);
        prop_assert!(advert.addresses.same_as(&config.vips));
    }

    #[test]
    fn any_bytes_decode_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        v4_source in any::<bool>(),
    ) {
        let envelope = if v4_source { v4() } else { v6() };
        if let Ok(advert) = decode(&bytes, &envelope) {
            prop_assert!(!advert.addresses.is_empty() && !advert.interval.is_zero());
        }
    }

    #[test]
    fn a_single_flipped_bit_is_noticed_and_changes_nothing(
        (config, from, priority, style) in any_outgoing(),
        bit in any::<prop::sample::Index>(),
    ) {
        let sent = Outgoing { priority, checksum: style, ..outgoing(&config, &from, &config.vips) };
        let mut bytes = message(&sent);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let now = origin();
        let mut router = Router::new(config).unwrap();
        router.handle(Event::Start, now);
        while router.poll_action().is_some() {}
        let before = router.clone();
        prop_assert!(router.receive(&bytes, &from, now + Duration::from_secs(1)).is_err());
        prop_assert_eq!(router, before);
    }
}
