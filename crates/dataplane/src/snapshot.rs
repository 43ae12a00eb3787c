//! What the packet path reads: one immutable picture of services, backends and MACs, replaced as a
//! whole. A worker looks at one snapshot per burst.

use std::sync::Arc;
use std::time::Duration;

use crate::addr::{Addr, Mac};
use crate::counters::WorkerCounters;
use crate::group::Group;
use crate::guard::LoopGuard;
use crate::key::{Protocol, ServiceKey};
use crate::mailbox::Mailbox;
use crate::scheduler::{HashInput, Scheduler};
use crate::slots::{BackendSlot, InstanceSlot, PortId, ServiceSlot};

/// Everything the packet path needs to know, never edited.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Rises by one with every snapshot of a process.
    pub generation: u64,
    /// Sorted by (VIP, protocol, first port); ranges do not overlap.
    services: Vec<Arc<Service>>,
    /// Sorted by address.
    vips: Vec<Vip>,
    /// Indexed by [`BackendSlot`].
    next_hops: Vec<NextHop>,
    /// Refuses frames that would circle.
    pub guard: LoopGuard,
    /// All workers, those of the same port next to each other.
    pub workers: Vec<WorkerLink>,
    /// Ports that do not answer the question where a VIP without a port of its own is: another port on
    /// the same segment does.
    pub silent_ports: Vec<PortId>,
}

/// A virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: Addr,
    /// Whose lease decides whether it is active.
    pub instance: InstanceSlot,
    /// The only port it lives on; `None`: all.
    pub port: Option<PortId>,
    /// Whether packets to ports and protocols that no service has are answered as a host answers
    /// them, or dropped.
    pub reject_closed: bool,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Its slot.
    pub slot: ServiceSlot,
    /// What it listens on.
    pub key: ServiceKey,
    /// Whose lease decides whether it is active.
    pub instance: InstanceSlot,
    /// Source persistence, if any.
    pub persistence: Option<Persistence>,
    /// The services that it shares its templates with, if any.
    pub group: Option<Arc<Group>>,
    /// What the scheduler's hash is of, without persistence; with it, of the source prefix.
    pub hash: HashInput,
    /// Chooses among the backends that may take new sources.
    pub scheduler: Scheduler,
    /// Whether a client is rejected where no backend can take it (TCP reset, ICMP port unreachable).
    pub reject: bool,
}

/// Source persistence of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// A source without connections is forgotten after this long.
    pub timeout: Duration,
    /// Bits of the 128-bit address that count for IPv4 sources, 97–128.
    pub prefix_v4: u8,
    /// Bits that count for IPv6 sources, 1–128.
    pub prefix_v6: u8,
    /// Whether clients of a backend with weight 0 keep coming back to it, unless it is
    /// [avoid_existing_clients](NextHop::avoid_existing_clients).
    pub sticky_when_drained: bool,
}

impl Persistence {
    /// How many bits of this source count.
    pub const fn prefix_len(&self, source: Addr) -> u8 {
        if source.is_v4() { self.prefix_v4 } else { self.prefix_v6 }
    }
}

/// Where a backend's frames go. Never in two cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub struct NextHop {
    /// Destination MAC (the backend's), then source MAC (the egress port's): the first 12 bytes of
    /// the frame.
    pub macs: [u8; 12],
    /// The egress port.
    pub port: PortId,
    /// The service that the backend belongs to.
    pub service: ServiceSlot,
    /// The service's instance.
    pub instance: InstanceSlot,
    /// Whether frames can be sent to it: it exists and its MAC is known.
    pub usable: bool,
    /// Whether it may take new sources: usable and weight above 0. The scheduler's members are
    /// exactly those.
    pub eligible: bool,
    /// Whether its own clients, too, are to connect elsewhere, although it is usable: it is
    /// suspected, or down and keeps its flows. Then it is not eligible.
    pub avoid_existing_clients: bool,
    /// Whether its own clients come back to it although it takes no new sources, whatever its service
    /// says of that.
    pub keeps_clients: bool,
    /// Why it is not eligible, if nothing but a suspicion speaks against it.
    pub suspicion: Suspicion,
    /// What becomes of its flows while it is not usable.
    pub when_unusable: UnusableAction,
}

/// What makes a backend suspected that would be eligible otherwise. No suspicion makes a template
/// give way: that takes a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suspicion {
    /// It is not suspected.
    #[default]
    None,
    /// Unanswered SYNs alone, which any host can forge: sources whose template names it come back
    /// all the same, but for a SYN that they had to send again.
    Syns,
    /// A check failed: new connections of all sources go elsewhere.
    Checks,
}

/// What becomes of the flows of a backend that is not usable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnusableAction {
    /// Its MAC is not known: frames are dropped until it is.
    #[default]
    Unreachable,
    /// It is down: each client gets a TCP reset.
    Reset,
    /// It is down: frames are dropped.
    Discard,
}

impl NextHop {
    /// The backend's MAC.
    #[inline]
    pub const fn mac(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.macs;
        Mac([a, b, c, d, e, f])
    }

    /// The next hop of an unused slot.
    pub const NONE: Self = Self {
        macs: [0; 12],
        port: PortId(u16::MAX),
        service: ServiceSlot(u16::MAX),
        instance: InstanceSlot(u16::MAX),
        usable: false,
        eligible: false,
        avoid_existing_clients: false,
        keeps_clients: false,
        suspicion: Suspicion::None,
        when_unusable: UnusableAction::Unreachable,
    };
}

/// How to reach a worker.
#[derive(Clone, Debug)]
pub struct WorkerLink {
    /// The port it serves.
    pub port: PortId,
    /// The RX queue it serves.
    pub queue: u32,
    /// The MAC of the port.
    pub mac: Mac,
    /// Its mailbox.
    pub mailbox: Arc<Mailbox>,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
}

impl Snapshot {
    /// Puts the parts in the order that look-ups need. `next_hops` is indexed by backend slot.
    pub fn new(
        generation: u64,
        mut services: Vec<Arc<Service>>,
        mut vips: Vec<Vip>,
        next_hops: Vec<NextHop>,
        guard: LoopGuard,
        mut workers: Vec<WorkerLink>,
    ) -> Self {
        services.sort_unstable_by_key(|service| service.key);
        vips.sort_unstable_by_key(|vip| vip.address);
        workers.sort_unstable_by_key(|worker| (worker.port, worker.queue));
        let silent_ports = Vec::new();
        Self { generation, services, vips, next_hops, guard, workers, silent_ports }
    }

    /// The next hop of a backend.
    #[inline]
    pub fn next_hop(&self, backend: BackendSlot) -> &NextHop {
        self.next_hops.get(backend.index()).unwrap_or(&NextHop::NONE)
    }

    /// The service that listens here.
    pub fn service(&self, vip: Addr, protocol: Protocol, port: u16) -> Option<&Arc<Service>> {
        let after = self.services.partition_point(|service| {
            (service.key.vip, service.key.protocol, service.key.first_port) <= (vip, protocol, port)
        });
        let service = self.services.get(after.checked_sub(1)?)?;
        let key = &service.key;
        (key.vip == vip && key.protocol == protocol && key.covers(port)).then_some(service)
    }

    /// All services of a VIP and protocol, by port.
    pub fn services_of(
        &self,
        vip: Addr,
        protocol: Protocol,
    ) -> impl Iterator<Item = &Arc<Service>> {
        let first = self
            .services
            .partition_point(|service| (service.key.vip, service.key.protocol) < (vip, protocol));
        self.services[first..]
            .iter()
            .take_while(move |service| service.key.vip == vip && service.key.protocol == protocol)
    }

    /// The VIP with this address.
    pub fn vip(&self, address: Addr) -> Option<&Vip> {
        let at = self.vips.binary_search_by_key(&address, |vip| vip.address).ok()?;
        self.vips.get(at)
    }

    /// The same, where what is chosen for this service takes no turn from those who are served.
    pub(crate) fn with_turns_of_its_own(&self, vip: Addr, protocol: Protocol, port: u16) -> Self {
        let mut copy = self.clone();
        let Some(slot) = self.service(vip, protocol, port).map(|service| service.slot) else {
            return copy;
        };
        for service in copy.services.iter_mut().filter(|service| service.slot == slot) {
            let Service { slot, key, instance, persistence, hash, reject, .. } = **service;
            let group = service.group.clone();
            let scheduler = service.scheduler.with_turns_of_its_own();
            *service = Arc::new(Service {
                slot,
                key,
                instance,
                persistence,
                group,
                hash,
                scheduler,
                reject,
            });
        }
        copy
    }

    /// All next hops, by backend slot.
    pub fn next_hops(&self) -> &[NextHop] {
        &self.next_hops
    }

    /// All services, sorted by key.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// All VIPs, sorted by address.
    pub fn vips(&self) -> &[Vip] {
        &self.vips
    }
}
