//! Clients that are answered because their backend is down, or because no backend is left.

use std::time::Duration;

use super::frames::{Client, FIN, SYN, tagged};
use super::kit::{Health, Node, Outcome, Site, VIP, VIP6};
use crate::addr::Addr;
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;
use crate::slots::{BackendSlot, ServiceSlot};
use crate::verdict::DropReason;

const DOWN: Outcome = Outcome::Dropped(DropReason::BackendDown);

fn client() -> Client {
    Client::new(1, VIP)
}

/// Backends 0 and 1 serve `VIP`, 2 serves `VIP6`.
fn node() -> Node {
    let mut site = Site::web(SchedulerKind::Rr, &[1, 1]);
    site.vip(VIP6, 0, None).service(VIP6, Protocol::Tcp, (80, 80), SchedulerKind::Rr);
    site.persistent(50).backend(Addr::from_v4([172, 16, 1, 1]), 1);
    Node::new(site)
}

fn resets(node: &Node, slot: u16) -> u64 {
    node.counters.iter().map(|counters| counters.backend(BackendSlot(slot)).resets.value()).sum()
}

/// The frame as it leaves.
#[track_caller]
fn answered(node: &mut Node, worker: usize, frame: Vec<u8>) -> Vec<u8> {
    let mut frames = vec![frame];
    assert_eq!(node.burst(worker, &mut frames), [Outcome::Answered]);
    frames.remove(0)
}

#[test]
fn a_segment_of_a_flow_is_answered_and_the_flow_is_over() {
    for (client, backend) in [(client(), 0), (Client::v6(1, VIP6), 2)] {
        let mut node = node();
        assert_eq!(node.open((0, 0), client), backend);
        node.health(backend, Health::Reset);
        let reset = answered(&mut node, 0, client.acked(77).ack());
        assert_eq!(reset, client.told(77));
        assert_eq!((node.flows(), node.active(backend), resets(&node, backend)), (0, 0, 1));
        assert_eq!(node.live_flows(client), Some(0), "it left its template");
        assert_eq!(node.total(|totals| &totals.answered), 1);
        node.check_equation();
    }
}

#[test]
fn data_and_fin_are_answered_alike_and_tags_stay() {
    for tags in [&[][..], &[0x81, 0x00, 0x20, 0x64]] {
        for frame in [client().acked(5).fin(), client().acked(5).ack()] {
            let mut node = node();
            let backend = node.open((0, 0), client());
            node.health(backend, Health::Reset);
            let reset = answered(&mut node, 0, tagged(&frame, tags));
            assert_eq!(reset, tagged(&client().told(5), tags));
            assert_eq!((node.active(backend), node.inactive(backend), node.flows()), (0, 0, 0));
        }
    }
}

#[test]
fn a_segment_without_a_flow_is_answered_if_its_source_was_there() {
    // Its flow is on another worker; it is half open; it acknowledges nothing.
    let mut node = node();
    let backend = node.open((0, 0), client());
    node.health(backend, Health::Reset);
    assert_eq!(answered(&mut node, 1, client().acked(8).ack()), client().told(8));
    assert_eq!(answered(&mut node, 2, client().from(9).acked(3).ack()), client().from(9).told(3));

    let mut node = self::node();
    let backend = node.to(0, client().syn());
    node.health(backend, Health::Reset);
    assert_eq!(answered(&mut node, 3, client().acked(8).ack()), client().told(8));
    let no_ack = answered(&mut node, 3, client().tcp(FIN));
    let (_, tcp) = no_ack.split_at(14 + 20);
    assert_eq!(tcp[4..14], [0, 0, 0, 0, 0, 0, 0, 7 + 7 + 1, 0x50, 0x14], "SEG.SEQ + SEG.LEN");
    assert_eq!(node.flows(), 0, "nothing is remembered of them");
    // A source without history is placed with the backends that are left.
    let stranger = node.to(0, Client::new(2, VIP).ack());
    assert_ne!(stranger, backend);
    node.check_equation();
}

#[test]
fn a_reset_is_never_answered() {
    let mut node = node();
    let backend = node.open((0, 0), client());
    node.health(backend, Health::Reset);
    assert_eq!(node.send(0, client().rst()), DOWN);
    assert_eq!(node.send(1, client().rst()), DOWN);
    assert_eq!(node.live_flows(client()), Some(0), "but it ends the flow");
    assert_eq!(resets(&node, backend), 0);
}

#[test]
fn nothing_is_answered_without_the_lease() {
    let mut node = node();
    let backend = node.open((0, 0), client());
    node.health(backend, Health::Reset);
    node.lease(0, node.now);
    for worker in [0, 1] {
        let outcome = node.send(worker, client().ack());
        assert_eq!(outcome, Outcome::Dropped(DropReason::Inactive));
    }
    assert!(node.tell(0).is_empty());
    assert_eq!(node.flows(), 1);
    node.check_equation();
}

/// Forged segments of one source must not make a flood of resets.
#[test]
fn answers_are_bounded_and_the_flow_waits_for_its_own() {
    let mut node = node();
    let backend = node.open((0, 0), client());
    node.health(backend, Health::Reset);
    let forged = |node: &mut Node, count: u16| {
        let outcomes = (0..count).map(|port| node.send(0, client().from(port).ack()));
        outcomes.filter(|outcome| *outcome == Outcome::Answered).count()
    };
    assert_eq!(forged(&mut node, 3000), 1000);
    assert_eq!(node.send(0, client().acked(4).ack()), DOWN);
    assert_eq!(node.flows(), 1, "it is not forgotten");
    node.now = node.now + Duration::from_micros(99);
    assert_eq!(forged(&mut node, 10), 0);
    node.now = node.now + Duration::from_micros(1);
    assert_eq!(answered(&mut node, 0, client().acked(4).ack()), client().told(4));
    node.now = node.now + Duration::from_millis(10);
    assert_eq!(forged(&mut node, 3000), 100, "10,000 a second");
    assert_eq!(resets(&node, backend), 1101);
    assert_eq!(node.dropped(DropReason::BackendDown), 2000 + 1 + 10 + 2900);
    node.check_equation();
}

/// A flood of SYNs that are refused must not keep the clients of a lost backend waiting.
#[test]
fn refusals_take_nothing_from_resets() {
    let mut node = node();
    node.site.offers[1].reject = true;
    node.set(2, |backend| backend.weight = 0);
    let backend = node.open((0, 0), client());
    node.health(backend, Health::Reset);
    let syns = (0..3000).map(|index| node.send(0, Client::v6(index, VIP6).syn()));
    assert_eq!(syns.filter(|outcome| *outcome == Outcome::Answered).count(), 1000);
    assert_eq!(answered(&mut node, 0, client().acked(4).ack()), client().told(4));
    assert_eq!((node.flows(), resets(&node, backend)), (0, 1));
    node.check_equation();
}

/// A service without a backend, over TCP and UDP and both families.
fn closed(reject: bool) -> Node {
    let mut site = Site::default();
    site.vip(VIP, 0, None).vip(VIP6, 0, None);
    for vip in [VIP, VIP6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            site.service(vip, protocol, (80, 80), SchedulerKind::Rr).persistent(50);
            site.backend(Addr::from_v4([172, 16, 0, 1]), 0);
        }
    }
    site.offers.iter_mut().for_each(|offer| offer.reject = reject);
    Node::new(site)
}

#[test]
fn who_cannot_be_served_is_told_so() {
    let mut node = closed(true);
    for client in [client(), Client::v6(1, VIP6)] {
        assert_eq!(answered(&mut node, 0, client.syn()), client.refused());
        assert_eq!(answered(&mut node, 1, client.tcp(SYN | FIN)).len(), client.refused().len());
        let datagram = client.udp();
        let error = answered(&mut node, 0, datagram.clone());
        let (ip, code) = if client.source.is_v4() { (20, [3, 3]) } else { (40, [1, 4]) };
        assert_eq!(error[14 + ip..][..2], code);
        let quote = &error[14 + ip + 8..];
        assert_eq!(quote, &datagram[14..][..quote.len()]);
        assert!(quote.len() >= ip + 8);
        let ack = node.send(0, client.ack());
        assert_eq!(ack, Outcome::Dropped(DropReason::NoBackend), "it may have a backend elsewhere");
    }
    for slot in 0..4 {
        let rejected = |at: usize| node.counters[at].service(ServiceSlot(slot)).rejected.value();
        assert_eq!(rejected(0) + rejected(1), if slot % 2 == 0 { 2 } else { 1 });
    }
    node.check_equation();
}

#[test]
fn a_service_that_does_not_reject_and_a_node_without_the_lease_are_silent() {
    let no_backend = Outcome::Dropped(DropReason::NoBackend);
    let mut node = closed(false);
    assert_eq!(node.send(0, client().syn()), no_backend);
    assert_eq!(node.send(0, client().udp()), no_backend);
    let mut node = closed(true);
    node.lease(0, node.now);
    assert_eq!(node.send(0, client().syn()), no_backend);
    assert_eq!(node.send(0, client().udp()), no_backend);
    node.check_equation();
}

#[test]
fn refusals_are_bounded() {
    let mut node = closed(true);
    let told = |node: &mut Node, frame: fn(Client) -> Vec<u8>| {
        let outcomes = (0..2000).map(|index| node.send(0, frame(Client::new(index, VIP))));
        outcomes.filter(|outcome| *outcome == Outcome::Answered).count()
    };
    assert_eq!(told(&mut node, Client::udp), 50);
    assert_eq!(told(&mut node, Client::syn), 1000);
    node.now = node.now + Duration::from_millis(10);
    assert_eq!(told(&mut node, Client::udp), 10, "1,000 a second");
    assert_eq!(told(&mut node, Client::syn), 100, "10,000 a second");
    assert_eq!(node.dropped(DropReason::NoBackend), 8000 - 1160);
    node.check_equation();
}
