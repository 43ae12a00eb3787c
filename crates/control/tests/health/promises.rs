//! What must hold, whatever happens.

use std::fmt;

use control::Damping;
use control::health::{Check, CheckKind};

use super::{MS, SECOND, nanos};

/// The promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Two probes of one check at a time.
    Overlap,
    /// More probes in a second than intervals, losses and triggers account for.
    Storm,
    /// Taken down although nothing was wrong since the last probe began.
    FalseDown,
    /// Dead for `fall` × (interval + timeout), but in service.
    DeadButUp,
    /// Well for as long as `rise` needs and not held, but out of service.
    HealthyButDown,
    /// Killed with a sentinel, but in service after 40 ms.
    SlowKill,
    /// Suspected for longer than it takes to decide.
    StuckSuspected,
    /// Back in service before the end of the hold.
    HoldCutShort,
    /// More times down in `damping.max` than its growing holds leave room for.
    TooManyDowns,
    /// The last reported transition differs from the monitor's state.
    Untold,
}

/// A broken promise, with what is needed to see it again.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) broken: Broken,
    pub(crate) seed: u64,
    pub(crate) at: u64,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broken, seed, at, detail } = self;
        let seconds = *at as f64 / SECOND as f64;
        write!(f, "seed {seed}, {seconds:.6} s: {broken:?}: {detail}\n  replay: ")?;
        write!(f, "POINTSMAN_SEED={seed} cargo test -p control --test health_sim -- --nocapture")
    }
}

/// How long things may take with these checks, in ns.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// From a death to DOWN.
    pub(crate) down: u64,
    /// From being well, or the end of the hold, to UP.
    pub(crate) up: u64,
    /// Suspected without a decision.
    pub(crate) suspected: u64,
    /// The longest probe.
    pub(crate) probe: u64,
    /// Probes in a second.
    pub(crate) probes: usize,
}

impl Limits {
    pub(crate) fn of(checks: &[Check]) -> Self {
        let longest = |of: fn(&Check) -> u64| checks.iter().map(of).max().unwrap_or(0);
        Self {
            down: checks.iter().filter(|c| is_of_server(c)).map(down).min().unwrap_or(u64::MAX / 2),
            up: longest(up),
            suspected: longest(suspected),
            probe: longest(probe),
            probes: checks.iter().map(per_second).sum(),
        }
    }
}

/// Whether it fails if the server is gone but the host is there.
pub(crate) const fn is_of_server(check: &Check) -> bool {
    !matches!(check.kind, CheckKind::Ping)
}

/// How many times down a window of `damping.max` has room for: holds grow eightfold.
pub(crate) fn downs_in_max(damping: Damping) -> usize {
    if damping.hold.is_zero() {
        return usize::MAX;
    }
    let mut hold = damping.hold;
    let mut downs = 2;
    while hold < damping.max {
        hold *= 8;
        downs += 1;
    }
    downs
}

/// The driver ends probes late by a timer's lateness, the monitor gives up probes without an outcome.
const SLACK: u64 = 25 * MS;

fn stretched(interval: std::time::Duration, check: &Check) -> u64 {
    nanos(interval) * (100 + u64::from(check.jitter_percent)) / 100 + 3 * MS
}

fn probe(check: &Check) -> u64 {
    nanos(check.timeout) + SLACK
}

fn down(check: &Check) -> u64 {
    let first = stretched(check.interval, check) + 2 * probe(check);
    let step = stretched(check.fast_interval, check).max(probe(check));
    first + (u64::from(check.fall) - 1) * step
}

fn up(check: &Check) -> u64 {
    let step = stretched(check.down_interval, check).max(probe(check));
    // One that passed again may have failed once more when the hold ended.
    let again = stretched(check.interval, check) + probe(check);
    probe(check) + (u64::from(check.rise) + 1) * step + again + 200 * MS
}

fn suspected(check: &Check) -> u64 {
    let step = stretched(check.fast_interval, check).max(probe(check));
    // A confirmation of three tries may come first.
    (u64::from(check.fall) + 3) * step + probe(check)
}

fn per_second(check: &Check) -> usize {
    let shortest = check.interval.min(check.fast_interval).min(check.down_interval);
    let shortest = nanos(shortest) * (100 - u64::from(check.jitter_percent)) / 100;
    // Losses are looked into at 0, 0.1, 0.3, 0.7 s: three tries each, and one trigger.
    usize::try_from(SECOND / shortest.max(1)).expect("small") + 2 + 4 * 3 + 1
}
