//! Workers over rings in plain memory: whatever the kernel's side does, every frame is in one
//! place and every packet is booked once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dataplane::{
    Addr, BackendSlot, FlowTable, FragmentTable, HashInput, InstanceSlot, LoopGuard, Mac, Member,
    NextHop, PendingTable, Persistence, PersistenceTable, Protocol, Scheduler, SchedulerKind,
    Service, ServiceKey, ServiceSlot, SharedTables, Timeouts, Totals, Vip,
};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, IcmpEchoHeader, Icmpv4Type, PacketBuilder, icmpv4,
};
use xsk::{Errno, MemoryConfig, MemoryKernel, MemoryRings, memory_port};

use super::*;
use crate::worker::relay;

mod fragments;
mod local_senders;
mod mailbox;
mod ports;
mod properties;
mod resets;
mod rings;

const VIP: [u8; 4] = [192, 0, 2, 10];
const CLIENT_MAC: [u8; 6] = [2, 0xcc, 0, 0, 0, 1];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// With numbers ahead of the handshake's.
const DATA: u8 = 0x18;

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
    config: MemoryConfig,
    /// Whether the port is there.
    bound: bool,
    /// Sent by ports that the seat had before.
    sent_before: u64,
}

impl relay::Seat for &mut Seat {
    type Rings = MemoryRings;

    fn parts(&mut self) -> (&mut Worker, Option<&mut Port<MemoryRings>>) {
        let Seat { worker, port, bound, .. } = &mut **self;
        (worker, bound.then_some(port))
    }
}

/// Workers 0 and 1 serve two queues of port 0, worker 2 the only queue of port 1.
struct Rig {
    seats: Vec<Seat>,
    /// Whether workers of the same queue number share a thread. If not, each has its own.
    threads: bool,
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
            fragments: FragmentTable::new(sizes.flows, 1),
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
            let (bound, sent_before) = (true, 0);
            Seat { worker, port, kernel, counters, mailbox, config, bound, sent_before }
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
        let now = Tick::from_nanos(1_000_000_000);
        Self { seats, threads: false, snapshot, leases, now }
    }

    /// One turn of a worker, a millisecond later, and a look at the books.
    #[track_caller]
    fn turn(&mut self, at: usize) -> usize {
        self.now = self.now + Duration::from_millis(1);
        let Self { seats, threads, snapshot, leases, now } = self;
        let queue = seats[at].worker.id.queue;
        let shared = |seat: &Seat| *threads && seat.worker.id.queue == queue;
        let on_thread = |&(other, ref seat): &(usize, &mut Seat)| other == at || shared(seat);
        let (numbers, mut thread): (Vec<usize>, Vec<&mut Seat>) =
            seats.iter_mut().enumerate().filter(on_thread).unzip();
        let place = numbers.iter().position(|number| *number == at).expect("it is there");
        let taken = relay::turn(&mut thread, place, *now, snapshot, leases.as_slice());
        for seat in thread {
            if !seat.bound {
                while let Some(message) = seat.mailbox.take() {
                    seat.worker.refuse(message, *now);
                }
            }
        }
        for number in numbers {
            self.check(number);
        }
        taken
    }

    /// All workers, until none finds anything to do.
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
        let Seat { port, kernel, counters, worker, sent_before, .. } = &mut self.seats[at];
        let (came, went) = counters.equation();
        assert_eq!(came, went, "worker {at}: {:?}", counters.totals);
        let accounting = port.accounting();
        assert!(accounting.is_balanced(), "worker {at}: {accounting:?}");
        let waiting = worker.waiting.len() as u64;
        assert_eq!((accounting.held, accounting.queued), (waiting, 0), "worker {at}");
        let census = kernel.census();
        assert_eq!(census.user, accounting.free + waiting, "worker {at}");
        assert_eq!(census.tx + census.wire, accounting.tx, "worker {at}");
        let Totals { forwarded, answered, originated, .. } = &*counters.totals;
        let sent = forwarded.value() + answered.value() + originated.value();
        assert_eq!(sent, *sent_before + port.counters().transmitted, "worker {at}");
        assert!(worker.outbox.is_empty(), "worker {at}");
    }

    /// Hands a worker frames of which each must find room.
    #[track_caller]
    fn inject(&self, at: usize, frames: impl IntoIterator<Item = Vec<u8>>) {
        for frame in frames {
            assert!(self.offer(at, frame), "no room");
        }
    }

    /// A frame for the MAC of the worker's port; whether the kernel had room for it.
    fn offer(&self, at: usize, mut frame: Vec<u8>) -> bool {
        frame[..6].copy_from_slice(&own_mac(self.seats[at].worker.id.port).0);
        self.seats[at].kernel.inject(&frame)
    }

    /// Has so many clients connect through a worker.
    #[track_caller]
    fn open(&mut self, at: usize, clients: u16) {
        for flags in [SYN, ACK, DATA] {
            self.inject(at, many(clients, |client| tcp(client, WEB, flags)));
            self.turn(at);
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
    fn health(&mut self, slot: u16, when_unusable: Option<dataplane::UnusableAction>) {
        let old = &self.snapshot;
        let mut next_hops = old.next_hops().to_vec();
        let next_hop = &mut next_hops[usize::from(slot)];
        (next_hop.usable, next_hop.eligible) = (when_unusable.is_none(), when_unusable.is_none());
        next_hop.when_unusable = when_unusable.unwrap_or_default();
        let (services, vips) = (old.services().to_vec(), old.vips().to_vec());
        let (guard, workers) = (old.guard.clone(), old.workers.clone());
        self.snapshot =
            Snapshot::new(old.generation + 1, services, vips, next_hops, guard, workers);
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
            group: None,
            hash: HashInput::Flow,
            scheduler: Scheduler::new(kind, key, &members),
            reject: false,
        })
    };
    let next_hop = |(at, (service, port)): (u8, (u16, u16))| {
        let own = own_mac(PortId(port)).0;
        let mut macs = [2, 0xbb, 0, 0, 0, at, 0, 0, 0, 0, 0, 0];
        macs[6..].copy_from_slice(&own);
        NextHop {
            keeps_clients: false,
            macs,
            port: PortId(port),
            service: ServiceSlot(service),
            instance: InstanceSlot(0),
            usable: true,
            eligible: true,
            avoid_existing_clients: false,
            suspicion: dataplane::Suspicion::None,
            when_unusable: dataplane::UnusableAction::Unreachable,
        }
    };
    let (address, instance) = (Addr::from_v4(VIP), InstanceSlot(0));
    let vip = Vip { address, instance, port: None, reject_closed: false };
    Snapshot::new(
        1,
        (0..).zip(services).map(service).collect(),
        vec![vip],
        (0..).zip(backends).map(next_hop).collect(),
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
    segment(client, port, flags, u32::from(flags == DATA))
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
