//! Random clients against a model that promises little but firmly: where a source must go, and
//! until when; and that a handshake ends where its SYN went.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::frames::{ACK, Client, FIN, RST, SYN};
use super::kit::{EVERY_SCHEDULER, Health, Node, Outcome, Site, Sizes, VIP};
use crate::forward::Forwarder;
use crate::scheduler::SchedulerKind;
use crate::slots::BackendSlot;
use crate::verdict::DropReason;

const WORKERS: usize = 3;
const BACKENDS: u16 = 4;
const TIMEOUT: u64 = 50;
const IDLE: u64 = 900;
const HALF_OPEN: u64 = 60;

/// What happens; connections are counted per client.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// SYN and ACK of a new connection, each on a worker.
    Open {
        client: u32,
        syn: usize,
        ack: usize,
    },
    /// A SYN that is not acknowledged for now.
    Try {
        client: u32,
        worker: usize,
    },
    /// It is sent again, if the connection is half open.
    Retry {
        client: u32,
        connection: prop::sample::Index,
        worker: usize,
    },
    /// A segment of one of the connections so far.
    Segment {
        client: u32,
        connection: prop::sample::Index,
        worker: usize,
        flags: u8,
    },
    Pass(u64),
    Weight(u16, u32),
    Reach(u16, bool),
    Check(u16, Health),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (client, worker, backend) = (0..3_u32, 0..WORKERS, 0..BACKENDS);
    let flags = prop::sample::select(vec![ACK, ACK, ACK, ACK | FIN, ACK | FIN, FIN, RST]);
    let health = prop::sample::select(vec![
        Health::Up,
        Health::Up,
        Health::Suspected,
        Health::Kept,
        Health::Reset,
        Health::Discarded,
    ]);
    let pass = prop_oneof![Just(1), 2..49_u64, 50..70_u64, 110..130_u64, 880..960_u64];
    let event = prop_oneof![
        4 => (client.clone(), worker.clone(), worker.clone())
            .prop_map(|(client, syn, ack)| Event::Open { client, syn, ack }),
        3 => (client.clone(), worker.clone())
            .prop_map(|(client, worker)| Event::Try { client, worker }),
        2 => (client.clone(), any::<prop::sample::Index>(), worker.clone()).prop_map(
            |(client, connection, worker)| Event::Retry { client, connection, worker },
        ),
        8 => (client, any::<prop::sample::Index>(), worker, flags).prop_map(
            |(client, connection, worker, flags)| {
                Event::Segment { client, connection, worker, flags }
            },
        ),
        3 => pass.prop_map(Event::Pass),
        1 => (backend.clone(), 0..2_u32).prop_map(|(slot, weight)| Event::Weight(slot, weight)),
        1 => (backend.clone(), any::<bool>())
            .prop_map(|(slot, usable)| Event::Reach(slot, usable)),
        2 => (backend, health).prop_map(|(slot, health)| Event::Check(slot, health)),
    ];
    prop::collection::vec(event, 1..150)
}

/// What the sources are owed, in seconds.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    sources: BTreeMap<u32, Source>,
    /// By client and port, connections that sent no ACK: where their last SYN went, and when.
    half_open: BTreeMap<(u32, u16), (u16, u64)>,
}

#[derive(Debug)]
struct Source {
    backend: u16,
    connections: BTreeMap<u16, Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    alive: bool,
    /// It keeps the template at least up to this second.
    until: u64,
}

impl Model {
    /// Where the source has to go.
    fn owed(&self, client: u32) -> Option<u16> {
        let source = self.sources.get(&client)?;
        let held = source.connections.values().any(|held| self.now < held.until);
        held.then_some(source.backend)
    }

    /// Where the last SYN of a connection went that sent no ACK.
    fn tried(&self, client: u32, port: u16) -> Option<u16> {
        let &(backend, at) = self.half_open.get(&(client, port))?;
        (self.now - at < HALF_OPEN).then_some(backend)
    }

    /// Where a segment of this connection has to go.
    fn owed_segment(&self, client: u32, port: u16) -> Option<u16> {
        let backend = self.owed(client)?;
        self.sources[&client].connections.contains_key(&port).then_some(backend)
    }

    fn opened(&mut self, client: u32, port: u16, backend: u16) {
        if self.owed(client).is_none() {
            self.sources.insert(client, Source { backend, connections: BTreeMap::new() });
        }
        let connection = Connection { alive: true, until: self.now + IDLE + TIMEOUT };
        let source = self.sources.get_mut(&client).expect("it is there");
        source.connections.insert(port, connection);
    }

    fn segment(&mut self, client: u32, port: u16, flags: u8) {
        let now = self.now;
        let Some(source) = self.sources.get_mut(&client) else { return };
        let Some(connection) = source.connections.get_mut(&port) else { return };
        if flags == ACK && connection.alive {
            connection.until = now + IDLE + TIMEOUT;
        } else if flags != ACK && connection.alive {
            *connection = Connection { alive: false, until: now + TIMEOUT };
        }
    }

    /// The backend takes nobody any more: nobody is owed it.
    fn forget(&mut self, backend: u16) {
        self.sources.retain(|_, source| source.backend != backend);
    }
}

/// The node, the model, and the connections that there were.
struct Run {
    node: Node,
    model: Model,
    ports: [u16; 3],
}

impl Run {
    fn new(kind: SchedulerKind) -> Self {
        let sizes = Sizes {
            workers: WORKERS,
            flows: 1000,
            pending: 1 << 14,
            templates: 1000,
            ..Sizes::default()
        };
        let node = Node::sized(Site::web(kind, &[1; BACKENDS as usize]), sizes);
        Self { node, model: Model::default(), ports: [0; 3] }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Open { client, syn, ack } => self.open(client, syn, ack),
            Event::Try { client, worker } => {
                let owed = self.model.owed(client);
                let connection = self.next(client);
                self.open_half(worker, (client, connection), owed);
            }
            Event::Retry { client, connection, worker } => {
                let connection = self.one_of(client, connection);
                let Some(tried) = self.model.tried(client, connection.source_port) else { return };
                let stays = self.node.snapshot.next_hop(BackendSlot(tried)).eligible;
                let owed = if stays { Some(tried) } else { self.model.owed(client) };
                self.open_half(worker, (client, connection), owed);
            }
            Event::Segment { client, connection, worker, flags } => {
                let connection = self.one_of(client, connection);
                self.segment(worker, (client, connection), flags);
            }
            Event::Pass(seconds) => {
                self.model.now += seconds;
                self.node.pass(seconds);
            }
            Event::Weight(slot, weight) => {
                self.node.set(slot, |backend| backend.weight = weight);
                if weight == 0 {
                    self.model.forget(slot);
                }
            }
            Event::Reach(slot, usable) => {
                self.node.health(slot, Health::Up);
                self.node.set(slot, |backend| backend.usable = usable);
                if !usable {
                    self.model.forget(slot);
                }
            }
            Event::Check(slot, health) => {
                self.node.health(slot, health);
                if health != Health::Up {
                    self.model.forget(slot);
                }
                // Some workers are told of it later.
                let worker = usize::from(slot) % WORKERS;
                for frame in self.node.tell(worker) {
                    assert_eq!(frame[0..6], super::frames::CLIENT_MAC.0);
                }
            }
        }
    }

    fn open(&mut self, client: u32, syn: usize, ack: usize) {
        let owed = self.model.owed(client);
        let connection = self.next(client);
        let Some(backend) = self.check(syn, connection.syn(), owed) else { return };
        let port = connection.source_port;
        assert_eq!(self.check(ack, connection.ack(), owed), Some(backend), "ACK follows SYN");
        self.model.opened(client, port, backend);
    }

    /// A SYN, of a new connection or of one that is half open.
    fn open_half(&mut self, worker: usize, (client, connection): (u32, Client), owed: Option<u16>) {
        let half_open = (client, connection.source_port);
        self.model.half_open.remove(&half_open);
        if let Some(backend) = self.check(worker, connection.syn(), owed) {
            self.model.half_open.insert(half_open, (backend, self.model.now));
        }
    }

    fn segment(&mut self, worker: usize, (client, connection): (u32, Client), flags: u8) {
        let port = connection.source_port;
        let tried = self.model.tried(client, port);
        let usable = |slot: &u16| self.node.snapshot.next_hop(BackendSlot(*slot)).usable;
        let follows = tried.filter(usable);
        let owed = self.model.owed_segment(client, port);
        self.check(worker, connection.tcp(flags), follows.or(owed));
        if owed.is_some() {
            self.model.segment(client, port, flags);
        }
        if tried.is_some() && flags == ACK {
            self.model.half_open.remove(&(client, port));
            // It may have made a template, but who knows whether there was one.
            let joined = follows.filter(|&backend| self.model.owed(client) == Some(backend));
            if let Some(backend) = joined {
                self.model.opened(client, port, backend);
            }
        }
    }

    /// One of the client's connections so far.
    fn one_of(&self, client: u32, connection: prop::sample::Index) -> Client {
        let port = connection.index(usize::from(self.ports[client as usize]) + 1);
        Client::new(client, VIP).from(u16::try_from(port).expect("few"))
    }

    /// The client's next connection.
    fn next(&mut self, client: u32) -> Client {
        let port = &mut self.ports[client as usize];
        *port += 1;
        Client::new(client, VIP).from(*port)
    }

    /// Sends a frame and compares where it goes with where it has to.
    fn check(&mut self, worker: usize, frame: Vec<u8>, owed: Option<u16>) -> Option<u16> {
        let opens = frame[14 + 20 + 13] & SYN != 0;
        let outcome = self.node.send(worker, frame);
        if let Some(owed) = owed {
            assert_eq!(outcome, Outcome::To(owed));
        }
        match outcome {
            Outcome::To(backend) => {
                let next_hop = self.node.snapshot.next_hop(BackendSlot(backend));
                assert!(next_hop.usable, "a packet to a backend that is down");
                assert!(
                    !(opens && next_hop.avoid_existing_clients),
                    "a SYN to a backend that is suspected"
                );
                Some(backend)
            }
            Outcome::Answered => {
                assert!(!opens, "no service rejects");
                None
            }
            Outcome::Dropped(
                DropReason::NoBackend | DropReason::NoNeighbour | DropReason::BackendDown,
            ) => None,
            other @ (Outcome::HandedOver | Outcome::Dropped(_)) => panic!("{other:?}"),
        }
    }

    /// What is true at any time.
    fn check_books(&self) {
        let sum = |of: fn(&Node, u16) -> i64| -> i64 {
            (0..BACKENDS)
                .map(|slot| of(&self.node, slot))
                .inspect(|&gauge| assert!(gauge >= 0, "{gauge}"))
                .sum()
        };
        let workers = &self.node.workers;
        let live: usize = workers.iter().map(|worker| worker.flows.live()).sum();
        let all: usize = workers.iter().map(Forwarder::flow_count).sum();
        assert_eq!(sum(Node::active), live as i64);
        assert_eq!(sum(Node::inactive), (all - live) as i64);
        let page = self.node.shared.persistence.page(None, usize::MAX, self.node.now);
        let members: u32 = page.entries.iter().map(|entry| entry.live_flows).sum();
        assert!(members as usize <= live, "{members} members of {live} live flows");
        self.node.check_equation();
    }
}

proptest! {
    #[test]
    fn a_source_with_a_template_never_changes_its_backend(
        kind in prop::sample::select(EVERY_SCHEDULER.to_vec()),
        events in events(),
    ) {
        let mut run = Run::new(kind);
        for event in events {
            run.apply(event);
            run.check_books();
        }
        // Everything ends: first the flows, then the templates, then what was never confirmed.
        for seconds in [IDLE, TIMEOUT].into_iter().chain([60; 20]) {
            run.apply(Event::Pass(seconds));
        }
        run.check_books();
        let node = &run.node;
        prop_assert_eq!(node.flows(), 0);
        prop_assert!(node.shared.persistence.is_empty());
        for slot in 0..BACKENDS {
            for counters in &node.counters {
                prop_assert!(!counters.backend(BackendSlot(slot)).in_use(), "backend {}", slot);
            }
            prop_assert_eq!(node.shared.persistence.templates_of(BackendSlot(slot)), 0);
        }
    }
}
