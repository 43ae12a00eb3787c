//! Segments without history on a node that has just started, or taken over: where they go under
//! every verdict about the backends.

use proptest::prelude::*;

use super::frames::Client;
use super::kit::{EVERY_SCHEDULER, Health, Node, Outcome, Site, VIP};
use crate::scheduler::SchedulerKind;
use crate::slots::BackendSlot;

const BACKENDS: u16 = 5;

fn healths() -> impl Strategy<Value = Vec<Health>> {
    let health = prop::sample::select(vec![
        Health::Up,
        Health::Suspected,
        Health::Doubted,
        Health::Kept,
        Health::Reset,
        Health::Discarded,
    ]);
    prop::collection::vec(health, usize::from(BACKENDS))
}

/// A node without history and with these verdicts.
fn started(site: &Site, healths: &[Health]) -> Node {
    let mut node = Node::new(site.clone());
    for (slot, &health) in (0..).zip(healths) {
        node.health(slot, health);
    }
    node
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Connections that were opened before any verdict stay where they are, on every worker, while
    /// their backend is usable: whatever became of the others.
    #[test]
    fn verdicts_about_others_move_no_stray(
        weights in prop::collection::vec(1..4_u32, usize::from(BACKENDS)),
        healths in healths(),
        persistent: bool,
    ) {
        let site = if persistent { Site::web } else { Site::forgetful };
        let site = site(SchedulerKind::Maglev, &weights);
        let mut before = Node::new(site.clone());
        let mut after = started(&site, &healths);
        for index in 0..200 {
            let client = Client::new(index, VIP);
            let backend = before.open((0, 0), client);
            if after.snapshot.next_hop(BackendSlot(backend)).usable {
                for worker in [index as usize % 4, (index as usize + 1) % 4] {
                    prop_assert_eq!(after.to(worker, client.data()), backend);
                }
            }
        }
        before.check_equation();
        after.check_equation();
    }

    /// Whatever the scheduler, all workers and all nodes with the same verdicts agree.
    #[test]
    fn workers_and_nodes_agree_on_every_stray(
        healths in healths(),
        kind in prop::sample::select(EVERY_SCHEDULER.to_vec()),
    ) {
        let site = Site::forgetful(kind, &[1, 2, 3, 1, 2]);
        let mut nodes = [started(&site, &healths), started(&site, &healths)];
        // One of them was there before, and had other verdicts.
        nodes[1].health(0, Health::Up);
        nodes[1].health(0, healths[0]);
        for index in 0..100 {
            let client = Client::new(index, VIP);
            let mut places = Vec::new();
            for node in &mut nodes {
                for worker in 0..2 {
                    places.push(node.send(worker, client.ack()));
                }
            }
            prop_assert!(places.iter().all(|place| *place == places[0]), "{:?}", places);
            let usable = healths.iter().any(|health| {
                matches!(health, Health::Up | Health::Suspected | Health::Doubted | Health::Kept)
            });
            prop_assert_eq!(matches!(places[0], Outcome::To(_)), usable);
        }
    }
}
