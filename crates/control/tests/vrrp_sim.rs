//! Ten thousand simulated hours of bad luck.
//!
//! `POINTSMAN_SEED=n` replays one hour with a trace, `POINTSMAN_SEEDS=n` runs another number.

use seeds::{number, run_all};
use sim::{BrokenPromise, Liar, SECOND, Sabotage, Stats, Violation, run};

mod crossed;
mod seeds;
mod sim;

const HOUR: u64 = 3600 * SECOND;

/// Runs seeds `0..count`.
fn hours(count: u64, sabotage: Sabotage) -> Result<Stats, Box<Violation>> {
    run_all(count, |seed| run(seed, HOUR, sabotage, Liar::AnyTime, false), Stats::add)
}

#[test]
fn no_promise_is_broken_in_ten_thousand_hours() {
    if let Some(seed) = number("POINTSMAN_SEED") {
        run(seed, HOUR, Sabotage::None, Liar::AnyTime, true)
            .unwrap_or_else(|violation| panic!("{violation}"));
        return;
    }
    let count = number("POINTSMAN_SEEDS").unwrap_or(10_000);
    let stats = hours(count, Sabotage::None).unwrap_or_else(|violation| panic!("{violation}"));
    // The hours must have been hard ones, and some of them quiet.
    assert!(stats.adverts > 3000 * count, "{stats:?}");
    assert!(stats.delivered > 3000 * count, "{stats:?}");
    assert!(stats.transitions > 100 * count, "{stats:?}");
    assert!(stats.activations > 20 * count, "{stats:?}");
    assert!(stats.lapses > 5 * count, "{stats:?}");
    assert!(stats.rejected > 5 * count, "{stats:?}");
    assert!(stats.lies > 100 * count, "{stats:?}");
    assert!(stats.faults > 100 * count, "{stats:?}");
    assert!(stats.reloads > 10 * count, "{stats:?}");
    assert!(stats.quiet_ns / SECOND > 900 * count, "{stats:?}");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..20 {
        let runs = [(); 2].map(|()| run(seed, HOUR, Sabotage::None, Liar::AnyTime, false).unwrap());
        assert_eq!(format!("{:?}", runs[0]), format!("{:?}", runs[1]));
    }
}

/// A sender of lower priority than the Active that is followed changes nothing: neither now nor when
/// that Active dies later is anything different from the same hour without it.
#[test]
fn a_liar_that_is_outranked_changes_nothing() {
    let replay = number("POINTSMAN_SEED");
    let compare = |seed| {
        let runs = [Liar::None, Liar::BehindAdverts].map(|liar| {
            run(seed, HOUR, Sabotage::None, liar, replay.is_some())
                .unwrap_or_else(|v| panic!("{v}"))
        });
        let [without, with] = runs;
        assert_eq!(Stats { lies: 0, ..with }, without, "seed {seed}");
        Ok::<_, Box<Violation>>(with)
    };
    if let Some(seed) = replay {
        compare(seed).expect("compared above");
        return;
    }
    let count = number("POINTSMAN_SEEDS").unwrap_or(10_000) / 20;
    let stats = run_all(count, compare, Stats::add).expect("compared above");
    assert!(stats.lies > 200 * count, "{stats:?}");
}

/// What a driver with this mistake breaks first.
fn caught(sabotage: Sabotage) -> BrokenPromise {
    hours(200, sabotage).expect_err("not noticed").broken
}

#[test]
fn leases_that_end_too_late_are_noticed() {
    assert_eq!(caught(Sabotage::LongLease), BrokenPromise::TwoOwners);
}

#[test]
fn vips_that_are_kept_are_noticed() {
    assert_eq!(caught(Sabotage::KeepsVips), BrokenPromise::TwoOwners);
}

#[test]
fn a_lease_clock_that_stops_is_noticed() {
    assert_eq!(caught(Sabotage::StoppedClock), BrokenPromise::TwoOwners);
}

#[test]
fn preempting_without_waiting_is_noticed() {
    assert_eq!(caught(Sabotage::HastyHandover), BrokenPromise::TwoOwners);
}

#[test]
fn leases_that_are_not_shortened_with_the_interval_are_noticed() {
    assert_eq!(caught(Sabotage::NeverShortens), BrokenPromise::TwoOwners);
}

#[test]
fn not_hearing_a_better_router_is_noticed() {
    let broken = caught(Sabotage::DeafToBetter);
    assert!(matches!(broken, BrokenPromise::TwoOwners | BrokenPromise::NotOneActive), "{broken:?}");
}

#[test]
fn an_owner_that_cannot_forward_is_noticed() {
    assert_eq!(caught(Sabotage::HidesFailure), BrokenPromise::UnableOwner);
}
