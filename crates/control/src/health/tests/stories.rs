//! What follows what: first results, rise and fall, intervals, several checks.

use super::*;

#[test]
fn the_first_result_decides() {
    let mut bench = Bench::new(&[tcp()], UNDAMPED);
    let first = bench.play("next");
    assert_eq!(first, "start 0; CHECKING 320");
    assert!(bench.now.saturating_since(Tick::from_nanos(5_000_000_000)) < ms(200));
    assert_eq!(bench.monitor.condition(), Condition::Down);
    let passed = bench.play("ok");
    assert!(passed.starts_with("(CHECKING -> UP after "), "{passed}");
    assert!(passed.ends_with(" ms: 1 success) UP 1000"), "{passed}");

    let mut bench = Bench::new(&[tcp()], UNDAMPED);
    bench.play("next");
    let failed = bench.play("status");
    assert!(failed.starts_with("(CHECKING -> DOWN after "), "{failed}");
    assert!(failed.ends_with(" ms: status 500) DOWN 500"), "{failed}");
}

#[test]
fn one_that_starts_up_is_taken_down_by_its_first_result() {
    let check = Check { starts_up: true, ..tcp() };
    let mut bench = Bench::new(std::slice::from_ref(&check), UNDAMPED);
    assert_eq!(bench.monitor.condition(), Condition::Up);
    bench.story(
        "starts up",
        &[("next", "start 0; UP 320"), ("refused", "(UP -> DOWN: connect refused) DOWN 500")],
    );
    let mut bench = Bench::new(&[check], UNDAMPED);
    bench.story("passes", &[("next", "start 0; UP 320"), ("ok", "UP 1000")]);
}

#[test]
fn without_checks_it_is_up() {
    let mut bench = Bench::new(&[], UNDAMPED);
    bench.story("none", &[("wait 1000", "UP"), ("suspect", "no; UP"), ("lost", "UP")]);
}

#[test]
fn rise_and_fall() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "silent",
        &[
            ("next", "start 0; UP 320"),
            ("wait 300", "UP 20"),
            ("timeout", "start 0; (UP -> SUSPECTED: timed out) SUSPECTED 320"),
            ("wait 300", "SUSPECTED 20"),
            ("timeout", "start 0; SUSPECTED 320"),
            ("wait 300", "SUSPECTED 20"),
            ("timeout", "(UP -> DOWN after 600.0 ms: timed out, 3 failures) DOWN 200"),
            ("next", "start 0; DOWN 320"),
            ("ok", "DOWN 500"),
            ("next", "start 0; DOWN 320"),
            ("ok", "(DOWN -> UP after 700.0 ms: 2 successes) UP 1000"),
        ],
    );
}

#[test]
fn a_success_in_between_begins_anew() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "twice refused",
        &[
            ("next", "start 0; UP 320"),
            ("refused", "(UP -> SUSPECTED: connect refused) SUSPECTED 200"),
            ("next", "start 0; SUSPECTED 320"),
            ("refused", "SUSPECTED 200"),
            ("next", "start 0; SUSPECTED 320"),
            ("ok", "(SUSPECTED -> UP after 400.0 ms: 1 success) UP 1000"),
            ("next", "start 0; UP 320"),
            ("refused", "(UP -> SUSPECTED: connect refused) SUSPECTED 200"),
        ],
    );
}

/// What a first failure of a backend that is up makes of it, and when it is probed again.
#[test]
fn each_failure() {
    let cells = [
        ("refused", State::Suspected, 200),
        ("reset", State::Suspected, 200),
        ("closed", State::Suspected, 200),
        ("timeout", State::Suspected, 200),
        ("unreachable", State::Suspected, 200),
        ("status", State::Up, 200),
        ("mismatch", State::Up, 200),
        ("protocol", State::Up, 200),
        ("tls", State::Up, 200),
        ("exit", State::Up, 200),
        ("signal", State::Up, 200),
        ("local", State::Up, 1000),
    ];
    for (failure, state, wait) in cells {
        let mut bench = Bench::up(&[tcp()], UNDAMPED);
        bench.play("next");
        let got = bench.play(failure);
        assert!(got.ends_with(&format!("{state} {wait}")), "{failure}: {got}");
        let report = bench.monitor.report(bench.now);
        let kind = outcome(failure).unwrap_err().kind();
        assert_eq!(report.checks[0].tally.failures.get(&kind), Some(&1));
    }
    assert_eq!(cells.len(), FailureKind::COUNT);
}

#[test]
fn wrong_answers_count_towards_fall() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.story(
        "status",
        &[
            ("next", "start 0; UP 320"),
            ("status", "UP 200"),
            ("next", "start 0; UP 320"),
            ("mismatch", "UP 200"),
            ("next", "start 0; UP 320"),
            ("status", "(UP -> DOWN after 400.0 ms: status 500, 3 failures) DOWN 500"),
        ],
    );
}

#[test]
fn what_cannot_be_probed_stays_as_it_is() {
    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    for _ in 0..10 {
        assert_eq!(bench.play("next"), "start 0; UP 320");
        assert_eq!(bench.play("local"), "UP 1000");
    }
    let mut bench = Bench::new(&[tcp()], UNDAMPED);
    bench.play("next");
    assert_eq!(bench.play("local"), "CHECKING 1000");
    // A suspicion without a judge is dropped.
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.play("suspect");
    let dropped = bench.play("local");
    assert_eq!(dropped, "(SUSPECTED -> UP: cannot be probed) UP 200");
}

#[test]
fn all_checks_must_pass() {
    let mut bench = Bench::new(&[tcp(), ping()], UNDAMPED);
    bench.play("next");
    bench.play("next");
    let one = bench.play("ok 1");
    assert!(one.contains("CHECKING"), "{one}");
    let two = bench.play("ok 0");
    assert!(two.contains("CHECKING -> UP"), "{two}");

    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }, Check { fall: 2, ..ping() }], UNDAMPED);
    bench.play("wait 1000");
    bench.play("timeout 1");
    let down = bench.play("status 0");
    assert!(down.contains("UP -> DOWN: tcp: status 500) "), "{down}");
    bench.play("wait 600");
    bench.play("timeout 1");
    bench.play("ok 0");
    bench.play("wait 500");
    assert_eq!(bench.monitor.state(), State::Down);
    bench.play("ok 0");
    assert_eq!(bench.monitor.state(), State::Down, "the ping does not pass");
    bench.play("ok 1");
    bench.play("wait 500");
    let up = bench.play("ok 1");
    assert!(up.contains("DOWN -> UP"), "{up}");
}

#[test]
fn checks_that_fail_are_all_named() {
    let checks = [Check { fall: 1, ..tcp() }, Check { fall: 1, port: Some(81), ..tcp() }];
    let mut bench = Bench::up(&checks, UNDAMPED);
    bench.play("suspect");
    // Both outcomes are there when the driver turns to them: the first takes it down.
    bench.play("refused 1");
    assert_eq!(
        bench.changes.last().map(String::as_str),
        Some("UP -> DOWN: tcp :81: new connections unanswered, connect refused, 2 failures")
    );
    let mut bench = Bench::up(&[tcp(), ping()], UNDAMPED);
    bench.play("wait 1000");
    for _ in 0..3 {
        bench.play("timeout 1");
        bench.play("status 0");
        bench.play("wait 200");
    }
    let report = bench.monitor.report(bench.now);
    assert_eq!(report.state, State::Down);
    let states: Vec<_> = report.checks.iter().map(|check| (check.kind, check.state)).collect();
    assert_eq!(states, [("tcp", CheckState::Down), ("ping", CheckState::Down)]);
}

#[test]
fn a_report_tells_since_when_and_why() {
    let mut bench = Bench::up(&[tcp()], Damping::default());
    bench.play("next");
    bench.play("refused");
    let report = bench.monitor.report(bench.now);
    assert_eq!((report.state, report.since), (State::Suspected, bench.now));
    assert_eq!(report.checks[0].state, CheckState::Suspected);
    for _ in 0..2 {
        bench.play("next");
        bench.play("refused");
    }
    let report = bench.monitor.report(bench.now);
    assert_eq!((report.state, report.since), (State::Down, bench.now));
    assert_eq!(report.held_down_until, Some(bench.now + ms(1000)));
    assert_eq!(report.suspicions, 1);
    let tally = &report.checks[0].tally;
    assert_eq!((tally.passed, tally.failed, tally.successes), (0, 3, 1));
    assert_eq!(tally.last_failure, Some((Failure::Refused, bench.now)));
    assert_eq!(tally.last_duration, Some(Duration::ZERO));
    assert_eq!(bench.monitor.report(bench.now + ms(1000)).held_down_until, None);
}
