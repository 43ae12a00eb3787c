//! Checksums that the sender left to its card (Linux: `CHECKSUM_PARTIAL`). Where sender and
//! balancer share a host, no card finishes them: the field holds the sum of the pseudo header only,
//! and every receiver drops the packet.

use std::ops::Range;

use super::checksum::Sum;
use super::transport::{Extent, TCP, TCP_HEADER, UDP};
use super::{ethernet, ipv4, ipv6};
use crate::addr::Addr;

/// Finishes the TCP or UDP checksum of a frame that holds the sum of its pseudo header instead.
/// Returns whether it did; every other frame stays as it is, whether its checksum is right or wrong.
///
/// One packet in 65,536 that was damaged on its way looks like this and gets a checksum that is
/// right: to be called only where such frames occur.
pub fn finish_checksum(frame: &mut [u8]) -> bool {
    let Some(Segment { place, field, pseudo }) = segment(frame) else { return false };
    let Some(message) = frame.get_mut(place) else { return false };
    let is_partial = field
        .checksum(message)
        .is_some_and(|checksum| *checksum == pseudo.checksum().map(|byte| !byte));
    if !is_partial || pseudo.add(message).checksum() == [0, 0] {
        return false;
    }
    // The field's own content adds the pseudo header.
    let finished = match (field, Sum::default().add(message).checksum()) {
        // RFC 768: zero would mean that there is no checksum.
        (Field::Udp, [0, 0]) => [0xff, 0xff],
        (_, checksum) => checksum,
    };
    field.checksum_mut(message).is_some_and(|checksum| {
        *checksum = finished;
        true
    })
}

/// A whole TCP segment or UDP datagram in a frame.
struct Segment {
    place: Range<usize>,
    field: Field,
    pseudo: Sum,
}

/// Where the checksum is.
#[derive(Clone, Copy)]
enum Field {
    Tcp,
    Udp,
}

impl Field {
    fn checksum(self, message: &[u8]) -> Option<&[u8; 2]> {
        match self {
            Self::Tcp => message.get(TCP_CHECKSUM..)?.first_chunk(),
            Self::Udp => message.get(UDP_CHECKSUM..)?.first_chunk(),
        }
    }

    fn checksum_mut(self, message: &mut [u8]) -> Option<&mut [u8; 2]> {
        match self {
            Self::Tcp => message.get_mut(TCP_CHECKSUM..)?.first_chunk_mut(),
            Self::Udp => message.get_mut(UDP_CHECKSUM..)?.first_chunk_mut(),
        }
    }
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let (ethertype, packet) = ethernet::payload(frame)?;
    let link = frame.len().checked_sub(packet.len())?;
    let (src, dst, protocol, body) = match ethertype {
        ethernet::IPV4 => ipv4_body(packet)?,
        ethernet::IPV6 => ipv6_body(packet)?,
        _ => return None,
    };
    let (field, len) = match protocol {
        TCP if body.len() >= TCP_HEADER => (Field::Tcp, body.len()),
        UDP => (Field::Udp, udp_len(packet.get(body.clone())?)?),
        _ => return None,
    };
    let start = link.checked_add(body.start)?;
    let place = start..start.checked_add(len)?;
    Some(Segment { place, field, pseudo: Sum::pseudo(src, dst, protocol, len) })
}

/// Addresses, protocol, and where the body is.
type Body = (Addr, Addr, u8, Range<usize>);

fn ipv4_body(packet: &[u8]) -> Option<Body> {
    let header = packet.first_chunk::<{ ipv4::HEADER }>()?;
    let header_len = usize::from(header[0] & 0xf) << 2;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_sound = header[0] >> 4 == 4 && header_len >= ipv4::HEADER && header_len <= total;
    if !is_sound || total > packet.len() || ipv4::is_fragment(header) {
        return None;
    }
    let (src, dst) = ipv4::addresses(header);
    Some((src, dst, header[9], header_len..total))
}

fn ipv6_body(packet: &[u8]) -> Option<Body> {
    let header = packet.first_chunk::<{ ipv6::HEADER }>()?;
    let end = ipv6::packet_len(packet)?;
    let (protocol, body, extent) = ipv6::upper_protocol(packet)?;
    if header[0] >> 4 != 6 || extent != Extent::Whole {
        return None;
    }
    let (src, dst) = ipv6::addresses(header)?;
    Some((src, dst, protocol, end.checked_sub(body.len())?..end))
}

/// The datagram's own length, which may be less than what IP carries.
fn udp_len(body: &[u8]) -> Option<usize> {
    let header = body.first_chunk::<UDP_HEADER>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (UDP_HEADER..=body.len()).contains(&len).then_some(len)
}

const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const UDP_HEADER: usize = 8;

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may panic"
)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, IPV4, IPV6, QINQ, VLAN, ethernet, fragment4, tcp, udp};
    use super::*;

    /// As a sender with checksum offload leaves the frame: by the kernel's words the pseudo header
    /// only, not inverted. `at` is where the checksum is.
    fn unfinished(frame: &[u8], at: usize) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let Segment { pseudo, .. } = segment(&frame).expect("a whole segment");
        frame[at..at + 2].copy_from_slice(&pseudo.checksum().map(|byte| !byte));
        frame
    }

    /// A frame made by etherparse, which finishes its checksum, and where that is.
    fn finished(v6: bool, is_tcp: bool, tags: &[u8], payload: &[u8]) -> (Vec<u8>, usize) {
        let ip = if v6 { samples::v6(|_, _| ()) } else { samples::v4(|_| ()) };
        let packet = if is_tcp { tcp(ip, payload) } else { udp(ip, payload) };
        let frame = ethernet(tags, if v6 { IPV6 } else { IPV4 }, &packet);
        let header = 14 + tags.len() + if v6 { 40 } else { 20 };
        (frame, header + if is_tcp { 16 } else { 6 })
    }

    #[test]
    fn padding_is_no_payload() {
        let (frame, at) = finished(false, true, &[], b"odd");
        let mut padded = [&unfinished(&frame, at)[..], &[0xaa; 7]].concat();
        assert!(finish_checksum(&mut padded));
        assert_eq!(padded, [&frame[..], &[0xaa; 7]].concat());
    }

    #[test]
    fn a_udp_checksum_of_zero_is_written_as_ones() {
        // The last two bytes are chosen so that the sum is 0xffff.
        let (frame, at) = finished(false, false, &[], &[0, 0]);
        let rest = [frame[at], frame[at + 1]];
        let (frame, at) = finished(false, false, &[], &rest);
        assert_eq!(frame[at..at + 2], [0xff, 0xff], "what etherparse makes of it");
        let mut partial = unfinished(&frame, at);
        assert!(finish_checksum(&mut partial));
        assert_eq!(partial, frame);
    }

    #[test]
    fn fragments_and_other_protocols_stay_as_they_are() {
        let fragment = ethernet(&[], IPV4, &tcp(fragment4(0, true), &[7; 64]));
        for mut frame in [fragment, samples::echo4(), samples::echo6()] {
            let before = frame.clone();
            assert!(!finish_checksum(&mut frame));
            assert_eq!(frame, before);
        }
    }

    proptest! {
        #[test]
        fn what_the_sender_left_is_finished_as_etherparse_does(
            v6: bool,
            is_tcp: bool,
            tags in 0..3_usize,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let tags = [&[][..], &VLAN, &QINQ][tags];
            let (frame, at) = finished(v6, is_tcp, tags, &payload);
            let mut partial = unfinished(&frame, at);
            prop_assert_eq!(finish_checksum(&mut partial), partial != unfinished(&frame, at));
            prop_assert_eq!(&partial, &frame);
            // Once is enough.
            prop_assert!(!finish_checksum(&mut partial));
            prop_assert_eq!(&partial, &frame);
        }

        #[test]
        fn a_wrong_checksum_stays_wrong(
            v6: bool,
            is_tcp: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            wrong: u16,
        ) {
            let (mut frame, at) = finished(v6, is_tcp, &[], &payload);
            let partial = unfinished(&frame, at);
            frame[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            prop_assume!(frame != partial);
            let before = frame.clone();
            prop_assert!(!finish_checksum(&mut frame));
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn no_bytes_cause_a_panic_and_none_but_the_field_changes(
            sample in 0..samples::all().len(),
            at in 0..120_usize,
            byte: u8,
            len in 0..200_usize,
        ) {
            let mut frame = samples::all().swap_remove(sample).frame;
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
            frame.truncate(len);
            let before = frame.clone();
            let finished = finish_checksum(&mut frame);
            let changed = frame.iter().zip(&before).filter(|(new, old)| new != old).count();
            prop_assert!(changed <= 2 * usize::from(finished));
        }
    }
}
