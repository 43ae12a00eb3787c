//! One backend's address: all checks of it, each of them once, and the services that have them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dataplane::Tick;

use super::Failure;
use super::action::{Action, Probe, State, Transition};
use super::asked::Asked;
use super::checker::Checker;
use super::jitter::Jitter;
use super::judge::Judge;
use super::report::Report;
use crate::desired::Damping;

/// The health of one address. A check that several services ask alike ([`Asked::is_same`]) is made
/// once and counts for all of them; what follows from it (state, hold-down, hold-off of triggers) is
/// each service's own.
///
/// **The single-mutation contract**: each call of a `&mut self` method is followed by
/// [`poll_action`](Self::poll_action) until it returns `None`. Then
/// [`next_deadline`](Self::next_deadline) says when to call
/// [`handle_timeout`](Self::handle_timeout). Any order of calls is harmless.
#[derive(Clone, Debug)]
pub struct Host {
    asked: Vec<Asked>,
    /// One for each of `asked`.
    checkers: Vec<Checker>,
    /// By service.
    judges: BTreeMap<String, Judge>,
    /// Until then a failed probe says nothing of the backend.
    settling_until: Tick,
    jitter: Jitter,
    next_serial: u32,
    actions: VecDeque<Action<Verdict>>,
}

/// What a service asks of a backend.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its name; of a host's services all are different.
    pub service: String,
    /// Its checks; all must pass. Without any the backend is up for ever.
    pub checks: Vec<Asked>,
    /// How the backend is held down.
    pub damping: Damping,
}

/// A backend is now something else to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The service.
    pub service: String,
    /// From what to what, and why.
    pub transition: Transition,
}

impl Host {
    /// An address without checks yet; `seed` is to differ from address to address.
    pub fn new(seed: u64) -> Self {
        Self {
            asked: Vec::new(),
            checkers: Vec::new(),
            judges: BTreeMap::new(),
            settling_until: Tick::default(),
            jitter: Jitter::new(seed),
            next_serial: 0,
            actions: VecDeque::new(),
        }
    }

    /// What is asked, each thing once. Probes name its place.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// The places of a service's checks, in its order.
    pub fn places(&self, service: &str) -> Option<&[usize]> {
        Some(self.judge(service)?.checks())
    }

    /// The state, as the operators of a service see it. `None`: the service is not known.
    pub fn state(&self, service: &str) -> Option<State> {
        Some(self.judge(service)?.state())
    }

    /// Since when it has this state.
    pub fn since(&self, service: &str) -> Option<Tick> {
        Some(self.judge(service)?.since())
    }

    /// Everything an operator of a service asks for.
    pub fn report(&self, service: &str, now: Tick) -> Option<Report> {
        Some(self.judge(service)?.report(&self.checkers, now))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub fn next_deadline(&self) -> Option<Tick> {
        let released = self.judges.values().filter_map(|judge| judge.released_at(&self.checkers));
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

    /// New connections of a service go [`unanswered`](super::unanswered): counts as one failure of
    /// each of its checks, but never as the last one, and starts them all. False: ignored, because
    /// the backend is suspected or out of service already, no check could decide, or the last such
    /// triggers were wrong.
    pub fn suspect(&mut self, service: &str, now: Tick) -> bool {
        let Some(judge) = self.judges.get_mut(service) else { return false };
        if !judge.lets_through(&self.checkers, now) {
            return false;
        }
        for place in judge.checks() {
            if let Some(checker) = self.checkers.get_mut(*place) {
                checker.trigger(now);
            }
        }
        self.proceed(now);
        true
    }

    /// Ends a hold-down that is all that keeps the backend down for a service: better a flapping
    /// backend than none.
    pub fn release(&mut self, service: &str, now: Tick) {
        if self.judges.get_mut(service).is_some_and(|judge| judge.release(now)) {
            self.proceed(now);
        }
    }

    /// Other services or checks. What is known by a check that stays as it was, half-counted
    /// results included, is kept; new ones take the backend neither down nor up before they have a
    /// result.
    ///
    /// Probes go on unless their check is gone or has another place now. Sentinels are the
    /// driver's: one belongs to a check, not to a place.
    pub fn reconfigure(&mut self, services: &[Judged], now: Tick) {
        self.arrange(services, now);
        self.start_due(now);
        self.settle(true, now);
    }

    /// What is to be done next. `None`: nothing until the next call or deadline.
    pub fn poll_action(&mut self) -> Option<Action<Verdict>> {
        self.actions.pop_front()
    }

    /// Takes the checks and judges of these services; starts and settles nothing.
    pub(super) fn arrange(&mut self, services: &[Judged], now: Tick) {
        let asked = std::mem::take(&mut self.asked).into_iter();
        let checkers = std::mem::take(&mut self.checkers);
        let mut known: Vec<_> = asked.zip(checkers).map(Some).collect();
        let mut judges = std::mem::take(&mut self.judges);
        for judged in services {
            let known_judge = judges.remove(&judged.service);
            let mut judge =
                known_judge.unwrap_or_else(|| Judge::new(&judged.checks, judged.damping, now));
            let mut places = Vec::with_capacity(judged.checks.len());
            for asked in &judged.checks {
                places.push(self.place(&mut known, asked, &places, &judge, now));
            }
            judge.reconfigure(&judged.checks, places, judged.damping, now);
            self.judges.insert(judged.service.clone(), judge);
        }
        for (index, gone) in known.into_iter().enumerate() {
            if let Some(serial) = gone.and_then(|(_, checker)| checker.running()) {
                self.actions.push_back(Action::Cancel(Probe { check: index, serial }));
            }
        }
    }

    /// Where a check is. A service that has the same twice asks twice.
    fn place(
        &mut self,
        known: &mut [Option<(Asked, Checker)>],
        asked: &Asked,
        taken: &[usize],
        judge: &Judge,
        now: Tick,
    ) -> usize {
        let mut places = self.asked.iter().enumerate();
        let shared = places.find(|(place, other)| other.is_same(asked) && !taken.contains(place));
        if let Some((place, _)) = shared {
            return place;
        }
        let place = self.asked.len();
        let checker = self.keep_or_make(known, place, asked, judge, now);
        self.asked.push(asked.clone());
        self.checkers.push(checker);
        place
    }

    fn keep_or_make(
        &mut self,
        known: &mut [Option<(Asked, Checker)>],
        index: usize,
        asked: &Asked,
        judge: &Judge,
        now: Tick,
    ) -> Checker {
        let same = |slot: &Option<(Asked, Checker)>| {
            slot.as_ref().is_some_and(|(known, _)| known.is_same(asked))
        };
        let at = if known.get(index).is_some_and(same) {
            Some(index)
        } else {
            known.iter().position(same)
        };
        let Some((at, (_, mut checker))) = at.and_then(|at| Some((at, known.get_mut(at)?.take()?)))
        else {
            let up = judge.assumes_up(asked.check.starts_up);
            return Checker::new(&asked.check, up, now + self.jitter.below(FIRST_START));
        };
        if at != index
            && let Some(serial) = checker.restart(now)
        {
            self.actions.push_back(Action::Cancel(Probe { check: at, serial }));
        }
        checker
    }

    fn judge(&self, service: &str) -> Option<&Judge> {
        self.judges.get(service)
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

    fn settle(&mut self, reconfigured: bool, now: Tick) {
        for (service, judge) in &mut self.judges {
            if let Some(transition) = judge.settle(&self.checkers, reconfigured, now) {
                let service = service.clone();
                self.actions.push_back(Action::Changed(Verdict { service, transition }));
            }
        }
    }
}

fn just_up() -> Failure {
    Failure::Local("the link came up a moment ago".to_owned())
}

/// How long after its link came up a backend may fail without blame.
const SETTLE: Duration = Duration::from_secs(1);
/// The first probes of many backends are spread over this time.
const FIRST_START: Duration = Duration::from_millis(200);
