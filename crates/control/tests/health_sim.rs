//! Hundreds of simulated half hours of servers that come and go.
//!
//! `POINTSMAN_SEED=n` replays one run with a trace, `POINTSMAN_SEEDS=n` makes another number of them.

use health::{Broken, SECOND, Sabotage, Stats, Violation, run};
use seeds::{number, run_all};

mod health;
mod seeds;

const LENGTH: u64 = 1800 * SECOND;

/// Runs seeds `0..count`.
fn runs(count: u64, sabotage: Sabotage) -> Result<Stats, Box<Violation>> {
    run_all(count, |seed| run(seed, LENGTH, sabotage, false), Stats::add)
}

#[test]
fn no_promise_is_broken_in_four_hundred_half_hours() {
    if let Some(seed) = number("POINTSMAN_SEED") {
        run(seed, LENGTH, Sabotage::None, true).unwrap_or_else(|violation| panic!("{violation}"));
        return;
    }
    let count = number("POINTSMAN_SEEDS").unwrap_or(400);
    let stats = runs(count, Sabotage::None).unwrap_or_else(|violation| panic!("{violation}"));
    // The runs must have been hard ones, and each promise put to the test.
    assert!(stats.probes > 10_000 * count, "{stats:?}");
    assert!(stats.downs > 50 * count, "{stats:?}");
    assert!(stats.suspicions > 100 * count, "{stats:?}");
    assert!(stats.triggers > 50 * count, "{stats:?}");
    assert!(stats.losses > 1000 * count, "{stats:?}");
    assert!(stats.stalls > 15 * count, "{stats:?}");
    assert!(stats.stale > 50 * count, "{stats:?}");
    assert!(stats.reloads > 5 * count, "{stats:?}");
    assert!(stats.fast_kills > 5 * count, "{stats:?}");
    assert!(stats.held > 5 * count, "{stats:?}");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..20 {
        let runs = [(); 2].map(|()| run(seed, LENGTH, Sabotage::None, false).unwrap());
        assert_eq!(format!("{:?}", runs[0]), format!("{:?}", runs[1]));
    }
}

/// What a driver or a machine with this mistake breaks first.
fn caught(sabotage: Sabotage) -> Broken {
    runs(200, sabotage).expect_err("not noticed").broken
}

#[test]
fn failures_that_are_made_up_are_noticed() {
    assert_eq!(caught(Sabotage::MakesUpFailures), Broken::FalseDown);
}

#[test]
fn failures_that_are_hidden_are_noticed() {
    let broken = caught(Sabotage::HidesFailures);
    assert!(matches!(broken, Broken::SlowKill | Broken::DeadButUp), "{broken:?}");
}

#[test]
fn losses_that_are_not_told_are_noticed() {
    assert_eq!(caught(Sabotage::DeafToLosses), Broken::SlowKill);
}

#[test]
fn a_timer_that_is_forgotten_is_noticed() {
    let broken = caught(Sabotage::ForgetsTimers);
    assert!(matches!(broken, Broken::HealthyButDown | Broken::DeadButUp), "{broken:?}");
}

#[test]
fn a_lost_cancellation_is_noticed() {
    assert_eq!(caught(Sabotage::KeepsCancelled), Broken::Overlap);
}

#[test]
fn holds_that_are_skipped_are_noticed() {
    let broken = caught(Sabotage::Undamped);
    assert!(matches!(broken, Broken::HoldCutShort | Broken::TooManyDowns), "{broken:?}");
}

#[test]
fn intervals_that_are_too_short_are_noticed() {
    assert_eq!(caught(Sabotage::Hasty), Broken::Storm);
}

#[test]
fn a_suspicion_that_stays_is_noticed() {
    assert_eq!(caught(Sabotage::DropsSuspects), Broken::StuckSuspected);
}
