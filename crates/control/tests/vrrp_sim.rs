//! Ten thousand simulated hours of bad luck.
//!
//! `POINTSMAN_SEED=n` replays one hour with a trace, `POINTSMAN_SEEDS=n` runs another number.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::{BrokenPromise, SECOND, Sabotage, Stats, Violation, run};

mod sim;

const HOUR: u64 = 3600 * SECOND;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs seeds `0..count` on all processors; the lowest seed that fails, or the sums.
fn hours(count: u64, sabotage: Sabotage) -> Result<Stats, Violation> {
    let next = AtomicU64::new(0);
    let result = Mutex::new((Stats::default(), None::<Violation>));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let outcome = run(seed, HOUR, sabotage, false);
                    let mut result = result.lock().unwrap();
                    match outcome {
                        Ok(stats) => result.0.add(&stats),
                        Err(violation) => {
                            next.store(count, Ordering::Relaxed);
                            if result.1.as_ref().is_none_or(|v| v.seed > violation.seed) {
                                result.1 = Some(*violation);
                            }
                        }
                    }
                }
            });
        }
    });
    let (stats, violation) = result.into_inner().unwrap();
    violation.map_or(Ok(stats), Err)
}

#[test]
fn no_promise_is_broken_in_ten_thousand_hours() {
    if let Some(seed) = number("POINTSMAN_SEED") {
        run(seed, HOUR, Sabotage::None, true).unwrap_or_else(|violation| panic!("{violation}"));
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
    assert!(stats.faults > 100 * count, "{stats:?}");
    assert!(stats.quiet_ns / SECOND > 900 * count, "{stats:?}");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..20 {
        let runs = [(); 2].map(|()| run(seed, HOUR, Sabotage::None, false).unwrap());
        assert_eq!(format!("{:?}", runs[0]), format!("{:?}", runs[1]));
    }
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
fn not_hearing_a_better_router_is_noticed() {
    let broken = caught(Sabotage::DeafToBetter);
    assert!(matches!(broken, BrokenPromise::TwoOwners | BrokenPromise::NotOneActive), "{broken:?}");
}

#[test]
fn an_owner_that_cannot_forward_is_noticed() {
    assert_eq!(caught(Sabotage::HidesFailure), BrokenPromise::UnableOwner);
}
