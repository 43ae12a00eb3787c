//! A node: workers, tables, and a site of services to make snapshots of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arrayvec::ArrayVec;

use super::frames::Client;
use crate::addr::{Addr, Mac};
use crate::counters::{Gauge, MAX_BACKENDS, WorkerCounters};
use crate::flow::{FlowTable, Timeouts};
use crate::forward::{BURST, Burst, Forwarder, SharedTables};
use crate::fragments::{FragmentTable, Released, WaitingRoom};
use crate::group::Group;
use crate::guard::LoopGuard;
use crate::key::{Protocol, ServiceKey};
use crate::mailbox::Mailbox;
use crate::packet::ANSWER_GROWTH;
use crate::pending::PendingTable;
use crate::persistence::PersistenceTable;
use crate::scheduler::{HashInput, HashSeed, Member, Scheduler, SchedulerKind};
use crate::slots::{BackendSlot, InstanceSlot, PortId, ServiceSlot};
use crate::snapshot::{NextHop, Persistence, Service, Snapshot, Suspicion, Vip, WorkerLink};
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

pub(super) const VIP: Addr = Addr::from_v4([192, 0, 2, 10]);
pub(super) const VIP6: Addr =
    Addr::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);

pub(super) const EVERY_SCHEDULER: [SchedulerKind; 5] = [
    SchedulerKind::Maglev,
    SchedulerKind::Rr,
    SchedulerKind::Wrr,
    SchedulerKind::Lc,
    SchedulerKind::Wlc,
];

/// A backend of a [`Site`]; its slot is its place in the site.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) service: usize,
    pub(super) address: Addr,
    pub(super) weight: u32,
    pub(super) usable: bool,
    pub(super) avoid_existing_clients: bool,
    pub(super) suspicion: Suspicion,
    /// While it is not usable.
    pub(super) when_unusable: crate::UnusableAction,
    pub(super) port: PortId,
}

/// A service of a [`Site`]; its slot is its place in the site.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) key: ServiceKey,
    pub(super) instance: InstanceSlot,
    pub(super) persistence: Option<Persistence>,
    /// Whether it shares its templates.
    pub(super) group: bool,
    pub(super) hash: HashInput,
    pub(super) scheduler: Scheduler,
    pub(super) reject: bool,
}

/// What is configured, to be changed between snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Site {
    pub(super) offers: Vec<Offer>,
    pub(super) backends: Vec<Backend>,
    pub(super) vips: Vec<Vip>,
}

impl Site {
    /// One TCP service at port 80 of [`VIP`] with 50 s of persistence and a backend per weight.
    pub(super) fn web(kind: SchedulerKind, weights: &[u32]) -> Self {
        let mut site = Self::default();
        site.vip(VIP, 0, None).service(VIP, Protocol::Tcp, (80, 80), kind).persistent(50);
        for (at, &weight) in (1..).zip(weights) {
            site.backend(Addr::from_v4([172, 16, 0, at]), weight);
        }
        site
    }

    /// The same without persistence.
    pub(super) fn forgetful(kind: SchedulerKind, weights: &[u32]) -> Self {
        let mut site = Self::web(kind, weights);
        site.offers[0].persistence = None;
        site
    }

    pub(super) fn vip(&mut self, address: Addr, instance: u16, port: Option<PortId>) -> &mut Self {
        self.vips.push(Vip {
            address,
            instance: InstanceSlot(instance),
            port,
            reject_closed: false,
        });
        self
    }

    /// A service of a VIP that is there; what follows is about it.
    pub(super) fn service(
        &mut self,
        vip: Addr,
        protocol: Protocol,
        (first_port, last_port): (u16, u16),
        kind: SchedulerKind,
    ) -> &mut Self {
        let key = ServiceKey { vip, protocol, first_port, last_port };
        let of_vip = self.vips.iter().find(|other| other.address == vip).expect("a VIP first");
        let instance = of_vip.instance;
        let scheduler = Scheduler::new(kind, key, &[]);
        let (persistence, group, hash) = (None, false, HashInput::Flow);
        self.offers.push(Offer {
            key,
            instance,
            persistence,
            group,
            hash,
            scheduler,
            reject: false,
        });
        self
    }

    pub(super) fn persistent(&mut self, seconds: u64) -> &mut Self {
        let offer = self.offers.last_mut().expect("a service first");
        offer.persistence = Some(Persistence {
            timeout: Duration::from_secs(seconds),
            prefix_v4: 128,
            prefix_v6: 128,
            sticky_when_drained: false,
        });
        self
    }

    pub(super) fn sticky_when_drained(&mut self) -> &mut Self {
        let offer = self.offers.last_mut().expect("a service first");
        offer.persistence.as_mut().expect("persistence first").sticky_when_drained = true;
        self
    }

    pub(super) fn backend(&mut self, address: Addr, weight: u32) -> &mut Self {
        let (service, port) = (self.offers.len() - 1, PortId(0));
        self.backends.push(Backend {
            service,
            address,
            weight,
            usable: true,
            avoid_existing_clients: false,
            suspicion: Suspicion::None,
            when_unusable: crate::UnusableAction::Unreachable,
            port,
        });
        self
    }

    /// Has the last service share its templates with the others of which this was said.
    pub(super) fn grouped(&mut self) -> &mut Self {
        let offer = self.offers.last_mut().expect("a service first");
        offer.group = true;
        offer.scheduler = Scheduler::new(offer.scheduler.kind(), HashSeed::Members, &[]);
        self
    }

    /// Has the last service hash the source, as others with the same members do.
    pub(super) fn by_source(&mut self) -> &mut Self {
        let offer = self.offers.last_mut().expect("a service first");
        offer.hash = HashInput::Source;
        offer.scheduler = Scheduler::new(offer.scheduler.kind(), HashSeed::Members, &[]);
        self
    }

    /// Backends of the services that share their templates; those with one address are one member.
    fn group(&self) -> Arc<Group> {
        let of_group = |backend: &&Backend| self.offers[backend.service].group;
        let addresses: Vec<Addr> = {
            let mut all: Vec<_> =
                self.backends.iter().filter(of_group).map(|backend| backend.address).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let pairs = self.backends.iter().enumerate().filter(|(_, backend)| of_group(backend));
        let pairs = pairs.map(|(slot, backend)| {
            let member = addresses.binary_search(&backend.address).expect("it is there");
            (slot_of(slot), slot_of(MAX_BACKENDS + member))
        });
        Arc::new(Group::new(ServiceSlot(5000), pairs))
    }

    /// Tables are rebuilt as the control plane does it: from those before.
    fn services(&mut self) -> Vec<Arc<Service>> {
        let group = self.group();
        let Self { offers, backends, .. } = self;
        let build = |(at, offer): (usize, &mut Offer)| {
            let members = |taken: fn(&Backend) -> bool| -> Vec<Member> {
                let mine = backends.iter().enumerate().filter(|(_, backend)| backend.service == at);
                mine.filter(|(_, backend)| taken(backend))
                    .map(|(slot, backend)| Member {
                        slot: slot_of(slot),
                        address: backend.address,
                        weight: backend.weight,
                    })
                    .collect()
            };
            let eligible = members(|backend| backend.usable && !backend.avoid_existing_clients);
            offer.scheduler = offer.scheduler.rebuilt(&members(|_| true), &eligible);
            Arc::new(Service {
                slot: ServiceSlot(u16::try_from(at).unwrap()),
                key: offer.key,
                instance: offer.instance,
                persistence: offer.persistence,
                group: offer.group.then(|| Arc::clone(&group)),
                hash: offer.hash,
                scheduler: offer.scheduler.clone(),
                reject: offer.reject,
            })
        };
        offers.iter_mut().enumerate().map(build).collect()
    }

    fn next_hops(&self) -> Vec<NextHop> {
        let next_hop = |(slot, backend): (usize, &Backend)| NextHop {
            keeps_clients: false,
            macs: macs(slot_of(slot), backend.port),
            port: backend.port,
            service: ServiceSlot(u16::try_from(backend.service).unwrap()),
            instance: self.offers[backend.service].instance,
            usable: backend.usable,
            eligible: backend.usable && backend.weight > 0 && !backend.avoid_existing_clients,
            avoid_existing_clients: backend.avoid_existing_clients,
            suspicion: match backend.weight {
                0 => Suspicion::None,
                _ => backend.suspicion,
            },
            when_unusable: backend.when_unusable,
        };
        self.backends.iter().enumerate().map(next_hop).collect()
    }

    fn guard(&self) -> LoopGuard {
        let backends = (0..self.backends.len()).map(|slot| backend_mac(slot_of(slot)));
        let own = [own_mac(PortId(0)), own_mac(PortId(1))];
        LoopGuard::new(own, backends)
    }
}

/// What the control plane may think of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Up,
    Suspected,
    /// Because of SYNs alone.
    Doubted,
    /// Down, and its flows stay.
    Kept,
    /// Down, and its clients get resets.
    Reset,
    /// Down, and its frames are dropped.
    Discarded,
}

/// Where a frame went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The slot of the backend, from the frame's destination MAC.
    To(u16),
    Answered,
    HandedOver,
    /// In the worker's waiting room.
    Waits,
    Dropped(DropReason),
}

/// Sizes of a node's tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) workers: usize,
    pub(super) flows: usize,
    pub(super) pending: usize,
    pub(super) templates: usize,
    pub(super) datagrams: usize,
    pub(super) seed: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        let (pending, templates, datagrams) = (1 << 16, 1 << 16, 1 << 12);
        Self { workers: 4, flows: 4096, pending, templates, datagrams, seed: 1 }
    }
}

/// Workers on shared tables.
pub(super) struct Node {
    pub(super) workers: Vec<Forwarder>,
    pub(super) waiting: Vec<WaitingRoom<Vec<u8>>>,
    pub(super) counters: Vec<Arc<WorkerCounters>>,
    pub(super) shared: Arc<SharedTables>,
    pub(super) leases: [AtomicU64; 2],
    pub(super) site: Site,
    pub(super) snapshot: Snapshot,
    pub(super) now: Tick,
    /// Whether the workers tell each other of flows that moved.
    pub(super) connected: bool,
}

impl Node {
    pub(super) fn new(site: Site) -> Self {
        Self::sized(site, Sizes::default())
    }

    /// Starts 30 minutes before the flow tables' milliseconds wrap.
    pub(super) fn sized(site: Site, sizes: Sizes) -> Self {
        let timeouts = timeouts();
        let Sizes { seed, .. } = sizes;
        let shared = Arc::new(SharedTables {
            pending: PendingTable::new(sizes.pending, seed, timeouts.half_open),
            persistence: PersistenceTable::new(sizes.templates, seed),
            fragments: FragmentTable::new(sizes.datagrams, seed),
        });
        let counters: Vec<Arc<WorkerCounters>> =
            (0..sizes.workers).map(|_| Arc::default()).collect();
        let worker = |counters: &Arc<WorkerCounters>| {
            let flows = FlowTable::new(sizes.flows, seed, &timeouts);
            let (shared, counters) = (Arc::clone(&shared), Arc::clone(counters));
            let port = PortId(0);
            Forwarder::new(port, own_mac(port), flows, &timeouts, shared, counters)
        };
        let mut node = Self {
            workers: counters.iter().map(worker).collect(),
            waiting: counters.iter().map(|_| WaitingRoom::default()).collect(),
            counters,
            shared,
            leases: [AtomicU64::new(u64::MAX), AtomicU64::new(0)],
            site,
            snapshot: Snapshot::default(),
            now: Tick::from_nanos(((1 << 32) - 1_800_000) * 1_000_000),
            connected: true,
        };
        node.apply();
        node
    }

    /// Makes the site's next snapshot.
    pub(super) fn apply(&mut self) {
        let links = self.counters.iter().zip(0..).map(|(counters, queue)| WorkerLink {
            port: PortId(0),
            queue,
            mac: own_mac(PortId(0)),
            mailbox: Arc::new(Mailbox::new(1, 64, || ())),
            counters: Arc::clone(counters),
        });
        let services = self.site.services();
        let (next_hops, guard) = (self.site.next_hops(), self.site.guard());
        let vips = self.site.vips.clone();
        let generation = self.snapshot.generation + 1;
        self.snapshot =
            Snapshot::new(generation, services, vips, next_hops, guard, links.collect());
        // Within a second the workers have compared their flows with it.
        let Self { workers, snapshot, now, .. } = self;
        for worker in workers.iter_mut() {
            worker.to_compare = worker.flows.buckets();
            worker.sweep(*now, snapshot, worker.flows.buckets());
        }
    }

    /// Changes one backend.
    pub(super) fn set(&mut self, slot: u16, change: impl FnOnce(&mut Backend)) {
        change(&mut self.site.backends[usize::from(slot)]);
        self.apply();
    }

    /// What a check found out about a backend.
    pub(super) fn health(&mut self, slot: u16, health: Health) {
        self.set(slot, |backend| {
            (backend.usable, backend.avoid_existing_clients, backend.when_unusable) = match health {
                Health::Up => (true, false, crate::UnusableAction::Unreachable),
                Health::Suspected | Health::Doubted | Health::Kept => {
                    (true, true, crate::UnusableAction::Unreachable)
                }
                Health::Reset => (false, false, crate::UnusableAction::Reset),
                Health::Discarded => (false, false, crate::UnusableAction::Discard),
            };
            backend.suspicion = match health {
                Health::Suspected => Suspicion::Checks,
                Health::Doubted => Suspicion::Syns,
                Health::Up | Health::Kept | Health::Reset | Health::Discarded => Suspicion::None,
            };
        });
    }

    /// Turns of a worker until all resets are sent; the frames that it sends.
    pub(super) fn tell(&mut self, worker: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let forwarder = &mut self.workers[worker];
        let mut send = |frame: &[u8]| {
            sent.push(frame.to_vec());
            true
        };
        while forwarder.reset_flows(self.now, &self.snapshot, &self.leases, &mut send) > 0 {}
        sent
    }

    /// A burst on one worker; its frames come back as they leave.
    pub(super) fn burst(&mut self, worker: usize, frames: &mut Vec<Vec<u8>>) -> Vec<Outcome> {
        let mut verdicts = ArrayVec::new();
        let mut burst = Frames(frames);
        let forwarder = &mut self.workers[worker];
        let onwards =
            forwarder.burst(self.now, &self.snapshot, &self.leases, &mut burst, &mut verdicts);
        let by_own_port = Verdict::Forward(self.snapshot.workers[worker].port);
        let all = verdicts.iter().all(|verdict| *verdict == by_own_port);
        assert!(!onwards || all, "{verdicts:?}");
        let moved: Vec<_> = std::iter::from_fn(|| forwarder.next_moved()).collect();
        if self.connected {
            for key in moved {
                for (_, other) in
                    self.workers.iter_mut().enumerate().filter(|(at, _)| *at != worker)
                {
                    other.forget(&key, self.now);
                }
            }
        }
        let outcomes =
            verdicts.iter().zip(&*frames).map(|(verdict, frame)| outcome(*verdict, frame));
        let outcomes: Vec<Outcome> = outcomes.collect();
        for (outcome, frame) in outcomes.iter().zip(frames.iter()) {
            self.book(worker, outcome);
            if *outcome == Outcome::Waits {
                self.wait(worker, frame);
            }
        }
        outcomes
    }

    /// What a worker does with a fragment that came too early.
    fn wait(&mut self, worker: usize, frame: &[u8]) {
        let crate::Packet::Fragment(key) = crate::parse(frame) else { panic!("no fragment") };
        let (room, table) = (&mut self.waiting[worker], &self.shared.fragments);
        if room.wait(table, &key, frame.to_vec(), self.now).is_some() {
            let counters = &self.counters[worker];
            counters.totals.waiting.add(-1);
            counters.dropped(DropReason::FragmentFull).add(1);
        }
    }

    /// What becomes of the fragments that waited at a worker and need not any more, and their bytes.
    pub(super) fn release(&mut self, worker: usize) -> Vec<(Outcome, Vec<u8>)> {
        let mut released = Vec::new();
        while let Some(Released { mut frame, late }) =
            self.waiting[worker].release(&self.shared.fragments, self.now)
        {
            self.counters[worker].totals.waiting.add(-1);
            let forwarder = &mut self.workers[worker];
            let verdict =
                forwarder.resume_fragment(self.now, &self.snapshot, &self.leases, &mut frame, late);
            let outcome = outcome(verdict, &frame);
            assert_ne!(outcome, Outcome::Waits);
            self.book(worker, &outcome);
            released.push((outcome, frame));
        }
        released
    }

    /// One frame on one worker, and what became of it.
    pub(super) fn send(&mut self, worker: usize, frame: Vec<u8>) -> Outcome {
        self.burst(worker, &mut vec![frame]).remove(0)
    }

    /// The backend of a frame that is forwarded.
    #[track_caller]
    pub(super) fn to(&mut self, worker: usize, frame: Vec<u8>) -> u16 {
        match self.send(worker, frame) {
            Outcome::To(backend) => backend,
            other @ (Outcome::Answered
            | Outcome::HandedOver
            | Outcome::Waits
            | Outcome::Dropped(_)) => {
                panic!("not forwarded: {other:?}")
            }
        }
    }

    /// A whole handshake and a request, which proves the connection; SYN and ACK may come on different
    /// workers.
    #[track_caller]
    pub(super) fn open(&mut self, workers: (usize, usize), client: Client) -> u16 {
        let backend = self.to(workers.0, client.syn());
        assert_eq!(self.to(workers.1, client.ack()), backend, "the ACK follows its SYN");
        assert_eq!(self.to(workers.1, client.data()), backend, "and so does what comes next");
        backend
    }

    /// A frame from another worker's hands.
    pub(super) fn adopt(&mut self, worker: usize, frame: &mut [u8], last: bool) -> Outcome {
        self.counters[worker].totals.adopted.add(1);
        let verdict =
            self.workers[worker].adopt(self.now, &self.snapshot, &self.leases, frame, last);
        let outcome = outcome(verdict, frame);
        self.book(worker, &outcome);
        outcome
    }

    /// The part of the accounts that the caller of a [`Forwarder`] keeps.
    fn book(&self, worker: usize, outcome: &Outcome) {
        let totals = &self.counters[worker].totals;
        match outcome {
            Outcome::To(_) => totals.forwarded.add(1),
            Outcome::Answered => totals.answered.add(1),
            Outcome::HandedOver => totals.handed_over.add(1),
            Outcome::Waits => totals.waiting.add(1),
            Outcome::Dropped(_) => {}
        }
    }

    /// Time passes, with what workers and the control thread do meanwhile.
    pub(super) fn pass(&mut self, seconds: u64) {
        for step in (0..seconds).step_by(10) {
            self.now = self.now + Duration::from_secs(10.min(seconds - step));
            let Self { workers, snapshot, now, .. } = self;
            for worker in workers.iter_mut() {
                worker.housekeep(*now, snapshot);
                // Housekeeping goes round in ten seconds: be through at once.
                worker.sweep(*now, snapshot, worker.flows.buckets());
            }
        }
        let SharedTables { pending, persistence, .. } = &*self.shared;
        pending.sweep(self.now, pending.sets());
        persistence.sweep(self.now, persistence.maps());
    }

    /// Live flows of the client's template; `None` if there is no template.
    pub(super) fn live_flows(&self, client: Client) -> Option<u32> {
        let page = self.shared.persistence.page(None, usize::MAX, self.now);
        let mine = page.entries.iter().find(|entry| entry.key.source == client.source);
        mine.map(|entry| entry.live_flows)
    }

    /// A gauge of a backend over all workers.
    pub(super) fn gauge(
        &self,
        slot: u16,
        which: impl Fn(&crate::counters::BackendCounters) -> &Gauge,
    ) -> i64 {
        let of =
            |counters: &Arc<WorkerCounters>| which(counters.backend(BackendSlot(slot))).value();
        self.counters.iter().map(of).sum()
    }

    pub(super) fn active(&self, slot: u16) -> i64 {
        self.gauge(slot, |backend| &backend.active)
    }

    pub(super) fn unproven(&self, slot: u16) -> i64 {
        self.gauge(slot, |backend| &backend.unproven)
    }

    pub(super) fn inactive(&self, slot: u16) -> i64 {
        self.gauge(slot, |backend| &backend.inactive)
    }

    /// What was dropped for a reason, over all workers.
    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.iter().map(|counters| counters.dropped(reason).value()).sum()
    }

    /// A total over all workers.
    pub(super) fn total(
        &self,
        which: impl Fn(&crate::counters::Totals) -> &crate::counters::Counter,
    ) -> u64 {
        self.counters.iter().map(|counters| which(&counters.totals).value()).sum()
    }

    /// Flows on all workers.
    pub(super) fn flows(&self) -> usize {
        self.workers.iter().map(Forwarder::flow_count).sum()
    }

    /// Whatever came in went somewhere, on every worker.
    #[track_caller]
    pub(super) fn check_equation(&self) {
        for (at, counters) in self.counters.iter().enumerate() {
            let (came, went) = counters.equation();
            assert_eq!(came, went, "worker {at}");
        }
    }

    pub(super) fn lease(&self, instance: usize, until: Tick) {
        self.leases[instance].store(until.as_nanos(), Relaxed);
    }
}

/// Half open is longer than a whole number of seconds would be by less than one, so that the
/// pending table's coarse clock decides as an exact one would.
pub(super) fn timeouts() -> Timeouts {
    Timeouts { half_open: Duration::from_millis(59_500), ..Timeouts::default() }
}

pub(super) fn own_mac(port: PortId) -> Mac {
    let [high, low] = port.0.to_be_bytes();
    Mac([2, 0xaa, 0, 0, high, low])
}

pub(super) fn backend_mac(slot: BackendSlot) -> Mac {
    let [high, low] = slot.0.to_be_bytes();
    Mac([2, 0xbb, 0, 0, high, low])
}

/// The twelve bytes that a frame to this backend begins with.
pub(super) fn macs(slot: BackendSlot, port: PortId) -> [u8; 12] {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&backend_mac(slot).0);
    macs[6..].copy_from_slice(&own_mac(port).0);
    macs
}

fn slot_of(place: usize) -> BackendSlot {
    BackendSlot(u16::try_from(place).unwrap())
}

fn outcome(verdict: Verdict, frame: &[u8]) -> Outcome {
    match verdict {
        Verdict::Forward(port) => {
            let slot = u16::from_be_bytes([frame[4], frame[5]]);
            assert_eq!(frame[..12], macs(BackendSlot(slot), port), "the port's MAC is the source");
            Outcome::To(slot)
        }
        Verdict::Answer => Outcome::Answered,
        Verdict::HandOver => Outcome::HandedOver,
        Verdict::Wait => Outcome::Waits,
        Verdict::Drop(reason) => Outcome::Dropped(reason),
    }
}

/// Frames with room for an answer.
struct Frames<'a>(&'a mut Vec<Vec<u8>>);

impl Burst for Frames<'_> {
    fn len(&self) -> usize {
        self.0.len().min(BURST)
    }

    fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.0.iter_mut().map(Vec::as_mut_slice)
    }

    fn frame(&mut self, index: usize) -> &mut [u8] {
        &mut self.0[index]
    }

    fn transform(
        &mut self,
        index: usize,
        answer: &mut dyn FnMut(&mut [u8], usize) -> Option<usize>,
    ) -> bool {
        let frame = &mut self.0[index];
        let len = frame.len();
        frame.resize(len + ANSWER_GROWTH, 0);
        let answered = answer(frame, len);
        frame.truncate(answered.unwrap_or(len));
        answered.is_some()
    }
}
