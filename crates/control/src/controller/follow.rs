//! Another configuration: services and backends that stay keep their slots and what is known of them.

use std::collections::BTreeMap;

use super::service::ServiceRuntime;
use super::{Controller, Due};
use crate::desired::Desired;
use crate::reload::renamed;

impl Controller {
    pub(super) fn follow(&mut self, desired: Desired) {
        let generation = self.generation + 1;
        let mut old: BTreeMap<String, ServiceRuntime> = std::mem::take(&mut self.services)
            .into_iter()
            .map(|service| (service.wanted.name.clone(), service))
            .collect();
        let running = old.values().map(|service| &service.wanted);
        for (to, from) in renamed(running, &desired.services) {
            self.rename(&mut old, &from, &to);
        }
        for wanted in &desired.services {
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

    /// A service has another name from now on.
    fn rename(&mut self, old: &mut BTreeMap<String, ServiceRuntime>, from: &str, to: &str) {
        let Some(service) = old.remove(from) else { return };
        let (from, to) = (from.to_owned(), to.to_owned());
        self.service_slots.rename(&from, to.clone());
        for backend in &service.backends {
            let address = backend.wanted.address;
            self.backend_slots.rename(&(from.clone(), address), (to.clone(), address));
        }
        old.insert(to, service);
    }
}
