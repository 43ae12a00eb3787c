//! Builds a snapshot from the controller's state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{
    Addr, BackendSlot, Hop, InstanceSlot, LoopGuard, Member, Persistence, PortId, Scheduler,
    Service, ServiceKey, ServiceSlot, Snapshot, Vip,
};

use super::{Built, Command, Controller, Owner, STANDALONE};
use crate::desired;

impl Controller {
    /// Publishes what the state says now.
    pub(super) fn publish(&mut self) {
        self.generation += 1;
        self.retire_slots();
        let vips = self.vips();
        // An interface that does not exist has no VIP to steer.
        let wanted: BTreeMap<Addr, Owner> =
            vips.iter().filter_map(|vip| Some((vip.address, self.owner(vip)?))).collect();
        for gone in self.steered.keys().filter(|vip| !wanted.contains_key(vip)) {
            self.commands.push_back(Command::RemoveVip(*gone));
        }
        self.steered.retain(|vip, _| wanted.contains_key(vip));
        let services = self.build_services();
        let snapshot = Snapshot::new(
            self.generation,
            services,
            vips,
            self.hops(),
            self.guard(),
            self.workers.clone(),
        );
        self.waiting = wanted
            .into_iter()
            .filter(|(vip, owner)| self.steered.get(vip) != Some(owner))
            .collect();
        self.commands.push_back(Command::Publish(Arc::new(snapshot)));
    }

    /// The configured VIPs, each once.
    fn vips(&self) -> Vec<Vip> {
        let mut vips: BTreeMap<Addr, Vip> = BTreeMap::new();
        for service in &self.desired.services {
            let address = service.vip.into();
            let instance = self.instance_of(service);
            vips.insert(address, Vip { address, instance, port: self.home_of(service) });
        }
        vips.into_values().collect()
    }

    /// The only interface that a service's VIP lives on, if it is an instance's.
    fn home_of(&self, service: &desired::Service) -> Option<PortId> {
        let name = service.vrrp.as_ref()?;
        let instance = self.desired.vrrp.iter().find(|instance| instance.name == *name)?;
        self.ports.iter().find(|port| port.name == instance.interface).map(|port| port.id)
    }

    /// What the VIP map is to say; `None` while the VIP's interface does not exist.
    fn owner(&self, vip: &Vip) -> Option<Owner> {
        let port = match vip.port {
            None => None,
            Some(id) => Some((id, self.ports.get(id.index())?.link?.ifindex)),
        };
        Some(Owner { instance: vip.instance, port })
    }

    fn instance_of(&self, service: &desired::Service) -> InstanceSlot {
        let slot = service.vrrp.as_ref().and_then(|name| self.instance_slots.slot(name));
        slot.map_or(STANDALONE, InstanceSlot)
    }

    fn retire_slots(&mut self) {
        let Self {
            desired,
            service_slots,
            backend_slots,
            instance_slots,
            services,
            generation,
            ..
        } = self;
        let wanted: BTreeMap<&str, BTreeSet<IpAddr>> = desired
            .services
            .iter()
            .map(|s| (s.name.as_str(), s.backends.iter().map(|b| b.address).collect()))
            .collect();
        instance_slots.retain(*generation, |name| {
            name.is_empty() || desired.vrrp.iter().any(|instance| instance.name == *name)
        });
        for instance in &desired.vrrp {
            // The configuration allows one less than there are slots; beyond that retired ones are
            // waited for.
            let _ = instance_slots.claim(&instance.name);
        }
        service_slots.retain(*generation, |name| wanted.contains_key(name.as_str()));
        backend_slots.retain(*generation, |(name, address)| {
            wanted.get(name.as_str()).is_some_and(|backends| backends.contains(address))
        });
        services.retain(|name, _| wanted.contains_key(name.as_str()));
    }

    /// The services, rebuilt only where something about them changed.
    fn build_services(&mut self) -> Vec<Arc<Service>> {
        let mut services = Vec::with_capacity(self.desired.services.len());
        for wanted in &self.desired.services {
            let Some(slot) = self.service_slots.claim(&wanted.name) else { continue };
            for backend in &wanted.backends {
                // A full registry shows as `Unusable::NoSlot` in the status.
                let _ = self.backend_slots.claim(&(wanted.name.clone(), backend.address));
            }
            let members = self.members(wanted);
            let slots = (ServiceSlot(slot), self.instance_of(wanted));
            let old = self.services.get(&wanted.name);
            let service = match old {
                Some(built)
                    if built.members == members
                        && built.service.instance == slots.1
                        && same(&built.service, wanted) =>
                {
                    Arc::clone(&built.service)
                }
                _ => Arc::new(build(slots, wanted, &members, old)),
            };
            services.push(Arc::clone(&service));
            self.services.insert(wanted.name.clone(), Built { service, members });
        }
        services
    }

    /// The backends that may take new sources.
    fn members(&self, service: &desired::Service) -> Vec<Member> {
        let usable = |backend: &&desired::Backend| {
            let key = (service.name.clone(), backend.address);
            backend.weight > 0 && self.states.get(&key).is_some_and(|state| state.usable.is_ok())
        };
        service
            .backends
            .iter()
            .filter(usable)
            .filter_map(|backend| {
                let slot = self.backend_slots.slot(&(service.name.clone(), backend.address))?;
                Some(Member {
                    slot: BackendSlot(slot),
                    address: backend.address.into(),
                    weight: backend.weight,
                })
            })
            .collect()
    }

    fn hops(&self) -> Vec<Hop> {
        let mut hops = Vec::new();
        for service in &self.desired.services {
            let Some(service_slot) = self.service_slots.slot(&service.name) else { continue };
            let instance = self.instance_of(service);
            for backend in &service.backends {
                let key = (service.name.clone(), backend.address);
                let (Some(slot), Some(Ok(way))) = (
                    self.backend_slots.slot(&key),
                    self.states.get(&key).map(|state| &state.usable),
                ) else {
                    continue;
                };
                let slot = usize::from(slot);
                if hops.len() <= slot {
                    hops.resize(slot + 1, Hop::NONE);
                }
                let mut macs = [0; 12];
                macs[..6].copy_from_slice(&way.mac.0);
                macs[6..].copy_from_slice(&way.own.0);
                hops[slot] = Hop {
                    macs,
                    port: way.port,
                    service: ServiceSlot(service_slot),
                    instance,
                    usable: true,
                    eligible: backend.weight > 0,
                    shunned: false,
                    fate: dataplane::Fate::Unreachable,
                };
            }
        }
        hops
    }

    fn guard(&self) -> LoopGuard {
        let own = self.ports.iter().filter_map(|port| port.link).map(|link| link.mac);
        let backends = self.desired.services.iter().flat_map(|service| {
            service.backends.iter().filter_map(|backend| {
                let mac = self.neighbours.get(&backend.address)?.mac()?;
                Some((mac, Addr::from(service.vip)))
            })
        });
        LoopGuard::new(own, backends)
    }
}

fn build(
    (slot, instance): (ServiceSlot, InstanceSlot),
    wanted: &desired::Service,
    members: &[Member],
    old: Option<&Built>,
) -> Service {
    let key = key(wanted);
    let scheduler = match old {
        Some(built)
            if built.service.key == key && built.service.scheduler.kind() == wanted.scheduler =>
        {
            built.service.scheduler.rebuilt(members)
        }
        _ => Scheduler::new(wanted.scheduler, key, members),
    };
    Service { slot, key, instance, persistence: persistence(wanted), scheduler, reject: false }
}

/// Whether a built service still is what is wanted, its members apart.
fn same(built: &Service, wanted: &desired::Service) -> bool {
    built.key == key(wanted)
        && built.persistence == persistence(wanted)
        && built.scheduler.kind() == wanted.scheduler
}

pub(super) fn key(service: &desired::Service) -> ServiceKey {
    ServiceKey {
        vip: service.vip.into(),
        protocol: service.protocol,
        first_port: service.first_port,
        last_port: service.last_port,
    }
}

fn persistence(service: &desired::Service) -> Option<Persistence> {
    service.persistence.map(|wanted| Persistence {
        timeout: wanted.timeout,
        // IPv4 addresses are the last 32 of 128 bits.
        prefix_v4: wanted.prefix_v4.saturating_add(96),
        prefix_v6: wanted.prefix_v6,
        sticky_when_drained: wanted.sticky_when_drained,
    })
}
