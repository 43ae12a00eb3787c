//! What slots stand for.

use std::net::IpAddr;

use dataplane::{BackendSlot, ServiceSlot};

/// Names of slots, as they were when it was made.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By slot of a backend, or of a group's member.
    backends: Vec<Named>,
    owners: Vec<(ServiceSlot, String)>,
    /// Of services.
    slots: Vec<(ServiceSlot, String)>,
    /// By service name: the owner of its templates.
    services: Vec<(String, Option<ServiceSlot>)>,
}

/// A backend of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The service's name, or that of its group for what templates name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// Its address; `None`: no configuration has it any more.
    pub address: Option<IpAddr>,
}

static UNKNOWN: Named = Named { service: String::new(), backend: String::new(), address: None };

impl Names {
    /// Those of a node's services.
    pub fn new<'a>(services: impl Iterator<Item = control::ServiceStatus<'a>>) -> Self {
        let mut names = Self::default();
        for service in services {
            names.services.push((service.name.to_owned(), service.templates));
            names.slots.extend(service.slot.map(|slot| (slot, service.name.to_owned())));
            let owner = service.group.unwrap_or(service.name);
            names.owners.extend(service.templates.map(|slot| (slot, owner.to_owned())));
            for backend in &service.backends {
                let named = |service: &str| Named {
                    service: service.to_owned(),
                    backend: backend.name.to_owned(),
                    address: Some(backend.address),
                };
                if let Some(member) = backend.named {
                    names.put(member, named(owner));
                }
                if let Some(slot) = backend.slot {
                    names.put(slot, named(service.name));
                }
            }
        }
        names
    }

    fn put(&mut self, slot: BackendSlot, named: Named) {
        if self.backends.len() <= slot.index() {
            self.backends.resize_with(slot.index() + 1, Named::default);
        }
        if let Some(place) = self.backends.get_mut(slot.index()) {
            *place = named;
        }
    }

    #[cfg(test)]
    pub(super) fn insert(&mut self, owner: ServiceSlot, slot: BackendSlot, named: Named) {
        if !self.has_service(&named.service) {
            self.services.push((named.service.clone(), Some(owner)));
            self.owners.push((owner, named.service.clone()));
        }
        self.put(slot, named);
    }

    /// The backend that a slot stands for; empty names if there is none.
    pub fn of(&self, slot: BackendSlot) -> &Named {
        self.backends.get(slot.index()).unwrap_or(&UNKNOWN)
    }

    /// The service of a slot.
    pub fn service(&self, slot: ServiceSlot) -> Option<&str> {
        self.slots.iter().find(|(known, _)| *known == slot).map(|(_, name)| name.as_str())
    }

    /// The service or group whose templates are kept under a slot; empty if there is none.
    pub fn owner(&self, slot: ServiceSlot) -> &str {
        self.owners.iter().find(|(owner, _)| *owner == slot).map_or("", |(_, name)| name)
    }

    /// Under which slot the templates of a service, or of a group of this name, are kept.
    ///
    /// # Errors
    /// There is no such service; a sentence.
    pub(super) fn templates_of(&self, name: &str) -> Result<Option<ServiceSlot>, String> {
        let service = self.services.iter().find(|(service, _)| service == name);
        let group = || self.owners.iter().find(|(_, owner)| owner == name);
        match (service, group()) {
            (Some((_, slot)), _) => Ok(*slot),
            (None, Some((slot, _))) => Ok(Some(*slot)),
            (None, None) => Err(self.no_service(name)),
        }
    }

    /// The slots of which `meant` is true, as a table by slot.
    pub(super) fn slots(&self, meant: impl Fn(&Named) -> bool) -> Vec<bool> {
        self.backends.iter().map(|named| named.address.is_some() && meant(named)).collect()
    }

    pub(super) fn has_service(&self, name: &str) -> bool {
        self.services.iter().any(|(service, _)| service == name)
    }

    pub(super) fn no_service(&self, name: &str) -> String {
        let known: Vec<&str> = self.services.iter().map(|(name, _)| name.as_str()).collect();
        format!("there is no service `{name}`; there are: {}", known.join(", "))
    }
}
