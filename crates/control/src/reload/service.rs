//! What changes of services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Change, Kind};
use crate::desired::{Backend, FailurePolicy, Persistence, Service};

/// Adds what `wanted` changes of `running`.
pub(super) fn compare(changes: &mut Vec<Change>, running: &[Service], wanted: &[Service]) {
    let known: BTreeMap<&str, &Service> =
        running.iter().map(|service| (service.name.as_str(), service)).collect();
    let new: BTreeMap<&str, &Service> =
        wanted.iter().map(|service| (service.name.as_str(), service)).collect();
    let what = |service: &Service| format!("service {}", service.name);
    let renamed = renamed(running, wanted);
    let stays = |old: &Service| {
        new.contains_key(old.name.as_str()) || renamed.values().any(|from| *from == old.name)
    };
    for service in running.iter().filter(|service| !stays(service)) {
        let detail = "its connections end".to_owned();
        changes.push(Change { kind: Kind::Removed, what: what(service), detail });
    }
    for service in wanted {
        let name = renamed.get(&service.name).unwrap_or(&service.name);
        let Some(before) = known.get(name.as_str()).copied() else {
            let detail = format!("{}, {} backends", endpoint(service), service.backends.len());
            changes.push(Change { kind: Kind::Added, what: what(service), detail });
            continue;
        };
        let changed = |detail| Change { kind: Kind::Changed, what: what(service), detail };
        changes.extend(details(before, service).into_iter().map(changed));
    }
}

/// Services of a new name in the place of one that is gone, which are the same: their former names.
pub(crate) fn renamed<'a>(
    running: impl IntoIterator<Item = &'a Service>,
    wanted: &[Service],
) -> BTreeMap<String, String> {
    let new: BTreeSet<&str> = wanted.iter().map(|service| service.name.as_str()).collect();
    let (mut known, mut gone) = (BTreeSet::new(), BTreeMap::new());
    for service in running {
        known.insert(service.name.as_str());
        if !new.contains(service.name.as_str()) {
            gone.insert(service.endpoint(), service.name.as_str());
        }
    }
    let unknown = wanted.iter().filter(|service| !known.contains(service.name.as_str()));
    let found = unknown.filter_map(|service| Some((service, gone.get(&service.endpoint())?)));
    found.map(|(service, from)| (service.name.clone(), (*from).to_owned())).collect()
}

fn details(old: &Service, new: &Service) -> Vec<String> {
    let mut list = Vec::new();
    // Named one by one: a setting that is added here does not compile until it has its line.
    let Service {
        name,
        vrrp,
        vip: _,
        protocol: _,
        first_port: _,
        last_port: _,
        closed_ports,
        scheduler,
        hash,
        persistence,
        backends,
        health,
        failure,
    } = old;
    if *name != new.name {
        list.push(format!("was called {name}"));
    }
    if endpoint(old) != endpoint(new) {
        list.push(format!("{} -> {}: its connections end", endpoint(old), endpoint(new)));
    }
    if *vrrp != new.vrrp {
        let name = |vrrp: &Option<String>| vrrp.clone().unwrap_or_else(|| "none".to_owned());
        list.push(format!("vrrp {} -> {}", name(vrrp), name(&new.vrrp)));
    }
    if *scheduler != new.scheduler {
        list.push(format!("scheduler {scheduler} -> {}", new.scheduler));
    }
    if *hash != new.hash {
        list.push(format!("hash {} -> {}", old.hash_input(), new.hash_input()));
    }
    if *persistence != new.persistence {
        list.push(persistence_change(persistence.as_ref(), new.persistence.as_ref()));
    }
    backend_changes(&mut list, backends, &new.backends);
    if *health != new.health {
        let (before, after) = (health.len(), new.health.len());
        list.push(if before == after {
            "health checks".to_owned()
        } else {
            format!("health checks: {before} -> {after}")
        });
    }
    if *closed_ports != new.closed_ports {
        list.push("closed_ports".to_owned());
    }
    failure_changes(&mut list, failure, &new.failure);
    list
}

/// `tcp 192.0.2.10:80`.
fn endpoint(service: &Service) -> String {
    let Service { vip, protocol, first_port, last_port, .. } = service;
    let ports = match (first_port, last_port) {
        (0, &u16::MAX) => "any".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    if vip.is_ipv4() {
        format!("{} {vip}:{ports}", protocol.name())
    } else {
        format!("{} [{vip}]:{ports}", protocol.name())
    }
}

fn persistence_change(old: Option<&Persistence>, new: Option<&Persistence>) -> String {
    let time = |time: Duration| format!("{} s", time.as_secs_f64());
    match (old, new) {
        (None, Some(new)) => format!("persistence {}", time(new.timeout)),
        (Some(_), None) => "no persistence: its templates are forgotten".to_owned(),
        (Some(old), Some(new)) if old.timeout != new.timeout => {
            format!("persistence {} -> {}", time(old.timeout), time(new.timeout))
        }
        _ => "persistence".to_owned(),
    }
}

fn backend_changes(list: &mut Vec<String>, old: &[Backend], new: &[Backend]) {
    // By address, as their state is: another name is another name for the same.
    let find = |list: &[Backend], of: &Backend| {
        list.iter().find(|backend| backend.address == of.address).cloned()
    };
    for gone in old.iter().filter(|backend| find(new, backend).is_none()) {
        let Backend { name, address, .. } = gone;
        list.push(format!("- backend {name} {address} (drained: its connections go on)"));
    }
    for backend in new {
        // An operator's drain is no part of a file.
        let Backend { name, address, weight, check, drain: _ } = backend;
        match find(old, backend) {
            None => list.push(format!("+ backend {name} {address} (weight {weight})")),
            Some(before) => {
                if before.name != *name {
                    list.push(format!("backend {} is called {name}", before.name));
                }
                if before.weight != *weight {
                    list.push(format!("backend {name}: weight {} -> {weight}", before.weight));
                }
                if before.check != *check {
                    list.push(format!("backend {name}: what is checked"));
                }
            }
        }
    }
    let order = |list: &[Backend], other: &[Backend]| -> Vec<_> {
        let kept = list.iter().filter(|backend| find(other, backend).is_some());
        kept.map(|backend| backend.address).collect()
    };
    if order(old, new) != order(new, old) {
        list.push("order of the backends".to_owned());
    }
}

fn failure_changes(list: &mut Vec<String>, old: &FailurePolicy, new: &FailurePolicy) {
    let FailurePolicy {
        on_down,
        on_all_down,
        min_healthy,
        fallback,
        inhibit,
        slow_start,
        damping,
        notify,
    } = old;
    for (differs, key) in [
        (*on_down != new.on_down, "on_down"),
        (*on_all_down != new.on_all_down, "on_all_down"),
        (*min_healthy != new.min_healthy, "min_healthy"),
        (*fallback != new.fallback, "fallback"),
        (*inhibit != new.inhibit, "inhibit"),
        (*slow_start != new.slow_start, "slow_start"),
        (*damping != new.damping, "hold_down"),
        (*notify != new.notify, "notify"),
    ] {
        if differs {
            list.push(key.to_owned());
        }
    }
}
