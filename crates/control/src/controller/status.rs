//! What the controller tells an operator.

use std::net::IpAddr;

use dataplane::{BackendSlot, Mac, PortId, SchedulerKind, ServiceKey, ServiceSlot, Tick};

use super::Controller;
use crate::neighbour::Unusable;

/// A service and its backends.
#[derive(Clone, Debug)]
pub struct ServiceStatus<'a> {
    /// Name.
    pub name: &'a str,
    /// Slot; `None` while all are taken.
    pub slot: Option<ServiceSlot>,
    /// What it listens on.
    pub key: ServiceKey,
    /// Its scheduler.
    pub scheduler: SchedulerKind,
    /// Persistence timeout, if persistent.
    pub persistence: Option<std::time::Duration>,
    /// Its backends, as configured.
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
    /// Slot; `None` while all are taken.
    pub slot: Option<BackendSlot>,
    /// Its MAC and the port towards it, or why it is unusable.
    pub usable: Result<(PortId, Mac), Unusable>,
    /// Since when.
    pub since: Tick,
}

impl Controller {
    /// All services, as configured.
    pub fn services(&self) -> impl Iterator<Item = ServiceStatus<'_>> {
        self.desired.services.iter().map(|service| ServiceStatus {
            name: &service.name,
            slot: self.service_slots.slot(&service.name).map(ServiceSlot),
            key: super::build::key(service),
            scheduler: service.scheduler,
            persistence: service.persistence.map(|p| p.timeout),
            backends: service
                .backends
                .iter()
                .map(|backend| self.backend_status(&service.name, backend))
                .collect(),
        })
    }

    fn backend_status<'a>(
        &'a self,
        service: &str,
        backend: &'a crate::desired::Backend,
    ) -> BackendStatus<'a> {
        let key = (service.to_owned(), backend.address);
        let slot = self.backend_slots.slot(&key).map(BackendSlot);
        let state = self.states.get(&key);
        let usable = match (slot, state) {
            (None, Some(_)) => Err(Unusable::NoSlot),
            (_, Some(state)) => {
                state.usable.as_ref().map(|way| (way.port, way.mac)).map_err(Clone::clone)
            }
            (_, None) => Err(Unusable::Resolving),
        };
        BackendStatus {
            name: &backend.name,
            address: backend.address,
            weight: backend.weight,
            slot,
            usable,
            since: state.map_or_else(Tick::default, |state| state.since),
        }
    }
}
