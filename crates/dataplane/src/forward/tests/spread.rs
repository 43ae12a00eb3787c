//! How addresses spread over backends, and what a change of members moves.

use std::collections::BTreeMap;

use super::frames::Client;
use super::kit::{EVERY_SCHEDULER, Node, Site, Sizes, VIP};
use crate::scheduler::SchedulerKind;

/// Addresses per backend after each opened a connection, and closed it if `closing`.
fn spread(site: Site, addresses: u32, closing: bool) -> BTreeMap<u16, u32> {
    let sizes = Sizes { flows: addresses as usize, ..Sizes::default() };
    let mut node = Node::sized(site, sizes);
    let mut counts = BTreeMap::new();
    for index in 0..addresses {
        let client = Client::new(index, VIP);
        let worker = index as usize % 4;
        let backend = node.open(((worker + 1) % 4, worker), client);
        if closing {
            assert_eq!(node.to(worker, client.fin()), backend);
        }
        *counts.entry(backend).or_default() += 1;
    }
    node.check_equation();
    counts
}

#[test]
fn a_thousand_addresses_over_four_equal_backends() {
    for kind in EVERY_SCHEDULER {
        for site in [Site::web, Site::forgetful] {
            for closing in [false, true] {
                let counts = spread(site(kind, &[1; 4]), 1000, closing);
                assert_eq!(counts.len(), 4, "{kind:?}");
                for count in counts.values() {
                    assert!((200..=300).contains(count), "{kind:?} {closing}: {counts:?}");
                }
            }
        }
    }
}

#[test]
fn ten_thousand_addresses_follow_the_weights() {
    let weights = [1, 2, 3, 4];
    for kind in EVERY_SCHEDULER {
        for closing in [false, true] {
            let counts = spread(Site::web(kind, &weights), 10_000, closing);
            for (slot, weight) in (0..).zip(weights) {
                let expected = match kind {
                    SchedulerKind::Rr | SchedulerKind::Lc => 2500,
                    SchedulerKind::Maglev | SchedulerKind::Wrr | SchedulerKind::Wlc => {
                        1000 * weight
                    }
                };
                let count = counts[&slot];
                assert!(
                    count.abs_diff(expected) <= expected / 10,
                    "{kind:?} {closing}: {counts:?}"
                );
            }
        }
    }
}

/// Where each address would go as a new source.
fn choices(node: &mut Node, addresses: u32) -> Vec<u16> {
    (0..addresses).map(|index| node.to(0, Client::new(index, VIP).syn())).collect()
}

/// Of the sources that were not on it: less than one in a hundred on average. Single backends of
/// few services reach three, as table entries change hands in chains.
#[test]
fn removing_one_of_ten_backends_moves_hardly_anyone_else() {
    for slot in 0..10 {
        let mut node = Node::new(Site::web(SchedulerKind::Maglev, &[1; 10]));
        let before = choices(&mut node, 10_000);
        // What was pending is forgotten.
        node.pass(100);
        node.set(slot, |backend| backend.usable = false);
        let after = choices(&mut node, 10_000);
        assert!(!after.contains(&slot));
        let others = before.iter().zip(&after).filter(|(before, _)| **before != slot);
        let moved = others.clone().filter(|(before, after)| before != after).count();
        assert!(moved * 100 <= others.count(), "{moved} moved without backend {slot}");
    }
}

/// The same with weight 0, and for those who have a template nothing changes at all.
#[test]
fn sources_with_a_template_do_not_move_with_the_members() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(Site::web(kind, &[1; 10]));
        let clients = || (0..1000).map(|index| Client::new(index, VIP));
        let before: Vec<u16> = clients().map(|client| node.open((0, 1), client)).collect();
        node.set(3, |backend| backend.weight = 0);
        for (client, before) in clients().zip(before) {
            let after = node.open((2, 3), client.from(9));
            assert_eq!(after == before, before != 3, "{kind:?}");
        }
    }
}
