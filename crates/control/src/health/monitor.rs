//! One backend of one service: all its checks, and what they make of it.

use std::collections::VecDeque;
use std::time::Duration;

use dataplane::Tick;

use super::action::{Action, Probe, Reason, State, Transition};
use super::check::{self, Check};
use super::checker::Checker;
use super::dampener::Dampener;
use super::hold_off::HoldOff;
use super::jitter::Jitter;
use super::report::Report;
use super::{Condition, Failure};
use crate::desired::Damping;

/// The health of one backend.
///
/// **The single-mutation contract**: each call of a `&mut self` method is followed by
/// [`poll_action`](Self::poll_action) until it returns `None`. Then
/// [`next_deadline`](Self::next_deadline) says when to call
/// [`handle_timeout`](Self::handle_timeout). Any order of calls is harmless.
#[derive(Clone, Debug)]
pub struct Monitor {
    checkers: Vec<Checker>,
    dampener: Dampener,
    /// How often handshakes may trigger checks.
    triggers: HoldOff,
    /// A trigger was let through and is not decided.
    triggered: bool,
    /// Until then a failed probe says nothing of the backend.
    settling_until: Tick,
    jitter: Jitter,
    next_serial: u32,
    state: State,
    since: Tick,
    /// All checks passed before the hold was over.
    held_back: bool,
    suspicions: u64,
    triggers_ignored: u64,
    actions: VecDeque<Action>,
}

impl Monitor {
    /// The first probes start within 200 ms, spread by `seed`, which is to differ from backend to
    /// backend. Without checks it is up for ever.
    pub fn new(checks: &[Check], damping: Damping, seed: u64, now: Tick) -> Self {
        let mut jitter = Jitter::new(seed);
        let checkers: Vec<Checker> = checks
            .iter()
            .map(|check| Checker::new(check, check.starts_up, now + jitter.below(FIRST_START)))
            .collect();
        let up = checks.iter().all(|check| check.starts_up);
        let mut monitor = Self {
            checkers,
            dampener: Dampener::new(damping, now),
            triggers: HoldOff::new(SHORTEST_HOLD_OFF, LONGEST_HOLD_OFF),
            triggered: false,
            settling_until: Tick::default(),
            jitter,
            next_serial: 0,
            state: if up { State::Up } else { State::Checking },
            since: now,
            held_back: false,
            suspicions: 0,
            triggers_ignored: 0,
            actions: VecDeque::new(),
        };
        monitor.tell_apart(checks);
        monitor
    }

    /// The check with this index.
    pub fn check(&self, index: usize) -> Option<&Check> {
        self.checkers.get(index).map(Checker::check)
    }

    /// The state, as operators see it.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when it has this state.
    pub const fn since(&self) -> Tick {
        self.since
    }

    /// The state, as the packet path has to take it.
    pub const fn condition(&self) -> Condition {
        self.state.condition()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub fn next_deadline(&self) -> Option<Tick> {
        let hold = self.dampener.held_until();
        let released = hold.filter(|_| self.state == State::Down && self.is_sound());
        self.checkers.iter().map(Checker::next_deadline).chain(released).min()
    }

    /// Does what is due at `now`: starts probes, gives up probes without an outcome, ends a
    /// hold. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Tick) {
        for (index, checker) in self.checkers.iter_mut().enumerate() {
            if let Some(serial) = checker.give_up_if_overdue(now, &mut self.jitter) {
                self.actions.push_back(Action::Cancel(Probe { check: index, serial }));
            }
        }
        self.proceed(now);
    }

    /// The outcome of a probe. Of one that was cancelled or is over, it changes nothing.
    pub fn probe_ended(&mut self, probe: Probe, outcome: Result<(), Failure>, now: Tick) {
        let settling = now < self.settling_until;
        let outcome = outcome.map_err(|failure| if settling { just_up() } else { failure });
        if let Some(checker) = self.checkers.get_mut(probe.check) {
            checker.ended(probe.serial, outcome, now, &mut self.jitter);
        }
        self.proceed(now);
    }

    /// The link towards the backend came back: all checks start at once. What fails within the next
    /// second says nothing of the backend, for switches and ARP need a moment.
    pub fn link_restored(&mut self, now: Tick) {
        self.settling_until = now + SETTLE;
        for (index, checker) in self.checkers.iter_mut().enumerate() {
            if let Some(serial) = checker.start_anew(now) {
                self.actions.push_back(Action::Cancel(Probe { check: index, serial }));
            }
        }
        self.proceed(now);
    }

    /// The kept connection of a check ended by FIN or RST. Looked into at once, unless the last
    /// losses were nothing.
    pub fn sentinel_lost(&mut self, check: usize, now: Tick) {
        if let Some(serial) =
            self.checkers.get_mut(check).and_then(|checker| checker.sentinel_lost(now))
        {
            self.actions.push_back(Action::Cancel(Probe { check, serial }));
        }
        self.proceed(now);
    }

    /// New connections go [`unanswered`](super::unanswered): counts as one failure of each check,
    /// but never as the last one, and starts them all. False: ignored, because it is suspected or
    /// out of service already, no check could decide, or the last such triggers were wrong.
    pub fn suspect(&mut self, now: Tick) -> bool {
        let decidable = self.checkers.iter().any(|checker| checker.verdict().is_up());
        if self.state != State::Up || !decidable {
            return false;
        }
        if self.triggers.hint(now).is_some() {
            self.triggers_ignored += 1;
            return false;
        }
        self.triggered = true;
        for checker in &mut self.checkers {
            checker.trigger(now);
        }
        self.proceed(now);
        true
    }

    /// Ends a hold-down that is all that keeps the backend down: better a flapping backend than none.
    pub fn release(&mut self, now: Tick) {
        if self.held_back {
            self.dampener.release(now);
            self.proceed(now);
        }
    }

    /// Other checks. What is known by a check that stays as it was, half-counted results included,
    /// is kept; new ones take the backend neither down nor up before they have a result.
    ///
    /// Probes go on unless their check is gone or has another index now. Sentinels are the
    /// driver's: one belongs to a check, not to an index.
    pub fn reconfigure(&mut self, checks: &[Check], damping: Damping, now: Tick) {
        self.dampener.reconfigure(damping, now);
        let mut known: Vec<Option<Checker>> =
            std::mem::take(&mut self.checkers).into_iter().map(Some).collect();
        self.checkers = checks
            .iter()
            .enumerate()
            .map(|(index, check)| self.keep_or_make(&mut known, index, check, now))
            .collect();
        self.tell_apart(checks);
        for (index, gone) in known.into_iter().enumerate() {
            if let Some(serial) = gone.and_then(|checker| checker.running()) {
                self.actions.push_back(Action::Cancel(Probe { check: index, serial }));
            }
        }
        self.start_due(now);
        self.settle(true, now);
    }

    /// What is to be done next. `None`: nothing until the next call or deadline.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Everything an operator asks for.
    pub fn report(&self, now: Tick) -> Report {
        Report {
            state: self.state,
            since: self.since,
            held_down_until: self.dampener.held_until().filter(|until| now < *until),
            suspicions: self.suspicions,
            triggers_ignored: self.triggers_ignored,
            checks: self.checkers.iter().map(Checker::report).collect(),
        }
    }

    /// `checks`: those of the checkers.
    fn tell_apart(&mut self, checks: &[Check]) {
        for (checker, label) in self.checkers.iter_mut().zip(check::labels(checks)) {
            checker.rename(label);
        }
    }

    fn keep_or_make(
        &mut self,
        known: &mut [Option<Checker>],
        index: usize,
        check: &Check,
        now: Tick,
    ) -> Checker {
        let same =
            |slot: &Option<Checker>| slot.as_ref().is_some_and(|known| known.check() == check);
        let at = if known.get(index).is_some_and(same) {
            Some(index)
        } else {
            known.iter().position(same)
        };
        let Some((at, mut checker)) = at.and_then(|at| Some((at, known.get_mut(at)?.take()?)))
        else {
            let up = match self.state {
                State::Up | State::Suspected => true,
                State::Down => false,
                State::Checking => check.starts_up,
            };
            return Checker::new(check, up, now + self.jitter.below(FIRST_START));
        };
        if at != index
            && let Some(serial) = checker.restart(now)
        {
            self.actions.push_back(Action::Cancel(Probe { check: at, serial }));
        }
        checker
    }

    fn proceed(&mut self, now: Tick) {
        self.start_due(now);
        self.settle(false, now);
    }

    fn start_due(&mut self, now: Tick) {
        for (index, checker) in self.checkers.iter_mut().enumerate() {
            let serial = self.next_serial;
            if checker.start_if_due(serial, now) {
                self.next_serial = serial.wrapping_add(1);
                let probe = Probe { check: index, serial };
                let timeout = checker.check().timeout;
                self.actions.push_back(Action::Start { probe, timeout });
            }
        }
    }

    /// Brings the state in line with the checks.
    fn settle(&mut self, reconfigured: bool, now: Tick) {
        let state = self.assess(now);
        if self.triggered && !self.checkers.iter().any(Checker::is_triggered) {
            self.triggered = false;
            if state == State::Down {
                self.triggers.confirmed();
            } else {
                self.triggers.refuted(now);
            }
        }
        if state != self.state {
            self.transition(state, reconfigured, now);
        }
    }

    fn assess(&mut self, now: Tick) -> State {
        self.held_back &= self.is_sound();
        let checkers = &self.checkers;
        let out = self.state == State::Down;
        if checkers.is_empty() {
            State::Up
        } else if checkers.iter().any(|checker| checker.verdict().is_down()) {
            State::Down
        } else if checkers.iter().any(|checker| !checker.verdict().allows()) {
            if self.state == State::Checking { State::Checking } else { State::Down }
        } else if out && !self.is_sound() {
            State::Down
        } else if out && self.dampener.holds(now) {
            self.held_back = true;
            State::Down
        } else if checkers.iter().any(Checker::is_suspected) {
            State::Suspected
        } else {
            State::Up
        }
    }

    /// Whether nothing at all speaks against it.
    fn is_sound(&self) -> bool {
        self.checkers.iter().all(|checker| checker.verdict().allows() && !checker.in_trouble())
    }

    fn transition(&mut self, to: State, reconfigured: bool, now: Tick) {
        let transition = match to {
            State::Down => self.failing(to, now, |checker| checker.verdict().is_down()),
            State::Suspected => self.failing(to, now, Checker::is_suspected),
            State::Up | State::Checking => self.passing(to, reconfigured, now),
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
        self.actions.push_back(Action::Changed(transition));
    }

    /// A change for the worse, because of some of the checks.
    fn failing(&self, to: State, now: Tick, culprit: impl Fn(&Checker) -> bool) -> Transition {
        let culprits = self.checkers.iter().filter(|checker| culprit(checker));
        let began = culprits.clone().filter_map(Checker::trouble_since).min();
        let several = self.checkers.len() > 1;
        let troubles: Vec<_> = culprits.filter_map(|checker| checker.trouble(several)).collect();
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
    fn passing(&self, to: State, reconfigured: bool, now: Tick) -> Transition {
        let sound = self.checkers.iter().filter(|checker| checker.is_sound());
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

fn just_up() -> Failure {
    Failure::Local("the link came up a moment ago".to_owned())
}

/// How long after its link came up a backend may fail without blame.
const SETTLE: Duration = Duration::from_secs(1);
/// The first probes of many backends are spread over this time.
const FIRST_START: Duration = Duration::from_millis(200);
/// How long triggers are held off after one that was wrong.
const SHORTEST_HOLD_OFF: Duration = Duration::from_secs(1);
/// At most.
const LONGEST_HOLD_OFF: Duration = Duration::from_secs(30);
