//! From what is wanted and what the kernel says to what the packet path reads.
//!
//! Contract: one event, then [`Controller::poll_command`] until `None`. The driver carries the
//! commands out in order; the order is part of their meaning: a VIP enters the map only after every
//! worker acknowledged a snapshot that knows it, and leaves the map before the snapshot forgets it.

mod build;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{
    Addr, BackendSlot, InstanceSlot, MAX_BACKENDS, MAX_SERVICES, Mac, PortId, Service, Snapshot,
    Tick, WorkerLink,
};

use crate::desired::Desired;
use crate::neighbour::{Neighbour, Unusable};
use crate::port::{Link, Network, Port};
use crate::registry::Registry;

pub use status::{BackendStatus, ServiceStatus};

/// The control plane's state machine.
#[derive(Debug)]
pub struct Controller {
    desired: Desired,
    ports: Vec<Port>,
    /// Of backend addresses only.
    neighbours: BTreeMap<IpAddr, Neighbour>,
    workers: Vec<WorkerLink>,
    service_slots: Registry<String>,
    backend_slots: Registry<(String, IpAddr)>,
    /// Of VRRP instances; slot 0 is [`STANDALONE`]'s.
    instance_slots: Registry<String>,
    /// As published, by name; reused while nothing of a service changes.
    services: BTreeMap<String, Built>,
    states: BTreeMap<(String, IpAddr), State>,
    generation: u64,
    acknowledged: u64,
    /// VIPs in the map, each with its owner.
    steered: BTreeMap<Addr, Owner>,
    /// VIPs of the published snapshot that wait for its acknowledgement.
    waiting: BTreeMap<Addr, Owner>,
    watched: BTreeSet<(PortId, IpAddr)>,
    commands: VecDeque<Command>,
}

/// What the driver saw.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new, checked configuration.
    Desired(Box<Desired>),
    /// A configured interface appeared, changed or (`None`) disappeared.
    Link(PortId, Option<Link>),
    /// The connected networks of a configured interface.
    Networks(PortId, Vec<Network>),
    /// What the kernel knows of a backend's MAC.
    Neighbour(IpAddr, Neighbour),
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
    /// Nobody needs this neighbour any more.
    Unwatch(PortId, IpAddr),
    /// Say that a backend's state changed: service, backend, why it is unusable (`None`: usable).
    Report(String, String, Option<Unusable>),
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

#[derive(Debug)]
struct Built {
    service: Arc<Service>,
    members: Vec<dataplane::Member>,
}

/// A backend's usability, with its history of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    usable: Result<Way, Unusable>,
    since: Tick,
}

/// How to reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    port: PortId,
    own: Mac,
    mac: Mac,
}

impl Controller {
    /// A controller for a first configuration. Nothing is published before the first event.
    pub fn new(desired: Desired) -> Self {
        let ports = ports_of(&desired);
        let mut instance_slots = Registry::new(MAX_INSTANCES);
        // The first one given out is 0. An instance cannot have an empty name.
        instance_slots.claim(&String::new());
        Self {
            instance_slots,
            desired,
            ports,
            neighbours: BTreeMap::new(),
            workers: Vec::new(),
            service_slots: Registry::new(slots(MAX_SERVICES)),
            backend_slots: Registry::new(slots(MAX_BACKENDS)),
            services: BTreeMap::new(),
            states: BTreeMap::new(),
            generation: 0,
            acknowledged: 0,
            steered: BTreeMap::new(),
            waiting: BTreeMap::new(),
            watched: BTreeSet::new(),
            commands: VecDeque::new(),
        }
    }

    /// Takes one event in; drain [`Self::poll_command`] afterwards.
    pub fn handle(&mut self, event: Event, now: Tick) {
        match event {
            Event::Acknowledged(generation) => return self.acknowledged(generation),
            Event::Desired(desired) => self.desired = *desired,
            Event::Link(id, link) => self.with_port(id, |port| port.link = link),
            Event::Networks(id, networks) => self.with_port(id, |port| port.networks = networks),
            Event::Neighbour(address, neighbour) => {
                let neighbour = neighbour.after(self.neighbours.get(&address).copied());
                if self.neighbours.insert(address, neighbour) == Some(neighbour) {
                    return;
                }
            }
            Event::Workers(workers) => self.workers = workers,
        }
        self.watch_neighbours();
        self.judge_backends(now);
        self.publish();
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Frees slots that nobody means any more; `named` tells whether a template names a backend.
    pub fn reclaim_slots(&mut self, named: impl Fn(BackendSlot) -> bool) {
        let workers = &self.workers;
        self.backend_slots.reclaim(self.acknowledged, |slot| {
            let slot = BackendSlot(slot);
            named(slot) || workers.iter().any(|worker| worker.counters.backend(slot).in_use())
        });
        self.service_slots.reclaim(self.acknowledged, |_| false);
        self.instance_slots.reclaim(self.acknowledged, |_| false);
    }

    /// The configuration in force.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The configured interfaces, in the order of their slots.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The last published generation and the last one that all workers acknowledged.
    pub fn generations(&self) -> (u64, u64) {
        (self.generation, self.acknowledged)
    }

    /// Whether every configured VIP is steered to the workers.
    pub fn all_steered(&self) -> bool {
        self.generation > 0 && self.waiting.is_empty()
    }

    /// Whether the MAC of some backend is being asked for: neither known nor given up.
    pub fn resolving(&self) -> bool {
        self.states.values().any(|state| state.usable == Err(Unusable::Resolving))
    }

    /// VIPs in the map.
    pub fn steered(&self) -> impl Iterator<Item = Addr> + '_ {
        self.steered.keys().copied()
    }

    /// The slot of a VRRP instance whose configuration was published.
    pub fn instance_slot(&self, name: &str) -> Option<InstanceSlot> {
        self.instance_slots.slot(&name.to_owned()).map(InstanceSlot)
    }

    /// Backends that are on a network of a present interface: (interface, address).
    pub fn watched(&self) -> impl Iterator<Item = (PortId, IpAddr)> + '_ {
        self.watched.iter().copied()
    }

    fn with_port(&mut self, id: PortId, change: impl FnOnce(&mut Port)) {
        if let Some(port) = self.ports.get_mut(id.index()) {
            change(port);
        }
    }

    /// The interface whose network a backend is on.
    fn port_towards(&self, address: IpAddr) -> Option<&Port> {
        self.ports.iter().find(|port| port.networks.iter().any(|net| net.contains(address)))
    }

    fn acknowledged(&mut self, generation: u64) {
        self.acknowledged = self.acknowledged.max(generation);
        if self.acknowledged < self.generation {
            return;
        }
        for (vip, owner) in std::mem::take(&mut self.waiting) {
            self.steered.insert(vip, owner);
            self.commands.push_back(Command::InsertVip(vip, owner));
        }
    }

    fn watch_neighbours(&mut self) {
        let wanted: BTreeSet<(PortId, IpAddr)> = self
            .desired
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .filter_map(|backend| {
                let port = self.port_towards(backend.address)?;
                port.link.map(|_| (port.id, backend.address))
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

    /// Works out for every backend whether frames can reach it, and reports what changed.
    fn judge_backends(&mut self, now: Tick) {
        let mut states = BTreeMap::new();
        for service in &self.desired.services {
            for backend in &service.backends {
                let key = (service.name.clone(), backend.address);
                let usable = self.way_to(backend.address);
                let state = match self.states.get(&key) {
                    Some(old) if same_kind(&old.usable, &usable) => State { usable, ..*old },
                    _ => {
                        self.commands.push_back(Command::Report(
                            service.name.clone(),
                            backend.name.clone(),
                            usable.clone().err(),
                        ));
                        State { usable, since: now }
                    }
                };
                states.insert(key, state);
            }
        }
        self.states = states;
    }

    fn way_to(&self, address: IpAddr) -> Result<Way, Unusable> {
        let port = self.port_towards(address).ok_or(Unusable::OffLink)?;
        let link = port
            .link
            .filter(|link| link.up)
            .ok_or_else(|| Unusable::LinkDown(port.name.clone()))?;
        let neighbour = self.neighbours.get(&address).copied().unwrap_or(Neighbour::Missing);
        let Some(mac) = neighbour.mac() else {
            return Err(match neighbour {
                Neighbour::Failed => Unusable::NoAnswer,
                Neighbour::Resolved(_) | Neighbour::Asking(_) | Neighbour::Missing => {
                    Unusable::Resolving
                }
            });
        };
        if self.ports.iter().any(|port| port.link.is_some_and(|link| link.mac == mac)) {
            return Err(Unusable::OwnMac);
        }
        Ok(Way { port: port.id, own: link.mac, mac })
    }
}

fn ports_of(desired: &Desired) -> Vec<Port> {
    (0u16..)
        .zip(&desired.interfaces)
        .map(|(id, interface)| Port {
            name: interface.name.clone(),
            id: PortId(id),
            link: None,
            networks: Vec::new(),
        })
        .collect()
}

/// A new MAC is no change of state.
fn same_kind(old: &Result<Way, Unusable>, new: &Result<Way, Unusable>) -> bool {
    match (old, new) {
        (Ok(_), Ok(_)) => true,
        (Err(old), Err(new)) => old == new,
        _ => false,
    }
}

fn slots(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
