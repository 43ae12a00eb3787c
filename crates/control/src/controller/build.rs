//! Builds a snapshot from the controller's state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{
    Addr, BackendSlot, HashInput, HashSeed, InstanceSlot, LoopGuard, Member, NextHop, Persistence,
    PortId, Scheduler, Service, ServiceKey, ServiceSlot, Snapshot, Tick, Vip,
};

use super::backend::BackendRuntime;
use super::report::Report;
use super::service::{Built, ServiceRuntime};
use super::{Command, Controller, Due, Owner, STANDALONE};
use crate::desired::{self, ClosedPorts};
use crate::port::silent_ports;

impl Controller {
    /// Publishes what the state says now.
    pub(super) fn publish(&mut self) {
        self.generation += 1;
        let due = std::mem::replace(&mut self.due, Due::Nothing);
        if due >= Due::Neighbours {
            self.guard = self.build_guard();
        }
        if due >= Due::Everything {
            self.watch_neighbours();
            self.vips = self.configured_vips();
            self.steer();
            self.next_hops.clear();
            for service in &mut self.services {
                service.dirty = true;
            }
        }
        let services = self.build_services();
        let mut snapshot = Snapshot::new(
            self.generation,
            services,
            self.vips.clone(),
            self.next_hops.clone(),
            self.guard.clone(),
            self.workers.clone(),
        );
        snapshot.silent_ports = silent_ports(&self.reach.ports);
        self.commands.push_back(Command::Publish(Arc::new(snapshot)));
    }

    /// Takes VIPs out of the map that are not wanted, and has those wait that are to enter it.
    fn steer(&mut self) {
        // An interface that does not exist has no VIP to steer.
        let wanted: BTreeMap<Addr, Owner> =
            self.vips.iter().filter_map(|vip| Some((vip.address, self.owner(vip)?))).collect();
        for gone in self.steered.keys().filter(|vip| !wanted.contains_key(vip)) {
            self.commands.push_back(Command::RemoveVip(*gone));
        }
        self.steered.retain(|vip, _| wanted.contains_key(vip));
        self.waiting = wanted
            .into_iter()
            .filter(|(vip, owner)| self.steered.get(vip) != Some(owner))
            .collect();
        self.waiting_for = self.generation;
    }

    /// The configured VIPs, each once.
    fn configured_vips(&self) -> Vec<Vip> {
        let mut vips: BTreeMap<Addr, Vip> = BTreeMap::new();
        for service in &self.services {
            let address = service.wanted.vip.into();
            let port = self.home_of(&service.wanted);
            let reject_closed = service.wanted.closed_ports == ClosedPorts::Reject;
            let instance = service.instance;
            vips.insert(address, Vip { address, instance, port, reject_closed });
        }
        vips.into_values().collect()
    }

    /// The only interface that a service's VIP lives on, if it is an instance's.
    fn home_of(&self, service: &desired::Service) -> Option<PortId> {
        let name = service.vrrp.as_ref()?;
        let instance = self.desired.vrrp.iter().find(|instance| instance.name == *name)?;
        let mut ports = self.reach.ports.iter();
        ports.find(|port| port.name == instance.interface).map(|port| port.id)
    }

    /// What the VIP map is to say; `None` while the VIP's interface does not exist.
    fn owner(&self, vip: &Vip) -> Option<Owner> {
        let port = match vip.port {
            None => None,
            Some(id) => Some((id, self.reach.ports.get(id.index())?.link?.ifindex)),
        };
        Some(Owner { instance: vip.instance, port })
    }

    /// Retires the slots of what is gone, with the next generation, and gives slots to what has
    /// none. A full registry shows as `Unusable::NoSlot` in the status.
    pub(super) fn assign_slots(&mut self) {
        let Self { desired, service_slots, backend_slots, instance_slots, services, .. } = self;
        let generation = self.generation + 1;
        let wanted: BTreeMap<&str, BTreeSet<IpAddr>> = services
            .iter()
            .map(|service| {
                let backends = service.backends.iter().map(|backend| backend.wanted.address);
                (service.wanted.name.as_str(), backends.collect())
            })
            .collect();
        instance_slots.retain(generation, |name| {
            name.is_empty() || desired.vrrp.iter().any(|instance| instance.name == *name)
        });
        service_slots.retain(generation, |name| wanted.contains_key(name.as_str()));
        backend_slots.retain(generation, |(name, address)| {
            wanted.get(name.as_str()).is_some_and(|backends| backends.contains(address))
        });
        for instance in &desired.vrrp {
            // The configuration allows one less than there are slots; beyond that retired ones are
            // waited for.
            let _ = instance_slots.claim(&instance.name);
        }
        for service in services {
            let ServiceRuntime { wanted, backends, .. } = service;
            let vrrp = wanted.vrrp.as_ref();
            let instance = vrrp.and_then(|name| instance_slots.slot(name));
            let instance = instance.map_or(STANDALONE, InstanceSlot);
            let slot = service_slots.claim(&wanted.name).map(ServiceSlot);
            service.dirty |= (slot, instance) != (service.slot, service.instance);
            (service.slot, service.instance) = (slot, instance);
            for backend in backends.iter_mut().filter(|backend| backend.slot.is_none()) {
                let key = (wanted.name.clone(), backend.wanted.address);
                backend.slot = backend_slots.claim(&key).map(BackendSlot);
                service.dirty |= backend.slot.is_some();
            }
        }
        self.assign_groups(generation);
    }

    /// The services, rebuilt only where something about them changed, and their next hops.
    fn build_services(&mut self) -> Vec<Arc<Service>> {
        let Self { services, next_hops, reports, now, .. } = self;
        let mut built = Vec::with_capacity(services.len());
        for service in services {
            if std::mem::take(&mut service.dirty) {
                let ServiceRuntime { wanted, backends, .. } = &mut *service;
                let changes =
                    backends.iter_mut().filter_map(|backend| backend.change(&wanted.name));
                reports.extend(changes.map(Report::Backend));
                reports.extend(service.settle(*now).map(Report::Service));
                service.rebuild(*now);
                service.write_next_hops(next_hops);
            }
            built.extend(service.built.as_ref().map(|built| Arc::clone(&built.service)));
        }
        built
    }

    fn build_guard(&self) -> LoopGuard {
        let own = self.reach.ports.iter().filter_map(|port| port.link).map(|link| link.mac);
        let backends = self.services.iter().flat_map(|service| {
            service.backends.iter().filter_map(|backend| self.reach.mac(backend.wanted.address))
        });
        LoopGuard::new(own, backends)
    }
}

impl ServiceRuntime {
    /// Its form for the packet path; the old one where nothing of it changed.
    fn rebuild(&mut self, now: Tick) {
        let Some(slot) = self.slot else {
            self.built = None;
            return;
        };
        let (configured, members) = (self.configured(), self.members(now));
        self.next_step = self.step_after(now);
        let reject = self.rejects();
        let old = self.built.take();
        let built = match old {
            Some(old) if self.is_built(&old, (&configured, &members), reject) => old,
            old => {
                let service = self.build(slot, (&configured, &members), reject, old.as_ref());
                Built { service: Arc::new(service), configured, members }
            }
        };
        self.built = Some(built);
    }

    fn is_built(
        &self,
        old: &Built,
        (configured, members): (&[Member], &[Member]),
        reject: bool,
    ) -> bool {
        let Service {
            slot: _,
            key,
            instance,
            persistence,
            group,
            hash,
            scheduler,
            reject: rejects,
        } = &*old.service;
        old.members == members
            && old.configured == configured
            && *instance == self.instance
            && *rejects == reject
            && *key == service_key(&self.wanted)
            && *persistence == persistence_of(&self.wanted)
            && *group == self.group
            && *hash == self.wanted.hash_input()
            && scheduler.seed() == seed_of(&self.wanted)
            && scheduler.kind() == self.wanted.scheduler
    }

    fn build(
        &self,
        slot: ServiceSlot,
        (configured, members): (&[Member], &[Member]),
        reject: bool,
        old: Option<&Built>,
    ) -> Service {
        let wanted = &self.wanted;
        let (key, seed) = (service_key(wanted), seed_of(wanted));
        let old = old.map(|built| &built.service);
        let alike = |old: &&Arc<Service>| {
            old.scheduler.seed() == seed && old.scheduler.kind() == wanted.scheduler
        };
        let scheduler = match old.filter(alike) {
            Some(old) => old.scheduler.rebuilt(configured, members),
            None => Scheduler::new(wanted.scheduler, seed, configured).rebuilt(configured, members),
        };
        let persistence = persistence_of(wanted);
        let (instance, group) = (self.instance, self.group.clone());
        let hash = wanted.hash_input();
        Service { slot, key, instance, persistence, group, hash, scheduler, reject }
    }

    fn write_next_hops(&self, next_hops: &mut Vec<NextHop>) {
        let Some(service) = self.slot else { return };
        for backend in &self.backends {
            let Some(slot) = backend.slot else { continue };
            if next_hops.len() <= slot.index() {
                next_hops.resize(slot.index() + 1, NextHop::NONE);
            }
            next_hops[slot.index()] = self.next_hop(service, backend);
        }
    }

    fn next_hop(&self, service: ServiceSlot, backend: &BackendRuntime) -> NextHop {
        let policy = &self.wanted.failure;
        let mut next_hop = NextHop {
            service,
            instance: self.instance,
            usable: backend.is_usable(policy),
            eligible: backend.eligible,
            avoid_existing_clients: backend.is_shunned(policy),
            keeps_clients: backend.keeps_clients(),
            suspicion: backend.suspicion(),
            when_unusable: backend.when_unusable(policy),
            ..NextHop::NONE
        };
        if let Ok(path) = &backend.path {
            next_hop.macs[..6].copy_from_slice(&path.mac.0);
            next_hop.macs[6..].copy_from_slice(&path.own.0);
            next_hop.port = path.port;
        }
        next_hop
    }
}

pub(super) fn service_key(service: &desired::Service) -> ServiceKey {
    ServiceKey {
        vip: service.vip.into(),
        protocol: service.protocol,
        first_port: service.first_port,
        last_port: service.last_port,
    }
}

/// Services that are to choose alike have tables of the members alone.
fn seed_of(service: &desired::Service) -> HashSeed {
    let alike = service.hash == Some(HashInput::Source) || service.group().is_some();
    if alike { HashSeed::Members } else { HashSeed::Service(service_key(service)) }
}

fn persistence_of(service: &desired::Service) -> Option<Persistence> {
    service.persistence.as_ref().map(|wanted| Persistence {
        timeout: wanted.timeout,
        // IPv4 addresses are the last 32 of 128 bits.
        prefix_v4: wanted.prefix_v4.saturating_add(96),
        prefix_v6: wanted.prefix_v6,
        sticky_when_drained: wanted.sticky_when_drained,
    })
}
