//! What a worker notes of handshakes, for the control plane to suspect a silent backend.

use super::frames::Client;
use super::kit::{Health, Node, Site, VIP};
use crate::scheduler::SchedulerKind;
use crate::slots::BackendSlot;

fn client() -> Client {
    Client::new(1, VIP)
}

/// How many wait for backend 0 on a worker, and whether one was answered at the present time.
fn seen(node: &Node, worker: usize) -> (usize, bool) {
    let handshakes = node.counters[worker].handshakes(BackendSlot(0));
    let waiting = handshakes.waiting.iter().flatten();
    for (tag, since) in waiting.clone() {
        assert!(*tag != 0 && *since <= node.now);
    }
    (waiting.count(), handshakes.completed == Some(node.now))
}

fn attempts(node: &Node) -> u64 {
    node.counters.iter().map(|counters| counters.backend(BackendSlot(0)).attempts.value()).sum()
}

#[test]
fn attempts_are_told_apart_by_their_5_tuple() {
    for site in [Site::web, Site::forgetful] {
        let mut node = Node::new(site(SchedulerKind::Rr, &[1]));
        node.to(0, client().syn());
        assert_eq!((seen(&node, 0), attempts(&node)), ((1, false), 1));
        node.to(0, client().syn());
        assert_eq!((seen(&node, 0), attempts(&node)), ((1, false), 1), "a retransmission");
        node.to(0, client().from(2).syn());
        assert_eq!((seen(&node, 0), attempts(&node)), ((2, false), 2), "two flows of one source");
        let tags = node.counters[0].handshakes(BackendSlot(0)).waiting;
        assert_ne!(tags[0].map(|(tag, _)| tag), tags[1].map(|(tag, _)| tag));
        // The same 5-tuple has the same tag everywhere.
        node.to(1, client().syn());
        let other = node.counters[1].handshakes(BackendSlot(0)).waiting[0];
        assert_eq!(other.map(|(tag, _)| tag), tags[0].map(|(tag, _)| tag));
        node.to(0, client().ack());
        assert_eq!(seen(&node, 0), (0, true), "it answers");
    }
}

#[test]
fn only_the_end_of_a_handshake_is_one() {
    for site in [Site::web, Site::forgetful] {
        let mut node = Node::new(site(SchedulerKind::Maglev, &[1]));
        node.open((0, 0), client());
        node.pass(10);
        node.to(0, Client::new(2, VIP).syn());
        // None of these was answered by the backend just now.
        node.to(0, client().ack());
        node.to(0, client().fin());
        node.to(0, Client::new(3, VIP).ack());
        node.to(0, Client::new(2, VIP).rst());
        assert_eq!(seen(&node, 0), (1, false));
        node.to(0, Client::new(2, VIP).ack());
        assert_eq!(seen(&node, 0), (0, true));
    }
}

#[test]
fn every_handshake_of_a_source_is_one() {
    for site in [Site::web, Site::forgetful] {
        let mut node = Node::new(site(SchedulerKind::Rr, &[1]));
        for port in 1..=3 {
            node.to(0, client().from(port).syn());
        }
        for port in 1..=3 {
            node.pass(1);
            node.to(0, client().from(port).ack());
            assert_eq!(seen(&node, 0), (0, true), "connection {port}");
        }
    }
}

#[test]
fn a_flow_that_moved_proves_nothing() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1]));
    node.open((0, 0), client());
    node.pass(10);
    node.to(1, client().ack());
    assert_eq!(seen(&node, 1), (0, false));
}

#[test]
fn a_handshake_that_was_sent_elsewhere_counts_there() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1, 1]));
    let first = node.open((0, 0), client());
    assert_eq!(first, 0);
    node.pass(10);
    node.health(0, Health::Suspected);
    let second = node.to(0, client().from(2).syn());
    assert_eq!(seen(&node, 0), (0, false));
    let at_second = |node: &Node| node.counters[0].handshakes(BackendSlot(second));
    assert_eq!(at_second(&node).waiting.iter().flatten().count(), 1);
    node.health(0, Health::Up);
    node.to(0, client().from(2).ack());
    assert_eq!(at_second(&node).completed, Some(node.now));
    assert_eq!(seen(&node, 0), (0, false));
}

#[test]
fn without_the_lease_nobody_waits() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1]));
    node.lease(0, node.now);
    node.send(0, client().syn());
    assert_eq!((seen(&node, 0), attempts(&node)), ((0, false), 0));
}
