//! Gathers what [`control::readiness`] judges.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use control::readiness::{
    self, BackendId, Facts, Family, InstanceFacts, InterfaceFacts, Lease, Missing, Standing,
    WorkerFacts,
};
use control::vrrp::StateName;
use control::{BackendState, STANDALONE, Unusable};
use dataplane::Tick;

use super::Node;
use super::devices::{Device, port_of};
use super::vrrp::Vrrp;
use super::vrrp_check::primary;
use crate::clock;

impl Node {
    /// What keeps this node from serving a client now.
    pub(super) fn unready(&self) -> Vec<Missing> {
        readiness::missing(&self.facts(clock::now()))
    }

    fn facts(&self, now: Tick) -> Facts {
        let backends = |state: BackendState| -> Vec<BackendId> {
            let services = self.controller.services();
            let found = services.flat_map(|service| {
                let (name, backends) = (service.name, service.backends);
                backends.into_iter().filter(move |backend| backend.state == state).map(
                    move |backend| BackendId {
                        service: name.to_owned(),
                        backend: backend.name.to_owned(),
                        address: backend.address,
                    },
                )
            });
            found.collect()
        };
        Facts {
            interfaces: self.devices.iter().map(|device| self.interface_facts(device)).collect(),
            workers: self.worker_facts(now),
            vrrp_silent: self
                .vrrp
                .as_ref()
                .map(|vrrp| now.saturating_since(vrrp.thread.last_beat())),
            unsteered: self.controller.unsteered().collect(),
            resolving: backends(BackendState::Resolving),
            unchecked: backends(BackendState::Checking),
            standalone: self.standalone(now),
            instances: self.vrrp.iter().flat_map(|vrrp| self.instance_facts(vrrp, now)).collect(),
        }
    }

    fn interface_facts(&self, device: &Device) -> InterfaceFacts {
        let unbound = |queue: &u32| !device.bound.contains(queue);
        InterfaceFacts {
            name: device.wanted.name.clone(),
            exists: device.link.is_some(),
            admin_up: device.admin_up,
            link: device.link.is_some_and(|link| link.up),
            refused: device.refused.clone(),
            trouble: self.trouble(device),
            unbound: device
                .queues_wanted()
                .into_iter()
                .filter(unbound)
                .map(|queue| (queue, device.failed.get(&queue).cloned()))
                .collect(),
            tentative: device.tentative.clone(),
            lacks: self.lacks(device),
        }
    }

    /// Why frames do not arrive as they were on the wire, or do not arrive or leave at all.
    fn trouble(&self, device: &Device) -> Vec<String> {
        let mut trouble: Vec<String> = device.trouble.iter().cloned().collect();
        trouble.extend(device.master.as_deref().map(port_of));
        if device.receive.is_blind() {
            trouble.push("the card receives frames and the XDP program sees none".to_owned());
        }
        if device.attached.is_some() && device.receive.is_doubtful() {
            trouble.push("the XDP program has seen no frame yet".to_owned());
        }
        if device.unbound.is_growing() {
            trouble.push("frames for active VIPs come in on queues without a socket".to_owned());
        }
        let workers = self.pool.iter().filter(|(id, _)| id.port == device.id);
        let stalled = workers.filter(|(_, handle)| handle.shared.is_stalled());
        trouble
            .extend(stalled.map(|(id, _)| format!("what queue {} sends does not leave", id.queue)));
        trouble
    }

    /// The families of which an interface has no address, although a backend is reached by none or an
    /// instance has nothing to send its adverts from.
    fn lacks(&self, device: &Device) -> BTreeSet<Family> {
        let Some(port) = self.controller.ports().get(device.id.index()) else {
            return BTreeSet::new();
        };
        let family = |address: IpAddr| if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let has = |wanted: Family| {
            let usable = port.networks.iter().map(|network| network.address);
            usable.chain(device.tentative.iter().copied()).any(|address| match address {
                IpAddr::V4(_) => wanted == Family::V4,
                IpAddr::V6(v6) => wanted == Family::V6 && !v6.is_unicast_link_local(),
            })
        };
        let services = self.controller.services().flat_map(|service| service.backends);
        let off_link = services
            .filter(|backend| backend.usable == Err(Unusable::OffLink))
            .map(|backend| family(backend.address))
            .filter(|family| !has(*family));
        let members = self.vrrp.iter().flat_map(|vrrp| vrrp.members.values());
        let mute = members
            .filter(|member| member.wanted.interface == device.wanted.name)
            .filter(|member| primary(&port.networks, &member.vips, member.wanted.source).is_none())
            .filter_map(|member| member.vips.first().copied().map(family));
        off_link.chain(mute).collect()
    }

    /// Of the workers of queues that should be served.
    fn worker_facts(&self, now: Tick) -> Vec<WorkerFacts> {
        let workers = self.pool.iter().filter_map(|(id, handle)| {
            let device = self.devices.get(id.port.index())?;
            device.queues_wanted().contains(&id.queue).then(|| WorkerFacts {
                interface: device.wanted.name.clone(),
                queue: id.queue,
                silent: now.saturating_since(handle.shared.last_beat()),
            })
        });
        workers.collect()
    }

    /// `None` where every VIP has a VRRP instance.
    fn standalone(&self, now: Tick) -> Option<Lease> {
        let mut services = self.controller.desired().services.iter();
        services.any(|service| service.vrrp.is_none()).then(|| self.lease(STANDALONE, now))
    }

    fn lease(&self, slot: dataplane::InstanceSlot, now: Tick) -> Lease {
        let leases = self.steer.leases();
        let until = leases.get(slot.index()).map_or(0, |lease| lease.load(Relaxed));
        if Tick::from_nanos(until) > now { Lease::Held } else { Lease::Ended }
    }

    fn instance_facts<'a>(
        &'a self,
        vrrp: &'a Vrrp,
        now: Tick,
    ) -> impl Iterator<Item = InstanceFacts> + use<'a> {
        let reports = vrrp.thread.reports();
        vrrp.members.iter().map(move |(at, member)| {
            let name = member.wanted.name.clone();
            let standing = match reports.get(*at).and_then(|report| report.status) {
                None => Standing::Waiting,
                Some(status) => match (status.state, status.block) {
                    (_, Some(block)) => Standing::Blocked(block.help().to_owned()),
                    (StateName::Initialize, None) => Standing::Waiting,
                    (StateName::Backup, None) => Standing::Backup,
                    (StateName::Active, None) => {
                        let slot = self.controller.instance_slot(&name);
                        Standing::Active(slot.map_or(Lease::Ended, |slot| self.lease(slot, now)))
                    }
                },
            };
            InstanceFacts { name, standing }
        })
    }
}
