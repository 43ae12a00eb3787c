//! Backends that come and go.

use super::*;

/// Checked every 200 ms with rise 2 and fall 3: failures.md T20.
fn hasty() -> Check {
    let interval = ms(200);
    Check { interval, fast_interval: interval, down_interval: interval, ..tcp() }
}

/// Plays a server that is there for `half`, away for `half`, and so on, for a minute. The
/// transitions to DOWN and back.
fn flap(half: Duration, damping: Damping, check: Check) -> usize {
    let mut bench = Bench::up(std::slice::from_ref(&check), damping);
    let begin = bench.now;
    let mut was_there = true;
    loop {
        let elapsed = bench.now.saturating_since(begin);
        if elapsed >= Duration::from_secs(60) {
            return bench.changes.iter().filter(|change| change.contains("DOWN")).count();
        }
        let there = (elapsed.as_nanos() / half.as_nanos()).is_multiple_of(2);
        if check.sentinel && was_there && !there {
            bench.play("lost");
        }
        was_there = there;
        if bench.running[0].is_some() {
            bench.play(if there { "ok" } else { "refused" });
        }
        bench.play("wait 1");
    }
}

#[test]
fn flapping_every_500_ms_gives_at_most_6_transitions_a_minute() {
    let kept = flap(ms(500), Damping::default(), hasty());
    assert_eq!(kept, 5);
    // Three failures in a row hardly fit into 500 ms.
    let by_results = flap(ms(500), Damping::default(), Check { sentinel: false, ..hasty() });
    assert!(by_results <= 6, "{by_results}");
    let twitchy = Check { rise: 1, fall: 1, sentinel: false, ..hasty() };
    assert_eq!(flap(ms(500), Damping::default(), twitchy), 5);
}

#[test]
fn flapping_at_any_pace_is_dampened() {
    for half in [250, 400, 600, 800, 1000, 1500, 2000, 3000, 5000, 10_000] {
        for sentinel in [false, true] {
            let check = Check { fall: 1, sentinel, ..hasty() };
            let transitions = flap(ms(half), Damping::default(), check);
            assert!((1..=6).contains(&transitions), "{half} ms: {transitions}");
        }
    }
}

#[test]
fn undamped_it_follows() {
    // Each minute has 60 phases of a second.
    assert!(flap(ms(1000), UNDAMPED, Check { sentinel: false, ..hasty() }) >= 55);
}

#[test]
fn passing_checks_do_not_end_a_hold() {
    let mut bench = Bench::up(&[Check { fall: 1, rise: 1, ..tcp() }], Damping::default());
    bench.story(
        "held",
        &[
            ("next", "start 0; UP 320"),
            ("refused", "(UP -> DOWN: connect refused) DOWN 500"),
            ("next", "start 0; DOWN 320"),
            // The next deadline is the end of the hold, before the next probe.
            ("ok", "DOWN 500"),
            ("wait 499", "DOWN 1"),
            ("next", "(DOWN -> UP after 1.0 s: 1 success, held down for 1.0 s) UP 500"),
            ("next", "start 0; UP 320"),
            ("refused", "(UP -> DOWN: connect refused) DOWN 500"),
        ],
    );
    let until = bench.monitor.report(bench.now).held_down_until;
    assert_eq!(until, Some(bench.now + Duration::from_secs(8)));
}

/// No other backend is up, but one that fails its checks stays down.
#[test]
fn a_hold_can_be_ended_once_the_checks_pass() {
    let mut bench = Bench::up(&[Check { fall: 1, rise: 1, ..tcp() }], Damping::default());
    bench.story(
        "released",
        &[
            ("release", "UP 1000"),
            ("next", "start 0; UP 320"),
            ("refused", "(UP -> DOWN: connect refused) DOWN 500"),
            ("release", "DOWN 500"),
            ("next", "start 0; DOWN 320"),
            ("ok", "DOWN 500"),
            ("release", "(DOWN -> UP after 500.0 ms: 1 success, held down for 500.0 ms) UP 1000"),
        ],
    );
}

#[test]
fn one_in_trouble_is_not_released() {
    let mut bench = Bench::up(&[Check { rise: 1, fall: 2, ..tcp() }], Damping::default());
    bench.story(
        "failing again",
        &[
            ("lost", "start 0; UP 320"),
            ("refused", "(UP -> SUSPECTED: sentinel closed, connect refused) SUSPECTED 5"),
            ("next", "start 0; SUSPECTED 320"),
            ("refused", "(UP -> DOWN after 5.0 ms: sentinel closed, connect refused) DOWN 500"),
            ("next", "start 0; DOWN 320"),
            ("ok", "DOWN 500"),
            ("lost", "start 0; DOWN 320"),
            ("refused", "DOWN 5"),
            ("next", "start 0; DOWN 320"),
            ("ok", "DOWN 15"),
            ("next", "start 0; DOWN 320"),
            ("timeout", "DOWN 200"),
            ("wait 499", "start 0; DOWN 320"),
            ("wait 200", "DOWN 120"),
            ("ok", "(DOWN -> UP after 1.2 s: 1 success) UP 800"),
        ],
    );
}

#[test]
fn what_was_never_up_is_not_held() {
    let mut bench = Bench::new(&[Check { rise: 1, ..tcp() }], Damping::default());
    bench.play("next");
    bench.play("refused");
    assert_eq!(bench.monitor.report(bench.now).held_down_until, None);
    bench.play("next");
    let got = bench.play("ok");
    assert_eq!(got, "(DOWN -> UP after 500.0 ms: 1 success) UP 1000");
}
