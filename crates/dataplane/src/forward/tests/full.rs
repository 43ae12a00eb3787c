//! Full tables and floods.

use super::frames::{Client, set_source};
use super::kit::{Node, Outcome, Site, Sizes, VIP};
use crate::forward::BURST;
use crate::scheduler::SchedulerKind;

#[test]
fn a_full_flow_table_costs_no_connection() {
    for site in [Site::web, Site::forgetful] {
        let sizes = Sizes { workers: 2, flows: 64, ..Sizes::default() };
        let mut node = Node::sized(site(SchedulerKind::Maglev, &[1; 4]), sizes);
        let clients: Vec<Client> = (0..500).map(|index| Client::new(index, VIP)).collect();
        let backends: Vec<u16> = clients.iter().map(|&client| node.open((0, 0), client)).collect();
        let entries = node.workers[0].flows.buckets() * 16;
        assert!((64..=entries).contains(&node.flows()), "{} flows", node.flows());
        assert!(node.total(|totals| &totals.flow_table_full) >= 500 - entries as u64);
        let active: i64 = (0..4).map(|slot| node.active(slot)).sum();
        assert_eq!(active, node.flows() as i64, "only what is remembered is counted");
        // Choices that were pending are long forgotten.
        for _ in 0..3 {
            node.pass(100);
            for (&client, &backend) in clients.iter().zip(&backends) {
                assert_eq!(node.to(0, client.ack()), backend);
            }
        }
        for (&client, &backend) in clients.iter().zip(&backends) {
            assert_eq!(node.to(0, client.fin()), backend);
        }
        node.pass(1000);
        assert_eq!(node.flows(), 0);
        assert!(node.shared.persistence.is_empty(), "no template is held by nobody");
        node.check_equation();
    }
}

#[test]
fn a_full_persistence_table_falls_back_to_the_shared_hash() {
    for kind in super::kit::EVERY_SCHEDULER {
        let sizes = Sizes { templates: 10, ..Sizes::default() };
        let mut node = Node::sized(Site::web(kind, &[1; 4]), sizes);
        let clients: Vec<Client> = (0..200).map(|index| Client::new(index, VIP)).collect();
        let backends: Vec<u16> = clients.iter().map(|&client| node.open((0, 1), client)).collect();
        assert_eq!(node.shared.persistence.len(), 10);
        assert!(node.shared.persistence.stats().refused >= 190);
        let late = clients.iter().zip(&backends).skip(10);
        for (&client, &backend) in late.clone() {
            assert_eq!(node.to(1, client.fin()), backend, "{kind:?}: the flow itself is known");
        }
        // Their choices are not pending any more, and the ten hold theirs.
        node.pass(100);
        assert_eq!(node.shared.persistence.len(), 10);
        for (&client, &backend) in late {
            assert_eq!(node.open((2, 3), client.from(9)), backend, "{kind:?}");
        }
        node.check_equation();
    }
}

#[test]
fn a_spoofed_flood_pushes_nobody_out() {
    let sizes = Sizes { flows: 2000, pending: 50_000, templates: 2000, ..Sizes::default() };
    let mut node = Node::sized(Site::web(SchedulerKind::Rr, &[1; 4]), sizes);
    let clients: Vec<Client> = (0..1000).map(|index| Client::new(index, VIP)).collect();
    let worker = |client: &Client| usize::from(client.source.octets()[15]) % 4;
    let mut backends = Vec::new();
    for &client in &clients {
        backends.push(node.open((0, worker(&client)), client));
    }
    let memory =
        |node: &Node| (node.flows(), node.shared.persistence.len(), node.shared.pending.capacity());
    let before = memory(&node);
    let mut frames = vec![Client::new(0, VIP).syn(); BURST];
    for round in 0..1_000_000 / 64_u32 {
        for (frame, index) in frames.iter_mut().zip(0..) {
            set_source(frame, 0x10_0000 + round * 64 + index);
        }
        let outcomes = node.burst(round as usize % 4, &mut frames);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::To(_))));
    }
    assert_eq!(memory(&node), before);
    for (&client, &backend) in clients.iter().zip(&backends) {
        assert_eq!(node.to(worker(&client), client.ack()), backend, "the flow");
        assert_eq!(node.open((3, 1), client.from(9)), backend, "the template");
    }
    assert_eq!(memory(&node).1, 1000);
    node.check_equation();
}

/// A choice is pending for the source and for the connection: a flood has to hit both.
#[test]
fn a_flood_between_syn_and_ack_costs_few_handshakes() {
    let sizes = Sizes { workers: 1, pending: 4200, ..Sizes::default() };
    let mut node = Node::sized(Site::web(SchedulerKind::Rr, &[1; 64]), sizes);
    let quarter = u32::try_from(node.shared.pending.capacity() / BURST / 4).unwrap();
    let mut frames = vec![Client::new(0, VIP).syn(); BURST];
    let mut lost = 0;
    for index in 0..250 {
        let client = Client::new(index, VIP);
        let backend = node.to(0, client.syn());
        for round in 0..quarter {
            for (frame, spoofed) in frames.iter_mut().zip(0..) {
                set_source(frame, 0x10_0000 + (index * quarter + round) * 64 + spoofed);
            }
            node.burst(0, &mut frames);
        }
        lost += u32::from(node.to(0, client.ack()) != backend);
    }
    assert!(lost < 40, "{lost} of 250");
}

/// Nor does one of segments from the middle of nowhere.
#[test]
fn stray_segments_push_nobody_out() {
    let sizes = Sizes { workers: 1, flows: 2000, ..Sizes::default() };
    let mut node = Node::sized(Site::web(SchedulerKind::Rr, &[1; 4]), sizes);
    let clients: Vec<Client> = (0..1000).map(|index| Client::new(index, VIP)).collect();
    let backends: Vec<u16> = clients.iter().map(|&client| node.open((0, 0), client)).collect();
    let mut frames = vec![Client::new(0, VIP).ack(); BURST];
    for round in 0..1000_u32 {
        for (frame, index) in frames.iter_mut().zip(0..) {
            set_source(frame, 0x10_0000 + round * 64 + index);
        }
        node.burst(0, &mut frames);
    }
    assert_eq!(node.shared.persistence.len(), 1000, "a stray segment makes no template");
    assert_eq!(node.total(|totals| &totals.picked_up), 64_000);
    for (&client, &backend) in clients.iter().zip(&backends) {
        assert_eq!(node.live_flows(client), Some(1));
        assert_eq!(node.to(0, client.ack()), backend);
    }
    assert!(node.flows() <= node.workers[0].flows.buckets() * 16);
    node.check_equation();
}
