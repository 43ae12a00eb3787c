//! Losses of sentinels: what up to three tries meet, and what follows.

use super::*;

/// Fall 3. What the tries meet, the transitions, and the failures in a row at the end.
const MATRIX: [(&str, &[&str], u32); 22] = [
    ("ok ok", &[], 0),
    ("refused refused", &[SUSPECTED, DOWN], 2),
    ("reset refused", &[RESET, DOWN], 2),
    ("refused reset", &[SUSPECTED, DOWN_RESET], 2),
    ("reset reset", &[RESET, DOWN_RESET], 2),
    ("refused ok ok", &[SUSPECTED, UP], 0),
    ("ok refused ok", &[SUSPECTED_AT_5, UP_15], 0),
    ("refused ok refused", &[SUSPECTED, DOWN_AT_20], 1),
    ("ok refused refused", &[SUSPECTED_AT_5, DOWN_AT_20], 2),
    ("status ok", &[], 0),
    ("ok status", &[], 1),
    ("status status", &[], 2),
    ("closed closed", &[CLOSED], 2),
    ("closed ok", &[CLOSED, UP_5], 0),
    ("refused status ok", &[SUSPECTED, UP], 0),
    ("refused status refused", &[SUSPECTED, DOWN_AT_20], 3),
    ("refused closed refused", &[SUSPECTED, DOWN_AT_20], 3),
    ("closed refused refused", &[CLOSED, DOWN_AT_20], 3),
    ("closed refused ok", &[CLOSED, UP], 0),
    ("refused ok status", &[SUSPECTED], 1),
    (
        "status refused status",
        &["UP -> SUSPECTED after 5.0 ms: sentinel closed, connect refused"],
        3,
    ),
    ("local", &[], 1),
];

const SUSPECTED: &str = "UP -> SUSPECTED: sentinel closed, connect refused";
const SUSPECTED_AT_5: &str = "UP -> SUSPECTED after 5.0 ms: sentinel closed, connect refused";
const RESET: &str = "UP -> SUSPECTED: sentinel closed, connection reset";
const CLOSED: &str = "UP -> SUSPECTED: sentinel closed, closed before the answer was complete";
const DOWN: &str = "UP -> DOWN after 5.0 ms: sentinel closed, connect refused";
const DOWN_RESET: &str = "UP -> DOWN after 5.0 ms: sentinel closed, connection reset";
const DOWN_AT_20: &str = "UP -> DOWN after 20.0 ms: sentinel closed, connect refused";
const UP: &str = "SUSPECTED -> UP after 20.0 ms: 1 success";
const UP_5: &str = "SUSPECTED -> UP after 5.0 ms: 1 success";
const UP_15: &str = "SUSPECTED -> UP after 15.0 ms: 1 success";

#[test]
fn what_the_tries_meet() {
    for (tries, changes, failed) in MATRIX {
        let mut bench = Bench::up(&[tcp()], UNDAMPED);
        bench.changes.clear();
        bench.play("wait 400");
        assert_eq!(bench.play("lost"), "start 0; UP 320", "{tries}");
        let mut last = String::new();
        for (index, met) in tries.split(' ').enumerate() {
            if index > 0 {
                let started = bench.play("next");
                assert!(started.starts_with("start 0; "), "{tries}: {started}");
            }
            last = bench.play(met);
        }
        // Passing tries leave a `1 success` or more of which the text tells the number.
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let got: Vec<_> =
            bench.changes.iter().map(|c| c.replace("2 successes", "1 success")).collect();
        assert_eq!(got, changes, "{tries}");
        // After the last try the check goes on as usual: the confirmation is over.
        let wait: u64 = last.rsplit(' ').next().and_then(|ms| ms.parse().ok()).unwrap();
        let state = bench.monitor.state();
        let expected = match state {
            State::Down => 500,
            State::Checking | State::Up | State::Suspected if failed > 0 => 200,
            State::Checking | State::Up | State::Suspected => 1000,
        };
        assert_eq!(wait, expected, "{tries}: {last}");
        assert_eq!(bench.monitor.report(bench.now).checks[0].tally.failed, failed, "{tries}");
    }
}

#[test]
fn a_kill_is_seen_in_5_ms() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "killed",
        &[
            ("wait 400", "UP 600"),
            ("lost", "start 0; UP 320"),
            ("refused", "(UP -> SUSPECTED: sentinel closed, connect refused) SUSPECTED 5"),
            ("next", "start 0; SUSPECTED 320"),
            ("refused", "(UP -> DOWN after 5.0 ms: sentinel closed, connect refused) DOWN 500"),
        ],
    );
}

#[test]
fn the_next_try_follows_a_slow_one_at_once() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "slow",
        &[
            ("lost", "start 0; UP 320"),
            ("wait 30", "UP 290"),
            ("ok", "start 0; UP 320"),
            (
                "refused",
                "start 0; (UP -> SUSPECTED after 30.0 ms: sentinel closed, connect refused) \
                 SUSPECTED 320",
            ),
            ("refused", "(UP -> DOWN after 30.0 ms: sentinel closed, connect refused) DOWN 500"),
        ],
    );
}

#[test]
fn a_probe_from_before_the_loss_does_not_count() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story("running", &[("next", "start 0; UP 320"), ("wait 1", "UP 319")]);
    let before = bench.running[0].expect("running");
    assert_eq!(bench.play("lost"), "cancel 0; start 0; UP 320");
    bench.monitor.probe_ended(before, Ok(()), bench.now);
    bench.story(
        "then",
        &[
            ("refused", "(UP -> SUSPECTED: sentinel closed, connect refused) SUSPECTED 5"),
            ("next", "start 0; SUSPECTED 320"),
            ("refused", "(UP -> DOWN after 5.0 ms: sentinel closed, connect refused) DOWN 500"),
        ],
    );
}

#[test]
fn tries_that_meet_other_failures_reach_fall() {
    let mut bench = Bench::up(&[Check { fall: 2, ..tcp() }], UNDAMPED);
    bench.story(
        "two statuses",
        &[
            ("lost", "start 0; UP 320"),
            ("status", "UP 5"),
            ("next", "start 0; UP 320"),
            ("status", "(UP -> DOWN after 5.0 ms: sentinel closed, status 500) DOWN 500"),
            ("next", "start 0; DOWN 320"),
        ],
    );
}

#[test]
fn with_fall_1_a_refused_try_is_still_confirmed() {
    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    bench.play("lost");
    bench.play("refused");
    assert_eq!(bench.monitor.state(), State::Suspected);
}

#[test]
fn sentinels_of_others_are_ignored() {
    let mut bench = Bench::up(&[tcp(), ping()], UNDAMPED);
    for check in ["lost 1", "lost 7"] {
        let got = bench.play(check);
        assert!(got.starts_with("UP "), "{check}: {got}");
    }
    let mut bench = Bench::new(&[tcp()], UNDAMPED);
    assert!(bench.play("lost").starts_with("CHECKING "));
    bench.play("next");
    bench.play("refused");
    assert_eq!(bench.play("lost"), "DOWN 500");
}

/// A server that closes every kept connection as soon as it is made.
#[test]
fn a_server_that_keeps_nothing_starts_no_storm() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    let begin = bench.now;
    let mut probes = 0;
    while bench.now.saturating_since(begin) < Duration::from_secs(60) {
        if bench.running[0].is_some() {
            probes += 1;
            bench.play("ok");
            bench.play("lost");
        } else {
            bench.play("next");
        }
        assert_eq!(bench.monitor.state(), State::Up);
    }
    // Two tries per second and the few of the first second.
    assert!((115..135).contains(&probes), "{probes}");
    assert_eq!(bench.monitor.report(bench.now).checks[0].tally.failures.len(), 0);
}

/// Its keep-alive time is 5 s: each loss is looked into at once.
#[test]
fn an_idle_timeout_is_nothing() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    for _ in 0..100 {
        let lost_at = bench.now + Duration::from_secs(5);
        while bench.monitor.next_deadline().is_some_and(|at| at < lost_at) {
            bench.play("next");
            bench.play("ok");
        }
        bench.now = lost_at;
        bench.story(
            "idle",
            &[
                ("lost", "start 0; UP 320"),
                ("ok", "UP 5"),
                ("next", "start 0; UP 320"),
                ("ok", "UP 1000"),
            ],
        );
    }
    assert_eq!(bench.monitor.report(bench.now).suspicions, 0);
}

#[test]
fn a_loss_within_the_gap_is_looked_into_after_it() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "twice lost",
        &[
            ("lost", "start 0; UP 320"),
            ("ok", "UP 5"),
            ("next", "start 0; UP 320"),
            ("ok", "UP 1000"),
            ("wait 40", "UP 960"),
            ("lost", "UP 60"),
            ("next", "start 0; UP 320"),
            (
                "refused",
                "(UP -> SUSPECTED after 60.0 ms: sentinel closed, connect refused) SUSPECTED 5",
            ),
            ("next", "start 0; SUSPECTED 320"),
            ("refused", "(UP -> DOWN after 65.0 ms: sentinel closed, connect refused) DOWN 500"),
        ],
    );
}
