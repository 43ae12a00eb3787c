//! Bytes that clients acknowledge: what backends sent them, though it does not pass here.

use super::frames::Client;
use super::kit::{Node, Site, VIP};
use crate::scheduler::SchedulerKind;
use crate::slots::BackendSlot;

/// A connection whose client has acknowledged everything up to this number.
fn connected(at: u32) -> (Node, Client) {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1]));
    let client = Client::new(1, VIP);
    node.to(0, client.acked(at).syn());
    node.to(0, client.acked(at).ack());
    // A segment with data acknowledges one byte more.
    node.to(0, client.acked(at - 1).data());
    (node, client)
}

fn acked(node: &Node) -> i64 {
    node.counters
        .iter()
        .map(|counters| counters.backend(BackendSlot(0)).acked.value().cast_signed())
        .sum()
}

#[test]
fn acknowledgments_add_up_over_the_end_of_the_numbers() {
    let start = u32::MAX - 100_000;
    let (mut node, client) = connected(start);
    for step in 1..=300 {
        node.to(0, client.acked(start.wrapping_add(step * 1000)).ack());
    }
    assert_eq!(acked(&node), 300_000);
    let end = start.wrapping_add(300_000);
    node.to(0, client.acked(end.wrapping_add(500)).fin());
    node.to(0, client.acked(end.wrapping_add(700)).ack());
    assert_eq!(acked(&node), 300_700, "the rest of a download whose client is done as well");
}

#[test]
fn overtaken_segments_cancel_out() {
    let (mut node, client) = connected(1000);
    for ack in [5000, 3000, 4000, 9000, 1000, 9000] {
        node.to(0, client.acked(ack).ack());
    }
    assert_eq!(acked(&node), 8000);
}

#[test]
fn forged_acknowledgments_are_taken_back_by_the_next_true_one() {
    let (mut node, client) = connected(1000);
    for forged in [1 << 30, 1 << 31, u32::MAX, 1000 + (1 << 24), 500] {
        node.to(0, client.acked(forged).ack());
        assert!(acked(&node) <= 1 << 24, "no more than a window");
        node.to(0, client.acked(1000).ack());
        assert_eq!(acked(&node), 0, "{forged}");
    }
    node.to(0, client.acked(6000).ack());
    assert_eq!(acked(&node), 5000);
}

#[test]
fn what_is_repeated_or_unknown_counts_nothing() {
    let (mut node, client) = connected(1000);
    for _ in 0..3 {
        node.to(0, client.acked(1000).ack());
    }
    node.to(0, Client::new(2, VIP).acked(77_000).ack());
    assert_eq!(acked(&node), 0, "nothing is known of what it had before");
}
