//! Forwarding changes the first twelve bytes of a frame, and no bytes can do any harm.

use etherparse::{IpHeaders, Ipv4Options, Ipv6Extensions, Ipv6RawExtHeader, PacketBuilder};
use proptest::prelude::*;

use super::frames::{Client, tagged};
use super::kit::{Node, Outcome, Site, VIP, VIP6, macs};
use crate::addr::Addr;
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;
use crate::slots::{BackendSlot, PortId};

const TAG: [u8; 4] = [0x81, 0x00, 0x20, 0x64];
const TAGS: [u8; 8] = [0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x20, 0x64];

/// Any port of two VIPs, TCP and UDP; a backend that is reached by another port is among them.
fn site() -> Site {
    let mut site = Site::default();
    site.vip(VIP, 0, None).vip(VIP6, 0, None);
    for vip in [VIP, VIP6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            site.service(vip, protocol, (0, 65_535), SchedulerKind::Maglev).persistent(50);
            site.backend(Addr::from_v4([172, 16, 0, 1]), 1);
            site.backend(Addr::from_v4([172, 16, 0, 2]), 1);
        }
    }
    for backend in site.backends.iter_mut().step_by(2) {
        backend.port = PortId(1);
    }
    site
}

/// IP options or extension headers of `units` times four or eight bytes.
fn ip(client: Client, units: usize) -> IpHeaders {
    match client.ip() {
        IpHeaders::Ipv4(mut header, extensions) => {
            header.options = Ipv4Options::try_from(&[1; 40][..units * 4]).unwrap();
            IpHeaders::Ipv4(header, extensions)
        }
        IpHeaders::Ipv6(header, _) => {
            let next = etherparse::IpNumber::TCP;
            let extension = |len| Ipv6RawExtHeader::new_raw(next, &vec![0; len]).unwrap();
            let mut extensions = Ipv6Extensions::default();
            if units > 0 {
                extensions.hop_by_hop_options = Some(extension(6));
                extensions.destination_options = Some(extension(units * 8 - 2));
            }
            IpHeaders::Ipv6(header, extensions)
        }
    }
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop::sample::select(vec![&[][..], &TAG, &TAGS]);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    let padding = 0..20_usize;
    let ends = (0..50_u32, any::<u16>(), any::<u16>(), any::<bool>());
    let kind = (any::<bool>(), any::<u8>(), 0..=10_usize);
    (ends, kind, tags, payload, padding).prop_map(|(ends, kind, tags, payload, padding)| {
        let (index, source_port, port, v6) = ends;
        let (tcp, flags, units) = kind;
        let client = if v6 { Client::v6(index, VIP6) } else { Client::new(index, VIP) };
        let mut bytes = Vec::new();
        let packet = PacketBuilder::ip(ip(client, units));
        if tcp {
            let mut header = etherparse::TcpHeader::new(source_port, port, 1, 2);
            (header.fin, header.syn) = (flags & 1 != 0, flags & 2 != 0);
            (header.rst, header.psh) = (flags & 4 != 0, flags & 8 != 0);
            (header.ack, header.urg) = (flags & 16 != 0, flags & 32 != 0);
            packet.tcp_header(header).write(&mut bytes, &payload).unwrap();
        } else {
            packet.udp(source_port, port).write(&mut bytes, &payload).unwrap();
        }
        let mut frame = tagged(&client.framed(&bytes), tags);
        frame.extend(vec![0xee; padding]);
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn only_the_first_twelve_bytes_change(
        bursts in prop::collection::vec(
            (0..4_usize, prop::collection::vec(frames(), 1..=64)),
            1..8,
        ),
    ) {
        let mut node = Node::new(site());
        for (worker, mut frames) in bursts {
            let before = frames.clone();
            let outcomes = node.burst(worker, &mut frames);
            for ((outcome, before), after) in outcomes.into_iter().zip(before).zip(frames) {
                let Outcome::To(slot) = outcome else { panic!("{outcome:?} of {before:?}") };
                prop_assert_eq!(before.len(), after.len());
                prop_assert_eq!(&before[12..], &after[12..]);
                let port = PortId(u16::from(slot % 2 == 0));
                prop_assert_eq!(&after[..12], &macs(BackendSlot(slot), port)[..]);
            }
        }
        node.check_equation();
    }

    /// Damage anywhere: no panic, the equation holds, and what is dropped is left alone.
    #[test]
    fn damaged_frames_do_no_harm(
        frames in prop::collection::vec(
            (frames(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)),
            1..=64,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut node = Node::new(site());
        let mut damaged: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|(mut frame, damage)| {
                for (at, byte) in damage {
                    let at = at.index(frame.len());
                    frame[at] = byte;
                }
                frame
            })
            .collect();
        let shorter = cut.index(damaged[0].len());
        damaged[0].truncate(shorter);
        let before = damaged.clone();
        let outcomes = node.burst(0, &mut damaged);
        for ((outcome, before), after) in outcomes.into_iter().zip(before).zip(damaged) {
            match outcome {
                Outcome::To(_) => prop_assert_eq!(&before[12..], &after[12..]),
                Outcome::Dropped(_) | Outcome::HandedOver | Outcome::Waits => prop_assert_eq!(before, after),
                Outcome::Answered => {}
            }
        }
        node.check_equation();
    }
}

#[test]
fn an_empty_burst_is_nothing() {
    let mut node = Node::new(site());
    assert!(node.burst(0, &mut Vec::new()).is_empty());
    assert_eq!(node.total(|totals| &totals.received), 0);
}
