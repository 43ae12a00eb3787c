//! What an operator changed by command, on top of the configuration: weights, and backends that take
//! no new sources. It outlives reloads, and restarts where the caller keeps it.

use std::collections::BTreeMap;

use dataplane::Tick;

use crate::desired::{self, Desired};

/// The changes in force, by service and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<(String, String), Override>);

/// A change of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// It takes no new sources; connections go on.
    Drained(Drain),
    /// It has this weight instead of the configured one.
    Weight(u32),
}

/// How a backend is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Its connections are reset then. `None`: they end by themselves.
    pub deadline: Option<Tick>,
    /// Its own clients still come back to it.
    pub keep_sticky: bool,
    /// The deadline has passed.
    pub ended: bool,
}

impl Overrides {
    /// Changes the backends that `target` means: `service/backend`, a backend's name (in every service
    /// that has it), or a service's name (all its backends). `None` takes their changes back. Returns
    /// them as `service/backend`; empty: it means none.
    pub fn set(
        &mut self,
        desired: &Desired,
        target: &str,
        change: Option<Override>,
    ) -> Vec<String> {
        let found = meant(desired, target);
        for (service, backend) in &found {
            let key = (service.clone(), backend.clone());
            match change {
                Some(change) => drop(self.0.insert(key, change)),
                None => drop(self.0.remove(&key)),
            }
        }
        found.into_iter().map(|(service, backend)| format!("{service}/{backend}")).collect()
    }

    /// The change of a backend, if there is one.
    pub fn of(&self, service: &str, backend: &str) -> Option<Override> {
        self.0.get(&(service.to_owned(), backend.to_owned())).copied()
    }

    /// All of them, by service and backend.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Override)> {
        self.0.iter().map(|((service, backend), change)| (&**service, &**backend, *change))
    }

    /// The drains whose deadline has passed since this was last asked, as `service/backend`.
    pub fn expire(&mut self, now: Tick) -> Vec<String> {
        let mut ended = Vec::new();
        for ((service, backend), change) in &mut self.0 {
            if let Override::Drained(drain) = change
                && !drain.ended
                && drain.deadline.is_some_and(|deadline| deadline <= now)
            {
                drain.ended = true;
                ended.push(format!("{service}/{backend}"));
            }
        }
        ended
    }

    /// The configuration with the changes in it.
    pub fn apply(&self, desired: &Desired) -> Desired {
        let mut changed = desired.clone();
        for service in &mut changed.services {
            for backend in &mut service.backends {
                match self.of(&service.name, &backend.name) {
                    Some(Override::Drained(Drain { keep_sticky, ended, .. })) => {
                        backend.weight = 0;
                        backend.drain = Some(desired::Drain { keep_sticky, ended });
                    }
                    Some(Override::Weight(weight)) => backend.weight = weight,
                    None => {}
                }
            }
        }
        changed
    }

    /// Forgets the changes of backends that a configuration does not name.
    pub fn retain(&mut self, desired: &Desired) {
        self.0.retain(|(service, backend), _| {
            let mut services = desired.services.iter().filter(|known| known.name == *service);
            services.any(|known| known.backends.iter().any(|known| known.name == *backend))
        });
    }
}

impl<'a> FromIterator<(&'a str, &'a str, Override)> for Overrides {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str, Override)>>(changes: I) -> Self {
        let named = |(service, backend, change): (&str, &str, _)| {
            ((service.to_owned(), backend.to_owned()), change)
        };
        Self(changes.into_iter().map(named).collect())
    }
}

/// The most exact meaning: one backend of one service, else a backend's name, else a service's.
fn meant(desired: &Desired, target: &str) -> Vec<(String, String)> {
    let pairs = desired.services.iter().flat_map(|service| {
        let backends = service.backends.iter();
        backends.map(|backend| (service.name.clone(), backend.name.clone()))
    });
    let [mut exact, mut by_backend, mut by_service] = [const { Vec::new() }; 3];
    for pair in pairs {
        if format!("{}/{}", pair.0, pair.1) == target {
            exact.push(pair);
        } else if pair.1 == target {
            by_backend.push(pair);
        } else if pair.0 == target {
            by_service.push(pair);
        }
    }
    // In a service with a backend of its own name, the name is the backend's.
    let meanings = [exact, by_backend, by_service];
    meanings.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
