//! Random clients against a model that promises little but firmly: where a source must go, and
//! until when; that a handshake ends where its SYN went; and that a connection stays on its backend
//! while that can be reached, on whatever worker its packets come, whether or not there is room for
//! it in the flow tables.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::frames::{ACK, Client, DATA, FIN, RST, SYN};
use super::kit::{EVERY_SCHEDULER, Health, Node, Outcome, Site, Sizes, VIP};
use crate::forward::Forwarder;
use crate::scheduler::SchedulerKind;
use crate::slots::BackendSlot;
use crate::snapshot::Suspicion;
use crate::verdict::DropReason;

const WORKERS: usize = 3;
const BACKENDS: u16 = 4;
const TIMEOUT: u64 = 50;
const IDLE: u64 = 900;
const HALF_OPEN: u64 = 60;

/// What happens; connections are counted per client.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// SYN, ACK and a request of a new connection, the first on a worker and the others on another.
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
    let flags = prop::sample::select(vec![ACK, ACK, DATA, DATA, ACK | FIN, FIN, RST]);
    let health = prop::sample::select(vec![
        Health::Up,
        Health::Up,
        Health::Suspected,
        Health::Doubted,
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

/// What the sources and their connections are owed, in seconds.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    sources: BTreeMap<u32, Source>,
    /// By client and port, connections that sent no ACK: where their last SYN went, and when.
    half_open: BTreeMap<(u32, u16), (u16, u64)>,
    /// By client and port, connections that were acknowledged and not closed: where they are, and
    /// until when they have to stay.
    connections: BTreeMap<(u32, u16), (u16, u64)>,
}

#[derive(Debug)]
struct Source {
    backend: u16,
    members: BTreeMap<u16, Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    alive: bool,
    /// It keeps the template at least up to this second.
    until: u64,
}

impl Model {
    /// Where the source's template leads.
    fn owed(&self, client: u32) -> Option<u16> {
        let source = self.sources.get(&client)?;
        let held = source.members.values().any(|held| self.now < held.until);
        held.then_some(source.backend)
    }

    /// Where the last SYN of a connection went that sent no ACK.
    fn tried(&self, client: u32, port: u16) -> Option<u16> {
        let &(backend, at) = self.half_open.get(&(client, port))?;
        (self.now - at < HALF_OPEN).then_some(backend)
    }

    /// Where a connection is.
    fn connected(&self, client: u32, port: u16) -> Option<u16> {
        let &(backend, until) = self.connections.get(&(client, port))?;
        (self.now < until).then_some(backend)
    }

    /// A connection was opened; `joins`: it is a member of its source's template.
    fn opened(&mut self, client: u32, port: u16, backend: u16, joins: bool) {
        self.connections.insert((client, port), (backend, self.now + IDLE));
        if !joins {
            return;
        }
        if self.owed(client).is_none() {
            self.sources.insert(client, Source { backend, members: BTreeMap::new() });
        }
        let member = Member { alive: true, until: self.now + IDLE + TIMEOUT };
        let source = self.sources.get_mut(&client).expect("it is there");
        if source.backend == backend {
            source.members.insert(port, member);
        }
    }

    fn segment(&mut self, client: u32, port: u16, flags: u8) {
        let now = self.now;
        let ends = flags & (FIN | RST) != 0;
        if ends {
            self.connections.remove(&(client, port));
        } else if let Some((_, until)) = self.connections.get_mut(&(client, port))
            && now < *until
        {
            // Less is promised to connections that were not opened by the book.
            *until = (*until).max(now + HALF_OPEN);
        }
        let Some(source) = self.sources.get_mut(&client) else { return };
        let Some(member) = source.members.get_mut(&port) else { return };
        // Not one that idled out before.
        if ends && member.alive && now + TIMEOUT < member.until {
            *member = Member { alive: false, until: now + TIMEOUT };
        }
    }

    /// A verdict, or no weight: the source may go elsewhere.
    fn let_go(&mut self, backend: u16) {
        self.sources.retain(|_, source| source.backend != backend);
    }

    /// It cannot be reached: its connections are lost.
    fn lose(&mut self, backend: u16) {
        self.let_go(backend);
        self.connections.retain(|_, connection| connection.0 != backend);
    }
}

/// The node, the model, and the connections that there were.
struct Run {
    node: Node,
    model: Model,
    ports: [u16; 3],
    persistent: bool,
    /// The flow tables are full of connections that others hold.
    full: bool,
    sent: u32,
}

impl Run {
    fn new(kind: SchedulerKind, persistent: bool, full: bool) -> Self {
        let sizes = Sizes {
            workers: WORKERS,
            flows: if full { 16 } else { 1000 },
            pending: 1 << 14,
            templates: 1000,
            ..Sizes::default()
        };
        let site = if persistent { Site::web } else { Site::forgetful };
        let node = Node::sized(site(kind, &[1; BACKENDS as usize]), sizes);
        let ports = [0; 3];
        let mut run = Self { node, model: Model::default(), ports, persistent, full, sent: 0 };
        for index in 0..if full { 100 * WORKERS } else { 0 } {
            let client = Client::new(1000 + u32::try_from(index).expect("few"), VIP);
            run.node.open((index % WORKERS, index % WORKERS), client);
        }
        run
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Open { client, syn, ack } => self.open(client, syn, ack),
            Event::Try { client, worker } => {
                let owed = self.owed_to_syn(client);
                let connection = self.next(client);
                self.open_half(worker, (client, connection), owed);
            }
            Event::Retry { client, connection, worker } => {
                let connection = self.one_of(client, connection);
                let Some(tried) = self.model.tried(client, connection.source_port) else { return };
                let stays = self.node.snapshot.next_hop(BackendSlot(tried)).eligible;
                let owed = self.model.owed(client).filter(|&owed| self.is_eligible(owed));
                let owed = if stays { Some(tried) } else { owed };
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
                    self.model.let_go(slot);
                }
            }
            Event::Reach(slot, usable) => {
                self.node.health(slot, Health::Up);
                self.node.set(slot, |backend| backend.usable = usable);
                if !usable {
                    self.model.lose(slot);
                }
            }
            Event::Check(slot, health) => self.check_backend(slot, health),
        }
    }

    fn check_backend(&mut self, slot: u16, health: Health) {
        self.node.health(slot, health);
        match health {
            Health::Up | Health::Suspected | Health::Doubted => {}
            Health::Kept => self.model.let_go(slot),
            Health::Reset | Health::Discarded => self.model.lose(slot),
        }
        // Some workers learn of it later.
        let worker = usize::from(slot) % WORKERS;
        for frame in self.node.tell(worker) {
            assert_eq!(frame[0..6], super::frames::CLIENT_MAC.0);
        }
    }

    fn is_eligible(&self, slot: u16) -> bool {
        self.node.snapshot.next_hop(BackendSlot(slot)).eligible
    }

    fn suspicion(&self, slot: u16) -> Suspicion {
        self.node.snapshot.next_hop(BackendSlot(slot)).suspicion
    }

    /// Where the SYN of a new connection has to go.
    fn owed_to_syn(&self, client: u32) -> Option<u16> {
        let doubted = |slot| self.suspicion(slot) == Suspicion::Syns;
        self.model.owed(client).filter(|&owed| self.is_eligible(owed) || doubted(owed))
    }

    fn open(&mut self, client: u32, syn: usize, ack: usize) {
        let owed = self.owed_to_syn(client);
        let connection = self.next(client);
        let Some(backend) = self.check(syn, connection.syn(), owed) else { return };
        let port = connection.source_port;
        for (flags, what) in [(ACK, "ACK"), (DATA, "request")] {
            let frame = self.numbered(connection).tcp(flags);
            assert_eq!(self.check(ack, frame, Some(backend)), Some(backend), "{what} follows SYN");
        }
        // A template of a suspected backend stays, known here or not; and without room for the flow
        // there is no member.
        let any_suspected = (0..BACKENDS).any(|slot| self.suspicion(slot) != Suspicion::None);
        let certain = owed == Some(backend) || !any_suspected;
        self.model.opened(client, port, backend, self.persistent && !self.full && certain);
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
        let place = self.model.connected(client, port).or(tried);
        let usable = |slot: &u16| self.node.snapshot.next_hop(BackendSlot(*slot)).usable;
        let owed = place.filter(usable);
        let frame = self.numbered(connection).tcp(flags);
        let went = self.check(worker, frame, owed);
        self.model.segment(client, port, flags);
        if tried.is_some() && flags & ACK != 0 {
            self.model.half_open.remove(&(client, port));
            // Else its backend could not be reached just now, and nothing is where it went.
            if let Some(backend) = went.filter(|_| flags & FIN == 0 && went == tried) {
                let until = self.model.now + HALF_OPEN;
                self.model.connections.insert((client, port), (backend, until));
            }
        }
    }

    /// With numbers ahead of all before.
    fn numbered(&mut self, connection: Client) -> Client {
        self.sent += 2;
        connection.acked(100 + self.sent)
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
                let avoided =
                    next_hop.avoid_existing_clients && next_hop.suspicion != Suspicion::Syns;
                assert!(!(opens && avoided), "a SYN to a backend that is suspected");
                Some(backend)
            }
            Outcome::Answered => {
                assert!(!opens, "no service rejects");
                None
            }
            Outcome::Dropped(
                DropReason::NoBackend | DropReason::NoNeighbour | DropReason::BackendDown,
            ) => None,
            other @ (Outcome::HandedOver | Outcome::Waits | Outcome::Dropped(_)) => {
                panic!("{other:?}")
            }
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
        let unproven: usize = workers.iter().map(|worker| worker.flows.unproven()).sum();
        assert_eq!(sum(Node::active), live as i64);
        assert_eq!(sum(Node::unproven), unproven as i64);
        assert_eq!(sum(Node::inactive), (all - live - unproven) as i64);
        let page = self.node.shared.persistence.page(None, usize::MAX, self.node.now);
        let members: u32 = page.entries.iter().map(|entry| entry.live_flows).sum();
        assert!(members as usize <= live, "{members} members of {live} live flows");
        self.node.check_equation();
    }
}

proptest! {
    #[test]
    fn sources_and_connections_stay_on_their_backend(
        kind in prop::sample::select(EVERY_SCHEDULER.to_vec()),
        (persistent, full) in any::<(bool, bool)>(),
        events in events(),
    ) {
        let mut run = Run::new(kind, persistent, full);
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
