//! A worker over rings in plain memory, with everything that it reads, and flows established.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dataplane::{
    Addr, BackendSlot, FlowTable, Forwarder, FragmentTable, HashInput, InstanceSlot, LoopGuard,
    Mac, Mailbox, Member, NextHop, PendingTable, Persistence, PersistenceTable, PortId, Protocol,
    Scheduler, SchedulerKind, Service, ServiceKey, ServiceSlot, SharedTables, Snapshot, Timeouts,
    Vip, WorkerCounters,
};
use pointsman::worker::relay::Seat;
use pointsman::worker::{Worker, WorkerId};
use pointsman::{clock, sys};
use xsk::{BURST, MemoryConfig, MemoryKernel, MemoryRings, Port, memory_port};

use crate::traffic::{FLOWS_PER_CLIENT, FRAME, Flags, SERVICE_PORT, Tuple, vip};

/// How much there is of what costs could grow with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Established flows.
    pub flows: u32,
    /// Services, each with a VIP of its own.
    pub vips: u16,
    /// Backends of each service.
    pub backends: u16,
}

/// A worker with its port, tables and snapshot.
#[derive(Debug)]
pub struct Rig {
    shape: Shape,
    /// The hot path, frames part.
    pub worker: Worker,
    /// Its rings.
    pub port: Port<MemoryRings>,
    /// The other side of the rings.
    pub kernel: MemoryKernel,
    /// What it reads.
    pub snapshot: Snapshot,
    /// Until when instances are active: for ever.
    pub leases: Vec<AtomicU64>,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
    tables: Arc<SharedTables>,
}

impl Rig {
    /// A rig whose flows have all sent their SYN and first ACK.
    ///
    /// # Panics
    /// If more than one flow in 10,000 found no room.
    pub fn new(shape: Shape) -> Self {
        Self::at(PORT, shape)
    }

    /// The same on a port of this number.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn at(at: PortId, shape: Shape) -> Self {
        let tables = Arc::new(SharedTables {
            pending: PendingTable::new(PENDING_CAPACITY, SEED, Timeouts::default().half_open),
            persistence: PersistenceTable::new(capacity(shape.flows / FLOWS_PER_CLIENT), SEED),
            fragments: FragmentTable::new(1 << 14, SEED),
        });
        let counters = Arc::new(WorkerCounters::default());
        let mailbox = Arc::new(Mailbox::new(16, 2048, || ()));
        let forwarder = forwarder(at, shape, &tables, &counters);
        let id = WorkerId { port: at, queue: 0 };
        let (port, kernel) = memory_port(MemoryConfig { capture: false, ..Default::default() });
        let mut rig = Self {
            shape,
            worker: Worker::new(id, forwarder, Arc::clone(&counters), mailbox),
            port,
            kernel,
            snapshot: snapshot(at, shape, 1),
            leases: leases(),
            counters,
            tables,
        };
        rig.establish();
        rig
    }

    /// The 5-tuple of a flow by number; numbers past [`Shape::flows`] are those of unknown flows.
    pub fn tuple(&self, flow: u32) -> Tuple {
        Tuple::new(flow, u32::from(self.shape.vips))
    }

    /// Puts a packet on the RX ring.
    ///
    /// # Panics
    /// If the rings are full: no worker took a turn.
    pub fn inject(&self, flow: u32, flags: Flags) {
        self.inject_long(flow, flags, FRAME);
    }

    /// The same with a frame of `len` bytes.
    ///
    /// # Panics
    /// As [`inject`](Self::inject), or if `len` is less than [`FRAME`].
    pub fn inject_long(&self, flow: u32, flags: Flags, len: usize) {
        let tuple = self.tuple(flow);
        let taken = self.kernel.inject_with(len, |frame| tuple.write(flags, &mut frame[..FRAME]));
        assert!(taken, "the rings are full");
    }

    /// One turn of the worker, its clock included; returns how many frames it took.
    #[inline]
    pub fn turn(&mut self) -> usize {
        self.worker.turn(&mut self.port, clock::now(), &self.snapshot, &self.leases)
    }

    /// Forgets all flows and templates.
    pub fn clear(&mut self) {
        self.worker.end_all_flows(clock::now());
        for slot in 0..self.shape.vips * self.shape.backends {
            self.tables.persistence.forget(BackendSlot(slot));
        }
    }

    /// Checks the books: that every frame was forwarded, and is back where it came from.
    ///
    /// # Panics
    /// If one was not.
    pub fn audit(&mut self) {
        let (came, went) = self.counters.equation();
        assert_eq!(came, went, "received is not what became of it");
        assert_eq!(came, self.counters.totals.forwarded.value(), "not everything was forwarded");
        assert!(self.port.accounting().is_balanced(), "frames were lost");
    }

    fn establish(&mut self) {
        for first in (0..self.shape.flows).step_by(BURST) {
            let flows = first..self.shape.flows.min(first.saturating_add(64));
            for flags in [Flags::Syn, Flags::Ack, Flags::Data] {
                for flow in flows.clone() {
                    self.inject(flow, flags);
                }
                self.turn();
            }
        }
        let entered = self.worker.forwarder().flow_count();
        let refused = self.shape.flows as usize - entered;
        assert!(refused <= self.shape.flows as usize / 10_000, "{refused} flows found no room");
        self.audit();
    }
}

impl Seat for &mut Rig {
    type Rings = MemoryRings;

    #[inline]
    fn parts(&mut self) -> (&mut Worker, Option<&mut Port<MemoryRings>>) {
        (&mut self.worker, Some(&mut self.port))
    }
}

fn forwarder(
    at: PortId,
    shape: Shape,
    tables: &Arc<SharedTables>,
    counters: &Arc<WorkerCounters>,
) -> Forwarder {
    let timeouts = Timeouts::default();
    let flows = FlowTable::new(capacity(shape.flows), SEED, &timeouts);
    sys::prefer_huge_pages(&flows.memory());
    Forwarder::new(at, MAC, flows, &timeouts, Arc::clone(tables), Arc::clone(counters))
}

pub(crate) fn leases() -> Vec<AtomicU64> {
    vec![AtomicU64::new(u64::MAX)]
}

/// The configuration's default, however little is in the tables, or more if that is too little.
fn capacity(entries: u32) -> usize {
    (entries as usize).max(1_000_000)
}

/// Number `generation` of the snapshots of a shape. Its services: each with its own VIP, persistence and backends, which are reached by one
/// port.
pub(crate) fn snapshot(egress: PortId, shape: Shape, generation: u64) -> Snapshot {
    let next_hop = |slot: u16| {
        let [high, low] = slot.to_be_bytes();
        NextHop {
            macs: [2, 0, 0, 2, high, low, 2, 0, 0, 0, 0, 1],
            port: egress,
            service: ServiceSlot(slot / shape.backends),
            instance: INSTANCE,
            usable: true,
            eligible: true,
            avoid_existing_clients: false,
            keeps_clients: false,
            suspicion: dataplane::Suspicion::None,
            when_unusable: dataplane::UnusableAction::Unreachable,
        }
    };
    let next_hops: Vec<NextHop> = (0..shape.vips * shape.backends).map(next_hop).collect();
    let address = |number: u16| Addr::from(vip(u32::from(number)));
    let vips = (0..shape.vips).map(|number| Vip {
        address: address(number),
        instance: INSTANCE,
        port: None,
        reject_closed: true,
    });
    let services = (0..shape.vips).map(|number| Arc::new(service(number, shape.backends)));
    let guard = LoopGuard::new([MAC], next_hops.iter().map(NextHop::mac));
    Snapshot::new(
        generation,
        services.collect(),
        vips.collect(),
        next_hops.clone(),
        guard,
        Vec::new(),
    )
}

fn service(number: u16, backends: u16) -> Service {
    let key = ServiceKey {
        vip: vip(u32::from(number)).into(),
        protocol: Protocol::Tcp,
        first_port: SERVICE_PORT,
        last_port: SERVICE_PORT,
    };
    let member = |slot: u16| {
        let [high, low] = slot.to_be_bytes();
        Member { slot: BackendSlot(slot), address: Addr::from_v4([10, 2, high, low]), weight: 1 }
    };
    let slots = number * backends..(number + 1) * backends;
    let members: Vec<Member> = slots.map(member).collect();
    Service {
        slot: ServiceSlot(number),
        key,
        instance: INSTANCE,
        persistence: Some(Persistence {
            timeout: Duration::from_secs(300),
            prefix_v4: 128,
            prefix_v6: 128,
            sticky_when_drained: true,
        }),
        group: None,
        hash: HashInput::Flow,
        scheduler: Scheduler::new(SchedulerKind::Maglev, key, &members),
        reject: true,
    }
}

/// The configuration's default.
const PENDING_CAPACITY: usize = 1 << 20;

/// The same in every run.
const SEED: u64 = 0x706f_696e_7473_6d61;

/// The number of a rig's port, unless it is given another one.
pub(crate) const PORT: PortId = PortId(0);
const INSTANCE: InstanceSlot = InstanceSlot(0);
/// The balancer's own MAC.
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
