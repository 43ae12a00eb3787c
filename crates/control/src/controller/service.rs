//! One service as it stands: which of its backends take new sources.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{InstanceSlot, Member, Service, ServiceSlot, Tick};

use super::STANDALONE;
use super::backend::{Role, Seat};
use super::last::{self, LastUp};
use super::quorum::{Quorum, Weights};
use super::ramp::STEPS;
use super::report::{ServiceChange, Takers};
use crate::desired::{self, OnAllDown};
use crate::health::Condition;

/// A service and its backends.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) wanted: desired::Service,
    pub(super) slot: Option<ServiceSlot>,
    pub(super) instance: InstanceSlot,
    /// Those of the configuration in its order, then the fallback, then those that leave.
    pub(super) seats: Vec<Seat>,
    pub(super) quorum: Quorum,
    /// As last worked out.
    pub(super) weights: Weights,
    pub(super) fallback_active: bool,
    /// Who took new sources when somebody last could.
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
    pub(super) members: Vec<Member>,
}

impl Running {
    pub(super) fn new(wanted: &desired::Service, now: Tick) -> Self {
        let seats =
            named(wanted).map(|(backend, role)| Seat::new(wanted, backend, role, false, now));
        Self {
            seats: seats.collect(),
            wanted: wanted.clone(),
            slot: None,
            instance: STANDALONE,
            quorum: Quorum::default(),
            weights: Weights::default(),
            fallback_active: false,
            last: LastUp::default(),
            next_step: None,
            built: None,
            dirty: true,
        }
    }

    /// Follows the configuration: backends keep what is known of them, and those that it does not
    /// name any more leave. `generation` is the first one in which they take no new sources.
    pub(super) fn follow(&mut self, wanted: &desired::Service, generation: u64, now: Tick) {
        let mut old = std::mem::take(&mut self.seats);
        for (backend, role) in named(wanted) {
            let known = old.iter().position(|seat| seat.wanted.address == backend.address);
            let seat = match known.map(|at| old.remove(at)) {
                Some(mut seat) => {
                    seat.follow(wanted, backend, role);
                    seat
                }
                None => Seat::new(wanted, backend, role, true, now),
            };
            self.seats.push(seat);
        }
        for mut seat in old {
            if !matches!(seat.role, Role::Leaving(_)) {
                seat.role = Role::Leaving(generation);
            }
            self.seats.push(seat);
        }
        self.wanted = wanted.clone();
        self.dirty = true;
    }

    /// Works out who takes new sources; returns the change of its quorum, if there is one.
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
        let sum = |counts: fn(&Seat) -> bool| {
            let seats = self.seats.iter().filter(|seat| seat.role == Role::Member);
            seats.filter(|seat| counts(seat)).map(|seat| seat.wanted.weight).sum()
        };
        Weights {
            healthy: sum(|seat| seat.state.serves()),
            undecided: sum(Seat::is_undecided),
            total: sum(|_| true),
        }
    }

    /// Marks the backends that are to take new sources.
    fn choose(&mut self, now: Tick) -> Takers {
        let seats = &mut self.seats;
        for seat in seats.iter_mut() {
            (seat.eligible, seat.kept) = (false, false);
        }
        // Suspicion is better than nobody.
        for condition in [Condition::Up, Condition::Suspected] {
            if !seats.iter().any(|seat| seat.eligible) {
                for seat in seats.iter_mut() {
                    seat.eligible = seat.can_take(condition);
                }
            }
        }
        let able = seats.iter().filter(|seat| seat.eligible).map(|seat| seat.wanted.address);
        let able: Vec<IpAddr> = able.collect();
        let fallback =
            seats.iter().position(|seat| seat.role == Role::Fallback && seat.way.is_ok());
        self.fallback_active = fallback.is_some() && self.quorum.is_lost();
        let somebody = !able.is_empty();
        self.last.note(&able, last::patience(&self.wanted.health), now);
        match fallback {
            Some(at) if self.fallback_active => {
                for (other, seat) in seats.iter_mut().enumerate() {
                    seat.eligible = other == at;
                }
                Takers::Fallback(seats[at].wanted.name.clone())
            }
            _ if somebody => Takers::Up,
            _ => self.choose_last(),
        }
    }

    /// Nobody is up.
    fn choose_last(&mut self) -> Takers {
        match self.wanted.failure.on_all_down {
            OnAllDown::Reject if self.rejects() => return Takers::Refused,
            OnAllDown::Reject => return Takers::Nobody,
            OnAllDown::KeepLast => {}
        }
        for seat in &mut self.seats {
            seat.kept =
                self.last.contains(seat.wanted.address) && seat.is_weighty() && seat.way.is_ok();
            seat.eligible = seat.kept;
        }
        if self.seats.iter().any(|seat| seat.kept) { Takers::Last } else { Takers::Nobody }
    }

    /// Whether clients are to be told that nobody can take them: not while somebody may turn out to
    /// be up in a moment.
    pub(super) fn rejects(&self) -> bool {
        self.wanted.failure.on_all_down == OnAllDown::Reject
            && !self.seats.iter().any(|seat| seat.eligible)
            && !self.seats.iter().any(|seat| seat.is_weighty() && seat.is_undecided())
    }

    /// The backends that take new sources, as the scheduler has to weigh them.
    pub(super) fn members(&mut self, now: Tick) -> Vec<Member> {
        let ramping = self.wanted.scheduler.weighs()
            && self.seats.iter_mut().any(|seat| seat.eligible && seat.is_ramping(now));
        let weight = |seat: &Seat| match seat.role {
            // Alone; its weight is in relation to nobody's.
            Role::Fallback => 1,
            Role::Member | Role::Leaving(_) if ramping => seat.scaled_weight(now),
            Role::Member | Role::Leaving(_) => seat.wanted.weight,
        };
        let eligible = self.seats.iter().filter(|seat| seat.eligible);
        eligible
            .filter_map(|seat| {
                let (slot, weight) = (seat.slot?, weight(seat));
                Some(Member { slot, address: seat.wanted.address.into(), weight })
            })
            .collect()
    }

    /// The share of new sources that a backend gets now, in units of its weight.
    pub(super) fn effective_weight(&self, seat: &Seat, now: Tick) -> f64 {
        match seat.role {
            _ if !seat.eligible => 0.0,
            Role::Member if self.wanted.scheduler.weighs() => {
                f64::from(seat.scaled_weight(now)) / f64::from(STEPS)
            }
            Role::Member | Role::Fallback | Role::Leaving(_) => f64::from(seat.wanted.weight),
        }
    }

    /// When a weight changes by itself.
    pub(super) fn step_after(&self, now: Tick) -> Option<Tick> {
        let seats = self.seats.iter().filter(|_| self.wanted.scheduler.weighs());
        seats.filter_map(|seat| seat.next_step(now)).min()
    }
}

/// The backends that a configuration names.
fn named(service: &desired::Service) -> impl Iterator<Item = (&desired::Backend, Role)> {
    let backends = service.backends.iter().map(|backend| (backend, Role::Member));
    backends.chain(service.failure.fallback.iter().map(|backend| (backend, Role::Fallback)))
}
