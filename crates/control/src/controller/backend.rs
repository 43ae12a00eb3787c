//! One backend of a service as it stands: reachable or not, healthy or not, and since when.

use std::time::Duration;

use dataplane::{BackendSlot, Suspicion, Tick, UnusableAction};

use super::ramp::{Ramp, STEPS};
use super::reach::{FIRST_PATIENCE, LINK_PATIENCE, Path};
use super::report::{BackendChange, BackendState};
use crate::desired::{self, FailurePolicy, OnDown};
use crate::health::{self, Condition, Transition};
use crate::neighbour::Unusable;

/// A backend of one service.
#[derive(Clone, Debug)]
pub(super) struct BackendRuntime {
    pub(super) wanted: desired::Backend,
    pub(super) role: Role,
    /// `None` while all are taken.
    pub(super) slot: Option<BackendSlot>,
    /// How to reach it, or why it cannot be.
    pub(super) path: Result<Path, Unusable>,
    health: Health,
    /// Whether it ever took clients.
    was_up: bool,
    /// Whether this node had no link to it, as last worked out.
    pub(super) cut_off: bool,
    /// Whether its service had backends before it: then it must not get its full share at once.
    late: bool,
    ramp: Option<Ramp>,
    pub(super) state: BackendState,
    /// The state that was reported last.
    told: BackendState,
    /// How long its checks took to find that state, if they did.
    took: Option<Duration>,
    /// Why it is in that state; empty where there is nothing to say.
    pub(super) why: String,
    /// Since when.
    pub(super) since: Tick,
    /// How often it came to carry flows, or ceased to.
    pub(super) transitions: u64,
    /// Whether it is to take new sources, as last worked out.
    pub(super) eligible: bool,
    /// Whether it stays although it is down (`keep-last`).
    pub(super) kept: bool,
}

/// What a backend is to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// One of its `[[service.backend]]`.
    Member,
    /// Its `fallback`.
    Fallback,
    /// Removed from the configuration; its flows go on. It may go when the workers acknowledged
    /// this generation, the first one in which it takes no new sources.
    Leaving(u64),
}

/// What its checks say.
#[derive(Clone, Debug)]
struct Health {
    condition: Condition,
    /// Whether a check has said so, or no check is configured.
    known: bool,
    /// Whether nothing but unanswered SYNs speaks against it.
    unanswered_only: bool,
    why: String,
}

impl Health {
    fn new(service: &desired::Service, role: Role) -> Self {
        let checked = role == Role::Member && !service.health.is_empty();
        let starts_up = service.health.iter().all(|check| check.starts_up);
        let condition = if checked && !starts_up { Condition::Down } else { Condition::Up };
        Self { condition, known: !checked, unanswered_only: false, why: String::new() }
    }
}

impl BackendRuntime {
    /// A backend that was not there before; `late`: others of its service were.
    pub(super) fn new(
        service: &desired::Service,
        wanted: &desired::Backend,
        role: Role,
        late: bool,
        now: Tick,
    ) -> Self {
        Self {
            wanted: wanted.clone(),
            role,
            slot: None,
            path: Err(Unusable::Resolving),
            health: Health::new(service, role),
            was_up: false,
            cut_off: false,
            late,
            ramp: None,
            state: BackendState::Resolving,
            told: BackendState::Resolving,
            took: None,
            why: String::new(),
            since: now,
            transitions: 0,
            eligible: false,
            kept: false,
        }
    }

    /// Follows the configuration. What its checks said stays true until they say otherwise.
    pub(super) fn follow(
        &mut self,
        service: &desired::Service,
        wanted: &desired::Backend,
        role: Role,
    ) {
        self.wanted.clone_from(wanted);
        self.role = role;
        if role == Role::Fallback || service.health.is_empty() {
            self.health = Health::new(service, role);
        }
    }

    /// What the checks say now.
    pub(super) fn hear(&mut self, transition: &Transition) {
        self.health = Health {
            condition: transition.to.condition(),
            known: transition.to != health::State::Checking,
            unanswered_only: transition.reason.is_unanswered_only(),
            why: transition.reason.to_string(),
        };
    }

    /// Works its state out anew. `took`: how long its checks took, if they are the reason.
    pub(super) fn judge(&mut self, service: &desired::Service, took: Option<Duration>, now: Tick) {
        let (state, why) = self.state_now();
        if state == BackendState::Up && !self.state.serves() {
            let grows = self.was_up || self.late;
            self.ramp = Ramp::start(service.failure.slow_start, now).filter(|_| grows);
        }
        if !state.serves() {
            self.ramp = None;
        }
        self.was_up |= state == BackendState::Up;
        self.why = why;
        let before = std::mem::replace(&mut self.state, state);
        let cut_off = matches!(self.path, Err(Unusable::LinkDown(_)));
        let was_cut_off = std::mem::replace(&mut self.cut_off, cut_off);
        if before != state {
            // What the node's own link does is not the backend's.
            let own = cut_off || was_cut_off;
            self.transitions += u64::from(!own && before.serves() != state.serves());
            self.since = now;
            self.took = took;
        }
    }

    /// What changed since this was last asked.
    pub(super) fn change(&mut self, service: &str) -> Option<BackendChange> {
        let from = std::mem::replace(&mut self.told, self.state);
        (from != self.state).then(|| BackendChange {
            service: service.to_owned(),
            backend: self.wanted.name.clone(),
            from: match (from, self.state) {
                (BackendState::Suspected, BackendState::Down) => BackendState::Up,
                (from, _) => from,
            },
            to: self.state,
            took: self.took,
            why: self.why.clone(),
        })
    }

    fn state_now(&self) -> (BackendState, String) {
        let Health { condition, known, why, .. } = &self.health;
        if matches!(self.role, Role::Leaving(_)) {
            return (BackendState::Draining, "removed from the configuration".to_owned());
        }
        match (condition, &self.path) {
            (Condition::Down, _) if *known => (BackendState::Down, why.clone()),
            (_, Err(Unusable::Resolving)) => {
                (BackendState::Resolving, Unusable::Resolving.to_string())
            }
            (_, Err(unusable)) => (BackendState::Down, unusable.to_string()),
            (Condition::Down, Ok(_)) => (BackendState::Checking, "not checked yet".to_owned()),
            (Condition::Suspected, Ok(_)) => (BackendState::Suspected, why.clone()),
            (Condition::Up, Ok(_)) if self.is_ended() => {
                (BackendState::Draining, "drained, and its connections reset".to_owned())
            }
            (Condition::Up, Ok(_)) if self.wanted.weight == 0 => {
                (BackendState::Draining, "weight 0".to_owned())
            }
            (Condition::Up, Ok(_)) => (BackendState::Up, why.clone()),
        }
    }

    /// For how long it stays what it was when the link towards it is lost.
    pub(super) fn patience(&self) -> Duration {
        if self.was_up { LINK_PATIENCE } else { FIRST_PATIENCE }
    }

    /// Whether it can take new sources in this condition.
    pub(super) fn can_take(&self, condition: Condition) -> bool {
        self.is_weighty() && self.path.is_ok() && self.health.condition == condition
    }

    /// Whether it counts for its service.
    pub(super) fn is_weighty(&self) -> bool {
        self.role == Role::Member && self.wanted.weight > 0
    }

    /// Whether it is too early to say whether it is up.
    pub(super) fn is_undecided(&self) -> bool {
        let unchecked = self.health.condition == Condition::Down && !self.health.known;
        match &self.path {
            Ok(_) => unchecked,
            Err(Unusable::Resolving) => unchecked || self.health.condition != Condition::Down,
            Err(_) => false,
        }
    }

    /// Whether frames may be sent to it.
    pub(super) fn is_usable(&self, policy: &FailurePolicy) -> bool {
        let stays = self.kept || policy.inhibit || policy.on_down == OnDown::Keep;
        let up = self.health.condition != Condition::Down || stays;
        self.path.is_ok() && up && !self.is_ended()
    }

    /// Whether an operator's drain has reached its deadline.
    fn is_ended(&self) -> bool {
        self.wanted.drain.is_some_and(|drain| drain.ended)
    }

    /// Whether its own clients come back to it although it takes no new sources: an operator said so.
    pub(super) fn keeps_clients(&self) -> bool {
        self.wanted.drain.is_some_and(|drain| drain.keep_sticky)
    }

    /// Whether its own clients, too, are to connect elsewhere, although it is usable.
    pub(super) fn is_shunned(&self, policy: &FailurePolicy) -> bool {
        // The sorry server's clients, too, when it is not needed any more.
        let leaves = self.role != Role::Member;
        let unwell = match self.health.condition {
            Condition::Up => false,
            Condition::Suspected => true,
            // `inhibit` is like weight 0.
            Condition::Down => !policy.inhibit,
        };
        (leaves || unwell) && !self.eligible && self.is_usable(policy)
    }

    /// What makes it suspected, if nothing else keeps new connections away.
    pub(super) fn suspicion(&self) -> Suspicion {
        match self.health.unanswered_only {
            _ if self.eligible || !self.can_take(Condition::Suspected) => Suspicion::None,
            true => Suspicion::Syns,
            false => Suspicion::Checks,
        }
    }

    /// What becomes of its flows while it is not usable.
    pub(super) fn when_unusable(&self, policy: &FailurePolicy) -> UnusableAction {
        // Any other trouble with the way is this node's own, or over in a moment.
        let silent = self.path == Err(Unusable::NoAnswer);
        let down = silent || self.health.condition == Condition::Down;
        if self.is_ended() && self.was_up {
            return UnusableAction::Reset;
        }
        match policy.on_down {
            // One that was never up has no flows that would be lost.
            _ if !down || !self.was_up || policy.inhibit => UnusableAction::Unreachable,
            OnDown::Reset => UnusableAction::Reset,
            OnDown::Drop => UnusableAction::Discard,
            OnDown::Keep => UnusableAction::Unreachable,
        }
    }

    /// Its weight among members of which one at least is on its way to its full weight.
    pub(super) fn scaled_weight(&self, now: Tick) -> u32 {
        let share = self.ramp.map_or(STEPS, |ramp| ramp.share(now));
        self.wanted.weight.saturating_mul(share)
    }

    /// When its weight changes next.
    pub(super) fn next_step(&self, now: Tick) -> Option<Tick> {
        self.ramp.and_then(|ramp| ramp.next(now))
    }

    /// Whether its weight is on its way up. One that has arrived is forgotten.
    pub(super) fn is_ramping(&mut self, now: Tick) -> bool {
        self.ramp = self.ramp.filter(|ramp| ramp.share(now) < STEPS);
        self.ramp.is_some()
    }
}
