//! Frames that a sender on this very host left unfinished are user space's, also of known flows.

use steer::Action;

use super::frames::{ACK, SYN, Shape};
use super::world::World;
use crate::clock;

/// Where the checksum is behind the Ethernet and the IP header.
const CHECKSUMS: [(u32, usize); 4] = [(0, 20 + 16), (1, 40 + 16), (2, 20 + 6), (3, 40 + 6)];
const ETHERNET: usize = 14;
const TRANSMIT: (Action, bool) = (Action::Transmit, true);
const TO_SOCKET: (Action, bool) = (Action::Redirect, false);

#[test]
fn unfinished_and_merged_frames_are_left_to_user_space() {
    let mut world = World::new(true);
    world.publish(|_, _| {});
    // Of each service the first client whose backend is on this interface.
    for (service, checksum) in CHECKSUMS {
        let known = (0..40).map(|number| service + number * 5).find(|client| {
            for (flags, number) in [(SYN, 0), (ACK, 1), (ACK, 1000)] {
                world.worker(&Shape::of(*client, flags, number).frame(), clock::now());
            }
            world.action(&Shape::of(*client, ACK, 1).frame()) == TRANSMIT
        });
        let finished = Shape::of(known.expect("most backends are here"), ACK, 1).frame();
        let mut unfinished = finished.clone();
        let sum = pseudo_header_sum(&finished);
        unfinished[ETHERNET + checksum..][..2].copy_from_slice(&sum.to_be_bytes());
        let mut merged = finished.clone();
        merged.resize(2000, 0);

        world.set_local_senders(0);
        assert_eq!(world.action(&unfinished), TRANSMIT, "{service}: of no interest");
        assert_eq!(world.action(&merged), TRANSMIT, "{service}: of no interest");
        world.set_local_senders(1522);
        assert_eq!(world.action(&finished), TRANSMIT, "{service}");
        assert_eq!(world.action(&unfinished), TO_SOCKET, "{service}");
        assert_eq!(world.action(&merged), TO_SOCKET, "{service}");
    }
}

/// RFC 9293 §3.1, as Linux leaves it in the field: not complemented.
fn pseudo_header_sum(frame: &[u8]) -> u16 {
    let ip = &frame[ETHERNET..];
    let (addresses, protocol, len) = if ip[0] >> 4 == 4 {
        (&ip[12..20], ip[9], u16::from_be_bytes([ip[2], ip[3]]) - 20)
    } else {
        (&ip[8..40], ip[6], u16::from_be_bytes([ip[4], ip[5]]))
    };
    let words = addresses.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + u32::from(protocol) + u32::from(len);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
