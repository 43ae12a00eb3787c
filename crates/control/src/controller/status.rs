//! What the controller reports to an operator.

use std::net::IpAddr;

use dataplane::{
    BackendSlot, HashInput, Mac, PortId, SchedulerKind, ServiceKey, ServiceSlot, Tick,
};

use super::Controller;
use super::backend::{BackendRuntime, Role};
use super::report::BackendState;
use super::service::ServiceRuntime;
use crate::neighbour::Unusable;

/// A service and its backends.
#[derive(Clone, Debug)]
pub struct ServiceStatus<'a> {
    /// Name.
    pub name: &'a str,
    /// Slot; `None` while all are taken.
    pub slot: Option<ServiceSlot>,
    /// Under which slot its templates are kept: its own, or that of its group.
    pub templates: Option<ServiceSlot>,
    /// What it listens on.
    pub key: ServiceKey,
    /// The VRRP instance of its VIP, if any.
    pub vrrp: Option<&'a str>,
    /// Its scheduler.
    pub scheduler: SchedulerKind,
    /// Persistence timeout, if persistent.
    pub persistence: Option<std::time::Duration>,
    /// Bits of a source's address that its templates tell apart, in the family of the VIP; if persistent.
    pub persistence_prefix: Option<u8>,
    /// The group that it shares its templates with, if any.
    pub group: Option<&'a str>,
    /// What its scheduler's hash is of, if that is how it chooses.
    pub hash: Option<HashInput>,
    /// Whether enough of it is up (`min_healthy`).
    pub quorum: bool,
    /// Sum of the weights of backends that are up or suspected.
    pub healthy_weight: u32,
    /// Sum of all weights.
    pub total_weight: u32,
    /// Whether the fallback takes new sources.
    pub fallback_active: bool,
    /// Its backends, as configured; then its fallback, then the ones removed from the
    /// configuration and still have flows.
    pub backends: Vec<BackendStatus<'a>>,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct BackendStatus<'a> {
    /// Name.
    pub name: &'a str,
    /// Address.
    pub address: IpAddr,
    /// Configured weight.
    pub weight: u32,
    /// Weight that counts for new sources now: 0 while it takes none, less than `weight` during
    /// slow start.
    pub effective_weight: f64,
    /// Whether it is the fallback.
    pub fallback: bool,
    /// Slot; `None` while all are taken.
    pub slot: Option<BackendSlot>,
    /// What templates call it: its slot, or in a group that of the member that it is.
    pub named: Option<BackendSlot>,
    /// Its MAC and the port towards it, or why it cannot be reached.
    pub usable: Result<(PortId, Mac), Unusable>,
    /// Its state.
    pub state: BackendState,
    /// Why; empty where there is nothing to say.
    pub why: &'a str,
    /// Since when.
    pub since: Tick,
    /// How often it came to carry flows, or ceased to.
    pub transitions: u64,
}

impl Controller {
    /// All services, as configured.
    pub fn services(&self) -> impl Iterator<Item = ServiceStatus<'_>> {
        self.services.iter().map(|service| self.service_status(service))
    }

    /// Whether each service has its quorum, by name.
    pub fn quorums(&self) -> impl Iterator<Item = (&str, bool)> {
        let services = self.services.iter();
        services.map(|service| (service.wanted.name.as_str(), service.quorum.is_held()))
    }

    fn service_status<'a>(&'a self, service: &'a ServiceRuntime) -> ServiceStatus<'a> {
        let wanted = &service.wanted;
        let backends = service.backends.iter().map(|backend| self.backend_status(service, backend));
        ServiceStatus {
            name: &wanted.name,
            slot: service.slot,
            templates: service.group.as_ref().map(|group| group.slot).or(service.slot),
            key: super::build::service_key(wanted),
            vrrp: wanted.vrrp.as_deref(),
            scheduler: wanted.scheduler,
            persistence: wanted.persistence.as_ref().map(|p| p.timeout),
            persistence_prefix: wanted.persistence.as_ref().map(|persistence| {
                if wanted.vip.is_ipv4() { persistence.prefix_v4 } else { persistence.prefix_v6 }
            }),
            group: wanted.group(),
            hash: wanted.scheduler.hashes().then(|| wanted.hash_input()),
            quorum: service.quorum.is_held(),
            healthy_weight: service.weights.healthy,
            total_weight: service.weights.total,
            fallback_active: service.fallback_active,
            backends: backends.collect(),
        }
    }

    fn backend_status<'a>(
        &'a self,
        service: &ServiceRuntime,
        backend: &'a BackendRuntime,
    ) -> BackendStatus<'a> {
        BackendStatus {
            name: &backend.wanted.name,
            address: backend.wanted.address,
            weight: backend.wanted.weight,
            effective_weight: service.effective_weight(backend, self.now),
            fallback: backend.role == Role::Fallback,
            slot: backend.slot,
            named: match &service.group {
                Some(group) => backend.slot.and_then(|slot| group.member(slot)),
                None => backend.slot,
            },
            usable: backend.path.as_ref().map(|path| (path.port, path.mac)).map_err(Clone::clone),
            state: backend.state,
            why: &backend.why,
            since: backend.since,
            transitions: backend.transitions,
        }
    }
}
