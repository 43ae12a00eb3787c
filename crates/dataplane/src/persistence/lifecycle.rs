//! The three tables together, played by a forwarder that does only what the life cycle asks of it.

use std::time::Duration;

use super::*;
use crate::addr::{Addr, Mac};
use crate::flow::{
    EndedFlow, FlowState, FlowTable, Membership, NewFlow, Origin, Timeouts, Transition,
};
use crate::key::{FlowKey, Protocol};
use crate::packet::TcpFields;
use crate::pending::PendingTable;
use crate::slots::{BackendSlot, ServiceSlot};
use crate::tick::Tick;

mod model;

/// A packet of a client, or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Packet(Packet),
    /// Seconds pass, and the sweeps come round.
    Pass(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    worker: usize,
    client: u8,
    port: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syn,
    /// With the numbers of the handshake's.
    Ack,
    /// With numbers ahead of all before.
    Data,
    Fin,
    Rst,
    Udp,
}

impl Kind {
    /// `sent`: packets sent so far.
    fn tcp(self, sent: u32) -> Option<TcpFields> {
        let (flags, ack) = match self {
            Self::Syn => (0x02, 0),
            Self::Ack => (0x10, 1),
            Self::Data => (0x18, 1 + sent),
            Self::Fin => (0x11, 1),
            Self::Rst => (0x04, 0),
            Self::Udp => return None,
        };
        Some(TcpFields { flags, ack, next: 1 })
    }
}

impl Packet {
    fn key(self) -> FlowKey {
        FlowKey {
            src: Addr::from_v4([10, 0, 0, self.client]),
            dst: Addr::from_v4([192, 0, 2, 1]),
            src_port: self.port,
            dst_port: 80,
            protocol: if self.kind == Kind::Udp { Protocol::Udp } else { Protocol::Tcp },
        }
    }

    /// Clients `2 n` and `2 n + 1` share a prefix.
    fn source(self) -> TemplateKey {
        TemplateKey::new(SERVICE, self.key().src, PREFIX_LEN)
    }
}

const SERVICE: ServiceSlot = ServiceSlot(1);
const PREFIX_LEN: u8 = 127;
const WORKERS: usize = 3;

/// Longer than a whole number of seconds, so that the pending table's coarse clock decides as an
/// exact one would for events on whole seconds.
const HALF_OPEN: Duration = Duration::from_millis(59_500);

fn timeouts() -> Timeouts {
    Timeouts { half_open: HALF_OPEN, ..Timeouts::default() }
}

/// The tables of a node and the least forwarder.
struct Node {
    flows: Vec<FlowTable>,
    pending: PendingTable,
    templates: PersistenceTable,
    timeout: Duration,
    now: Tick,
    /// Round robin over backends without end: each new choice is another backend.
    next: u16,
    sent: u32,
}

impl Node {
    /// Starts 30 minutes before the flow tables' milliseconds wrap.
    fn new(timeout: u64) -> Self {
        Self {
            flows: (0..WORKERS).map(|at| FlowTable::new(256, at as u64, &timeouts())).collect(),
            pending: PendingTable::new(4096, 1, HALF_OPEN),
            templates: PersistenceTable::new(1000, 1),
            timeout: Duration::from_secs(timeout),
            now: Tick::from_nanos(((1 << 32) - 1_800_000) * 1_000_000),
            next: 0,
            sent: 0,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        let Self { flows, pending, templates, now, .. } = self;
        for table in flows {
            let all = table.buckets();
            table.sweep(*now, all, &mut |gone| leave(templates, &gone));
        }
        pending.sweep(*now, pending.sets());
        templates.sweep(*now, templates.maps());
    }

    /// Where the packet goes.
    fn packet(&mut self, packet: Packet) -> BackendSlot {
        self.sent += 1;
        let tcp = packet.kind.tcp(self.sent);
        let Self { flows, templates, now, .. } = self;
        let table = &mut flows[packet.worker];
        let key = packet.key();
        let hash = table.hash(&key);
        if let Some(found) = table.find(hash, &key, *now) {
            let template = table.get(found.id).and_then(|flow| flow.template);
            match (table.observe(found.id, tcp, *now), template) {
                (Some(Transition::NewConnection), _) => {
                    let gone = table.remove(found.id, *now).expect("in use");
                    leave(templates, &gone);
                    return self.new_connection(packet);
                }
                (Some(Transition::Ended), Some(template)) => templates.end(&template, *now),
                (Some(Transition::Trailing), Some(template)) => templates.touch(&template, *now),
                (Some(Transition::Proven { picked_up }), _) => {
                    let epoch = if picked_up {
                        self.templates.attach(&packet.source(), found.backend, self.now)
                    } else {
                        self.join(packet, found.backend)
                    };
                    if let Some(epoch) = epoch {
                        let member = Membership { epoch, prefix_len: PREFIX_LEN };
                        assert!(self.flows[packet.worker].join(found.id, member));
                    }
                }
                _ => {}
            }
            return found.backend;
        }
        match packet.kind {
            Kind::Syn => self.new_connection(packet),
            Kind::Udp => self.datagram(packet),
            Kind::Ack | Kind::Data | Kind::Fin | Kind::Rst => self.segment(packet),
        }
    }

    /// A SYN, or the first datagram: a choice, and a mark on the 5-tuple that it was made.
    fn new_connection(&mut self, packet: Packet) -> BackendSlot {
        let backend = self.choice(packet);
        let mark = self.pending.flow_key(&packet.key());
        self.pending.choose_or_join(mark, self.now, || Some(backend), |other| other == backend);
        backend
    }

    fn choice(&mut self, packet: Packet) -> BackendSlot {
        if let Some(template) = self.templates.get(&packet.source(), self.now) {
            return template.backend;
        }
        let source = self.pending.source_key(SERVICE, packet.source().source);
        let next = &mut self.next;
        let choose = || {
            *next += 1;
            Some(BackendSlot(*next))
        };
        let choice = self.pending.choose_or_join(source, self.now, choose, |_| true);
        choice.expect("there are backends").backend
    }

    /// No SYN, no entry: the ACK of a handshake if the 5-tuple is marked, else a pick-up.
    fn segment(&mut self, packet: Packet) -> BackendSlot {
        let mark = self.pending.flow_key(&packet.key());
        if let Some(backend) = self.pending.lookup(mark, self.now) {
            self.insert(packet, backend, Origin::Handshake, None);
            return backend;
        }
        let source = packet.source();
        let pending = self.pending.source_key(SERVICE, source.source);
        let template = self.templates.get(&source, self.now).map(|template| template.backend);
        let backend = template
            .or_else(|| self.pending.lookup(pending, self.now))
            .unwrap_or(BackendSlot(u16::MAX));
        self.insert(packet, backend, Origin::PickUp, None);
        backend
    }

    fn datagram(&mut self, packet: Packet) -> BackendSlot {
        let mark = self.pending.flow_key(&packet.key());
        let Some(backend) = self.pending.lookup(mark, self.now) else {
            return self.new_connection(packet);
        };
        let epoch = self.join(packet, backend);
        self.insert(packet, backend, Origin::Udp, epoch);
        backend
    }

    /// The flow joins its template, and from then on that tells the choice.
    fn join(&mut self, packet: Packet, backend: BackendSlot) -> Option<Epoch> {
        let source = packet.source();
        let joined = self.templates.join(&source, backend, self.timeout, false, self.now);
        self.pending.take(self.pending.source_key(SERVICE, source.source), self.now);
        self.pending.take(self.pending.flow_key(&packet.key()), self.now);
        joined.epoch()
    }

    fn insert(
        &mut self,
        packet: Packet,
        backend: BackendSlot,
        origin: Origin,
        epoch: Option<Epoch>,
    ) {
        if matches!(packet.kind, Kind::Fin | Kind::Rst) {
            return;
        }
        let tcp = packet.kind.tcp(self.sent);
        let Self { flows, templates, now, .. } = self;
        let table = &mut flows[packet.worker];
        let template = epoch.map(|epoch| Membership { epoch, prefix_len: PREFIX_LEN });
        let new =
            NewFlow { service: SERVICE, backend, origin, tcp, client: Mac::default(), template };
        let key = packet.key();
        let hash = table.hash(&key);
        let id = table.insert(hash, &key, &new, *now, &mut |gone| leave(templates, &gone));
        id.expect("there is room");
    }

    fn dump(&self) -> Vec<TemplateEntry> {
        let mut entries = self.templates.page(None, usize::MAX, self.now).entries;
        entries.sort_unstable_by_key(|entry| entry.key);
        entries
    }
}

fn leave(templates: &PersistenceTable, gone: &EndedFlow) {
    if let Some(template) = gone.template {
        templates.end(&template, gone.at);
    }
}

fn packet(worker: usize, client: u8, port: u16, kind: Kind) -> Event {
    Event::Packet(Packet { worker, client, port, kind })
}

fn syn(worker: usize, port: u16) -> Event {
    packet(worker, 2, port, Kind::Syn)
}

fn ack(worker: usize, port: u16) -> Event {
    packet(worker, 2, port, Kind::Ack)
}

fn data(worker: usize, port: u16) -> Event {
    packet(worker, 2, port, Kind::Data)
}

fn fin(worker: usize, port: u16) -> Event {
    packet(worker, 2, port, Kind::Fin)
}

fn rst(worker: usize, port: u16) -> Event {
    packet(worker, 2, port, Kind::Rst)
}

fn udp(worker: usize, port: u16) -> Event {
    packet(worker, 2, port, Kind::Udp)
}

/// A handshake over two queues, and a request.
fn open(port: u16) -> [Event; 3] {
    [syn(0, port), ack(1, port), data(1, port)]
}

/// What happens, and which choice the last packet follows: the first, the second, ….
type Case = (&'static str, Vec<Event>, u16);

fn check(cases: Vec<Case>) {
    for (what, events, expected) in cases {
        let mut node = Node::new(50);
        let mut last = None;
        for event in events {
            match event {
                Event::Packet(packet) => last = Some(node.packet(packet)),
                Event::Pass(seconds) => node.pass(seconds),
            }
        }
        assert_eq!(last, Some(BackendSlot(expected)), "{what}");
    }
}

#[test]
fn choices_before_there_is_a_template() {
    use Event::Pass;
    use Kind::Syn;
    check(vec![
        ("the first", vec![syn(0, 1)], 1),
        (
            "six SYNs at once over all queues",
            (0..6).map(|n| syn(usize::from(n % 3), n)).collect(),
            1,
        ),
        ("the ACK on another queue", vec![syn(0, 1), ack(1, 1)], 1),
        ("another client of the prefix", vec![syn(0, 1), packet(1, 3, 9, Syn)], 1),
        ("another prefix", vec![syn(0, 1), packet(1, 4, 9, Syn)], 2),
        ("a SYN that nobody acknowledged", vec![syn(0, 1), Pass(59), syn(0, 2)], 1),
        ("is forgotten", vec![syn(0, 1), Pass(60), syn(0, 2)], 2),
        ("a mere SYN makes no template", vec![syn(0, 1), Pass(60), ack(0, 1)], u16::MAX),
        ("nor does its ACK", vec![syn(0, 1), ack(0, 1), ack(0, 1), Pass(60), syn(0, 2)], 2),
        ("but what follows it does", [&open(1)[..], &[Pass(60), syn(0, 2)]].concat(), 1),
    ]);
}

#[test]
fn life_cycle_of_a_template() {
    use Event::Pass;
    check(vec![
        ("the flow lives", [&open(1)[..], &[Pass(899), syn(0, 2)]].concat(), 1),
        ("idle, then the timeout", [&open(1)[..], &[Pass(949), syn(0, 2)]].concat(), 1),
        ("and it is over", [&open(1)[..], &[Pass(950), syn(0, 2)]].concat(), 2),
        ("FIN at once", [&open(1)[..], &[fin(1, 1), Pass(49), syn(0, 2)]].concat(), 1),
        ("50 s, not 170", [&open(1)[..], &[fin(1, 1), Pass(50), syn(0, 2)]].concat(), 2),
        ("RST at once", [&open(1)[..], &[rst(1, 1), Pass(49), syn(0, 2)]].concat(), 1),
        ("50 s too", [&open(1)[..], &[rst(1, 1), Pass(50), syn(0, 2)]].concat(), 2),
        (
            "a new connection refreshes",
            [&open(1)[..], &[fin(1, 1), Pass(49)], &open(2), &[rst(1, 2), Pass(49), syn(0, 3)]]
                .concat(),
            1,
        ),
        (
            "its SYN alone does not",
            [&open(1)[..], &[fin(1, 1), Pass(49), syn(0, 2), Pass(1), syn(0, 3)]].concat(),
            2,
        ),
        (
            "acknowledging a long download after FIN does",
            [&open(1)[..], &[fin(1, 1), Pass(100), ack(1, 1)], &[Pass(49), syn(0, 2)]].concat(),
            2,
        ),
        (
            "if it never pauses for the timeout",
            [
                &open(1)[..],
                &[fin(1, 1), Pass(40), ack(1, 1), Pass(40), ack(1, 1), Pass(49), syn(0, 2)],
            ]
            .concat(),
            1,
        ),
        (
            "a long connection, used now and then",
            [&open(1)[..], &[Pass(800), ack(1, 1), Pass(800), ack(1, 1), Pass(800), syn(0, 2)]]
                .concat(),
            1,
        ),
        (
            "no rewrite of the timeout: 50 s after an hour",
            [&open(1)[..], &[Pass(800), ack(1, 1), Pass(800), fin(1, 1), Pass(50), syn(0, 2)]]
                .concat(),
            2,
        ),
    ]);
}

#[test]
fn templates_and_unusual_flows() {
    use Event::Pass;
    check(vec![
        (
            "a flow that moved to another queue holds it",
            [&open(1)[..], &[ack(2, 1), data(2, 1), Pass(800), ack(2, 1), Pass(800), syn(0, 2)]]
                .concat(),
            1,
        ),
        (
            "one that shows nothing new there does not",
            [
                &open(1)[..],
                &[Pass(800), ack(2, 1), ack(2, 1), Pass(149), ack(2, 1), Pass(1)],
                &[syn(0, 2)],
            ]
            .concat(),
            2,
        ),
        (
            "a SYN on a closing 5-tuple is a new connection",
            [&open(1)[..], &[fin(1, 1), Pass(60), syn(1, 1)]].concat(),
            2,
        ),
        ("a SYN on a live one is not", [&open(1)[..], &[Pass(60), syn(1, 1)]].concat(), 1),
        ("one datagram makes no template", vec![udp(0, 1), Pass(60), udp(0, 2)], 2),
        ("two do", vec![udp(0, 1), udp(1, 1), Pass(349), udp(0, 2)], 1),
        ("until 300 s and the timeout", vec![udp(0, 1), udp(1, 1), Pass(350), udp(0, 2)], 2),
    ]);
}
