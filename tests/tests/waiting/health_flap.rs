//! Requirement: a server that flaps every 500 ms for 60 s causes at most 6 transitions.

use std::time::{Duration, Instant};

use lab::{Lab, ServiceText};
use tests::{close_books, health, measured, status};

const LENGTH: Duration = Duration::from_secs(60);
const HALF: Duration = Duration::from_millis(500);

/// A server that is there for half a second and gone for half a second, with the defaults of the
/// product but for fast checks: every phase is long enough to be seen.
#[test]
fn a_flapping_server_goes_up_and_down_at_most_six_times_a_minute() {
    let lab = Lab::builder().backends(2).build().unwrap();
    let mut web = lab.start_web().unwrap();
    let times = "interval = \"100ms\"\ntimeout = \"100ms\"";
    let service = ServiceText::web(&lab).health(&format!("{}\n{times}", health::HTTP));
    let lb = health::start(&lab, &service);
    let (before, begin) = (transitions(&lb), Instant::now());
    while begin.elapsed() < LENGTH {
        web[0].process().kill().unwrap();
        std::thread::sleep(HALF);
        web[0] = lab.start_nginx(0).unwrap();
        std::thread::sleep(HALF);
    }
    let count = transitions(&lb) - before;
    measured("transitions_per_minute", count, "transitions", "<=6, >=2");
    assert!((2..=6).contains(&count), "{count}\n{}", lb.log());
    close_books(&lb);
}

/// How often the first backend went into or out of service.
fn transitions(lb: &lab::Pointsman) -> u64 {
    status(lb).services[0].backends[0].transitions
}
