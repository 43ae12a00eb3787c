//! From what is wanted, what the kernel says and what the checks say to what the packet path reads.
//!
//! Contract: any number of events, then [`Controller::poll_command`] until `None`. The driver
//! carries the commands out in order; the order is part of their meaning: a VIP enters the map only
//! after every worker acknowledged a snapshot that knows it, and leaves the map before the snapshot
//! forgets it. Reports come last, for they take time and change nothing.
//!
//! A verdict about one backend rebuilds its service alone; everything else of a snapshot is shared
//! with, or copied from, the one before.

mod backend;
mod build;
mod follow;
mod groups;
mod last;
mod quorum;
mod ramp;
mod reach;
mod report;
mod service;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{
    Addr, BackendSlot, InstanceSlot, LoopGuard, MAX_BACKENDS, MAX_SERVICES, NextHop, PortId,
    Snapshot, Tick, Vip, WorkerLink,
};

use crate::desired::Desired;
use crate::health::Transition;
use crate::neighbour::{Neighbour, Unusable};
use crate::port::{Link, Network, Port};
use crate::registry::Registry;
use backend::Role;
use reach::{Lapsed, Reach};
use service::ServiceRuntime;

pub use report::{BackendChange, BackendState, Report, ServiceChange, Takers};
pub use status::{BackendStatus, ServiceStatus};

/// The control plane's state machine.
#[derive(Debug)]
pub struct Controller {
    desired: Desired,
    reach: Reach,
    workers: Vec<WorkerLink>,
    service_slots: Registry<String>,
    backend_slots: Registry<(String, IpAddr)>,
    /// Of persistence groups, which have slots beyond those of services.
    group_slots: Registry<String>,
    /// Of the members of groups, by group and name, which have slots beyond those of backends.
    member_slots: Registry<(String, String)>,
    /// Of VRRP instances; slot 0 is [`STANDALONE`]'s.
    instance_slots: Registry<String>,
    /// As configured, in its order.
    services: Vec<ServiceRuntime>,
    /// As published; of the services' dirty ones, and of them only, to be worked out anew.
    next_hops: Vec<NextHop>,
    vips: Vec<Vip>,
    guard: LoopGuard,
    generation: u64,
    acknowledged: u64,
    /// VIPs in the map, each with its owner.
    steered: BTreeMap<Addr, Owner>,
    /// VIPs that wait until [`Self::waiting_for`] is acknowledged.
    waiting: BTreeMap<Addr, Owner>,
    waiting_for: u64,
    watched: BTreeSet<(PortId, IpAddr)>,
    due: Due,
    now: Tick,
    commands: VecDeque<Command>,
    reports: VecDeque<Report>,
}

/// What the events since the last command ask for; each includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Nothing,
    /// A snapshot with what is dirty.
    Snapshot,
    /// And with another loop guard.
    Neighbours,
    /// And neighbours to watch, VIPs to steer.
    Everything,
}

/// What the driver saw.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new, checked configuration.
    Desired(Box<Desired>),
    /// A configured interface appeared, changed or (`None`) disappeared.
    Link(PortId, Option<Link>),
    /// The addresses of a configured interface, without the ones being checked for duplicates.
    Networks(PortId, Vec<Network>),
    /// The interface by which the kernel reaches each backend on-link (`None`: by none that is
    /// configured), for all of [`Controller::addresses`]. Due at the
    /// start, after each new configuration, and when links, addresses or routes changed.
    Routes(BTreeMap<IpAddr, Option<PortId>>),
    /// What the kernel knows of a backend's MAC.
    Neighbour(IpAddr, Neighbour),
    /// What the checks of a backend of this service amount to is now something else.
    Health(String, IpAddr, Transition),
    /// The set of workers changed.
    Workers(Vec<WorkerLink>),
    /// Every worker works with this generation or a later one.
    Acknowledged(u64),
}

/// What the driver must do, in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Hand the snapshot to the workers.
    Publish(Arc<Snapshot>),
    /// Steer this VIP to the workers.
    InsertVip(Addr, Owner),
    /// Stop steering this VIP.
    RemoveVip(Addr),
    /// Have the kernel resolve this neighbour and keep it resolved.
    Watch(PortId, IpAddr),
    /// This neighbour is not needed any more.
    Unwatch(PortId, IpAddr),
    /// Log a change and start its hooks.
    Report(Report),
}

/// To whom a VIP belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Whose lease decides whether it is active.
    pub instance: InstanceSlot,
    /// The only interface it lives on, and its kernel index. `None`: all.
    pub port: Option<(PortId, u32)>,
}

/// The instance of all services without a VRRP instance: active whenever the node runs.
pub const STANDALONE: InstanceSlot = InstanceSlot(0);

/// Slots of the lease array.
const MAX_INSTANCES: u16 = 256;

impl Controller {
    /// A controller for a first configuration. Nothing is published before the first event.
    pub fn new(desired: Desired, now: Tick) -> Self {
        let mut instance_slots = Registry::new(MAX_INSTANCES);
        // The first one given out is 0. An instance cannot have an empty name.
        instance_slots.claim(&String::new());
        let mut controller = Self {
            instance_slots,
            reach: Reach::new(&desired, now),
            services: desired
                .services
                .iter()
                .map(|wanted| ServiceRuntime::new(wanted, now))
                .collect(),
            desired,
            workers: Vec::new(),
            service_slots: Registry::new(slots(MAX_SERVICES)),
            backend_slots: Registry::new(slots(MAX_BACKENDS)),
            group_slots: Registry::new(slots(MAX_SERVICES)),
            member_slots: Registry::new(slots(MAX_BACKENDS)),
            next_hops: Vec::new(),
            vips: Vec::new(),
            guard: LoopGuard::default(),
            generation: 0,
            acknowledged: 0,
            steered: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_for: 0,
            watched: BTreeSet::new(),
            due: Due::Nothing,
            now,
            commands: VecDeque::new(),
            reports: VecDeque::new(),
        };
        controller.assign_slots();
        controller
    }

    /// Takes one event in; drain [`Self::poll_command`] afterwards, or after some more.
    pub fn handle(&mut self, event: Event, now: Tick) {
        self.advance(now);
        match event {
            Event::Acknowledged(generation) => self.acknowledged(generation),
            Event::Desired(desired) => self.follow(*desired),
            Event::Link(id, link) => {
                self.reach.set_link(id, link);
                self.judge_all(Due::Everything);
            }
            Event::Networks(id, networks) => {
                self.reach.set_networks(id, networks);
            }
            Event::Routes(routes) => {
                if self.reach.set_routes(routes) {
                    self.judge_all(Due::Everything);
                }
            }
            Event::Neighbour(address, neighbour) => {
                if self.reach.learn(address, neighbour) {
                    self.judge_where(|backend| backend == address);
                    self.due = self.due.max(Due::Neighbours);
                }
            }
            Event::Health(service, address, transition) => {
                self.hear(&service, address, &transition);
            }
            Event::Workers(workers) => {
                self.workers = workers;
                self.due = self.due.max(Due::Snapshot);
            }
        }
    }

    /// Lets time pass; to be called when [`Self::next_deadline`] is reached. Drain
    /// [`Self::poll_command`] afterwards.
    pub fn handle_timeout(&mut self, now: Tick) {
        self.advance(now);
        for service in &mut self.services {
            if service.next_step.is_some_and(|at| at <= now) {
                service.dirty = true;
                self.due = self.due.max(Due::Snapshot);
            }
        }
    }

    /// When something changes by itself: the weight of a backend that came up lately, the patience
    /// with a link that is down, or with a backend whose MAC is not resolved.
    pub fn next_deadline(&self) -> Option<Tick> {
        let steps = self.services.iter().filter_map(|service| service.next_step);
        steps.chain(self.reach.next_deadline()).min()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        if self.due != Due::Nothing {
            self.publish();
        }
        let report = |reports: &mut VecDeque<Report>| reports.pop_front().map(Command::Report);
        self.commands.pop_front().or_else(|| report(&mut self.reports))
    }

    /// Forgets backends that were removed from the configuration, and frees unreferenced slots;
    /// `named` says whether a template names a backend. Drain [`Self::poll_command`]
    /// afterwards.
    pub fn reclaim_slots(&mut self, named: impl Fn(BackendSlot) -> bool) {
        let Self { workers, services, acknowledged, now, reports, .. } = self;
        let in_use = |slot: BackendSlot| {
            named(slot) || workers.iter().any(|worker| worker.counters.backend(slot).in_use())
        };
        let mut gone = false;
        for service in services {
            let ServiceRuntime { wanted, backends, .. } = service;
            backends.retain(|backend| {
                let stays = match backend.role {
                    Role::Member | Role::Fallback => true,
                    Role::Leaving(generation) => {
                        generation > *acknowledged || backend.slot.is_some_and(&in_use)
                    }
                };
                if !stays {
                    reports.push_back(Report::Drained {
                        service: wanted.name.clone(),
                        backend: backend.wanted.name.clone(),
                        after: now.saturating_since(backend.since),
                    });
                    (service.dirty, gone) = (true, true);
                }
                stays
            });
        }
        let freed = self.backend_slots.reclaim(*acknowledged, |slot| in_use(BackendSlot(slot)));
        let services_freed = self.service_slots.reclaim(*acknowledged, |_| false);
        self.instance_slots.reclaim(*acknowledged, |_| false);
        self.group_slots.reclaim(*acknowledged, |_| false);
        let member = |slot| named(BackendSlot(slots(MAX_BACKENDS) + slot));
        self.member_slots.reclaim(*acknowledged, member);
        if gone || !freed.is_empty() || !services_freed.is_empty() {
            self.assign_slots();
            // Slots that are not claimed change nothing.
            if gone || self.services.iter().any(|service| service.dirty) {
                self.judge_all(Due::Everything);
            }
        }
    }

    /// The configuration in force.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The configured interfaces, in the order of their slots.
    pub fn ports(&self) -> &[Port] {
        &self.reach.ports
    }

    /// The last published generation and the last one that all workers acknowledged.
    pub fn generations(&self) -> (u64, u64) {
        (self.generation, self.acknowledged)
    }

    /// Whether every configured VIP is steered to the workers.
    pub fn all_steered(&self) -> bool {
        self.generation > 0 && self.waiting.is_empty()
    }

    /// Whether it is too early to say of some backend whether it is up: its MAC is being asked for,
    /// or its first check is not over.
    pub fn undecided(&self) -> bool {
        let mut backends = self.services.iter().flat_map(|service| &service.backends);
        backends.any(|backend| !matches!(backend.role, Role::Leaving(_)) && backend.is_undecided())
    }

    /// The configured VIPs that are not in the map yet.
    pub fn unsteered(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let vips: BTreeSet<IpAddr> =
            self.services.iter().map(|service| service.wanted.vip).collect();
        vips.into_iter().filter(|vip| !self.steered.contains_key(&Addr::from(*vip)))
    }

    /// VIPs in the map.
    pub fn steered(&self) -> impl Iterator<Item = Addr> + '_ {
        self.steered.keys().copied()
    }

    /// Whether a VIP is in the map.
    pub fn is_steered(&self, vip: Addr) -> bool {
        self.steered.contains_key(&vip)
    }

    /// The slot of a VRRP instance whose configuration was published.
    pub fn instance_slot(&self, name: &str) -> Option<InstanceSlot> {
        self.instance_slots.slot(&name.to_owned()).map(InstanceSlot)
    }

    /// Backends that are on a network of a present interface: (interface, address).
    pub fn watched(&self) -> impl Iterator<Item = (PortId, IpAddr)> + '_ {
        self.watched.iter().copied()
    }

    /// Whether this is a backend that is reached by this interface.
    pub fn is_reached_by(&self, backend: IpAddr, port: PortId) -> bool {
        self.reach.port_towards(backend).is_some_and(|towards| towards.id == port)
    }

    /// The interface towards a backend, by name and kernel index; `None` while it has no link.
    pub fn link_towards(&self, backend: IpAddr) -> Option<(&str, u32)> {
        let port = self.reach.port_towards(backend)?;
        port.link.filter(|link| link.up).map(|link| (port.name.as_str(), link.ifindex))
    }

    /// The addresses of all backends, those included that were removed from the configuration and
    /// still have flows.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let backends = self.services.iter().flat_map(|service| &service.backends);
        backends.map(|backend| backend.wanted.address).collect()
    }

    /// Whether the kernel's entry of a backend is an administrator's: it must be left alone.
    pub fn is_static(&self, backend: IpAddr) -> bool {
        self.reach.is_static(backend)
    }

    /// Whether no MAC of a backend is known.
    pub fn is_unresolved(&self, backend: IpAddr) -> bool {
        self.reach.is_unresolved(backend)
    }

    /// Since when the link towards a backend is up; `None` while it is down. What happened before
    /// says nothing of the backend.
    pub fn link_up_since(&self, backend: IpAddr) -> Option<Tick> {
        self.reach.up_since_towards(backend)
    }

    /// The backends of services of which no backend is up: service, address.
    pub fn unreferenced_addresses(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let services = self.services.iter().filter(|service| service.weights.healthy == 0);
        services.flat_map(|service| {
            let backends = service.wanted.backends.iter();
            backends.map(|backend| (service.wanted.name.as_str(), backend.address))
        })
    }

    /// The backends that have checks: service, address, slot.
    pub fn checked(&self) -> impl Iterator<Item = (&str, IpAddr, BackendSlot)> {
        let services = self.services.iter().filter(|service| !service.wanted.health.is_empty());
        services.flat_map(|service| {
            let members = service.backends.iter().filter(|backend| backend.role == Role::Member);
            members.filter_map(|backend| {
                Some((service.wanted.name.as_str(), backend.wanted.address, backend.slot?))
            })
        })
    }

    fn advance(&mut self, now: Tick) {
        self.now = self.now.max(now);
        let Lapsed { silent, outage } = self.reach.advance(self.now);
        if outage {
            self.judge_all(Due::Snapshot);
        } else if !silent.is_empty() {
            self.judge_where(|address| silent.contains(&address));
            self.due = self.due.max(Due::Neighbours);
        }
    }

    fn hear(&mut self, name: &str, address: IpAddr, transition: &Transition) {
        let now = self.now;
        let service = self.services.iter_mut().find(|service| service.wanted.name == name);
        let Some(service) = service else { return };
        let ServiceRuntime { wanted, backends, .. } = service;
        let backend = backends.iter_mut().find(|backend| backend.wanted.address == address);
        // What is not checked is not heard of either; that may cross with a reload.
        let Some(backend) = backend.filter(|backend| backend.role == Role::Member) else { return };
        backend.hear(transition);
        backend.judge(wanted, Some(transition.after), now);
        service.dirty = true;
        self.due = self.due.max(Due::Snapshot);
    }

    fn judge_all(&mut self, due: Due) {
        self.judge_where(|_| true);
        self.due = self.due.max(due);
    }

    /// Works out anew whether frames can reach these backends.
    fn judge_where(&mut self, concerns: impl Fn(IpAddr) -> bool) {
        let Self { services, reach, now, .. } = self;
        for service in services {
            let ServiceRuntime { wanted, backends, .. } = service;
            for backend in backends.iter_mut().filter(|backend| concerns(backend.wanted.address)) {
                let address = backend.wanted.address;
                let patience = backend.patience();
                let outage = reach.outage(address).filter(|outage| outage.since + patience <= *now);
                backend.path = match (backend.slot, outage) {
                    (None, _) => Err(Unusable::NoSlot),
                    (_, Some(outage)) => Err(Unusable::LinkDown(outage.interface.to_owned())),
                    (_, None) => reach.path_to(address),
                };
                backend.judge(wanted, None, *now);
                service.dirty = true;
            }
        }
    }

    fn acknowledged(&mut self, generation: u64) {
        self.acknowledged = self.acknowledged.max(generation);
        if self.acknowledged < self.waiting_for {
            return;
        }
        for (vip, owner) in std::mem::take(&mut self.waiting) {
            self.steered.insert(vip, owner);
            self.commands.push_back(Command::InsertVip(vip, owner));
        }
    }

    fn watch_neighbours(&mut self) {
        let backends = self.services.iter().flat_map(|service| &service.backends);
        let wanted: BTreeSet<(PortId, IpAddr)> = backends
            .filter_map(|backend| {
                let port = self.reach.port_towards(backend.wanted.address)?;
                port.link.map(|_| (port.id, backend.wanted.address))
            })
            .collect();
        for gone in self.watched.difference(&wanted) {
            self.commands.push_back(Command::Unwatch(gone.0, gone.1));
        }
        for new in wanted.difference(&self.watched) {
            self.commands.push_back(Command::Watch(new.0, new.1));
        }
        self.watched = wanted;
    }
}

fn slots(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
