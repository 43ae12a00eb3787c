//! One service as it stands: which of its backends take new sources.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{Group, InstanceSlot, Member, Service, ServiceSlot, Tick};

use super::STANDALONE;
use super::backend::{BackendRuntime, Role};
use super::last::{self, LastUp};
use super::quorum::{Quorum, Weights};
use super::ramp::STEPS;
use super::report::{ServiceChange, Takers};
use crate::desired::{self, OnAllDown};
use crate::health::Condition;

/// A service and its backends.
#[derive(Debug)]
pub(super) struct ServiceRuntime {
    pub(super) wanted: desired::Service,
    pub(super) slot: Option<ServiceSlot>,
    pub(super) instance: InstanceSlot,
    /// The services that it shares its templates with, as last worked out.
    pub(super) group: Option<Arc<Group>>,
    /// The configured ones in their order, then the fallback, then leaving ones.
    pub(super) backends: Vec<BackendRuntime>,
    pub(super) quorum: Quorum,
    /// As last worked out.
    pub(super) weights: Weights,
    pub(super) fallback_active: bool,
    /// The backends that took new sources when any last could.
    last: LastUp,
    /// When a weight differs from the published one.
    pub(super) next_step: Option<Tick>,
    /// As published; reused while nothing of it changes.
    pub(super) built: Option<Built>,
    /// Something about it changed since it was published.
    pub(super) dirty: bool,
}

/// A service in the packet path's form.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) service: Arc<Service>,
    /// What connections without history are placed among.
    pub(super) configured: Vec<Member>,
    /// What new sources are spread over.
    pub(super) members: Vec<Member>,
}

impl ServiceRuntime {
    pub(super) fn new(wanted: &desired::Service, now: Tick) -> Self {
        let backends = named(wanted)
            .map(|(backend, role)| BackendRuntime::new(wanted, backend, role, false, now));
        Self {
            backends: backends.collect(),
            wanted: wanted.clone(),
            slot: None,
            instance: STANDALONE,
            group: None,
            quorum: Quorum::default(),
            weights: Weights::default(),
            fallback_active: false,
            last: LastUp::default(),
            next_step: None,
            built: None,
            dirty: true,
        }
    }

    /// Follows the configuration: backends keep what is known of them, and backends that it does not
    /// name any more leave. `generation` is the first one in which they take no new sources.
    pub(super) fn follow(&mut self, wanted: &desired::Service, generation: u64, now: Tick) {
        let mut old = std::mem::take(&mut self.backends);
        for (named, role) in named(wanted) {
            let known = old.iter().position(|backend| backend.wanted.address == named.address);
            let backend = match known.map(|at| old.remove(at)) {
                Some(mut backend) => {
                    backend.follow(wanted, named, role);
                    backend
                }
                None => BackendRuntime::new(wanted, named, role, true, now),
            };
            self.backends.push(backend);
        }
        for mut backend in old {
            if !matches!(backend.role, Role::Leaving(_)) {
                backend.role = Role::Leaving(generation);
            }
            self.backends.push(backend);
        }
        self.wanted = wanted.clone();
        self.dirty = true;
    }

    /// Works out which backends take new sources; returns the change of its quorum, if any.
    pub(super) fn settle(&mut self, now: Tick) -> Option<ServiceChange> {
        let first = !self.quorum.is_held() && !self.quorum.is_lost();
        self.weights = self.weigh();
        let changed = self.quorum.judge(self.wanted.failure.min_healthy, self.weights);
        let takers = self.choose(now);
        changed.map(|up| ServiceChange {
            service: self.wanted.name.clone(),
            up,
            first,
            healthy: self.weights.healthy,
            total: self.weights.total,
            takers,
        })
    }

    fn weigh(&self) -> Weights {
        let sum = |counts: fn(&BackendRuntime) -> bool| {
            let backends = self.backends.iter().filter(|backend| backend.role == Role::Member);
            backends.filter(|backend| counts(backend)).map(|backend| backend.wanted.weight).sum()
        };
        Weights {
            healthy: sum(|backend| backend.state.serves()),
            undecided: sum(BackendRuntime::is_undecided),
            total: sum(|_| true),
        }
    }

    /// Marks the backends that are to take new sources.
    fn choose(&mut self, now: Tick) -> Takers {
        let backends = &mut self.backends;
        for backend in backends.iter_mut() {
            (backend.eligible, backend.kept) = (false, false);
        }
        // A suspected backend is better than none.
        for condition in [Condition::Up, Condition::Suspected] {
            if !backends.iter().any(|backend| backend.eligible) {
                for backend in backends.iter_mut() {
                    backend.eligible = backend.can_take(condition);
                }
            }
        }
        let able = backends
            .iter()
            .filter(|backend| backend.eligible)
            .map(|backend| backend.wanted.address);
        let able: Vec<IpAddr> = able.collect();
        let fallback = backends
            .iter()
            .position(|backend| backend.role == Role::Fallback && backend.path.is_ok());
        self.fallback_active = fallback.is_some() && self.quorum.is_lost();
        let somebody = !able.is_empty();
        self.last.note(&able, last::patience(&self.wanted.health), now);
        match fallback {
            Some(at) if self.fallback_active => {
                for (other, backend) in backends.iter_mut().enumerate() {
                    backend.eligible = other == at;
                }
                Takers::Fallback(backends[at].wanted.name.clone())
            }
            _ if somebody => Takers::Up,
            _ => self.choose_last(),
        }
    }

    /// No backend is up.
    fn choose_last(&mut self) -> Takers {
        match self.wanted.failure.on_all_down {
            OnAllDown::Reject if self.rejects() => return Takers::Refused,
            OnAllDown::Reject => return Takers::None,
            OnAllDown::KeepLast => {}
        }
        for backend in &mut self.backends {
            backend.kept = self.last.contains(backend.wanted.address)
                && backend.is_weighty()
                && backend.path.is_ok();
            backend.eligible = backend.kept;
        }
        if self.backends.iter().any(|backend| backend.kept) { Takers::Last } else { Takers::None }
    }

    /// Whether clients are to be refused because no backend can take them: not while one may turn out to
    /// be up in a moment, and not because this node has no link.
    pub(super) fn rejects(&self) -> bool {
        self.wanted.failure.on_all_down == OnAllDown::Reject
            && !self.backends.iter().any(|backend| backend.eligible)
            && !self
                .backends
                .iter()
                .any(|backend| backend.is_weighty() && (backend.is_undecided() || backend.cut_off))
    }

    /// The backends that take new sources, as the scheduler has to weigh them.
    pub(super) fn members(&mut self, now: Tick) -> Vec<Member> {
        let ramping = self.wanted.scheduler.weighs()
            && self.backends.iter_mut().any(|backend| backend.eligible && backend.is_ramping(now));
        let weight = |backend: &BackendRuntime| match backend.role {
            // It is the only member.
            Role::Fallback => 1,
            Role::Member | Role::Leaving(_) if ramping => backend.scaled_weight(now),
            Role::Member | Role::Leaving(_) => backend.wanted.weight,
        };
        let eligible = self.backends.iter().filter(|backend| backend.eligible);
        eligible
            .filter_map(|backend| {
                let (slot, weight) = (backend.slot?, weight(backend));
                Some(Member { slot, address: backend.wanted.address.into(), weight })
            })
            .collect()
    }

    /// The backends of the configuration, with its weights, whatever their health.
    pub(super) fn configured(&self) -> Vec<Member> {
        let members = self.backends.iter().filter(|backend| backend.role == Role::Member);
        members
            .filter_map(|backend| {
                let address = backend.wanted.address.into();
                Some(Member { slot: backend.slot?, address, weight: backend.wanted.weight })
            })
            .collect()
    }

    /// The share of new sources that a backend gets now, in units of its weight.
    pub(super) fn effective_weight(&self, backend: &BackendRuntime, now: Tick) -> f64 {
        match backend.role {
            _ if !backend.eligible => 0.0,
            Role::Member if self.wanted.scheduler.weighs() => {
                f64::from(backend.scaled_weight(now)) / f64::from(STEPS)
            }
            Role::Member | Role::Fallback | Role::Leaving(_) => f64::from(backend.wanted.weight),
        }
    }

    /// When a weight changes by itself.
    pub(super) fn step_after(&self, now: Tick) -> Option<Tick> {
        let backends = self.backends.iter().filter(|_| self.wanted.scheduler.weighs());
        backends.filter_map(|backend| backend.next_step(now)).min()
    }
}

/// The backends that a configuration names.
fn named(service: &desired::Service) -> impl Iterator<Item = (&desired::Backend, Role)> {
    let backends = service.backends.iter().map(|backend| (backend, Role::Member));
    backends.chain(service.failure.fallback.iter().map(|backend| (backend, Role::Fallback)))
}
