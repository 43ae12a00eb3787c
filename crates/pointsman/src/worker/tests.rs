//! Workers over rings in plain memory: whatever the kernel's side does, every frame is in one
//! place and every packet is booked once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dataplane::{
    Addr, BackendSlot, FlowTable, Hop, InstanceSlot, LoopGuard, Mac, Member, PendingTable,
    Persistence, PersistenceTable, Protocol, Scheduler, SchedulerKind, Service, ServiceKey,
    ServiceSlot, SharedTables, Timeouts, Totals, Vip,
};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, IcmpEchoHeader, Icmpv4Type, PacketBuilder, icmpv4,
};
use proptest::prelude::*;
use xsk::{Errno, MemoryConfig, MemoryKernel, MemoryRings, memory_port};

use super::*;

mod resets;

const VIP: [u8; 4] = [192, 0, 2, 10];
const CLIENT_MAC: [u8; 6] = [2, 0xcc, 0, 0, 0, 1];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Two backends by the same port, with persistence.
const WEB: u16 = 80;
/// Its backend is reached by port 1.
const FAR: u16 = 81;
/// Its backend is reached by a port that no worker serves.
const LOST: u16 = 82;
/// Two backends by the same port, one connection per schedule.
const FORGETFUL: u16 = 83;

/// The kernel's moods: nothing says that they are all that there are.
const ERRORS: [Errno; 11] = [
    Errno::AGAIN,
    Errno::NOBUFS,
    Errno::BUSY,
    Errno::NETDOWN,
    Errno::NXIO,
    Errno::INTR,
    Errno::PERM,
    Errno::OPNOTSUPP,
    Errno::INVAL,
    Errno::IO,
    Errno::BADF,
];

/// One worker with its port and the other side of its rings.
struct Seat {
    worker: Worker,
    port: Port<MemoryRings>,
    kernel: MemoryKernel,
    counters: Arc<WorkerCounters>,
    mailbox: Arc<Mailbox>,
}

/// Workers 0 and 1 serve two queues of port 0, worker 2 the only queue of port 1.
struct Rig {
    seats: Vec<Seat>,
    snapshot: Snapshot,
    leases: [AtomicU64; 1],
    now: Tick,
}

#[derive(Clone, Copy)]
struct Sizes {
    frames: u32,
    ring: u32,
    mailbox: usize,
    flows: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { frames: 512, ring: 64, mailbox: 64, flows: 4096 }
    }
}

impl Rig {
    fn new(sizes: Sizes) -> Self {
        let timeouts = Timeouts::default();
        let shared = Arc::new(SharedTables {
            pending: PendingTable::new(sizes.flows, 1, timeouts.half_open),
            persistence: PersistenceTable::new(sizes.flows, 1),
        });
        let ids = [(0, 0), (0, 1), (1, 0)];
        let seat = |(port, queue): (u16, u32)| {
            let id = WorkerId { port: PortId(port), queue };
            let counters: Arc<WorkerCounters> = Arc::default();
            let mailbox = Arc::new(Mailbox::new(sizes.mailbox, 1500, || ()));
            let flows = FlowTable::new(sizes.flows, 1, &timeouts);
            let (shared, mac) = (Arc::clone(&shared), own_mac(id.port));
            let books = Arc::clone(&counters);
            let forwarder = Forwarder::new(id.port, mac, flows, &timeouts, shared, books);
            let config = MemoryConfig { frames: sizes.frames, ring: sizes.ring, capture: true };
            let (port, kernel) = memory_port(config);
            let worker = Worker::new(id, forwarder, Arc::clone(&counters), Arc::clone(&mailbox));
            Seat { worker, port, kernel, counters, mailbox }
        };
        let seats: Vec<Seat> = ids.into_iter().map(seat).collect();
        let links = seats.iter().map(|seat| WorkerLink {
            port: seat.worker.id.port,
            queue: seat.worker.id.queue,
            mac: own_mac(seat.worker.id.port),
            mailbox: Arc::clone(&seat.mailbox),
            counters: Arc::clone(&seat.counters),
        });
        let snapshot = snapshot(links.collect());
        let leases = [AtomicU64::new(u64::MAX)];
        Self { seats, snapshot, leases, now: Tick::from_nanos(1_000_000_000) }
    }

    /// One turn of a worker, a millisecond later, and a look at the books.
    #[track_caller]
    fn turn(&mut self, at: usize) -> usize {
        self.now = self.now + Duration::from_millis(1);
        let Self { seats, snapshot, leases, now } = self;
        let Seat { worker, port, .. } = &mut seats[at];
        let taken = worker.turn(port, *now, snapshot, leases.as_slice());
        self.check(at);
        taken
    }

    /// Everyone, until nobody finds anything to do.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let taken: usize = (0..self.seats.len()).map(|at| self.turn(at)).sum();
            let sent: u64 = self.seats.iter().map(|seat| seat.port.outstanding_tx()).sum();
            if taken == 0 && sent == 0 {
                return;
            }
        }
        panic!("the workers do not come to rest");
    }

    /// The packet equation, the whereabouts of the frames, and that both sides agree on them.
    #[track_caller]
    fn check(&mut self, at: usize) {
        let Seat { port, kernel, counters, mailbox: _, worker: _ } = &mut self.seats[at];
        let (came, went) = counters.equation();
        assert_eq!(came, went, "worker {at}: {:?}", counters.totals);
        let accounting = port.accounting();
        assert!(accounting.is_balanced(), "worker {at}: {accounting:?}");
        assert_eq!((accounting.held, accounting.queued), (0, 0), "worker {at}");
        let census = kernel.census();
        assert_eq!(census.user, accounting.free, "worker {at}");
        assert_eq!(census.tx + census.wire, accounting.tx, "worker {at}");
        let Totals { forwarded, answered, originated, .. } = &*counters.totals;
        let sent = forwarded.value() + answered.value() + originated.value();
        assert_eq!(sent, port.counters().transmitted, "worker {at}");
    }

    /// Hands a worker frames of which each must find room.
    #[track_caller]
    fn inject(&self, at: usize, frames: impl IntoIterator<Item = Vec<u8>>) {
        for frame in frames {
            assert!(self.seats[at].kernel.inject(&frame), "no room");
        }
    }

    fn total(&self, at: usize, which: impl Fn(&Totals) -> &dataplane::Counter) -> u64 {
        which(&self.seats[at].counters.totals).value()
    }

    fn forwarded(&self, at: usize) -> u64 {
        self.total(at, |totals| &totals.forwarded)
    }

    fn answered(&self, at: usize) -> u64 {
        self.total(at, |totals| &totals.answered)
    }

    fn originated(&self, at: usize) -> u64 {
        self.total(at, |totals| &totals.originated)
    }

    fn dropped(&self, at: usize, reason: DropReason) -> u64 {
        self.seats[at].counters.dropped(reason).value()
    }

    /// All that the worker's kernel sent.
    fn sent(&self, at: usize) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.seats[at].kernel.take_transmitted()).collect()
    }

    /// A check found out about a backend.
    fn health(&mut self, slot: u16, fate: Option<dataplane::Fate>) {
        let old = &self.snapshot;
        let mut hops = old.hops().to_vec();
        let hop = &mut hops[usize::from(slot)];
        (hop.usable, hop.eligible) = (fate.is_none(), fate.is_none());
        hop.fate = fate.unwrap_or_default();
        let (services, vips) = (old.services().to_vec(), old.vips().to_vec());
        let (guard, workers) = (old.guard.clone(), old.workers.clone());
        self.snapshot = Snapshot::new(old.generation + 1, services, vips, hops, guard, workers);
    }

    fn heal(&self) {
        for Seat { kernel, .. } in &self.seats {
            kernel.fail_next_kicks([]);
            kernel.fail_kicks(None);
            kernel.refuse_transmit(false);
            kernel.complete_later(false);
            kernel.budget(None);
            kernel.needs_wakeup(true, false);
            kernel.complete(u32::MAX);
        }
    }
}

fn snapshot(links: Vec<WorkerLink>) -> Snapshot {
    let services = [
        (WEB, SchedulerKind::Maglev, true),
        (FAR, SchedulerKind::Maglev, true),
        (LOST, SchedulerKind::Maglev, true),
        (FORGETFUL, SchedulerKind::Rr, false),
    ];
    // Service and egress port by slot.
    let backends = [(0, 0), (0, 0), (1, 1), (2, 9), (3, 0), (3, 0)];
    let service = |(slot, (port, kind, persistent)): (u16, (u16, SchedulerKind, bool))| {
        let vip = Addr::from_v4(VIP);
        let key = ServiceKey { vip, protocol: Protocol::Tcp, first_port: port, last_port: port };
        let members = (0..).zip(backends).filter(|&(_, (service, _))| service == slot);
        let members: Vec<Member> = members
            .map(|(at, _)| Member {
                slot: BackendSlot(at),
                address: Addr::from_v4([172, 16, 0, u8::try_from(at).unwrap()]),
                weight: 1,
            })
            .collect();
        Arc::new(Service {
            slot: ServiceSlot(slot),
            key,
            instance: InstanceSlot(0),
            persistence: persistent.then_some(Persistence {
                timeout: Duration::from_secs(50),
                prefix_v4: 128,
                prefix_v6: 128,
                sticky_when_drained: false,
            }),
            scheduler: Scheduler::new(kind, key, &members),
            reject: false,
        })
    };
    let hop = |(at, (service, port)): (u8, (u16, u16))| {
        let own = own_mac(PortId(port)).0;
        let mut macs = [2, 0xbb, 0, 0, 0, at, 0, 0, 0, 0, 0, 0];
        macs[6..].copy_from_slice(&own);
        Hop {
            macs,
            port: PortId(port),
            service: ServiceSlot(service),
            instance: InstanceSlot(0),
            usable: true,
            eligible: true,
            shunned: false,
            fate: dataplane::Fate::Unreachable,
        }
    };
    let vip = Vip { address: Addr::from_v4(VIP), instance: InstanceSlot(0), port: None };
    Snapshot::new(
        1,
        (0..).zip(services).map(service).collect(),
        vec![vip],
        (0..).zip(backends).map(hop).collect(),
        LoopGuard::new([own_mac(PortId(0))], []),
        links,
    )
}

fn own_mac(port: PortId) -> Mac {
    Mac([2, 0xaa, 0, 0, 0, u8::try_from(port.0).unwrap()])
}

fn source(client: u16) -> [u8; 4] {
    let [high, low] = client.to_be_bytes();
    [10, 0, high, low]
}

fn framed(ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&own_mac(PortId(0)).0[..], &CLIENT_MAC, &ethertype, packet].concat()
}

fn tcp(client: u16, port: u16, flags: u8) -> Vec<u8> {
    segment(client, port, flags, 0)
}

fn segment(client: u16, port: u16, flags: u8, acked: u32) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(40_000, port, 1, 1024);
    (header.syn, header.ack) = (flags & SYN != 0, flags & ACK != 0);
    header.acknowledgment_number = acked;
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(source(client), VIP, 60)
        .tcp_header(header)
        .write(&mut bytes, b"payload")
        .unwrap();
    framed([8, 0], &bytes)
}

fn web(client: u16) -> Vec<u8> {
    tcp(client, WEB, SYN)
}

fn many(count: u16, frame: impl Fn(u16) -> Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(frame)
}

fn echo(client: u16) -> Vec<u8> {
    let echo = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: client, seq: 1 });
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(source(client), VIP, 60).icmpv4(echo).write(&mut bytes, b"ping").unwrap();
    framed([8, 0], &bytes)
}

fn who_has(client: u16) -> Vec<u8> {
    let request = ArpPacket::from(ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: CLIENT_MAC,
        sender_ipv4: source(client),
        target_mac: [0; 6],
        target_ipv4: VIP,
    });
    framed([8, 6], &request.to_bytes())
}

/// A router's complaint about a packet of this connection.
fn too_big(client: u16, port: u16) -> Vec<u8> {
    let mut reply = Vec::new();
    PacketBuilder::ipv4(VIP, source(client), 60)
        .tcp(port, 40_000, 1, 1)
        .write(&mut reply, &[])
        .unwrap();
    let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 9, 9, 9], VIP, 60)
        .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
        .write(&mut bytes, &reply)
        .unwrap();
    framed([8, 0], &bytes)
}

#[test]
fn a_burst_is_forwarded_and_answered() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(0, many(20, web).chain(many(3, echo)).chain([who_has(1)]));
    assert_eq!(rig.turn(0), 24);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (20, 4));
    let sent = rig.sent(0);
    for (before, after) in many(20, web).zip(&sent) {
        assert_eq!(before[12..], after[12..]);
        assert!(after.starts_with(&[2, 0xbb]));
    }
    assert!(sent[20..].iter().all(|answer| answer.starts_with(&CLIENT_MAC)));
    rig.settle();
}

#[test]
fn every_errno_of_the_kick_costs_no_frame() {
    for errno in ERRORS {
        let mut rig = Rig::new(Sizes::default());
        rig.seats[0].kernel.fail_next_kicks([errno, errno, errno]);
        rig.inject(0, many(10, web));
        rig.turn(0);
        assert_eq!(rig.forwarded(0), 10, "{errno}: they are on the ring");
        assert_eq!(rig.seats[0].kernel.transmitted(), 0, "{errno}");
        assert!(rig.seats[0].port.kick_pending(), "{errno}: the worker must not sleep long");
        rig.settle();
        assert_eq!(rig.seats[0].kernel.transmitted(), 10, "{errno}");
        assert_eq!(rig.seats[0].port.counters().kick_errors.total(), 3, "{errno}");
    }
}

#[test]
fn a_device_that_does_not_send_fills_its_ring_and_recovers() {
    for errno in ERRORS {
        let mut rig = Rig::new(Sizes { ring: 16, mailbox: 8, ..Sizes::default() });
        rig.seats[0].kernel.fail_kicks(Some(errno));
        for _ in 0..10 {
            rig.inject(0, many(16, web));
            rig.turn(0);
        }
        assert_eq!(rig.forwarded(0), 16, "{errno}: as many as the ring holds");
        assert_eq!(rig.dropped(0, DropReason::TxFull), 144, "{errno}");
        rig.heal();
        rig.settle();
        assert_eq!(rig.sent(0).len(), 16, "{errno}");
        rig.inject(0, many(16, web));
        rig.settle();
        assert_eq!(rig.forwarded(0), 32, "{errno}: all is as before");
    }
}

#[test]
fn a_ring_that_takes_nothing_drops_and_recovers() {
    let mut rig = Rig::new(Sizes::default());
    rig.seats[0].kernel.refuse_transmit(true);
    rig.inject(0, many(10, web).chain(many(5, echo)));
    rig.turn(0);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (0, 0));
    assert_eq!(rig.dropped(0, DropReason::TxFull), 15);
    rig.heal();
    rig.inject(0, many(10, web).chain(many(5, echo)));
    rig.turn(0);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (10, 5));
}

/// The ring takes what was sent first.
#[test]
fn refused_answers_are_not_booked_as_forwarded_ones() {
    // How many SYNs and echo requests come after ten frames that fill a ring of 16, which of them
    // come first, and what is booked.
    let cases = [
        ((4, 8), true, (4, 2)),
        ((8, 4), true, (6, 0)),
        ((4, 8), false, (0, 6)),
        ((8, 4), false, (2, 4)),
        ((0, 9), true, (0, 6)),
        ((9, 0), true, (6, 0)),
    ];
    for ((syns, echoes), syns_first, booked) in cases {
        let mut rig = Rig::new(Sizes { ring: 16, mailbox: 8, ..Sizes::default() });
        rig.seats[0].kernel.fail_kicks(Some(Errno::NETDOWN));
        rig.inject(0, many(10, web));
        rig.turn(0);
        if syns_first {
            rig.inject(0, many(syns, web).chain(many(echoes, echo)));
        } else {
            rig.inject(0, many(echoes, echo).chain(many(syns, web)));
        }
        rig.turn(0);
        let what = format!("{syns} SYNs and {echoes} echo requests, SYNs first: {syns_first}");
        assert_eq!((rig.forwarded(0) - 10, rig.answered(0)), booked, "{what}");
        let refused = u64::from(syns + echoes) - 6;
        assert_eq!(rig.dropped(0, DropReason::TxFull), refused, "{what}");
        rig.heal();
        rig.settle();
        let answers = rig.sent(0).iter().filter(|frame| frame.starts_with(&CLIENT_MAC)).count();
        assert_eq!(answers as u64, booked.1, "{what}: it is the truth");
    }
}

/// 64 frames from the RX ring and 32 from the mailbox against a ring of 64.
#[test]
fn a_turn_may_send_more_than_the_ring_holds() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(2, many(32, |client| tcp(client, WEB, SYN)));
    rig.turn(2);
    assert_eq!(rig.total(2, |totals| &totals.handed_over), 32, "for port 0");
    rig.inject(0, many(64, web));
    assert_eq!(rig.turn(0), 96);
    assert_eq!((rig.forwarded(0), rig.dropped(0, DropReason::TxFull)), (96, 0));
    rig.settle();
    assert_eq!(rig.sent(0).len(), 96);
}

#[test]
fn a_bounded_budget_and_late_completion_lose_nothing() {
    let mut rig = Rig::new(Sizes::default());
    rig.seats[0].kernel.budget(Some(8));
    rig.seats[0].kernel.complete_later(true);
    for round in 1..=40 {
        rig.inject(0, many(8, web));
        rig.turn(0);
        assert_eq!(rig.forwarded(0), 8 * round);
        rig.seats[0].kernel.complete(5);
        if round % 2 == 0 {
            rig.seats[0].kernel.complete(6);
        }
    }
    assert_eq!(rig.dropped(0, DropReason::TxFull), 0);
    rig.heal();
    rig.settle();
    assert_eq!(rig.sent(0).len(), 320);
}

/// Twice as many frames as the other side takes, for a while.
#[test]
fn after_an_overload_everything_is_forwarded_again() {
    let mut rig = Rig::new(Sizes { frames: 256, mailbox: 8, ..Sizes::default() });
    rig.seats[0].kernel.budget(Some(16));
    let (mut offered, mut accepted) = (0, 0);
    for _ in 0..500 {
        for frame in many(64, web) {
            offered += 1;
            accepted += u64::from(rig.seats[0].kernel.inject(&frame));
        }
        rig.turn(0);
    }
    let lost = rig.dropped(0, DropReason::TxFull);
    assert!(lost > 0, "{accepted} of {offered} were accepted: it was an overload");
    assert_eq!(rig.forwarded(0) + lost, accepted);
    rig.seats[0].kernel.budget(None);
    for _ in 0..3 {
        rig.turn(0);
    }
    let before = rig.forwarded(0);
    for _ in 0..100 {
        rig.inject(0, many(64, web));
        rig.turn(0);
    }
    assert_eq!(rig.forwarded(0) - before, 6400, "all of them");
    assert_eq!(rig.dropped(0, DropReason::TxFull), lost);
    rig.settle();
    let accounting = rig.seats[0].port.accounting();
    assert_eq!(accounting.fill + accounting.free, 256, "no frame is lost: {accounting:?}");
}

#[test]
fn frames_for_another_port_are_sent_there() {
    let mut rig = Rig::new(Sizes { mailbox: 8, ..Sizes::default() });
    rig.inject(0, many(10, |client| tcp(client, FAR, SYN)));
    rig.turn(0);
    assert_eq!(rig.total(0, |totals| &totals.handed_over), 8);
    assert_eq!(rig.dropped(0, DropReason::MailboxFull), 2, "the mailbox has room for eight");
    assert_eq!(rig.forwarded(0), 0);
    rig.turn(2);
    assert_eq!((rig.total(2, |totals| &totals.adopted), rig.forwarded(2)), (8, 8));
    for (before, after) in many(8, |client| tcp(client, FAR, SYN)).zip(rig.sent(2)) {
        assert_eq!(after[..12], [2, 0xbb, 0, 0, 0, 2, 2, 0xaa, 0, 0, 0, 1]);
        assert_eq!(before[12..], after[12..]);
    }
    rig.inject(0, many(3, |client| tcp(client, LOST, SYN)));
    rig.turn(0);
    assert_eq!(rig.dropped(0, DropReason::NoPort), 3);
    rig.settle();
}

#[test]
fn a_frame_for_another_port_goes_to_the_same_queue_there() {
    let mut rig = Rig::new(Sizes::default());
    for client in 0..10 {
        rig.inject(2, [web(client)]);
    }
    rig.turn(2);
    assert_eq!((rig.turn(1), rig.turn(0)), (0, 10), "queue 0 to queue 0");
    assert_eq!(rig.forwarded(0), 10);
}

#[test]
fn an_error_is_handed_to_the_worker_that_holds_its_flow() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(1, many(2, |client| tcp(client, FORGETFUL, SYN)));
    rig.turn(1);
    rig.inject(1, many(2, |client| tcp(client, FORGETFUL, ACK)));
    rig.turn(1);
    let handshakes = rig.sent(1);
    rig.inject(0, many(3, |client| too_big(client, FORGETFUL)));
    rig.turn(0);
    assert_eq!(rig.total(0, |totals| &totals.handed_over), 3);
    rig.turn(1);
    rig.turn(2);
    for (at, forwarded, no_flow) in [(1, 2, 1), (2, 0, 3)] {
        assert_eq!(rig.total(at, |totals| &totals.adopted), 3);
        assert_eq!(rig.dropped(at, DropReason::NoFlow), no_flow);
        assert_eq!(rig.forwarded(at), if at == 1 { 4 + forwarded } else { forwarded });
    }
    let errors = rig.sent(1);
    assert_eq!(errors.len(), 2);
    for (error, handshake) in errors.iter().zip(&handshakes[2..]) {
        assert_eq!(error[..12], handshake[..12], "to the backend of the flow");
    }
    rig.settle();
}

#[test]
fn a_flow_that_moved_is_forgotten_where_it_was() {
    let mut rig = Rig::new(Sizes::default());
    for flags in [SYN, ACK] {
        rig.inject(0, many(5, |client| tcp(client, WEB, flags)));
        rig.turn(0);
    }
    assert_eq!(rig.seats[0].worker.forwarder().flow_count(), 5);
    rig.inject(1, many(5, |client| tcp(client, WEB, ACK)));
    rig.turn(1);
    rig.settle();
    let flows = rig.seats.iter().map(|seat| seat.worker.forwarder().flow_count());
    assert_eq!(flows.collect::<Vec<_>>(), [0, 5, 0]);
    rig.seats[1].worker.end_all_flows(rig.now);
    assert_eq!(rig.seats[1].worker.forwarder().flow_count(), 0);
}

#[test]
fn without_a_socket_messages_are_refused_and_booked() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(0, many(5, |client| tcp(client, FAR, SYN)).chain([too_big(9, FORGETFUL)]));
    rig.turn(0);
    let Seat { worker, mailbox, .. } = &mut rig.seats[2];
    while let Some(message) = mailbox.take() {
        worker.refuse(message, rig.now);
    }
    rig.check(2);
    assert_eq!((rig.total(2, |totals| &totals.adopted), rig.forwarded(2)), (6, 0));
    assert_eq!(rig.dropped(2, DropReason::NoPort), 6);
    // Their buffers are free again.
    rig.inject(0, many(64, |client| tcp(client, FAR, SYN)));
    rig.turn(0);
    assert_eq!(rig.dropped(0, DropReason::MailboxFull), 0);
}

#[test]
fn without_a_free_frame_a_message_is_dropped() {
    let mut rig = Rig::new(Sizes { frames: 64, ..Sizes::default() });
    rig.seats[2].kernel.complete_later(true);
    for _ in 0..6 {
        rig.inject(0, many(24, |client| tcp(client, FAR, SYN)));
        rig.turn(0);
        rig.turn(2);
    }
    assert_eq!(rig.total(2, |totals| &totals.adopted), 144);
    let lost = rig.dropped(2, DropReason::TxFull);
    assert!(lost > 0);
    assert_eq!(rig.forwarded(2), 144 - lost);
    rig.heal();
    rig.settle();
    rig.inject(0, [tcp(1, FAR, SYN)]);
    rig.settle();
    assert_eq!(rig.forwarded(2), 145 - lost);
}

#[test]
fn a_flood_of_messages_leaves_the_ring_its_turn() {
    let mut rig = Rig::new(Sizes { mailbox: 100, ..Sizes::default() });
    for _ in 0..2 {
        rig.inject(0, many(50, |client| tcp(client, FAR, SYN)));
        rig.turn(0);
    }
    rig.inject(2, many(3, echo));
    assert_eq!(rig.turn(2), 3 + 32, "32 messages a turn");
    assert_eq!(rig.answered(2), 3);
    rig.settle();
    assert_eq!(rig.forwarded(2), 100);
}

/// A process that was stopped wakes up: the frames in its ring are from another time.
#[test]
fn frames_that_waited_for_a_frozen_worker_are_dropped() {
    let mut rig = Rig::new(Sizes::default());
    for flags in [SYN, ACK] {
        rig.inject(0, many(10, |client| tcp(client, WEB, flags)));
        rig.turn(0);
    }
    rig.leases[0].store((rig.now + Duration::from_millis(350)).as_nanos(), Relaxed);
    let waiting = many(20, |client| tcp(client, WEB, ACK)).chain([who_has(1), echo(1)]);
    rig.inject(0, waiting.chain(many(4, |client| tcp(client, FAR, SYN))));
    rig.inject(1, [too_big(1, FORGETFUL)]);
    rig.turn(1);
    rig.now = rig.now + Duration::from_millis(400);
    let forwarded = rig.forwarded(0);
    assert_eq!(rig.turn(0), 26 + 1);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (forwarded, 0));
    assert_eq!(rig.dropped(0, DropReason::Inactive), 26);
    assert!(rig.sent(0).len() as u64 == forwarded, "nothing was sent");
    assert_eq!(rig.turn(2), 1, "the error, and nothing to relay");
    // With a new lease everything goes on.
    rig.leases[0].store(u64::MAX, Relaxed);
    rig.inject(0, many(10, |client| tcp(client, WEB, ACK)));
    rig.turn(0);
    assert_eq!(rig.forwarded(0), forwarded + 10);
}

#[derive(Clone, Debug)]
enum Event {
    /// Worker, kind, first client, how many.
    Inject(usize, u8, u16, u16),
    Turn(usize),
    Complete(usize, u32),
    CompleteLater(usize, bool),
    RefuseTransmit(usize, bool),
    Budget(usize, Option<u32>),
    FailKicks(usize, Option<Errno>),
    FailNext(usize, Vec<Errno>),
    Wakeup(usize, bool),
    /// The driver comes by without having been kicked.
    Drive(usize),
    /// The worker has no socket for a moment.
    Unbound(usize),
    Lease(bool),
    /// What a check found out about a backend.
    Check(u16, Option<dataplane::Fate>),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let at = 0..3_usize;
    let errno = prop::sample::select(ERRORS.to_vec());
    let yes = any::<bool>();
    let fate = prop::option::of(prop::sample::select(vec![
        dataplane::Fate::Reset,
        dataplane::Fate::Reset,
        dataplane::Fate::Discard,
        dataplane::Fate::Unreachable,
    ]));
    let event = prop_oneof![
        12 => (at.clone(), 0..10_u8, 0..40_u16, 1..40_u16)
            .prop_map(|(at, kind, first, count)| Event::Inject(at, kind, first, count)),
        12 => at.clone().prop_map(Event::Turn),
        2 => (at.clone(), 0..64_u32).prop_map(|(at, count)| Event::Complete(at, count)),
        1 => (at.clone(), yes).prop_map(|(at, later)| Event::CompleteLater(at, later)),
        1 => (at.clone(), yes).prop_map(|(at, refuse)| Event::RefuseTransmit(at, refuse)),
        1 => (at.clone(), prop::option::of(0..20_u32))
            .prop_map(|(at, budget)| Event::Budget(at, budget)),
        1 => (at.clone(), prop::option::of(errno.clone()))
            .prop_map(|(at, errno)| Event::FailKicks(at, errno)),
        2 => (at.clone(), prop::collection::vec(errno, 0..4))
            .prop_map(|(at, errors)| Event::FailNext(at, errors)),
        1 => (at.clone(), yes).prop_map(|(at, tx)| Event::Wakeup(at, tx)),
        1 => at.clone().prop_map(Event::Drive),
        1 => at.prop_map(Event::Unbound),
        1 => yes.prop_map(Event::Lease),
        2 => (0..6_u16, fate).prop_map(|(slot, fate)| Event::Check(slot, fate)),
        1 => (1..200_u64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..120)
}

fn frame(kind: u8, client: u16) -> Vec<u8> {
    match kind {
        0 => tcp(client, WEB, SYN),
        1 => tcp(client, WEB, ACK),
        2 => tcp(client, FAR, SYN),
        3 => tcp(client, LOST, SYN),
        4 => tcp(client, FORGETFUL, ACK),
        5 => too_big(client, FORGETFUL),
        6 => echo(client),
        7 => who_has(client),
        8 => tcp(client, 9, SYN),
        _ => tcp(client, WEB, SYN)[..20 + usize::from(client) % 40].to_vec(),
    }
}

impl Rig {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Inject(at, kind, first, count) => {
                for client in first..first + count {
                    self.seats[at].kernel.inject(&frame(kind, client));
                }
            }
            Event::Turn(at) => {
                self.turn(at);
            }
            Event::Complete(at, count) => {
                self.seats[at].kernel.complete(count);
            }
            Event::CompleteLater(at, later) => self.seats[at].kernel.complete_later(later),
            Event::RefuseTransmit(at, refuse) => self.seats[at].kernel.refuse_transmit(refuse),
            Event::Budget(at, budget) => self.seats[at].kernel.budget(budget),
            Event::FailKicks(at, errno) => self.seats[at].kernel.fail_kicks(errno),
            Event::FailNext(at, errors) => self.seats[at].kernel.fail_next_kicks(errors),
            Event::Wakeup(at, tx) => self.seats[at].kernel.needs_wakeup(tx, false),
            Event::Drive(at) => self.seats[at].kernel.run(),
            Event::Unbound(at) => {
                let Seat { worker, mailbox, .. } = &mut self.seats[at];
                while let Some(message) = mailbox.take() {
                    worker.refuse(message, self.now);
                }
                self.check(at);
            }
            Event::Lease(active) => {
                self.leases[0].store(if active { u64::MAX } else { 0 }, Relaxed);
            }
            Event::Check(slot, fate) => self.health(slot, fate),
            Event::Pass(seconds) => self.now = self.now + Duration::from_secs(seconds),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_books_are_right(
        events in events(),
        frames in prop::sample::select(vec![16, 64, 256]),
        ring in prop::sample::select(vec![8, 16, 64]),
        mailbox in prop::sample::select(vec![1, 4, 64]),
    ) {
        let mut rig = Rig::new(Sizes { frames, ring, mailbox, ..Sizes::default() });
        for event in events {
            rig.apply(event);
        }
        // When the faults are over everything comes to rest, and all is as on the first day.
        rig.heal();
        rig.leases[0].store(u64::MAX, Relaxed);
        rig.settle();
        for at in 0..3 {
            let accounting = rig.seats[at].port.accounting();
            prop_assert_eq!(accounting.fill + accounting.free, u64::from(frames));
            let (before, kernel) = (rig.answered(at), rig.seats[at].kernel.clone());
            rig.inject(at, many(4, echo));
            rig.turn(at);
            prop_assert_eq!(rig.answered(at) - before, 4);
            let sent = rig.forwarded(at) + rig.answered(at) + rig.originated(at);
            prop_assert_eq!(kernel.transmitted(), sent);
        }
    }
}
