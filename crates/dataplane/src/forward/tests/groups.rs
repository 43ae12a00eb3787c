//! One client, several ports: services that share their templates, and services that hash alike.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::frames::Client;
use super::kit::{EVERY_SCHEDULER, Health, Node, Outcome, Site, VIP};
use crate::addr::Addr;
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;
use crate::slots::BackendSlot;

const HTTP: u16 = 80;
const HTTPS: u16 = 443;
const QUIC: u16 = 444;

fn machine(last: u8) -> Addr {
    Addr::from_v4([172, 16, 0, last])
}

/// HTTP with machines 1–4, HTTPS with 3, 2, 1 and 5, QUIC (UDP) with 1, 2 and 3; of one group.
fn shop(kind: SchedulerKind) -> Site {
    let mut site = Site::default();
    site.vip(VIP, 0, None);
    let services = [
        (Protocol::Tcp, HTTP, &[1, 2, 3, 4][..]),
        (Protocol::Tcp, HTTPS, &[3, 2, 1, 5]),
        (Protocol::Udp, QUIC, &[1, 2, 3]),
    ];
    for (protocol, port, machines) in services {
        site.service(VIP, protocol, (port, port), kind).persistent(50).grouped();
        for &last in machines {
            site.backend(machine(last), 1);
        }
    }
    site
}

fn client(index: u32, port: u16) -> Client {
    Client::new(index, VIP).to(port)
}

/// Which machine a slot is.
fn at(node: &Node, slot: u16) -> Addr {
    node.site.backends[usize::from(slot)].address
}

/// The slot of a machine in a service.
fn slot(node: &Node, service: usize, machine: Addr) -> Option<u16> {
    let is =
        |backend: &super::kit::Backend| (backend.service, backend.address) == (service, machine);
    node.site.backends.iter().position(is).map(|slot| u16::try_from(slot).unwrap())
}

/// A connection to a port, on some workers: the machine.
#[track_caller]
fn connect(node: &mut Node, workers: (usize, usize), client: Client) -> Addr {
    let slot = node.open(workers, client);
    at(node, slot)
}

#[track_caller]
fn datagrams(node: &mut Node, worker: usize, client: Client) -> Addr {
    let slot = node.to(worker, client.udp());
    assert_eq!(node.to((worker + 1) % 4, client.udp()), slot);
    assert_eq!(node.to((worker + 1) % 4, client.udp()), slot);
    at(node, slot)
}

#[test]
fn a_source_has_one_machine_on_all_ports() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(shop(kind));
        for index in 0..100 {
            let first = connect(&mut node, (0, 1), client(index, HTTP));
            if first == machine(4) {
                continue;
            }
            assert_eq!(connect(&mut node, (2, 3), client(index, HTTPS)), first, "{kind:?}");
            assert_eq!(datagrams(&mut node, 1, client(index, QUIC)), first, "{kind:?}");
            assert_eq!(node.live_flows(client(index, HTTP)), Some(3), "one template");
        }
        assert!(node.shared.persistence.len() <= 100);
        node.check_equation();
    }
}

/// A browser asks both ports at once.
#[test]
fn handshakes_under_way_on_two_ports_lead_to_one_machine() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(shop(kind));
        for index in 0..100 {
            let (http, https) = (client(index, HTTP), client(index, HTTPS).from(41_000));
            let first = node.to(0, http.syn());
            let second = node.to(1, https.syn());
            assert_eq!(node.to(2, https.ack()), second);
            assert_eq!(node.to(3, http.ack()), first);
            assert_eq!(node.to(2, https.data()), second);
            assert_eq!(node.to(3, http.data()), first);
            let (first, second) = (at(&node, first), at(&node, second));
            assert!(first == second || first == machine(4), "{kind:?}: {first} and {second}");
        }
    }
}

/// What one service has not, or holds for down, is chosen for that service alone, and again the same;
/// the other services go on as before.
#[test]
fn a_member_that_one_service_lacks_does_not_cost_the_group_its_template() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(shop(kind));
        let clients: Vec<u32> = (0..200).collect();
        let first: Vec<Addr> =
            clients.iter().map(|&it| connect(&mut node, (0, 1), client(it, HTTP))).collect();
        let lost = slot(&node, 1, machine(2)).unwrap();
        node.health(lost, Health::Reset);
        for (&index, &first) in clients.iter().zip(&first) {
            let away = [machine(2), machine(4)].contains(&first);
            let second = connect(&mut node, (2, 3), client(index, HTTPS));
            assert_eq!(second == first, !away, "{kind:?}");
            let again = connect(&mut node, (1, 0), client(index, HTTPS).from(2));
            assert_eq!(again, second, "{kind:?}: the same place for each connection");
            let http = connect(&mut node, (3, 2), client(index, HTTP).from(3));
            assert_eq!(http, first, "{kind:?}: the template is as it was");
        }
        node.health(lost, Health::Up);
        for (&index, &first) in clients.iter().zip(&first).filter(|(_, it)| **it == machine(2)) {
            assert_eq!(connect(&mut node, (2, 1), client(index, HTTPS).from(4)), first, "back");
        }
        node.check_equation();
    }
}

#[test]
fn a_machine_that_is_down_everywhere_gives_its_sources_away_together() {
    let mut node = Node::new(shop(SchedulerKind::Rr));
    for index in 0..60 {
        connect(&mut node, (0, 1), client(index, HTTP));
    }
    for service in 0..3 {
        let lost = slot(&node, service, machine(2)).unwrap();
        node.health(lost, Health::Reset);
    }
    for index in 0..60 {
        let http = connect(&mut node, (0, 1), client(index, HTTP).from(5));
        let https = connect(&mut node, (2, 3), client(index, HTTPS).from(5));
        assert!(http == https || http == machine(4), "{http} and {https}");
        assert!(http != machine(2) && https != machine(2));
    }
}

#[test]
fn the_template_lives_while_any_service_has_a_connection() {
    let mut node = Node::new(shop(SchedulerKind::Rr));
    let source = client(1, HTTP);
    let first = connect(&mut node, (0, 0), source);
    if first == machine(4) {
        panic!("the turn begins with another one");
    }
    connect(&mut node, (0, 0), client(1, HTTPS));
    node.to(0, source.fin());
    node.pass(60);
    assert_eq!(node.live_flows(source), Some(1), "of the other service");
    node.to(0, client(1, HTTPS).fin());
    node.pass(49);
    assert_eq!(node.live_flows(source), Some(0));
    node.pass(2);
    assert_eq!(node.live_flows(source), None);
}

/// Without any template: after a restart, or on another node.
#[test]
fn services_of_a_group_hash_alike_and_others_do_not() {
    let mut nodes = [0, 1].map(|_| Node::new(shop(SchedulerKind::Maglev)));
    let mut hashes = 0;
    for index in 0..300 {
        let mut places = Vec::new();
        for node in &mut nodes {
            for port in [HTTP, HTTPS] {
                let slot = node.to(0, client(index, port).ack());
                places.push(at(node, slot));
            }
        }
        assert_eq!((places[0], places[1]), (places[2], places[3]), "nodes agree");
        hashes += usize::from(places[0] == places[1]);
    }
    // Three of the five machines are in both: 180 is to be expected, of independent hashes 56.
    assert!(hashes > 140, "{hashes} of 300");
}

#[test]
fn a_hash_of_the_source_needs_no_template() {
    let mut site = Site::default();
    site.vip(VIP, 0, None);
    for port in [HTTP, HTTPS] {
        site.service(VIP, Protocol::Tcp, (port, port), SchedulerKind::Maglev).by_source();
        for last in 1..5 {
            site.backend(machine(last), 1);
        }
    }
    site.service(VIP, Protocol::Tcp, (81, 81), SchedulerKind::Maglev);
    for last in 1..5 {
        site.backend(machine(last), 1);
    }
    let mut node = Node::new(site);
    let mut scattered = 0;
    for index in 0..100 {
        let place = connect(&mut node, (0, 1), client(index, HTTP));
        for port in 1..4 {
            assert_eq!(connect(&mut node, (2, 3), client(index, HTTPS).from(port)), place);
            scattered +=
                u32::from(connect(&mut node, (1, 1), client(index, 81).from(port)) != place);
        }
    }
    assert!(scattered > 150, "of the 5-tuple: {scattered} of 300");
    assert!(node.shared.persistence.is_empty());
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Open { client: u32, tls: bool, workers: (usize, usize) },
    Health { service: usize, last: u8, up: bool },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let open = (0..4_u32, any::<bool>(), (0..4_usize, 0..4_usize))
        .prop_map(|(client, tls, workers)| Event::Open { client, tls, workers });
    let health = (0..2_usize, 1..6_u8, any::<bool>())
        .prop_map(|(service, last, up)| Event::Health { service, last, up });
    prop::collection::vec(prop_oneof![3 => open, 1 => health], 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A source goes where its template says wherever that machine serves, and the template changes
    /// only when it serves in none of the services.
    #[test]
    fn the_group_remembers_one_machine(
        events in events(),
        kind in prop::sample::select(EVERY_SCHEDULER.to_vec()),
    ) {
        let mut node = Node::new(shop(kind));
        let mut owed = BTreeMap::<u32, Addr>::new();
        let mut ports = 1000;
        for event in events {
            match event {
                Event::Health { service, last, up } => {
                    if let Some(slot) = slot(&node, service, machine(last)) {
                        node.health(slot, if up { Health::Up } else { Health::Reset });
                    }
                }
                Event::Open { client: index, tls, workers } => {
                    ports += 1;
                    let port = if tls { HTTPS } else { HTTP };
                    let client = client(index, port).from(ports);
                    let serves = |node: &Node, service: usize, machine: Addr| {
                        let slot = slot(node, service, machine)?;
                        node.snapshot.next_hop(BackendSlot(slot)).eligible.then_some(slot)
                    };
                    let held = owed.get(&index).copied();
                    let here = held.and_then(|held| serves(&node, usize::from(tls), held));
                    let Outcome::To(slot) = node.send(workers.0, client.syn()) else {
                        prop_assert_eq!(here, None, "refused");
                        continue;
                    };
                    prop_assert_eq!(node.to(workers.1, client.ack()), slot);
                    prop_assert_eq!(node.to(workers.1, client.data()), slot);
                    if let Some(here) = here {
                        prop_assert_eq!(slot, here);
                    }
                    // QUIC's machines are always up.
                    let kept = held
                        .is_some_and(|held| (0..3).any(|at| serves(&node, at, held).is_some()));
                    if !kept {
                        owed.insert(index, at(&node, slot));
                    }
                }
            }
        }
        node.check_equation();
    }
}
