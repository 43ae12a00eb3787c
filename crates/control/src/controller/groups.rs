//! Services that share their templates: what their backends are called there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane::{BackendSlot, Group, MAX_BACKENDS, MAX_SERVICES, ServiceSlot};

use super::{Controller, slots};

impl Controller {
    /// Gives slots to groups and their members, retires those of what is gone, gives each service
    /// of its group. Backends have their slots by now.
    pub(super) fn assign_groups(&mut self, generation: u64) {
        let Self { services, group_slots, member_slots, .. } = self;
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for service in services.iter() {
            let Some(group) = service.wanted.group() else { continue };
            let names = service.backends.iter().map(|backend| backend.wanted.name.clone());
            wanted.entry(group.to_owned()).or_default().extend(names);
        }
        group_slots.retain(generation, |name| wanted.contains_key(name));
        member_slots.retain(generation, |(group, name)| {
            wanted.get(group).is_some_and(|members| members.contains(name))
        });
        let mut groups = BTreeMap::new();
        for name in wanted.keys() {
            let Some(slot) = group_slots.claim(name) else { continue };
            let of_group = services.iter().filter(|service| service.wanted.group() == Some(name));
            let pairs = of_group.flat_map(|service| &service.backends).filter_map(|backend| {
                let key = (name.clone(), backend.wanted.name.clone());
                let member = BackendSlot(slots(MAX_BACKENDS) + member_slots.claim(&key)?);
                Some((backend.slot?, member))
            });
            let group = Group::new(ServiceSlot(slots(MAX_SERVICES) + slot), pairs);
            groups.insert(name.as_str(), Arc::new(group));
        }
        for service in services {
            let group = service.wanted.group().and_then(|name| groups.get(name));
            if service.group.as_ref() != group {
                let group = group.cloned();
                (service.group, service.dirty) = (group, true);
            }
        }
    }
}
