//! What happens to servers and to the driver, and when.

use control::health::{Failure, State};

use super::server::Mode;
use super::{Broken, Due, Input, MS, SECOND, World, nanos, tick};

impl World {
    pub(super) fn happen(&mut self, due: Due) {
        match due {
            Due::Turn(at) => self.turn(at),
            Due::Answer(at, probe) => self.answer(at, probe),
            Due::TimeOut(at, probe) => {
                self.tell(Input::Ended(at, probe, Err(Failure::Timeout)));
            }
            Due::Close(at, check, name) => self.close(at, check, name),
            Due::Sample(at) => self.sample(at),
            Due::Stale(at, probe) => {
                let open = self.backends[at].open.iter().any(|open| open.probe == probe);
                if self.stalled.is_none() && !open {
                    self.stats.stale += 1;
                    let outcome = if self.rng.chance(500) { Ok(()) } else { Err(Failure::Reset) };
                    self.backends[at].monitor.probe_ended(probe, outcome, tick(self.now));
                    self.drain(at);
                }
            }
            Due::Flood(at) => {
                self.backends[at].flooded = !self.backends[at].flooded;
                self.start_sampling(at);
                self.later(60 * SECOND, due);
            }
            Due::Reload(at) => {
                self.tell(Input::Reload(at));
                self.later(600 * SECOND, due);
            }
            Due::Stall => self.stall(),
            Due::Thaw => self.thaw(),
        }
    }

    /// The server changes.
    fn turn(&mut self, at: usize) {
        let now = self.now;
        let bad = [Mode::Refusing, Mode::Refusing, Mode::Silent, Mode::Wrong];
        let bad = self.rng.pick(&bad);
        let backend = &mut self.backends[at];
        let mode =
            if backend.mode == Mode::Well || self.rng.chance(100) { bad } else { Mode::Well };
        if mode != backend.mode {
            if backend.mode != Mode::Well {
                backend.unwell_at = now;
            }
            backend.killed = None;
            if mode == Mode::Refusing {
                self.kill(at);
            }
            let backend = &mut self.backends[at];
            backend.mode = mode;
            backend.mode_since = now;
            if mode != Mode::Well {
                backend.unwell_at = now;
            }
            self.log(at, || format!("is {mode:?}"));
        }
        if mode == Mode::Silent {
            self.start_sampling(at);
        }
        let flaps = [200 * MS, 1000 * MS, 3000 * MS];
        let span = if self.flapping { self.rng.pick(&flaps) } else { 60 * SECOND };
        self.later(span, Due::Turn(at));
    }

    /// The server is killed: its kept connections end.
    fn kill(&mut self, at: usize) {
        let now = self.now;
        let backend = &mut self.backends[at];
        // No loss before this one is still being looked into, or held against it.
        let longest = backend.checks.iter().map(|check| nanos(check.interval)).max().unwrap_or(0);
        let over = backend.lost_at.max(self.odd_at) + 2 * longest + 4 * backend.limits.probe;
        let calm = now > over && backend.mode == Mode::Well;
        let up = backend.monitor.state() == State::Up;
        if calm && up && !backend.kept.is_empty() && self.stalled.is_none() {
            backend.killed = Some(now);
        }
        for (check, name) in backend.kept.clone() {
            let delay = self.rng.range(MS / 10, MS);
            self.at(now + delay, Due::Close(at, check, name));
        }
    }

    /// A kept connection ends, if it is still the one that is kept.
    fn close(&mut self, at: usize, check: usize, name: u64) {
        let backend = &mut self.backends[at];
        let before = backend.kept.len();
        backend.kept.retain(|kept| *kept != (check, name));
        // Nothing comes of a host that is away.
        if backend.kept.len() < before && backend.mode != Mode::Silent {
            backend.lost_at = self.now;
            self.tell(Input::Lost(at, check));
        }
    }

    fn answer(&mut self, at: usize, probe: control::health::Probe) {
        let backend = &self.backends[at];
        let Some(&open) = backend.open.iter().find(|open| open.probe == probe) else { return };
        let Some(outcome) = backend.answer(open) else { return };
        // A probe takes several turns of the driver: one that stands still finishes it afterwards,
        // if its own timer was not just over. Then it may as well have been the last turn.
        let thaws_at = self.thaws_at.filter(|_| self.stalled.is_some());
        let timeout = backend.checks.get(probe.check).map_or(0, |check| nanos(check.timeout));
        if let Some(thaws_at) = thaws_at
            && thaws_at > open.began + timeout + 60 * MS
            && self.rng.chance(500)
        {
            let turn = self.rng.range(MS / 10, 3 * MS);
            self.at(thaws_at + turn, Due::Answer(at, probe));
            return;
        }
        self.tell(Input::Ended(at, probe, outcome));
    }

    fn start_sampling(&mut self, at: usize) {
        if !self.backends[at].sampled {
            self.backends[at].sampled = true;
            self.at(self.now + 200 * MS, Due::Sample(at));
        }
    }

    /// The driver looks at the handshakes of a backend whose clients get no answer, or seem to.
    fn sample(&mut self, at: usize) {
        let backend = &mut self.backends[at];
        let silent = backend.mode == Mode::Silent && self.now - backend.mode_since >= 200 * MS;
        if silent || backend.flooded {
            self.tell(Input::Suspect(at));
        }
        let backend = &mut self.backends[at];
        backend.sampled = backend.flooded || backend.mode == Mode::Silent;
        if backend.sampled {
            self.at(self.now + 50 * MS, Due::Sample(at));
        }
    }

    fn stall(&mut self) {
        self.stats.stalls += 1;
        self.log(usize::MAX, || "the driver stands still".into());
        self.stalled = Some(Vec::new());
        self.stalled_at = self.now;
        for backend in &mut self.backends {
            backend.killed = None;
        }
        let length = self.rng.pick(&[50 * MS, 500 * MS, 3 * SECOND, 20 * SECOND]);
        let length = self.rng.range(length / 10, length);
        self.thaws_at = Some(self.now + length);
        self.at(self.now + length, Due::Thaw);
    }

    /// The driver goes on: what waits is older than its timers.
    fn thaw(&mut self) {
        self.log(usize::MAX, || "the driver goes on".into());
        let waiting = self.stalled.take().unwrap_or_default();
        self.odd_at = self.now;
        for input in waiting {
            self.tell(input);
        }
        // A probe that was made anew gets its answer before the next one.
        let pause = self.rng.range(5 * SECOND, 120 * SECOND);
        self.at(self.now + pause, Due::Stall);
    }

    /// A backend went down although nothing was wrong with it since before the last probe.
    pub(super) fn check_verdict(&mut self, at: usize) {
        let backend = &self.backends[at];
        let probe = backend.limits.probe;
        // Outcomes from a stall are reported after it.
        let told_late = self.now - self.odd_at <= probe;
        let met_by = if told_late { self.stalled_at.min(self.now) } else { self.now };
        if backend.mode == Mode::Well && backend.unwell_at + probe < met_by {
            let well_for = (self.now - backend.unwell_at) / MS;
            self.break_promise(Broken::FalseDown, at, format!("well for {well_for} ms"));
        }
    }
}
