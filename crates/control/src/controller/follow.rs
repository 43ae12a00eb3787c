//! Another configuration: services and backends that stay keep their slots and what is known of them.

use std::collections::BTreeMap;

use super::service::ServiceRuntime;
use super::{Controller, Due};
use crate::desired::{self, Desired};

impl Controller {
    pub(super) fn follow(&mut self, desired: Desired) {
        let generation = self.generation + 1;
        let mut old: BTreeMap<String, ServiceRuntime> = std::mem::take(&mut self.services)
            .into_iter()
            .map(|service| (service.wanted.name.clone(), service))
            .collect();
        for wanted in &desired.services {
            self.rename(&mut old, wanted, &desired);
            let service = match old.remove(&wanted.name) {
                Some(mut service) => {
                    service.follow(wanted, generation, self.now);
                    service
                }
                None => ServiceRuntime::new(wanted, self.now),
            };
            self.services.push(service);
        }
        self.desired = desired;
        self.assign_slots();
        self.judge_all(Due::Everything);
    }

    /// A service of a new name in the place of one that is gone is the same one.
    fn rename(
        &mut self,
        old: &mut BTreeMap<String, ServiceRuntime>,
        wanted: &desired::Service,
        desired: &Desired,
    ) {
        let gone = |name: &String| desired.services.iter().all(|service| service.name != *name);
        let same = old
            .iter()
            .find(|(name, service)| gone(name) && service.wanted.endpoint() == wanted.endpoint());
        let Some(from) =
            same.map(|(name, _)| name.clone()).filter(|_| !old.contains_key(&wanted.name))
        else {
            return;
        };
        let Some(service) = old.remove(&from) else { return };
        self.service_slots.rename(&from, wanted.name.clone());
        for backend in &service.backends {
            let address = backend.wanted.address;
            self.backend_slots.rename(&(from.clone(), address), (wanted.name.clone(), address));
        }
        old.insert(wanted.name.clone(), service);
    }
}
