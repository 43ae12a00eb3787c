//! Triggers by unanswered SYNs.

use super::*;

#[test]
fn a_silent_host_is_down_after_one_timeout() {
    let mut bench = Bench::up(&[Check { fall: 2, ..tcp() }], UNDAMPED);
    bench.story(
        "silent",
        &[
            (
                "suspect",
                "yes; start 0; \
                 (UP -> SUSPECTED: new connections unanswered) SUSPECTED 320",
            ),
            ("wait 300", "SUSPECTED 20"),
            (
                "timeout",
                "(UP -> DOWN after 300.0 ms: new connections unanswered, timed out, 2 failures) \
                 DOWN 200",
            ),
            ("suspect", "no; DOWN 200"),
        ],
    );
}

#[test]
fn it_is_never_the_last_failure() {
    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    bench.play("suspect");
    assert_eq!(bench.monitor.state(), State::Suspected);
    let mut bench = Bench::up(&[Check { fall: 2, ..tcp() }], UNDAMPED);
    bench.play("next");
    bench.play("status");
    let got = bench.play("suspect");
    assert!(got.starts_with("yes; start 0; (UP -> SUSPECTED"), "{got}");
}

#[test]
fn it_starts_all_checks() {
    let mut bench = Bench::up(&[tcp(), ping()], UNDAMPED);
    let got = bench.play("suspect");
    assert!(got.starts_with("yes; start 0; start 1; "), "{got}");
    assert!(got.contains("tcp: new connections unanswered; ping: new connections unanswered"));
    bench.play("ok 1");
    assert_eq!(bench.monitor.state(), State::Suspected);
    bench.play("ok 0");
    assert_eq!(bench.monitor.state(), State::Up);
}

#[test]
fn a_probe_that_runs_is_judge_enough() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.play("next");
    let got = bench.play("suspect");
    assert!(got.starts_with("yes; (UP -> SUSPECTED"), "{got}");
}

#[test]
fn it_is_ignored_while_suspected_or_unknown() {
    let mut bench = Bench::new(&[tcp()], UNDAMPED);
    assert!(bench.play("suspect").starts_with("no; CHECKING"));
    let mut bench = Bench::new(&[Check { starts_up: true, ..tcp() }], UNDAMPED);
    assert!(bench.play("suspect").starts_with("no; UP"));
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.play("suspect");
    assert!(bench.play("suspect").starts_with("no; SUSPECTED"));
    assert_eq!(bench.monitor.report(bench.now).triggers_ignored, 0);
}

/// Forged SYNs: the driver asks every 50 ms for two minutes.
#[test]
fn a_flood_costs_a_handful_of_probes() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    let (mut let_through, mut probes) = (Vec::new(), 0);
    for step in 0..2400 {
        bench.play("wait 50");
        let_through.extend(bench.play("suspect").starts_with("yes").then_some(step * 50 / 1000));
        if bench.running[0].is_some() {
            probes += 1;
            bench.play("ok");
        }
        assert_eq!(bench.monitor.state(), State::Up);
    }
    assert_eq!(let_through, [0, 1, 3, 7, 15, 31, 61, 91]);
    assert!(probes <= 120 + 8, "{probes}");
    let ignored = bench.monitor.report(bench.now).triggers_ignored;
    assert_eq!(ignored, 2400 - 8);
}

#[test]
fn a_right_one_is_not_held_against_the_next() {
    let mut bench = Bench::up(&[Check { fall: 2, rise: 1, ..tcp() }], UNDAMPED);
    for _ in 0..3 {
        assert!(bench.play("suspect").starts_with("yes"));
        bench.play("refused");
        assert_eq!(bench.monitor.state(), State::Down);
        bench.play("next");
        bench.play("ok");
        assert_eq!(bench.monitor.state(), State::Up);
    }
}
