use super::*;

/// A capture file written by hand: `order` turns a number into bytes.
fn file(magic: u32, order: fn(u32) -> [u8; 4], frames: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut out = order(magic).to_vec();
    out.extend([0; 12]);
    out.extend(order(65_535));
    out.extend(order(LINKTYPE_ETHERNET));
    for (seconds, fraction, data) in frames {
        let length = u32::try_from(data.len()).unwrap();
        for word in [*seconds, *fraction, length, length] {
            out.extend(order(word));
        }
        out.extend(*data);
    }
    out
}

fn frame(bytes: &[u8]) -> Frame {
    Frame { at: Duration::ZERO, bytes: bytes.to_vec(), length: bytes.len() }
}

#[test]
fn reads_both_byte_orders_and_both_resolutions() {
    let frames: &[(u32, u32, &[u8])] = &[(7, 5, b"hello"), (8, 0, b"")];
    for order in [u32::to_le_bytes as fn(u32) -> [u8; 4], u32::to_be_bytes] {
        let micro = parse(&file(MICROSECONDS, order, frames)).unwrap();
        let nano = parse(&file(NANOSECONDS, order, frames)).unwrap();
        assert_eq!(micro[0], Frame { at: Duration::new(7, 5000), ..frame(b"hello") });
        assert_eq!(nano[0].at, Duration::new(7, 5));
        assert_eq!((micro.len(), nano[1].bytes.len()), (2, 0));
    }
}

#[test]
fn refuses_what_is_no_capture_of_ethernet_frames() {
    let good = file(MICROSECONDS, u32::to_le_bytes, &[(1, 2, b"abc")]);
    assert!(parse(b"").is_err());
    assert!(parse(&[0; 24]).is_err());
    for length in 25..good.len() {
        let error = parse(&good[..length]).unwrap_err().to_string();
        assert!(error.contains("cut off at frame 0"), "{length}: {error}");
    }
    let mut other_link = good.clone();
    other_link[20] = 101;
    assert!(parse(&other_link).unwrap_err().to_string().contains("link type 101"));
    let mut snapped = good;
    snapped[36] = 9;
    let frame = &parse(&snapped).unwrap()[0];
    assert_eq!((frame.bytes.len(), frame.length, frame.is_whole()), (3, 9, false));
}

#[test]
fn counts_whole_frames_while_the_file_grows() {
    let bytes = file(MICROSECONDS, u32::to_le_bytes, &[(1, 0, b"abc"), (2, 0, b"defg")]);
    let counts: Vec<usize> = (0..=bytes.len()).map(|length| count(&bytes[..length])).collect();
    assert_eq!(counts[42], 0);
    assert_eq!(counts[43], 1);
    assert_eq!(counts.last(), Some(&2));
    assert!(counts.is_sorted());
}

#[test]
fn comparison_ignores_macs_and_order_but_not_repetition() {
    let first = [frame(b"aaaaaaaaaaaaX1"), frame(b"aaaaaaaaaaaaX2"), frame(b"aaaaaaaaaaaaX2")];
    let second = [frame(b"bbbbbbbbbbbbX2"), frame(b"bbbbbbbbbbbbX1"), frame(b"bbbbbbbbbbbbX3")];
    let expected = Comparison { equal: 2, only_first: 1, only_second: 1, cut: 0 };
    assert_eq!(compare(&first, &second), expected);
    let cut = [Frame { length: 100, ..frame(b"cccccccccccc") }];
    assert_eq!(compare(&cut, &[]), Comparison { only_first: 1, cut: 1, ..Comparison::default() });
    assert_eq!(compare(&first, &first), Comparison { equal: 3, ..Comparison::default() });
    assert_eq!(compare(&first, &[]), Comparison { only_first: 3, ..Comparison::default() });
}

#[test]
fn summary_of_a_syn() {
    let builder = etherparse::PacketBuilder::ethernet2([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1234, 80, 1, 1000)
        .syn();
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).unwrap();
    let summary = frame(&bytes).summary().unwrap();
    assert_eq!(mac(summary.source_mac), "01:02:03:04:05:06");
    assert_eq!(mac(summary.destination_mac), "06:05:04:03:02:01");
    let expected: (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    assert_eq!(summary.addresses, Some(expected));
    assert_eq!((summary.ports, summary.kind.as_str()), (Some((1234, 80)), "TCP SYN"));
    assert_eq!(frame(b"short").summary(), None);
}
