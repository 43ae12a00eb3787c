//! What the checks of a backend amount to for one service.

use std::time::Duration;

use dataplane::Tick;

use super::action::{Reason, State, Transition};
use super::asked::Asked;
use super::check;
use super::checker::Checker;
use super::dampener::Dampener;
use super::hold_off::HoldOff;
use super::report::Report;
use crate::desired::Damping;

/// One service's view of a backend. The checks are given with each call: other services may have
/// them as well.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    /// Places of its checks, in its own order.
    checks: Vec<usize>,
    /// What they are called in status, logs and metrics.
    labels: Vec<String>,
    dampener: Dampener,
    /// How often handshakes may trigger checks.
    triggers: HoldOff,
    /// A trigger was let through and is not decided.
    triggered: bool,
    state: State,
    since: Tick,
    /// All checks passed before the hold was over.
    held_back: bool,
    suspicions: u64,
    triggers_ignored: u64,
}

impl Judge {
    pub(super) fn new(asked: &[Asked], damping: Damping, now: Tick) -> Self {
        let up = asked.iter().all(|asked| asked.check.starts_up);
        Self {
            checks: Vec::new(),
            labels: Vec::new(),
            dampener: Dampener::new(damping, now),
            triggers: HoldOff::new(SHORTEST_HOLD_OFF, LONGEST_HOLD_OFF),
            triggered: false,
            state: if up { State::Up } else { State::Checking },
            since: now,
            held_back: false,
            suspicions: 0,
            triggers_ignored: 0,
        }
    }

    /// Takes other checks, which have these places.
    pub(super) fn reconfigure(
        &mut self,
        asked: &[Asked],
        checks: Vec<usize>,
        damping: Damping,
        now: Tick,
    ) {
        self.labels = check::labels(asked.iter().map(Asked::label));
        self.checks = checks;
        self.dampener.reconfigure(damping, now);
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) const fn since(&self) -> Tick {
        self.since
    }

    /// Places of its checks.
    pub(super) fn checks(&self) -> &[usize] {
        &self.checks
    }

    /// Whether a check that it gets is taken for up before its first result.
    pub(super) const fn assumes_up(&self, starts_up: bool) -> bool {
        match self.state {
            State::Up | State::Suspected => true,
            State::Down => false,
            State::Checking => starts_up,
        }
    }

    /// When a hold ends that is all that keeps it down.
    pub(super) fn released_at(&self, all: &[Checker]) -> Option<Tick> {
        let hold = self.dampener.held_until();
        hold.filter(|_| self.state == State::Down && self.is_sound(all))
    }

    /// Whether a trigger is let through now.
    pub(super) fn lets_through(&mut self, all: &[Checker], now: Tick) -> bool {
        let decidable = self.mine(all).any(|checker| checker.verdict().is_up());
        if self.state != State::Up || !decidable {
            return false;
        }
        if self.triggers.hint(now).is_some() {
            self.triggers_ignored += 1;
            return false;
        }
        self.triggered = true;
        true
    }

    /// Ends a hold-down that is all that keeps it down; whether there is one.
    pub(super) fn release(&mut self, now: Tick) -> bool {
        if self.held_back {
            self.dampener.release(now);
        }
        self.held_back
    }

    /// Brings the state in line with the checks.
    pub(super) fn settle(
        &mut self,
        all: &[Checker],
        reconfigured: bool,
        now: Tick,
    ) -> Option<Transition> {
        let state = self.assess(all, now);
        if self.triggered && !self.mine(all).any(Checker::is_triggered) {
            self.triggered = false;
            if state == State::Down {
                self.triggers.confirmed();
            } else {
                self.triggers.refuted(now);
            }
        }
        (state != self.state).then(|| self.transition(all, state, reconfigured, now))
    }

    pub(super) fn report(&self, all: &[Checker], now: Tick) -> Report {
        let places = self.checks.iter().zip(&self.labels);
        let checks =
            places.filter_map(|(place, label)| Some(all.get(*place)?.report(*place, label)));
        Report {
            state: self.state,
            since: self.since,
            held_down_until: self.dampener.held_until().filter(|until| now < *until),
            suspicions: self.suspicions,
            triggers_ignored: self.triggers_ignored,
            checks: checks.collect(),
        }
    }

    fn mine<'a>(&'a self, all: &'a [Checker]) -> impl Iterator<Item = &'a Checker> + Clone {
        self.checks.iter().filter_map(|place| all.get(*place))
    }

    fn assess(&mut self, all: &[Checker], now: Tick) -> State {
        self.held_back &= self.is_sound(all);
        let out = self.state == State::Down;
        if self.checks.is_empty() {
            State::Up
        } else if self.mine(all).any(|checker| checker.verdict().is_down()) {
            State::Down
        } else if self.mine(all).any(|checker| !checker.verdict().allows()) {
            if self.state == State::Checking { State::Checking } else { State::Down }
        } else if out && !self.is_sound(all) {
            State::Down
        } else if out && self.dampener.holds(now) {
            self.held_back = true;
            State::Down
        } else if self.mine(all).any(Checker::is_suspected) {
            State::Suspected
        } else {
            State::Up
        }
    }

    /// Whether nothing at all speaks against it.
    fn is_sound(&self, all: &[Checker]) -> bool {
        self.mine(all).all(|checker| checker.verdict().allows() && !checker.in_trouble())
    }

    fn transition(
        &mut self,
        all: &[Checker],
        to: State,
        reconfigured: bool,
        now: Tick,
    ) -> Transition {
        let transition = match to {
            State::Down => self.failing(all, to, now, |checker| checker.verdict().is_down()),
            State::Suspected => self.failing(all, to, now, Checker::is_suspected),
            State::Up | State::Checking => self.passing(all, to, reconfigured, now),
        };
        let was_in_service = matches!(self.state, State::Up | State::Suspected);
        match to {
            State::Down if was_in_service => self.dampener.down(now),
            State::Down => {}
            State::Up | State::Suspected | State::Checking => self.dampener.up(now),
        }
        self.suspicions += u64::from(to == State::Suspected);
        self.held_back = false;
        self.state = to;
        self.since = now;
        transition
    }

    /// A change for the worse, because of some of the checks.
    fn failing(
        &self,
        all: &[Checker],
        to: State,
        now: Tick,
        culprit: impl Fn(&Checker) -> bool,
    ) -> Transition {
        let named = self.mine(all).zip(&self.labels);
        let culprits: Vec<_> = named.filter(|(checker, _)| culprit(checker)).collect();
        let began = culprits.iter().filter_map(|(checker, _)| checker.trouble_since()).min();
        let several = self.checks.len() > 1;
        let trouble = |(checker, label): &(&Checker, &String)| {
            checker.trouble(several.then_some(label.as_str()))
        };
        let troubles: Vec<_> = culprits.iter().filter_map(trouble).collect();
        let (from, began) = match self.state {
            State::Up | State::Suspected => (State::Up, began.unwrap_or(self.since)),
            State::Checking | State::Down => (self.state, self.since),
        };
        Transition {
            from,
            to,
            after: now.saturating_since(began),
            failures: troubles.iter().map(|trouble| trouble.failures).max().unwrap_or(0),
            reason: Reason::Failing(troubles),
        }
    }

    /// A change for the better.
    fn passing(&self, all: &[Checker], to: State, reconfigured: bool, now: Tick) -> Transition {
        let sound = self.mine(all).filter(|checker| checker.is_sound());
        let successes = sound.map(Checker::passed).min();
        let hold = self.dampener.held_until().filter(|_| self.held_back);
        let reason = match successes {
            _ if reconfigured => Reason::Reconfigured,
            Some(successes) => {
                let held = hold.map(|until| until.saturating_since(self.since));
                Reason::Passing { successes, held }
            }
            None => Reason::Unconfirmed,
        };
        let after = now.saturating_since(self.since);
        Transition { from: self.state, to, reason, after, failures: 0 }
    }
}

/// How long triggers are held off after one that was wrong.
const SHORTEST_HOLD_OFF: Duration = Duration::from_secs(1);
/// At most.
const LONGEST_HOLD_OFF: Duration = Duration::from_secs(30);
