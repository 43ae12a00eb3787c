//! Drivers that are late, forgetful or confused.

use super::*;

#[test]
fn a_forgotten_probe_has_timed_out() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "forgotten",
        &[
            ("next", "start 0; UP 320"),
            ("wait 319", "UP 1"),
            ("next", "cancel 0; start 0; (UP -> SUSPECTED: timed out) SUSPECTED 320"),
        ],
    );
}

#[test]
fn a_stall_is_no_failure_but_two_are() {
    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    bench.story(
        "stalls",
        &[
            ("next", "start 0; UP 320"),
            ("wait 5000", "cancel 0; start 0; UP 320"),
            ("wait 5000", "cancel 0; start 0; (UP -> DOWN: timed out) DOWN 320"),
        ],
    );
    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    for _ in 0..10 {
        bench.story(
            "watched in between",
            &[
                ("next", "start 0; UP 320"),
                ("wait 5000", "cancel 0; start 0; UP 320"),
                ("ok", "UP 1000"),
            ],
        );
    }
    // The driver's own timer is as late.
    bench.play("next");
    bench.now = bench.now + Duration::from_secs(5);
    assert_eq!(bench.play("timeout"), "start 0; UP 320");
}

#[test]
fn starts_do_not_pile_up() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "late",
        &[
            ("wait 100000", "start 0; UP 320"),
            ("ok", "UP 1000"),
            ("wait 0", "UP 1000"),
            ("wait 999", "UP 1"),
            ("wait 1", "start 0; UP 320"),
        ],
    );
}

#[test]
fn an_outcome_that_is_late_but_there_counts() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.play("next");
    bench.now = bench.now + Duration::from_secs(10);
    assert_eq!(bench.play("ok"), "start 0; UP 320");
}

#[test]
fn stale_outcomes_are_ignored() {
    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    bench.play("next");
    let probe = bench.running[0].expect("running");
    let strangers = [
        Probe { serial: probe.serial.wrapping_sub(1), ..probe },
        Probe { serial: probe.serial.wrapping_add(1), ..probe },
        Probe { check: 1, ..probe },
        Probe { check: usize::MAX, ..probe },
    ];
    for stranger in strangers {
        bench.monitor.probe_ended(stranger, Err(Failure::Refused), bench.now);
        assert_eq!(bench.monitor.poll_action(), None);
    }
    bench.play("ok");
    bench.monitor.probe_ended(probe, Err(Failure::Refused), bench.now);
    assert_eq!(bench.monitor.poll_action(), None);
    assert_eq!(bench.monitor.state(), State::Up);
}

#[test]
fn probes_longer_than_the_interval_do_not_overlap() {
    let mut bench = Bench::up(&[Check { timeout: ms(3000), ..tcp() }], UNDAMPED);
    bench.story(
        "slow",
        &[
            ("next", "start 0; UP 3020"),
            ("wait 2500", "UP 520"),
            ("ok", "start 0; UP 3020"),
            ("wait 100", "UP 2920"),
        ],
    );
}

#[test]
fn intervals_have_jitter() {
    let mut bench = Bench::up(&[Check { jitter_percent: 10, ..tcp() }], UNDAMPED);
    let mut waits = Vec::new();
    for _ in 0..50 {
        let before = bench.now;
        bench.play("next");
        waits.push(bench.now.saturating_since(before).as_millis());
        bench.play("ok");
    }
    assert!(waits.iter().all(|wait| (900..=1100).contains(wait)), "{waits:?}");
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 30, "{waits:?}");
}

#[test]
fn no_interval_at_all_does_not_spin() {
    let zero = Duration::ZERO;
    let check =
        Check { interval: zero, fast_interval: zero, down_interval: zero, timeout: zero, ..tcp() };
    let mut bench = Bench::new(&[check], Damping { hold: zero, max: zero });
    bench.play("next");
    let begin = bench.now;
    for _ in 0..1000 {
        bench.play("next");
    }
    assert!(bench.now.saturating_since(begin) >= ms(1000));
}

/// A link that comes back has every check look at once, and what fails within a second is not held
/// against the backend.
#[test]
fn a_restored_link_is_a_reason_to_look_and_no_reason_to_blame() {
    let mut bench = Bench::up(&[tcp(), ping()], UNDAMPED);
    bench.story(
        "both checks begin at once",
        &[
            ("restored", "start 0; start 1; UP 320"),
            ("timeout 0", "UP 320"),
            ("unreachable 1", "UP 1000"),
        ],
    );
    bench.play("restored");
    for _ in 0..3 {
        bench.play("unreachable 0");
        bench.play("ok 1");
        bench.play("restored");
    }
    assert_eq!(bench.monitor.state(), State::Up, "{:?}", bench.changes);
}
