//! One check of one backend: when it is probed, and what its results amount to.

use std::time::Duration;

use dataplane::Tick;

use super::Failure;
use super::action::Trouble;
use super::check::Check;
use super::confirm::{Confirmation, Next};
use super::hold_off::HoldOff;
use super::jitter::Jitter;
use super::report::{CheckReport, CheckState, Tally};
use super::verdict::RiseFall;

/// One check. It never has more than one probe running.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    check: Check,
    verdict: RiseFall,
    phase: Phase,
    /// When the last probe began.
    started: Tick,
    /// What speaks against it, since it last passed.
    signs: Option<Signs>,
    /// The tries after a loss of the sentinel, while it is up.
    confirmation: Option<Confirmation>,
    /// A loss that the next probe is to look into.
    loss: Option<Loss>,
    losses: HoldOff,
    /// The last probe was given up because the driver did not report its outcome in time.
    unwatched: bool,
    tally: Tally,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Waiting { start_at: Tick },
    Running { serial: u32, give_up_at: Tick },
}

#[derive(Clone, Copy, Debug)]
struct Loss {
    at: Tick,
    look_at: Tick,
}

/// What speaks against a check.
#[derive(Clone, Debug)]
struct Signs {
    since: Tick,
    sentinel: bool,
    unanswered: bool,
    /// New connections had better go elsewhere.
    suspected: bool,
    failure: Option<Failure>,
    failures: u32,
}

impl Checker {
    /// `up`: what is assumed before the first result.
    pub(super) fn new(check: &Check, up: bool, start_at: Tick) -> Self {
        Self {
            verdict: RiseFall::Unknown { up },
            phase: Phase::Waiting { start_at },
            started: start_at,
            signs: None,
            confirmation: None,
            loss: None,
            losses: HoldOff::new(SHORTEST_GAP, check.interval),
            unwatched: false,
            tally: Tally::default(),
            check: check.clone(),
        }
    }

    pub(super) const fn check(&self) -> &Check {
        &self.check
    }

    pub(super) const fn verdict(&self) -> RiseFall {
        self.verdict
    }

    pub(super) const fn next_deadline(&self) -> Tick {
        match self.phase {
            Phase::Waiting { start_at } => start_at,
            Phase::Running { give_up_at, .. } => give_up_at,
        }
    }

    /// Whether it has failed, or may, since it last passed.
    pub(super) const fn in_trouble(&self) -> bool {
        self.signs.is_some()
    }

    /// Whether it passes and nothing speaks against it.
    pub(super) const fn is_sound(&self) -> bool {
        self.verdict.is_up() && !self.in_trouble()
    }

    /// Whether it is up but new connections had better go elsewhere.
    pub(super) fn is_suspected(&self) -> bool {
        self.verdict.is_up() && self.signs.as_ref().is_some_and(|signs| signs.suspected)
    }

    /// Whether a trigger waits for this check to say something.
    pub(super) fn is_triggered(&self) -> bool {
        self.is_suspected() && self.signs.as_ref().is_some_and(|signs| signs.unanswered)
    }

    /// When trouble began.
    pub(super) fn trouble_since(&self) -> Option<Tick> {
        self.signs.as_ref().map(|signs| signs.since)
    }

    /// What is wrong, by the check with this name.
    pub(super) fn trouble(&self, name: Option<&str>) -> Option<Trouble> {
        self.signs.as_ref().map(|signs| Trouble {
            check: name.map(str::to_owned),
            sentinel: signs.sentinel,
            unanswered: signs.unanswered,
            failure: signs.failure.clone(),
            failures: signs.failures,
        })
    }

    /// Begins a probe with this serial if one is due.
    pub(super) fn start_if_due(&mut self, serial: u32, now: Tick) -> bool {
        let Phase::Waiting { start_at } = self.phase else { return false };
        if now < start_at {
            return false;
        }
        if self.confirmation.is_none()
            && let Some(loss) = self.loss.take()
        {
            self.confirmation = Some(Confirmation::new(now));
            self.signs.get_or_insert_with(|| Signs::new(loss.at)).sentinel = true;
        }
        self.started = now;
        self.phase = Phase::Running { serial, give_up_at: now + self.check.timeout + GRACE };
        true
    }

    /// Gives up a probe that should have ended; its serial.
    pub(super) fn give_up_if_overdue(&mut self, now: Tick, jitter: &mut Jitter) -> Option<u32> {
        let Phase::Running { serial, give_up_at } = self.phase else { return None };
        if now < give_up_at {
            return None;
        }
        self.ended(serial, Err(Failure::Timeout), now, jitter);
        Some(serial)
    }

    /// A probe ended; of another serial than the running one, it is ignored.
    pub(super) fn ended(
        &mut self,
        serial: u32,
        outcome: Result<(), Failure>,
        now: Tick,
        jitter: &mut Jitter,
    ) {
        let Phase::Running { serial: running, give_up_at } = self.phase else { return };
        if running != serial {
            return;
        }
        if outcome == Err(Failure::Timeout) && self.excuses(give_up_at, now) {
            self.phase = Phase::Waiting { start_at: now };
            return;
        }
        self.unwatched = false;
        self.conclude(outcome, now, jitter);
    }

    /// Whether a probe that timed out proves nothing: it is found so late that this process stood
    /// still, and the answer may be on its way. It is made anew, but not twice in a row.
    fn excuses(&mut self, give_up_at: Tick, now: Tick) -> bool {
        let late = now.saturating_since(give_up_at) > STALL;
        let excused = late && !self.unwatched;
        self.unwatched |= excused;
        excused
    }

    /// The kept connection ended: what happens to the probe that is running.
    pub(super) fn sentinel_lost(&mut self, now: Tick) -> Option<u32> {
        if !self.check.sentinel || !self.verdict.is_up() {
            return None;
        }
        self.tally.sentinel_losses += 1;
        let look_at = self.losses.hint(now).unwrap_or(now);
        self.loss = Some(Loss { at: now, look_at });
        if self.confirmation.is_some() {
            return None;
        }
        match &mut self.phase {
            Phase::Waiting { start_at } => *start_at = look_at.min(*start_at),
            // It began before the loss: its connection may have been the last that was accepted.
            Phase::Running { .. } if look_at <= now => return self.restart(now),
            Phase::Running { .. } => {}
        }
        None
    }

    /// Clients' handshakes go unanswered: one failure, and a probe at once.
    pub(super) fn trigger(&mut self, now: Tick) {
        if self.verdict.is_up() {
            self.verdict.hint(self.check.fall);
            let signs = self.signs.get_or_insert_with(|| Signs::new(now));
            signs.unanswered = true;
            signs.suspected = true;
            signs.failures = signs.failures.saturating_add(1);
        }
        if self.confirmation.is_none()
            && let Phase::Waiting { start_at } = &mut self.phase
        {
            *start_at = now.min(*start_at);
        }
    }

    /// The running probe is to be made anew; its serial.
    pub(super) const fn restart(&mut self, now: Tick) -> Option<u32> {
        let running = self.running();
        if running.is_some() {
            self.phase = Phase::Waiting { start_at: now };
        }
        running
    }

    /// What was learned before counts no more than the verdict: a probe at once. Returns the serial
    /// of the one that is running.
    pub(super) fn start_anew(&mut self, now: Tick) -> Option<u32> {
        let running = self.running();
        self.unknown();
        self.loss = None;
        self.phase = Phase::Waiting { start_at: now };
        running
    }

    /// Serial of the running probe.
    pub(super) const fn running(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { serial, .. } => Some(serial),
            Phase::Waiting { .. } => None,
        }
    }

    /// Successes in a row.
    pub(super) const fn passed(&self) -> u32 {
        self.tally.passed
    }

    pub(super) fn report(&self, place: usize, label: &str) -> CheckReport {
        CheckReport {
            place,
            kind: self.check.kind.name(),
            label: label.to_owned(),
            state: match self.verdict {
                RiseFall::Unknown { .. } => CheckState::Checking,
                RiseFall::Up { .. } if self.is_suspected() => CheckState::Suspected,
                RiseFall::Up { .. } if self.in_trouble() => CheckState::Failing,
                RiseFall::Up { .. } => CheckState::Passing,
                RiseFall::Down { .. } => CheckState::Down,
            },
            tally: self.tally.clone(),
        }
    }

    /// The running probe is over.
    fn conclude(&mut self, outcome: Result<(), Failure>, now: Tick, jitter: &mut Jitter) {
        self.tally.add(&outcome, now.saturating_since(self.started), now);
        self.judge(outcome, now);
        if !self.verdict.is_up() {
            self.confirmation = None;
            self.loss = None;
        }
        self.phase = Phase::Waiting { start_at: self.next_start(now, jitter) };
    }

    fn judge(&mut self, outcome: Result<(), Failure>, now: Tick) {
        match (outcome, self.confirmation) {
            (Err(Failure::Local(_)), _) => self.unknown(),
            (outcome, Some(confirmation)) => self.tried(confirmation, outcome, now),
            (Ok(()), None) => self.pass(),
            (Err(failure), None) => self.fail(failure, now),
        }
    }

    /// The probe says nothing about the server; a suspicion ends.
    fn unknown(&mut self) {
        self.confirmation = None;
        if let Some(signs) = &mut self.signs {
            signs.suspected = false;
        }
    }

    fn pass(&mut self) {
        self.verdict.pass(self.check.rise);
        if self.verdict.is_up() {
            self.signs = None;
        }
    }

    fn fail(&mut self, failure: Failure, now: Tick) {
        self.note(failure, now);
        self.verdict.fail(self.check.fall);
    }

    /// One of the tries after a loss. Refusals count for these alone, anything else as usual.
    fn tried(&mut self, mut tries: Confirmation, outcome: Result<(), Failure>, now: Tick) {
        let passed = outcome.is_ok();
        let refused = outcome.as_ref().is_err_and(Failure::is_refusal);
        match outcome {
            Ok(()) => self.verdict.pass(self.check.rise),
            Err(failure) if refused => self.note(failure, now),
            Err(failure) => self.fail(failure, now),
        }
        match tries.tried(refused) {
            Next::Again => self.confirmation = Some(tries),
            Next::Dead => {
                self.verdict = RiseFall::DOWN;
                self.losses.confirmed();
            }
            Next::Refuted => {
                self.confirmation = None;
                if passed {
                    self.signs = None;
                    self.losses.refuted(now);
                    let until = self.losses.until();
                    self.loss = self.loss.map(|loss| Loss { look_at: until, ..loss });
                }
            }
        }
    }

    fn note(&mut self, failure: Failure, now: Tick) {
        let signs = self.signs.get_or_insert_with(|| Signs::new(now));
        signs.failures = signs.failures.saturating_add(1);
        signs.suspected |= failure.is_of_connection();
        signs.failure = Some(failure);
    }

    fn next_start(&self, now: Tick, jitter: &mut Jitter) -> Tick {
        if let Some(confirmation) = self.confirmation {
            return confirmation.next_try().max(now);
        }
        let interval = jitter.around(self.interval(), self.check.jitter_percent);
        let regular = self.started + interval.max(SHORTEST_INTERVAL);
        self.loss.map_or(regular, |loss| regular.min(loss.look_at)).max(now)
    }

    const fn interval(&self) -> Duration {
        match self.verdict {
            RiseFall::Down { .. } => self.check.down_interval,
            RiseFall::Up { .. } if self.in_trouble() => self.check.fast_interval,
            RiseFall::Up { .. } | RiseFall::Unknown { .. } => self.check.interval,
        }
    }
}

impl Signs {
    const fn new(since: Tick) -> Self {
        Self {
            since,
            sentinel: false,
            unanswered: false,
            suspected: false,
            failure: None,
            failures: 0,
        }
    }
}

/// The driver ends a probe at its timeout; this is for what it forgot.
const GRACE: Duration = Duration::from_millis(20);
/// A call later than this means that the driver was stalled.
const STALL: Duration = Duration::from_millis(30);
/// Whatever the configuration says.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// Between two losses that are looked into, if the first was nothing; it grows up to `interval`.
const SHORTEST_GAP: Duration = Duration::from_millis(100);
