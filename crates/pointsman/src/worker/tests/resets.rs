//! Clients get a reset when their backend is lost, while everything else goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use dataplane::UnusableAction;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::*;

const FLOWS: u16 = 10_000;

/// A client's last acknowledgment number.
fn acked(client: u16) -> u32 {
    0xffff_0000_u32.wrapping_add(u32::from(client) * 11)
}

/// A node with as many established flows over two backends, all on worker 0. The clients of the
/// first.
fn rig() -> (Rig, Vec<u16>) {
    let mut rig =
        Rig::new(Sizes { frames: 1024, ring: 256, flows: usize::from(FLOWS), mailbox: 8 });
    let mut of_first = Vec::new();
    for client in 0..FLOWS {
        rig.inject(0, [tcp(client, FORGETFUL, SYN), segment(client, FORGETFUL, ACK, 5)]);
        rig.inject(0, [segment(client, FORGETFUL, ACK, acked(client))]);
        rig.turn(0);
        let frames = rig.sent(0);
        assert!(frames.iter().all(|frame| frame[..6] == frames[0][..6]), "one backend");
        if frames[0][5] == 4 {
            of_first.push(client);
        }
    }
    assert_eq!(rig.flows(), usize::from(FLOWS));
    assert_eq!(of_first.len(), 5000);
    (rig, of_first)
}

impl Rig {
    fn flows(&self) -> usize {
        self.seats[0].worker.forwarder().flow_count()
    }
}

/// The client and the sequence number of a sound reset.
fn told(frame: &[u8]) -> (u16, u32) {
    assert_eq!(frame.len(), 54);
    assert_eq!(frame[..6], CLIENT_MAC);
    assert_eq!(frame[6..12], own_mac(PortId(0)).0);
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("IPv4") };
    let Some(TransportSlice::Tcp(segment)) = packet.transport else { panic!("TCP") };
    let header = ip.header();
    assert_eq!((header.source(), header.ttl()), (VIP, 64));
    assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
    let sum = segment.calc_checksum_ipv4(header.source(), header.destination()).unwrap();
    assert_eq!(sum, segment.checksum());
    assert_eq!((segment.source_port(), segment.destination_port()), (FORGETFUL, 40_000));
    assert!(segment.rst() && !segment.ack() && !segment.syn() && !segment.fin());
    let [10, 0, high, low] = header.destination() else { panic!("a client") };
    (u16::from_be_bytes([high, low]), segment.sequence_number())
}

/// While other clients send on.
#[test]
fn ten_thousand_flows_and_those_of_the_lost_backend_are_told() {
    let (mut rig, of_first) = rig();
    rig.health(4, Some(UnusableAction::Reset));
    let (begin, mut sent) = (rig.now, BTreeMap::new());
    let mut turns = 0;
    while turns == 0 || rig.seats[0].worker.forwarder().is_resetting() {
        // A client of the other backend, who must not notice.
        let other = (0..FLOWS).find(|client| of_first.binary_search(client).is_err()).unwrap();
        rig.inject(0, [segment(other, FORGETFUL, ACK, 6)]);
        assert!(rig.turn(0) >= 1);
        let frames = rig.sent(0);
        assert!(frames.len() <= 1 + 64, "{} in one turn", frames.len());
        assert_eq!(frames[0][..6], [2, 0xbb, 0, 0, 0, 5]);
        for (client, seq) in frames[1..].iter().map(|frame| told(frame)) {
            assert_eq!(sent.insert(client, seq), None, "once");
        }
        turns += 1;
    }
    let expected: BTreeMap<u16, u32> =
        of_first.iter().map(|&client| (client, acked(client))).collect();
    assert_eq!(sent, expected);
    let passed = rig.now.saturating_since(begin);
    assert!(passed <= Duration::from_secs(1), "{passed:?}");
    let resets = rig.seats[0].counters.backend(BackendSlot(4)).resets.value();
    assert_eq!((rig.originated(0), resets), (5000, 5000));
    assert_eq!(rig.flows(), 5000);
    for client in 0..FLOWS {
        rig.inject(0, [segment(client, FORGETFUL, ACK, 6)]);
        rig.turn(0);
        let frames = rig.sent(0);
        if of_first.binary_search(&client).is_err() {
            assert_eq!(frames[0][..6], [2, 0xbb, 0, 0, 0, 5], "untouched");
        }
    }
    rig.settle();
}

#[test]
fn an_idle_worker_walks_at_once_and_rests_when_all_are_told() {
    let (mut rig, _) = rig();
    assert_eq!(rig.turn(0), 0, "nothing to do");
    rig.health(4, Some(UnusableAction::Reset));
    rig.now = rig.now + Duration::from_secs(1);
    assert!(rig.turn(0) > 0);
    assert_eq!(rig.sent(0).len(), 64);
    rig.settle();
    assert_eq!(rig.originated(0), 5000);
    assert_eq!(rig.turn(0), 0);
}

/// A ring that takes nothing loses resets, which are booked; while the link is down or no frame is
/// free they wait.
#[test]
fn nobody_is_forgotten_while_nothing_can_be_sent() {
    let (mut rig, of_first) = rig();
    rig.seats[0].kernel.refuse_transmit(true);
    rig.health(4, Some(UnusableAction::Reset));
    rig.turn(0);
    let lost = |rig: &Rig| rig.total(0, |totals| &totals.originated_lost);
    assert_eq!((lost(&rig), rig.originated(0), rig.flows()), (64, 0, 10_000 - 64));
    rig.heal();
    rig.seats[0].kernel.fail_kicks(Some(Errno::NETDOWN));
    for _ in 0..200 {
        rig.turn(0);
    }
    assert_eq!((rig.originated(0), rig.flows()), (64, 10_000 - 128), "the first are on the ring");
    assert!(rig.seats[0].worker.forwarder().is_resetting());
    rig.heal();
    rig.turn(0);
    rig.seats[0].kernel.complete_later(true);
    for _ in 0..200 {
        rig.turn(0);
    }
    assert!(rig.flows() > 8_800, "{} flows, and no more than 1024 frames", rig.flows());
    assert!(rig.seats[0].worker.forwarder().is_resetting());
    rig.heal();
    rig.settle();
    assert_eq!(rig.flows(), 5000);
    assert_eq!(rig.originated(0) + lost(&rig), 5000);
    // Who got none is answered.
    let mut answered = 0;
    for &client in &of_first {
        let before = rig.answered(0);
        rig.inject(0, [segment(client, FORGETFUL, ACK, 1)]);
        rig.turn(0);
        answered += rig.answered(0) - before;
    }
    assert!(answered > 0, "the hash places some of them with the backend that is lost");
    rig.settle();
}

/// Table scan and frames together, without the pace: what a walk costs.
#[test]
fn a_walk_through_a_million_entries_takes_well_below_a_second() {
    let mut rig = Rig::new(Sizes { flows: 1_000_000, ..Sizes::default() });
    rig.inject(0, [tcp(1, FORGETFUL, SYN), segment(1, FORGETFUL, ACK, 5)]);
    rig.turn(0);
    rig.sent(0);
    for slot in [4, 5] {
        rig.health(slot, Some(UnusableAction::Reset));
    }
    let (begin, mut turns) = (Instant::now(), 0);
    while turns == 0 || rig.seats[0].worker.forwarder().is_resetting() {
        let Rig { seats, snapshot, leases, now, .. } = &mut rig;
        let Seat { worker, port, .. } = &mut seats[0];
        worker.turn(port, *now, snapshot, leases.as_slice());
        turns += 1;
    }
    let took = begin.elapsed();
    assert_eq!(rig.originated(0), 1);
    assert!(turns < 400, "{turns} turns");
    assert!(took < Duration::from_millis(500), "{took:?}");
}
