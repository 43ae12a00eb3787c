//! Full tables and floods.

use super::frames::{Client, set_source};
use super::kit::{EVERY_SCHEDULER, Node, Outcome, Site, Sizes, VIP};
use crate::forward::BURST;
use crate::scheduler::SchedulerKind;

#[test]
fn a_full_flow_table_costs_no_connection() {
    for (kind, site) in EVERY_SCHEDULER
        .into_iter()
        .flat_map(|kind| [(kind, Site::web(kind, &[1; 4])), (kind, Site::forgetful(kind, &[1; 4]))])
    {
        let sizes = Sizes { workers: 2, flows: 64, ..Sizes::default() };
        let mut node = Node::sized(site, sizes);
        let clients: Vec<Client> = (0..500).map(|index| Client::new(index, VIP)).collect();
        let backends: Vec<u16> = clients.iter().map(|&client| node.open((0, 0), client)).collect();
        let entries = node.workers[0].flows.buckets() * 16;
        assert!((64..=entries).contains(&node.flows()), "{} flows", node.flows());
        assert!(node.total(|totals| &totals.flow_table_full) >= 500 - entries as u64);
        let active: i64 = (0..4).map(|slot| node.active(slot)).sum();
        assert_eq!(active, node.flows() as i64, "only what is remembered is counted");
        // Their SYNs' choices are long forgotten.
        for pause in [64, 100, 850, 850] {
            node.pass(pause);
            for (&client, &backend) in clients.iter().zip(&backends) {
                assert_eq!(node.to(0, client.ack()), backend, "{kind:?}, {pause} s later");
            }
        }
        // Another queue, and what a router has to say.
        for (&client, &backend) in clients.iter().zip(&backends) {
            let error = client.too_big(etherparse::IpNumber::TCP);
            let goes = match node.send(1, error.clone()) {
                Outcome::HandedOver => node.adopt(0, &mut error.clone(), true),
                outcome @ (Outcome::To(_)
                | Outcome::Answered
                | Outcome::Waits
                | Outcome::Dropped(_)) => outcome,
            };
            assert_eq!(goes, Outcome::To(backend), "{kind:?}");
            assert_eq!(node.to(0, client.fin()), backend, "{kind:?}");
        }
        node.pass(2000);
        assert_eq!(node.flows(), 0);
        assert!(node.shared.persistence.is_empty(), "no template is held by nobody");
        node.check_equation();
    }
}

/// However many connections come and go: what has ended is forgotten first.
#[test]
fn ended_connections_make_room() {
    for (site, last) in [Site::web, Site::forgetful].into_iter().flat_map(|site| {
        [(site, Client::fin as fn(Client) -> Vec<u8>), (site, Client::rst as fn(Client) -> Vec<u8>)]
    }) {
        let sizes = Sizes { workers: 1, flows: 64, ..Sizes::default() };
        let mut node = Node::sized(site(SchedulerKind::Rr, &[1; 4]), sizes);
        let lasting: Vec<Client> = (0..20).map(|index| Client::new(index, VIP)).collect();
        let backends: Vec<u16> = lasting.iter().map(|&client| node.open((0, 0), client)).collect();
        for index in 100..2000 {
            let client = Client::new(index, VIP);
            let backend = node.open((0, 0), client);
            assert_eq!(node.to(0, last(client)), backend);
        }
        assert_eq!(node.total(|totals| &totals.flow_table_full), 0);
        let active: i64 = (0..4).map(|slot| node.active(slot)).sum();
        assert_eq!(active, 20);
        for (&client, &backend) in lasting.iter().zip(&backends) {
            assert_eq!(node.to(0, client.ack()), backend);
        }
        node.check_equation();
    }
}

/// A client that has closed its half and goes on to read is not cut off by later ones.
#[test]
fn a_half_closed_download_outlives_its_entry() {
    for kind in EVERY_SCHEDULER {
        let sizes = Sizes { workers: 1, flows: 64, ..Sizes::default() };
        let mut node = Node::sized(Site::forgetful(kind, &[1; 4]), sizes);
        let reader = Client::new(1, VIP);
        let backend = node.open((0, 0), reader);
        node.to(0, reader.fin());
        node.pass(5);
        for index in 100..400 {
            node.open((0, 0), Client::new(index, VIP));
        }
        for second in 0..200 {
            assert_eq!(node.to(0, reader.acked(1000 + second).ack()), backend, "{kind:?}");
            node.pass(1);
        }
    }
}

#[test]
fn a_full_persistence_table_falls_back_to_the_shared_hash() {
    for kind in EVERY_SCHEDULER {
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

/// What a table for 2,000 flows has to bear, with 1,000 clients in it: frames of forged sources.
struct Flood {
    node: Node,
    clients: Vec<Client>,
    backends: Vec<u16>,
    frames: Vec<Vec<u8>>,
}

impl Flood {
    fn new(site: Site) -> Self {
        let sizes = Sizes { workers: 1, flows: 2000, ..Sizes::default() };
        let mut node = Node::sized(site, sizes);
        let clients: Vec<Client> = (0..1000).map(|index| Client::new(index, VIP)).collect();
        let backends = clients.iter().map(|&client| node.open((0, 0), client)).collect();
        let frames = vec![Client::new(0, VIP).ack(); BURST];
        Self { node, clients, backends, frames }
    }

    /// These frames of one after the other source, 64,000 in all.
    fn of(&mut self, kinds: &[fn(Client) -> Vec<u8>]) {
        for round in 0..1000_u32 {
            for kind in kinds {
                self.frames.fill(kind(Client::new(0, VIP)));
                for (frame, index) in self.frames.iter_mut().zip(0..) {
                    set_source(frame, 0x10_0000 + round * 64 + index);
                }
                self.node.burst(0, &mut self.frames);
            }
        }
    }

    /// It left nothing but entries that make room, and those not for long.
    fn check(&mut self) {
        let Self { node, clients, backends, .. } = self;
        let templates = node.shared.persistence.len();
        assert!(templates == 1000 || node.site.offers[0].persistence.is_none() && templates == 0);
        let active: i64 = (0..4).map(|slot| node.active(slot)).sum();
        assert_eq!(active, 1000, "nothing is proven");
        for (&client, &backend) in clients.iter().zip(&*backends) {
            assert_eq!(node.to(0, client.ack()), backend);
        }
        let refused = node.total(|totals| &totals.flow_table_full);
        for index in 5000..5900 {
            node.open((0, 0), Client::new(index, VIP));
        }
        let active: i64 = (0..4).map(|slot| node.active(slot)).sum();
        assert_eq!(active, 1900, "all find room");
        assert_eq!(node.total(|totals| &totals.flow_table_full), refused);
        node.pass(60);
        assert!(node.flows() <= 1900 + 2000 / 16, "{} flows", node.flows());
        node.check_equation();
    }
}

/// Nor does a flood of segments from the middle of nowhere push anybody out.
#[test]
fn stray_segments_push_nobody_out() {
    for site in [Site::web, Site::forgetful] {
        let mut flood = Flood::new(site(SchedulerKind::Rr, &[1; 4]));
        flood.of(&[Client::ack, Client::ack]);
        assert!(flood.node.total(|totals| &totals.picked_up) >= 64_000);
        flood.check();
    }
}

#[test]
fn forged_handshakes_push_nobody_out() {
    for site in [Site::web, Site::forgetful] {
        let mut flood = Flood::new(site(SchedulerKind::Rr, &[1; 4]));
        flood.of(&[Client::syn, Client::ack]);
        flood.check();
    }
}

/// A source with a template that sends segments of any number of connections it does not have.
#[test]
fn stray_segments_are_no_load() {
    for kind in [SchedulerKind::Lc, SchedulerKind::Wlc] {
        let sizes = Sizes { workers: 2, flows: 100_000, ..Sizes::default() };
        let mut node = Node::sized(Site::web(kind, &[1; 4]), sizes);
        let client = Client::new(1, VIP);
        let backend = node.open((0, 0), client);
        for port in 1..40_000 {
            assert_eq!(node.to(0, client.from(port).ack()), backend);
        }
        assert_eq!((node.active(backend), node.live_flows(client)), (1, Some(1)));
        let others = (100..140).map(|index| node.open((0, 1), Client::new(index, VIP)));
        let count = others.filter(|other| *other == backend).count();
        assert!((8..=11).contains(&count), "{kind:?}: {count} of 40 for one of four");
        node.pass(70);
        assert!(node.flows() < 100, "{} flows", node.flows());
        assert_eq!(node.to(1, client.ack()), backend);
        node.check_equation();
    }
}
