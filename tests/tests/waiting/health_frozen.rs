//! Requirement: with `interval = 1s`, `timeout = 500ms`, `fall = 2`, a frozen server (SIGSTOP) is
//! down within `fall` × (`interval` + `timeout`).

use std::time::{Duration, SystemTime};

use lab::Lab;
use tests::lifecycle::runs;
use tests::{close_books, health, measured};

const TIMES: &str = "interval = \"1s\"\ntimeout = \"500ms\"\nfall = 2";
const FALL: u32 = 2;
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(500);

/// The kernel of a stopped server still completes handshakes: only the check finds out.
#[test]
fn a_frozen_server_is_down_when_its_checks_have_timed_out() {
    let lab = Lab::builder().backends(2).build().unwrap();
    let mut web = lab.start_web().unwrap();
    let lb = health::start(&lab, &health::web(&lab, TIMES));
    let mut took = Vec::new();
    for run in 0..runs(5) {
        std::thread::sleep(Duration::from_millis(170 * u64::from(run % 5)));
        let frozen = SystemTime::now();
        web[0].process().pause().unwrap();
        let limit = Duration::from_secs(6);
        took.push(health::await_verdict(&lb, "rs1", "UP -> DOWN", frozen, limit).0);
        let thawed = SystemTime::now();
        web[0].process().resume().unwrap();
        health::await_verdict(&lb, "rs1", "DOWN -> UP", thawed, Duration::from_secs(6));
    }
    let (most, limit) = (health::percentile(&took, 100), FALL * (INTERVAL + TIMEOUT));
    measured("frozen_down_max", format!("{:.3}", most.as_secs_f64()), "s", "<=3");
    assert!(most <= limit, "{took:?}\n{}", lb.log());
    close_books(&lb);
}
