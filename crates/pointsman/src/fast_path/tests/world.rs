//! A program and a worker's packet path behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrayvec::ArrayVec;
use dataplane::{
    Addr, BackendSlot, Burst, Flow, FlowKey, FlowMemory, FlowTable, Forwarder, FragmentTable,
    HashInput, InstanceSlot, LoopGuard, Mac, Member, NextHop, PendingTable, Persistence,
    PersistenceTable, PortId, Protocol, Scheduler, SchedulerKind, Service, ServiceKey, ServiceSlot,
    SharedTables, Snapshot, Suspicion, Tick, Timeouts, UnusableAction, Verdict, Vip,
    WorkerCounters,
};
use steer::{Action, Outcome, Steer, Trial, abi};

use super::frames::{PORT, SERVICES};
use crate::fast_path::{SharedFlows, picture};

pub(super) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Backends, as many of each service.
pub(super) const BACKENDS: u16 = 20;
const PER_SERVICE: u16 = 4;
const HERE: PortId = PortId(0);
/// Takes what programs redirect to it.
const ELSEWHERE: PortId = PortId(1);
/// Does not.
const WORKERS_ONLY: PortId = PortId(2);
const CAPACITY: usize = 4096;

pub(super) fn backend_mac(slot: u16) -> [u8; 6] {
    let [a, b] = slot.to_be_bytes();
    [2, 0, 0, 0xbb, a, b]
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// `None`: not user space's business.
    pub(super) verdict: Option<Verdict>,
    pub(super) frame: Vec<u8>,
}

pub(super) struct World {
    steer: Steer,
    trial: Trial,
    forwarder: Forwarder,
    counters: Arc<WorkerCounters>,
    snapshot: Snapshot,
    after: Vec<u8>,
    /// Frames that the program forwarded itself.
    pub(super) fast: u64,
    /// The same by the port that they left by.
    pub(super) by_port: [u64; 2],
}

struct One(Vec<u8>);

impl Burst for One {
    fn len(&self) -> usize {
        1
    }

    fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        std::iter::once(&mut self.0[..])
    }

    fn frame(&mut self, _: usize) -> &mut [u8] {
        &mut self.0
    }

    fn transform(
        &mut self,
        _: usize,
        answer: &mut dyn FnMut(&mut [u8], usize) -> Option<usize>,
    ) -> bool {
        let len = self.0.len();
        self.0.resize(len + dataplane::ANSWER_GROWTH, 0);
        let answered = answer(&mut self.0, len);
        self.0.truncate(answered.unwrap_or(len));
        answered.is_some()
    }
}

pub(super) fn timeouts() -> Timeouts {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    Timeouts { half_open: minute, established: hour, closing: hour, reset: minute, udp: hour }
}

impl World {
    pub(super) fn new(fast: bool) -> Self {
        let words = FlowMemory::words_for(CAPACITY);
        let steer = Steer::load_with(fast.then_some(words)).expect("these tests need root");
        let trial = Trial::new(&steer, OUR_MAC).unwrap();
        trial.imagine_egress(ifindex(ELSEWHERE)).unwrap();
        for service in SERVICES {
            let vip = abi::Vip { instance: u32::from(service.vip) % 3, ifindex: 0 };
            steer.insert_vip(address(service).octets(), vip).unwrap();
        }
        steer.leases()[..3].iter().for_each(|lease| lease.store(u64::MAX, Relaxed));
        let memory = match steer.fast_path() {
            Some(fast_path) => {
                let flows = fast_path.flow_map().unwrap();
                trial.show_flows(&flows).unwrap();
                FlowMemory::over(CAPACITY, Arc::new(SharedFlows(flows.memory))).unwrap()
            }
            None => FlowMemory::heap(CAPACITY),
        };
        let counters: Arc<WorkerCounters> = Arc::default();
        let shared = Arc::new(SharedTables {
            pending: PendingTable::new(CAPACITY, 1, timeouts().half_open),
            persistence: PersistenceTable::new(CAPACITY, 1),
            fragments: FragmentTable::new(CAPACITY, 1),
        });
        let flows = FlowTable::over(memory, 1, &timeouts());
        let books = Arc::clone(&counters);
        let forwarder = Forwarder::new(HERE, Mac(OUR_MAC), flows, &timeouts(), shared, books);
        let snapshot = Snapshot::default();
        let (after, fast, by_port) = (Vec::new(), 0, [0; 2]);
        Self { steer, trial, forwarder, counters, snapshot, after, fast, by_port }
    }

    /// What is true from now on.
    pub(super) fn publish(&mut self, change: impl Fn(u16, &mut NextHop)) {
        self.snapshot = snapshot(self.snapshot.generation + 1, change);
        if let Some(fast_path) = self.steer.fast_path() {
            let ifindex = |port| Some(ifindex(port));
            fast_path.publish(&picture(&self.snapshot, fast_path, ifindex)).unwrap();
        }
    }

    pub(super) fn set_lease(&self, instance: usize, until: u64) {
        self.steer.leases()[instance].store(until, Relaxed);
    }

    pub(super) fn set_vip(&self, service: usize, vip: Option<abi::Vip>) {
        let address = address(SERVICES[service]).octets();
        match vip {
            Some(vip) => self.steer.insert_vip(address, vip).unwrap(),
            None => self.steer.remove_vip(address).unwrap(),
        }
    }

    pub(super) fn take(&mut self, frame: &[u8], now: Tick) -> Fate {
        let (action, outcome) = self.trial.run(frame, &mut self.after).unwrap();
        let forwarded = outcome == Outcome::Forwarded;
        match action {
            Action::Redirect if !forwarded => self.worker(frame, now),
            Action::Redirect => self.forwarded(ELSEWHERE),
            Action::Transmit => {
                assert!(forwarded, "{outcome:?}");
                self.forwarded(HERE)
            }
            Action::Drop | Action::Pass => Fate { verdict: None, frame: self.after.clone() },
        }
    }

    fn forwarded(&mut self, port: PortId) -> Fate {
        self.fast += 1;
        self.by_port[port.index()] += 1;
        Fate { verdict: Some(Verdict::Forward(port)), frame: self.after.clone() }
    }

    /// What the program would do with a frame, and whether that is to forward it.
    pub(super) fn action(&mut self, frame: &[u8]) -> (Action, bool) {
        let (action, outcome) = self.trial.run(frame, &mut self.after).unwrap();
        (action, outcome == Outcome::Forwarded)
    }

    /// Whether the program forwards by its own interface as by others, which `takes` frames.
    pub(super) fn set_redirects(&self, redirects: bool, takes: bool) {
        if takes {
            self.trial.imagine_egress(Trial::IFINDEX).unwrap();
        }
        self.trial.set_redirects(OUR_MAC, redirects).unwrap();
    }

    pub(super) fn set_local_senders(&self, longest: u16) {
        self.trial.set_local_senders(OUR_MAC, longest).unwrap();
    }

    /// Past the program.
    pub(super) fn worker(&mut self, frame: &[u8], now: Tick) -> Fate {
        let mut one = One(frame.to_vec());
        let mut verdicts = ArrayVec::new();
        let leases = self.steer.leases();
        self.forwarder.burst(now, &self.snapshot, &leases, &mut one, &mut verdicts);
        while self.forwarder.next_moved().is_some() {}
        Fate { verdict: verdicts.first().copied(), frame: one.0 }
    }

    pub(super) fn housekeep(&mut self, now: Tick) {
        self.forwarder.housekeep(now, &self.snapshot);
    }

    /// All flows that are not over at `now`.
    pub(super) fn flows(&self, now: Tick) -> BTreeMap<FlowKey, Flow> {
        let flows = self.forwarder.flows();
        flows.page(0, flows.buckets(), None, now).collect()
    }

    /// Packets and bytes to each backend, and bytes that clients acknowledged.
    pub(super) fn sent(&self) -> Vec<[u64; 3]> {
        let sent = |slot: u16| {
            let counters = self.counters.backend(BackendSlot(slot));
            let traffic = self.trial.traffic().map_or([0; 3], |traffic| traffic.to(slot));
            let of_worker = [&counters.packets, &counters.bytes, &counters.acked];
            let mut sums = of_worker.map(dataplane::Counter::value);
            sums.iter_mut().zip(traffic).for_each(|(sum, more)| *sum = sum.wrapping_add(more));
            sums
        };
        (0..BACKENDS).map(sent).collect()
    }

    /// Frames that came, past the program and through it.
    pub(super) fn received(&self) -> u64 {
        self.counters.totals.received.value() + self.fast
    }

    pub(super) fn dropped(&self) -> Vec<u64> {
        let all = dataplane::DropReason::ALL.iter();
        all.map(|reason| self.counters.dropped(*reason).value()).collect()
    }

    /// That the program counted what it forwarded.
    pub(super) fn check_outcomes(&self) {
        assert_eq!(self.trial.counters().unwrap()[Outcome::Forwarded], self.fast);
    }
}

fn ifindex(port: PortId) -> u32 {
    Trial::IFINDEX + u32::from(port.0)
}

fn address(service: super::frames::Service) -> Addr {
    let octets = service.address();
    match <[u8; 4]>::try_from(&octets[..]) {
        Ok(v4) => Addr::from_v4(v4),
        Err(_) => Addr::from_v6(octets.try_into().unwrap()),
    }
}

/// The services of [`SERVICES`], with persistence for every second one.
fn snapshot(generation: u64, change: impl Fn(u16, &mut NextHop)) -> Snapshot {
    let instance = |service: u16| InstanceSlot(u16::from(SERVICES[usize::from(service)].vip) % 3);
    let next_hop = |slot: u16| {
        let mut hop = NextHop {
            keeps_clients: false,
            macs: [backend_mac(slot), OUR_MAC].concat().try_into().unwrap(),
            port: match slot % PER_SERVICE {
                2 => WORKERS_ONLY,
                3 => ELSEWHERE,
                _ => HERE,
            },
            service: ServiceSlot(slot / PER_SERVICE),
            instance: instance(slot / PER_SERVICE),
            usable: true,
            eligible: true,
            avoid_existing_clients: false,
            suspicion: Suspicion::None,
            when_unusable: UnusableAction::Unreachable,
        };
        change(slot, &mut hop);
        hop
    };
    let hops: Vec<NextHop> = (0..BACKENDS).map(next_hop).collect();
    let services = (0_u16..).zip(SERVICES).map(|(number, service)| {
        let protocol = if service.udp { Protocol::Udp } else { Protocol::Tcp };
        let vip = address(service);
        let key = ServiceKey { vip, protocol, first_port: PORT, last_port: PORT };
        let member = |slot: u16| {
            let [a, b] = slot.to_be_bytes();
            Member { slot: BackendSlot(slot), address: Addr::from_v4([10, 2, a, b]), weight: 1 }
        };
        let slots = number * PER_SERVICE..(number + 1) * PER_SERVICE;
        let eligible = slots.filter(|slot| hops[usize::from(*slot)].eligible);
        let members: Vec<Member> = eligible.map(member).collect();
        let persistence = Persistence {
            timeout: Duration::from_secs(3600),
            prefix_v4: 128,
            prefix_v6: 128,
            sticky_when_drained: true,
        };
        Arc::new(Service {
            slot: ServiceSlot(number),
            key,
            instance: instance(number),
            group: None,
            hash: HashInput::Flow,
            persistence: (number % 2 == 0).then_some(persistence),
            scheduler: Scheduler::new(SchedulerKind::Maglev, key, &members),
            reject: true,
        })
    });
    let vips = [0, 1, 4].map(|at| SERVICES[at]).into_iter().map(|service| Vip {
        address: address(service),
        instance: InstanceSlot(u16::from(service.vip) % 3),
        port: None,
        reject_closed: true,
    });
    let guard = LoopGuard::new([Mac(OUR_MAC)], hops.iter().map(NextHop::mac));
    Snapshot::new(generation, services.collect(), vips.collect(), hops.clone(), guard, Vec::new())
}
