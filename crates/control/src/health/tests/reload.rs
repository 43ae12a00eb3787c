//! Other checks while it runs.

use super::*;

impl Bench {
    fn reconfigure(&mut self, checks: &[Check]) -> String {
        self.monitor.reconfigure(checks, UNDAMPED, self.now);
        let mut out = String::new();
        self.drain(&mut out);
        out
    }
}

#[test]
fn the_same_checks_change_nothing() {
    let checks = [tcp(), ping()];
    let mut bench = Bench::up(&checks, UNDAMPED);
    bench.play("wait 1000");
    bench.play("status 0");
    let before = bench.monitor.report(bench.now);
    let (deadline, running) = (bench.monitor.next_deadline(), bench.running.clone());
    bench.reconfigure(&checks);
    assert_eq!(bench.monitor.report(bench.now), before);
    assert_eq!(bench.monitor.next_deadline(), deadline);
    assert_eq!(bench.running, running);
}

#[test]
fn half_counted_failures_are_kept() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.play("next");
    bench.play("status");
    bench.play("next");
    bench.play("status");
    bench.play("next");
    bench.reconfigure(&[ping(), tcp()]);
    let got = bench.play("status 1");
    assert!(got.contains("UP -> DOWN after 400.0 ms: tcp: status 500, 3 failures"), "{got}");
}

#[test]
fn a_probe_goes_on_unless_its_index_changes() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    bench.play("next");
    assert!(bench.reconfigure(&[tcp(), ping()]).starts_with("UP "));
    let moved = bench.reconfigure(&[ping(), tcp()]);
    assert!(moved.starts_with("cancel 0; start 1; UP "), "{moved}");
    let gone = bench.reconfigure(&[ping()]);
    assert!(gone.starts_with("cancel 1; UP "), "{gone}");
    assert_eq!(bench.running, vec![None; 8]);
}

#[test]
fn a_new_check_does_not_take_a_backend_down_before_its_first_result() {
    let mut bench = Bench::up(&[tcp()], UNDAMPED);
    let got = bench.reconfigure(&[tcp(), ping()]);
    assert!(got.starts_with("UP "), "{got}");
    bench.play("wait 200");
    let got = bench.play("timeout 1");
    assert!(got.starts_with("(UP -> DOWN: ping: timed out) DOWN"), "{got}");
}

#[test]
fn a_new_check_of_a_failed_backend_is_pessimistic() {
    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    bench.play("next");
    bench.play("refused");
    let other = Check { fall: 1, starts_up: true, interval: ms(2000), ..tcp() };
    let got = bench.reconfigure(&[other]);
    assert!(got.starts_with("DOWN "), "{got}");
    bench.play("next");
    let got = bench.play("ok");
    assert!(got.starts_with("(DOWN -> UP after "), "{got}");
}

#[test]
fn a_check_that_fails_may_be_taken_away() {
    let mut bench = Bench::up(&[tcp(), Check { fall: 1, ..ping() }], UNDAMPED);
    bench.play("wait 1000");
    bench.play("ok 0");
    bench.play("timeout 1");
    assert_eq!(bench.monitor.state(), State::Down);
    let got = bench.reconfigure(&[tcp()]);
    assert!(got.starts_with("(DOWN -> UP: configuration) UP"), "{got}");

    let mut bench = Bench::up(&[Check { fall: 1, ..tcp() }], UNDAMPED);
    bench.play("next");
    bench.play("refused");
    let got = bench.reconfigure(&[]);
    assert_eq!(got, "(DOWN -> UP: configuration) UP");
    let got = bench.reconfigure(&[tcp()]);
    assert!(got.starts_with("UP "), "{got}");
}

#[test]
fn a_hold_survives() {
    let mut bench = Bench::up(&[Check { fall: 1, rise: 1, ..tcp() }], Damping::default());
    bench.play("next");
    bench.play("refused");
    let until = bench.monitor.report(bench.now).held_down_until;
    let checks = [Check { fall: 1, rise: 1, ..tcp() }];
    bench.monitor.reconfigure(&checks, Damping::default(), bench.now);
    assert_eq!(bench.monitor.report(bench.now).held_down_until, until);
    bench.monitor.reconfigure(&checks, UNDAMPED, bench.now);
    assert_eq!(bench.monitor.report(bench.now).held_down_until, None);
}

#[test]
fn equal_checks_are_told_apart_by_number() {
    let mut bench = Bench::up(&[tcp(), tcp()], UNDAMPED);
    let got = bench.reconfigure(&[tcp(), tcp(), tcp()]);
    assert!(got.starts_with("UP "), "{got}");
    let states: Vec<_> =
        bench.monitor.report(bench.now).checks.iter().map(|check| check.state).collect();
    assert_eq!(states, [CheckState::Passing, CheckState::Passing, CheckState::Checking]);
}

#[test]
fn labels_are_told_apart_in_the_order_of_configuration() {
    let labels = |bench: &Bench| -> Vec<String> {
        bench.monitor.report(bench.now).checks.into_iter().map(|check| check.label).collect()
    };
    let slow = Check { interval: ms(5000), ..tcp() };
    let script = |argv: &[&str]| {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Check { sentinel: false, ..check(CheckKind::Script(argv)) }
    };
    let mut bench = Bench::up(&[tcp(), ping(), slow.clone()], UNDAMPED);
    assert_eq!(labels(&bench), ["tcp", "ping", "tcp #2"]);
    bench.reconfigure(&[slow, tcp(), tcp(), Check { port: Some(81), ..tcp() }]);
    assert_eq!(labels(&bench), ["tcp", "tcp #2", "tcp #3", "tcp :81"]);
    bench.reconfigure(&[script(&["a"]), script(&["a", "b"]), script(&["a #2"]), script(&["a"])]);
    assert_eq!(labels(&bench), ["script a", "script a #2", "script a #2 #2", "script a #3"]);
}

#[test]
fn a_log_names_a_check_by_its_own_label() {
    let slow = Check { interval: ms(5000), fall: 1, ..tcp() };
    let mut bench = Bench::up(&[tcp(), slow], UNDAMPED);
    bench.play("wait 5000");
    let got = bench.play("status 1");
    assert!(got.contains("UP -> DOWN: tcp #2: status 500"), "{got}");
}
