//! Servers, the driver that probes them, and the monitors that judge them: deterministic, in
//! virtual time.
//!
//! A run is a pure function of its seed. The driver does what the `health` module asks of one: it
//! ends probes in time, keeps connections of those that passed, and reports what waits before it
//! looks at timers. It stalls now and then, and repeats outcomes that are long over.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use control::health::{Action, Failure, Probe, State, Transition};
use dataplane::Tick;

use crate::seeds::rng::Rng;
use promises::downs_in_max;
use server::{Backend, Mode, Open};

mod events;
mod promises;
mod server;

pub(crate) use promises::{Broken, Violation};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// A mistake, to see that the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// One success in a hundred is reported as a refusal.
    MakesUpFailures,
    /// Failures are reported as successes.
    HidesFailures,
    /// Losses of sentinels are not reported.
    DeafToLosses,
    /// One timer in a thousand is never set.
    ForgetsTimers,
    /// Probes that are cancelled go on.
    KeepsCancelled,
    /// No backend is held down.
    Undamped,
    /// Checks run every 20 ms.
    Hasty,
    /// A backend that is well is left alone once it is suspected.
    DropsSuspects,
}

/// What a run went through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) probes: u64,
    pub(crate) downs: u64,
    pub(crate) suspicions: u64,
    pub(crate) triggers: u64,
    pub(crate) losses: u64,
    pub(crate) stalls: u64,
    pub(crate) stale: u64,
    pub(crate) reloads: u64,
    /// Kills with a sentinel, noticed within 40 ms.
    pub(crate) fast_kills: u64,
    /// Times that a hold kept a backend down whose checks passed.
    pub(crate) held: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.probes += other.probes;
        self.downs += other.downs;
        self.suspicions += other.suspicions;
        self.triggers += other.triggers;
        self.losses += other.losses;
        self.stalls += other.stalls;
        self.stale += other.stale;
        self.reloads += other.reloads;
        self.fast_kills += other.fast_kills;
        self.held += other.held;
    }
}

/// Something that will happen; the first number is the backend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The server changes.
    Turn(usize),
    /// It answers a probe.
    Answer(usize, Probe),
    /// The driver's time for a probe is over.
    TimeOut(usize, Probe),
    /// It closes a kept connection.
    Close(usize, usize, u64),
    /// The driver looks at handshakes.
    Sample(usize),
    /// An outcome comes again.
    Stale(usize, Probe),
    Flood(usize),
    Reload(usize),
    Stall,
    Thaw,
}

/// What the driver has to tell a monitor.
#[derive(Clone)]
enum Input {
    Ended(usize, Probe, Result<(), Failure>),
    Lost(usize, usize),
    Suspect(usize),
    Reload(usize),
}

struct World {
    seed: u64,
    now: u64,
    end: u64,
    rng: Rng,
    backends: Vec<Backend>,
    queue: BinaryHeap<Reverse<(u64, u64, Due)>>,
    sequence: u64,
    /// Servers change every few tenths of a second instead of every minute.
    flapping: bool,
    /// What the driver missed while it stood still.
    stalled: Option<Vec<Input>>,
    stalled_at: u64,
    thaws_at: Option<u64>,
    /// When it last went on after standing still, or was configured anew.
    odd_at: u64,
    sabotage: Sabotage,
    stats: Stats,
    violation: Option<Violation>,
    trace: bool,
}

/// Simulates `length` ns.
pub(crate) fn run(
    seed: u64,
    length: u64,
    sabotage: Sabotage,
    trace: bool,
) -> Result<Stats, Box<Violation>> {
    let mut world = World::new(seed, length, sabotage, trace);
    while world.violation.is_none() && world.step() {}
    match world.violation {
        Some(violation) => Err(Box::new(violation)),
        None => Ok(world.stats),
    }
}

pub(crate) const fn tick(at: u64) -> Tick {
    Tick::from_nanos(at)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("short")
}

impl World {
    fn new(seed: u64, length: u64, sabotage: Sabotage, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let now = rng.range(0, 1000 * SECOND);
        let count = rng.range(1, 5);
        let backends = (0..count).map(|_| Backend::new(&mut rng, now, sabotage)).collect();
        let mut world = Self {
            seed,
            now,
            end: now + length,
            rng,
            backends,
            queue: BinaryHeap::with_capacity(64),
            sequence: 0,
            flapping: seed.is_multiple_of(3),
            stalled: None,
            stalled_at: now,
            thaws_at: None,
            odd_at: now,
            sabotage,
            stats: Stats::default(),
            violation: None,
            trace,
        };
        for at in 0..world.backends.len() {
            world.drain(at);
            world.later(10 * SECOND, Due::Turn(at));
            world.later(60 * SECOND, Due::Flood(at));
            world.later(300 * SECOND, Due::Reload(at));
        }
        world.later(60 * SECOND, Due::Stall);
        world
    }

    /// One event; false when the time is over.
    fn step(&mut self) -> bool {
        let event = self.queue.peek().map_or(u64::MAX, |&Reverse((time, ..))| time);
        let wakes = self.backends.iter().map(|backend| backend.wake).min();
        let wake = if self.stalled.is_some() { None } else { wakes };
        let next = wake.map_or(event, |wake| wake.min(event)).max(self.now);
        if next > self.end {
            return false;
        }
        self.now = next;
        while let Some(&Reverse((time, _, due))) = self.queue.peek()
            && time <= next
        {
            self.queue.pop();
            self.happen(due);
        }
        for at in 0..self.backends.len() {
            if self.stalled.is_none() && self.backends[at].wake <= next {
                self.wake(at);
            }
            self.observe(at);
        }
        true
    }

    fn wake(&mut self, at: usize) {
        self.backends[at].wake = u64::MAX;
        self.backends[at].armed = None;
        if !self.drops(at) {
            self.backends[at].monitor.handle_timeout(tick(self.now));
            self.drain(at);
        }
    }

    /// Tells a monitor, now or when the driver runs again.
    fn tell(&mut self, input: Input) {
        if let Some(waiting) = &mut self.stalled {
            waiting.push(input);
            return;
        }
        let now = tick(self.now);
        let at = match input {
            Input::Ended(at, probe, outcome) => {
                self.ended(at, probe, outcome);
                at
            }
            Input::Lost(at, _) if self.sabotage == Sabotage::DeafToLosses => at,
            Input::Lost(at, check) => {
                self.stats.losses += 1;
                self.log(at, || format!("loses the sentinel of {check}"));
                self.backends[at].monitor.sentinel_lost(check, now);
                at
            }
            Input::Suspect(at) => {
                let let_through = self.backends[at].monitor.suspect(now);
                self.stats.triggers += u64::from(let_through);
                at
            }
            Input::Reload(at) => {
                self.stats.reloads += 1;
                self.log(at, || "is configured anew".into());
                self.backends[at].reload(&mut self.rng, self.now, self.sabotage);
                self.odd_at = self.now;
                at
            }
        };
        self.drain(at);
    }

    /// The driver's end of a probe.
    fn ended(&mut self, at: usize, probe: Probe, outcome: Result<(), Failure>) {
        if self.drops(at) {
            return;
        }
        let Some(open) = self.backends[at].close(probe) else { return };
        let outcome = match outcome {
            Ok(()) if self.sabotage == Sabotage::MakesUpFailures && self.rng.chance(10) => {
                Err(Failure::Refused)
            }
            Err(_) if self.sabotage == Sabotage::HidesFailures => Ok(()),
            outcome => outcome,
        };
        self.log(at, || format!("{probe:?} {outcome:?}"));
        if outcome.is_ok() {
            self.keep(at, open);
        }
        if self.rng.chance(10) {
            self.later(20 * SECOND, Due::Stale(at, probe));
        }
        self.backends[at].monitor.probe_ended(probe, outcome, tick(self.now));
    }

    /// Whether the driver does nothing more for this backend.
    fn drops(&self, at: usize) -> bool {
        let backend = &self.backends[at];
        let suspected = backend.monitor.state() == State::Suspected;
        self.sabotage == Sabotage::DropsSuspects && suspected && backend.mode == Mode::Well
    }

    /// A probe that passed leaves a sentinel, in place of the one before.
    fn keep(&mut self, at: usize, open: Open) {
        let check = open.probe.check;
        let backend = &mut self.backends[at];
        let keeps = backend.checks.get(check).is_some_and(|check| check.sentinel);
        if !keeps || backend.mode != Mode::Well {
            return;
        }
        self.sequence += 1;
        let name = self.sequence;
        backend.kept.retain(|(of, _)| *of != check);
        backend.kept.push((check, name));
        if let Some(after) = backend.keep_alive {
            let delay = after + self.rng.range(0, MS);
            self.at(self.now + delay, Due::Close(at, check, name));
        }
    }

    /// Does what the monitor asks for.
    fn drain(&mut self, at: usize) {
        while let Some(action) = self.backends[at].monitor.poll_action() {
            match action {
                Action::Start { probe, timeout } => self.start(at, probe, timeout),
                Action::Cancel(probe) => {
                    if self.sabotage != Sabotage::KeepsCancelled {
                        self.backends[at].close(probe);
                    }
                }
                Action::Changed(transition) => self.changed(at, &transition),
            }
        }
        self.arm(at);
    }

    fn start(&mut self, at: usize, probe: Probe, timeout: Duration) {
        self.stats.probes += 1;
        let now = self.now;
        let backend = &mut self.backends[at];
        if backend.open.iter().any(|open| open.probe.check == probe.check) {
            self.break_promise(Broken::Overlap, at, format!("{probe:?}"));
            return;
        }
        let met = backend.mode;
        backend.open.push(Open { probe, met, began: now });
        backend.starts.push_back(now);
        while backend.starts.front().is_some_and(|first| first + SECOND <= now) {
            backend.starts.pop_front();
        }
        let (count, limit) = (backend.starts.len(), backend.limits.probes);
        if count > limit {
            self.break_promise(Broken::Storm, at, format!("{count} probes, {limit} expected"));
        }
        let longest = nanos(timeout) * 6 / 10;
        // A kernel refuses at once.
        let usual = if met == Mode::Refusing { MS } else { self.rng.pick(&[MS, 5 * MS, SECOND]) };
        let latency = self.rng.range(MS / 5, longest.min(usual));
        self.at(now + latency, Due::Answer(at, probe));
        let late = self.rng.range(0, 2 * MS);
        self.at(now + nanos(timeout) + late, Due::TimeOut(at, probe));
    }

    fn changed(&mut self, at: usize, transition: &Transition) {
        let now = self.now;
        self.log(at, || transition.to_string());
        let backend = &mut self.backends[at];
        let state = backend.monitor.state();
        backend.suspected_since = now;
        match (transition.from, transition.to) {
            (State::Down, State::Up | State::Suspected) => {
                let until = backend.held_until;
                self.stats.held += u64::from((until..until + 3 * MS).contains(&now));
                if now < until {
                    self.break_promise(Broken::HoldCutShort, at, format!("until {until}"));
                }
            }
            (_, State::Suspected) => self.stats.suspicions += 1,
            (State::Up | State::Suspected, State::Down) => self.went_down(at),
            (_, State::Up | State::Down | State::Checking) => {}
        }
        if state != transition.to {
            self.break_promise(Broken::Untold, at, state.to_string());
        }
    }

    fn went_down(&mut self, at: usize) {
        let now = self.now;
        self.stats.downs += 1;
        self.check_verdict(at);
        let backend = &mut self.backends[at];
        self.stats.fast_kills += u64::from(backend.killed.take().is_some());
        let max = nanos(backend.damping.max);
        let told = backend.monitor.report(tick(now)).held_down_until.map_or(now, Tick::as_nanos);
        let least = now + nanos(backend.damping.hold.min(backend.damping.max));
        backend.held_until = told.clamp(least, now + max);
        backend.downs.push_back(now);
        while backend.downs.front().is_some_and(|first| first + max <= now) {
            backend.downs.pop_front();
        }
        let (downs, limit) = (backend.downs.len(), downs_in_max(backend.damping));
        if downs > limit {
            self.break_promise(Broken::TooManyDowns, at, format!("{downs}, at most {limit}"));
        }
    }

    /// Sets the timer; the kernel wakes late by up to 2 ms.
    fn arm(&mut self, at: usize) {
        let backend = &mut self.backends[at];
        let deadline = backend.monitor.next_deadline().map(Tick::as_nanos);
        if backend.armed != deadline || deadline.is_none() {
            backend.armed = deadline;
            let late = self.rng.range(0, 2 * MS);
            backend.wake = deadline.map_or(u64::MAX, |at| at.max(self.now) + late);
            if self.sabotage == Sabotage::ForgetsTimers && self.rng.chance(1) {
                backend.wake = u64::MAX;
            }
        }
    }

    /// Has what is wrong been wrong for too long?
    fn observe(&mut self, at: usize) {
        if self.stalled.is_some() {
            return;
        }
        let backend = &self.backends[at];
        let (limits, well) = (backend.limits, backend.mode == Mode::Well);
        let quiet_since = backend.mode_since.max(self.odd_at);
        let (broken, since, limit) = match backend.monitor.state() {
            State::Up | State::Suspected if backend.killed.is_some() => {
                (Broken::SlowKill, backend.killed.unwrap_or(self.now), 40 * MS)
            }
            State::Up | State::Suspected if !well => (Broken::DeadButUp, quiet_since, limits.down),
            State::Suspected => {
                let since = quiet_since.max(backend.suspected_since);
                (Broken::StuckSuspected, since, limits.suspected)
            }
            State::Down | State::Checking if well => {
                (Broken::HealthyButDown, quiet_since.max(backend.held_until), limits.up)
            }
            State::Up | State::Down | State::Checking => return,
        };
        if self.now > since + limit {
            let (late, limit) = ((self.now - since) / MS, limit / MS);
            self.break_promise(broken, at, format!("for {late} ms, limit {limit} ms"));
        }
    }

    /// Some time within `span`, at least a tenth of it from now.
    fn later(&mut self, span: u64, due: Due) {
        let delay = self.rng.range(span / 10, span);
        self.at(self.now + delay, due);
    }

    fn at(&mut self, time: u64, due: Due) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence, due)));
    }

    fn break_promise(&mut self, broken: Broken, backend: usize, detail: String) {
        let (seed, at) = (self.seed, self.now);
        let detail = format!("backend {backend}: {detail}");
        self.violation.get_or_insert(Violation { broken, seed, at, detail });
    }

    #[expect(clippy::print_stderr, reason = "the trace of a replay is for the reader of the test")]
    fn log(&self, at: usize, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:12.6} {at} {}", self.now as f64 / SECOND as f64, what());
        }
    }
}
