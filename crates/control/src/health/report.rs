//! What an operator can ask of a monitor.

use std::collections::BTreeMap;
use std::time::Duration;

use dataplane::Tick;

use super::action::State;
use super::{Failure, FailureKind};

/// A backend as its checks see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The state.
    pub state: State,
    /// Since when it has this state.
    pub since: Tick,
    /// Although its checks may pass, it stays down until then.
    pub held_down_until: Option<Tick>,
    /// How often it was suspected.
    pub suspicions: u64,
    /// Triggers that started no check: the last one was wrong, and not long ago.
    pub triggers_ignored: u64,
    /// Its checks, as configured.
    pub checks: Vec<CheckReport>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Its place among the checks of the address: services that share it name the same one.
    pub place: usize,
    /// `http`, `https`, `tcp`, `udp`, `ping` or `script`.
    pub kind: &'static str,
    /// The kind and what distinguishes it from all others of the backend.
    pub label: String,
    /// What it says.
    pub state: CheckState,
    /// Its results so far.
    pub tally: Tally,
}

label::labels! {
    /// What a check says of a backend.
    pub enum CheckState {
        Checking => "checking", "No result yet.";
        Passing => "passing", "It passes.";
        Failing => "failing", "The last answers were wrong, but not yet `fall` of them.";
        Suspected => "suspected", "Up, but its last probe failed or a sentinel was lost.";
        Down => "down", "It failed `fall` times in a row and did not yet pass `rise` times.";
    }
}

/// Results of a check. Those of unchanged checks survive a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Successes since the last failure.
    pub passed: u32,
    /// Failures since the last success.
    pub failed: u32,
    /// The last failure and when it was.
    pub last_failure: Option<(Failure, Tick)>,
    /// How long the last probe took.
    pub last_duration: Option<Duration>,
    /// All successes.
    pub successes: u64,
    /// All failures, by [`Failure::name`].
    pub failures: BTreeMap<FailureKind, u64>,
    /// How often the sentinel was lost while it was up.
    pub sentinel_losses: u64,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: &Result<(), Failure>, took: Duration, now: Tick) {
        self.last_duration = Some(took);
        match outcome {
            Ok(()) => {
                self.successes += 1;
                self.passed = self.passed.saturating_add(1);
                self.failed = 0;
            }
            Err(failure) => {
                *self.failures.entry(failure.kind()).or_default() += 1;
                self.last_failure = Some((failure.clone(), now));
                self.failed = self.failed.saturating_add(1);
                self.passed = 0;
            }
        }
    }
}
