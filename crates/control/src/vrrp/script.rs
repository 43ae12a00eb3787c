//! When a tracking script runs, and what its results amount to.
//!
//! Runs nothing itself: the caller starts and kills processes, and reports how they ended.

use std::time::{Duration, Instant};

use super::track::Reading;

/// `[[vrrp.track_script]]`: rhythm and dampening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptTimes {
    /// From one start to the next.
    pub interval: Duration,
    /// A script that runs longer is killed and has failed.
    pub timeout: Duration,
    /// Successes in a row that bring it up, at least 1.
    pub rise: u8,
    /// Failures in a row that bring it down, at least 1.
    pub fall: u8,
}

/// What the caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptAction {
    /// Start the script.
    Run,
    /// Kill it; it has failed already and no result is expected.
    Kill,
}

/// One tracking script. The first result counts at once; later ones need `rise` or `fall` in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    times: ScriptTimes,
    reading: Reading,
    against: u8,
    next_run: Instant,
    kill_at: Option<Instant>,
}

impl Script {
    /// Runs for the first time at once.
    pub const fn new(times: ScriptTimes, now: Instant) -> Self {
        Self { times, reading: Reading::Unknown, against: 0, next_run: now, kill_at: None }
    }

    /// What the results amount to: unknown, up or down.
    pub const fn reading(&self) -> Reading {
        self.reading
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn next_deadline(&self) -> Instant {
        self.kill_at.unwrap_or(self.next_run)
    }

    /// Call until `None`, then compare [`reading`](Self::reading) with what it was.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<ScriptAction> {
        match self.kill_at {
            Some(kill_at) if kill_at <= now => {
                self.ended(false);
                Some(ScriptAction::Kill)
            }
            Some(_) => None,
            None if self.next_run <= now => {
                let next = self.next_run + self.times.interval;
                self.next_run = if next > now { next } else { now + self.times.interval };
                self.kill_at = Some(now + self.times.timeout);
                Some(ScriptAction::Run)
            }
            None => None,
        }
    }

    /// The script ended, or could not be started. A result after its kill does not count.
    pub fn exited(&mut self, ok: bool) {
        if self.kill_at.is_some() {
            self.ended(ok);
        }
    }

    fn ended(&mut self, ok: bool) {
        self.kill_at = None;
        let (result, needed) =
            if ok { (Reading::Up, self.times.rise) } else { (Reading::Down, self.times.fall) };
        if self.reading == result {
            self.against = 0;
            return;
        }
        self.against = self.against.saturating_add(1);
        if self.reading == Reading::Unknown || self.against >= needed {
            self.reading = result;
            self.against = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::tests::origin;

    const TIMES: ScriptTimes = ScriptTimes {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    };

    fn run(script: &mut Script, ok: bool) -> Reading {
        let now = script.next_deadline();
        assert_eq!(script.handle_timeout(now), Some(ScriptAction::Run));
        assert_eq!(script.handle_timeout(now), None);
        script.exited(ok);
        script.reading()
    }

    #[test]
    fn the_first_result_counts_at_once_then_rise_and_fall_do() {
        let mut script = Script::new(TIMES, origin());
        let results = [true, false, false, true, false, false, false, true, false, true, true];
        let readings = results.map(|ok| run(&mut script, ok) == Reading::Up);
        let up = [true, true, true, true, true, true, false, false, false, false, true];
        assert_eq!(readings, up);
    }

    #[test]
    fn a_script_that_hangs_is_killed_and_has_failed() {
        let start = origin();
        let mut script = Script::new(TIMES, start);
        assert_eq!(script.handle_timeout(start), Some(ScriptAction::Run));
        assert_eq!(script.next_deadline(), start + TIMES.timeout);
        assert_eq!(script.handle_timeout(start + TIMES.timeout), Some(ScriptAction::Kill));
        assert_eq!(script.reading(), Reading::Down);
        script.exited(true);
        assert_eq!(script.reading(), Reading::Down);
        assert_eq!(script.next_deadline(), start + TIMES.interval);
    }

    #[test]
    fn runs_do_not_pile_up_after_a_stall() {
        let start = origin();
        let mut script = Script::new(TIMES, start);
        let late = start + Duration::from_secs(100);
        assert_eq!(script.handle_timeout(late), Some(ScriptAction::Run));
        script.exited(true);
        assert_eq!(script.handle_timeout(late), None);
        assert_eq!(script.next_deadline(), late + TIMES.interval);
    }
}
