//! Flows that change their queue, and flows that change their node.

use super::frames::{Client, sent_to};
use super::kit::{EVERY_SCHEDULER, Node, Outcome, Site, Sizes, VIP, backend_mac};
use crate::addr::Addr;
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;
use crate::slots::BackendSlot;
use crate::verdict::DropReason;

#[test]
fn a_moved_flow_keeps_its_backend_under_every_scheduler() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(Site::web(kind, &[1; 4]));
        for index in 0..100 {
            let client = Client::new(index, VIP);
            let backend = node.open((0, 0), client);
            for worker in [1, 2, 3, 0, 2] {
                assert_eq!(node.to(worker, client.ack()), backend, "{kind:?}");
            }
        }
        node.check_equation();
    }
}

#[test]
fn a_moved_flow_is_let_go_where_it_was() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let client = Client::new(1, VIP);
    let backend = node.open((0, 0), client);
    for worker in [1, 2, 3, 0] {
        assert_eq!(node.to(worker, client.ack()), backend);
        assert_eq!((node.live_flows(client), node.active(backend)), (Some(1), 1), "unproven");
        assert_eq!(node.to(worker, client.data()), backend);
        let flows: Vec<usize> = node.workers.iter().map(|worker| worker.flow_count()).collect();
        let mut expected = [0; 4];
        expected[worker] = 1;
        assert_eq!(flows, expected);
        assert_eq!((node.live_flows(client), node.active(backend)), (Some(1), 1));
    }
    node.to(0, client.fin());
    assert_eq!((node.live_flows(client), node.active(backend)), (Some(0), 0));
    node.pass(50);
    assert_eq!(node.live_flows(client), None);
}

/// A flow that moves between its last data and its FIN ends all the same.
#[test]
fn a_flow_that_moves_with_its_last_packet_ends() {
    for last in [Client::fin, Client::rst] {
        let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
        let client = Client::new(1, VIP);
        let backend = node.open((0, 0), client);
        assert_eq!(node.to(1, last(client)), backend);
        assert_eq!(node.live_flows(client), Some(0), "its template may expire");
        assert_eq!(node.active(backend), 0);
        // The client acknowledges the other side's FIN; that is no new life.
        assert_eq!(node.to(1, client.ack()), backend);
        assert_eq!(node.live_flows(client), Some(0));
        node.pass(50);
        assert_eq!(node.to(2, client.from(9).syn()), backend + 1, "scheduled anew");
        node.check_equation();
    }
}

/// The messages between workers may be lost: then the entry idles out.
#[test]
fn a_lost_message_costs_a_timeout_only() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let client = Client::new(1, VIP);
    let backend = node.open((0, 0), client);
    node.connected = false;
    assert_eq!(node.to(1, client.ack()), backend);
    assert_eq!(node.to(1, client.data()), backend);
    assert_eq!((node.live_flows(client), node.active(backend)), (Some(2), 2));
    node.to(1, client.fin());
    node.pass(900);
    assert_eq!((node.live_flows(client), node.active(backend)), (Some(0), 0));
    node.pass(50);
    assert_eq!(node.live_flows(client), None);
}

#[test]
fn without_persistence_the_shared_hash_keeps_a_moved_flow() {
    let mut node = Node::new(Site::forgetful(SchedulerKind::Maglev, &[1, 2, 3, 4]));
    for index in 0..1000 {
        let client = Client::new(index, VIP);
        let backend = node.open((0, 1), client);
        assert_eq!(node.to(2, client.ack()), backend);
        assert_eq!(node.to(2, client.ack()), backend);
        assert_eq!(node.to(3, client.fin()), backend);
    }
    assert!(node.shared.persistence.is_empty());
}

/// Whatever the scheduler, and however long after the handshake: what the hash does not tell, its
/// worker tells the others.
#[test]
fn without_persistence_every_moved_flow_keeps_its_backend() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(Site::forgetful(kind, &[1, 2, 3, 4]));
        let clients: Vec<Client> = (0..200).map(|index| Client::new(index, VIP)).collect();
        let backends: Vec<u16> = clients.iter().map(|&client| node.open((0, 1), client)).collect();
        for (round, pause) in [0, 61, 300, 850, 20].into_iter().enumerate() {
            node.pass(pause);
            let worker = (round + 2) % 4;
            for (&client, &backend) in clients.iter().zip(&backends) {
                let acked = 100 * u32::try_from(round).unwrap() + 100;
                assert_eq!(node.to(worker, client.acked(acked).ack()), backend, "{kind:?} {round}");
                assert_eq!(
                    node.to(worker, client.acked(acked).data()),
                    backend,
                    "{kind:?} {round}"
                );
            }
            let active: i64 = (0..4).map(|slot| node.active(slot)).sum();
            assert_eq!(
                (node.flows(), active),
                (200, 200),
                "{kind:?} {round}: each is in one place"
            );
        }
        for (&client, &backend) in clients.iter().zip(&backends) {
            assert_eq!(node.to(0, client.fin()), backend, "{kind:?}");
        }
        node.check_equation();
    }
}

/// Its template names another backend by now, or none.
#[test]
fn a_moved_flow_of_a_drained_backend_stays_there() {
    for site in [Site::web, Site::forgetful] {
        for kind in EVERY_SCHEDULER {
            let mut node = Node::new(site(kind, &[1; 4]));
            let client = Client::new(1, VIP);
            let first = node.open((0, 1), client);
            node.set(first, |backend| backend.weight = 0);
            let second = node.open((2, 3), client.from(2));
            assert_ne!(second, first);
            assert_eq!(node.to(2, client.ack()), first, "{kind:?}, at once");
            node.pass(200);
            assert_eq!(node.to(3, client.ack()), first, "{kind:?}, and later");
            node.set(first, |backend| backend.weight = 1);
            node.pass(200);
            assert_eq!(node.to(0, client.ack()), first, "{kind:?}, and when it is back");
            node.check_equation();
        }
    }
}

#[test]
fn without_persistence_a_choice_is_one_connections() {
    let mut node = Node::new(Site::forgetful(SchedulerKind::Rr, &[1; 4]));
    let client = Client::new(1, VIP);
    let backends: Vec<u16> =
        (0..4).map(|port| node.open((0, usize::from(port)), client.from(port))).collect();
    assert_eq!(backends, [0, 1, 2, 3]);
    // Half open, on another worker, retransmitted: one connection.
    let half_open = node.to(0, client.from(9).syn());
    for worker in 0..4 {
        assert_eq!(node.to(worker, client.from(9).syn()), half_open);
    }
    assert_eq!(node.to(3, client.from(9).ack()), half_open);
}

/// Two nodes with the same backends, but other seeds, slots and order.
#[test]
fn a_second_node_takes_ten_thousand_connections_over() {
    let weights = [3, 1, 4, 1, 5];
    for site in [Site::web, Site::forgetful] {
        let mut first = Node::new(site(SchedulerKind::Maglev, &weights));
        let mut other = site(SchedulerKind::Maglev, &weights);
        other.backends.reverse();
        let sizes = Sizes { seed: 99, flows: 10_000, workers: 2, ..Sizes::default() };
        let mut second = Node::sized(other, sizes);
        let last = u16::try_from(weights.len()).unwrap() - 1;
        for index in 0..10_000 {
            let client = Client::new(index, VIP);
            let backend = first.open((0, 1), client);
            let worker = usize::from(index % 2 == 0);
            assert_eq!(last - second.to(worker, client.ack()), backend, "source {index}");
        }
        assert_eq!(second.total(|totals| &totals.picked_up), 10_000);
    }
}

/// A connection that was picked up becomes a member of the template that its source makes here.
#[test]
fn a_picked_up_connection_lives_and_dies() {
    let mut node = Node::new(Site::web(SchedulerKind::Maglev, &[1; 4]));
    let client = Client::new(1, VIP);
    let backend = node.to(0, client.ack());
    assert_eq!(node.live_flows(client), None, "one packet proves nothing");
    assert_eq!(node.open((1, 1), client.from(9)), backend);
    assert_eq!(node.live_flows(client), Some(1));
    assert_eq!(node.to(0, client.ack()), backend);
    assert_eq!(node.live_flows(client), Some(1), "nor does it when it is repeated");
    assert_eq!(node.to(0, client.data()), backend);
    assert_eq!(node.live_flows(client), Some(2), "now it is a connection");
    node.to(0, client.fin());
    node.to(1, client.from(9).fin());
    assert_eq!(node.live_flows(client), Some(0));
    assert_eq!(node.active(backend), 0);
}

#[test]
fn a_changed_mac_is_used_at_once() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1, 1]));
    let client = Client::new(1, VIP);
    assert_eq!(node.open((0, 0), client), 0);
    let mut frames = vec![client.ack()];
    node.burst(0, &mut frames);
    assert_eq!(frames[0][..6], backend_mac(BackendSlot(0)).0);
    let new = crate::Mac([2, 0xaa, 0, 0, 9, 9]);
    node.workers[0].set_mac(new);
    let other_host = Outcome::Dropped(DropReason::OtherHost);
    assert_eq!(node.send(0, client.ack()), other_host, "the former MAC is not ours any more");
    assert_eq!(node.to(0, sent_to(client.ack(), new)), 0);
    let mut frames = vec![sent_to(client.who_has(), new)];
    node.burst(0, &mut frames);
    assert_eq!(frames[0][6..12], [2, 0xaa, 0, 0, 9, 9], "answers come from the new address");
}

/// Sources of one prefix are one source.
#[test]
fn a_prefix_shares_its_backend() {
    let mut site = Site::web(SchedulerKind::Rr, &[1; 4]);
    site.vip(super::kit::VIP6, 0, None);
    site.service(super::kit::VIP6, Protocol::Tcp, (80, 80), SchedulerKind::Rr);
    site.persistent(50).backend(Addr::from_v4([172, 16, 1, 1]), 1);
    site.backend(Addr::from_v4([172, 16, 1, 2]), 1);
    for offer in &mut site.offers {
        let persistence = offer.persistence.as_mut().expect("both are persistent");
        (persistence.prefix_v4, persistence.prefix_v6) = (120, 64);
    }
    let mut node = Node::new(site);
    let first = node.open((0, 0), Client::new(0x100, VIP));
    let first6 = node.open((0, 0), Client::v6(1, super::kit::VIP6));
    for index in 1..250 {
        let worker = index as usize % 4;
        assert_eq!(node.open((worker, 0), Client::new(0x100 + index, VIP)), first);
        assert_eq!(node.open((worker, 1), Client::v6(1 + index, super::kit::VIP6)), first6);
    }
    assert_ne!(node.open((0, 0), Client::new(0x200, VIP)), first, "the next prefix");
    assert_eq!(node.shared.persistence.len(), 3);
}

/// What a datagram is scheduled by anew is the hash with `maglev` alone: with all others the flow's own
/// worker tells the others of it.
#[test]
fn without_persistence_every_moved_flow_of_udp_keeps_its_backend() {
    for kind in EVERY_SCHEDULER {
        let mut site = Site::default();
        site.vip(VIP, 0, None).service(VIP, Protocol::Udp, (80, 80), kind);
        for last in 1..5 {
            site.backend(Addr::from_v4([172, 16, 0, last]), 1);
        }
        let mut node = Node::new(site);
        let clients: Vec<Client> = (0..200).map(|index| Client::new(index, VIP)).collect();
        let send = |node: &mut Node, worker, client: &Client| node.to(worker, client.udp());
        let backends: Vec<u16> = clients
            .iter()
            .map(|client| [0, 0, 0].map(|worker| send(&mut node, worker, client))[2])
            .collect();
        for (round, pause) in [1, 100, 250].into_iter().enumerate() {
            node.pass(pause);
            for (client, &backend) in clients.iter().zip(&backends) {
                assert_eq!(send(&mut node, round + 1, client), backend, "{kind:?} {round}");
                assert_eq!(send(&mut node, round + 1, client), backend, "{kind:?} {round}");
            }
        }
    }
}
