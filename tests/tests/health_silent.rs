//! Requirement: when a host falls silent (its link is down) with `interval = 1s`, `timeout =
//! 500ms`, `fall = 2`, it is suspected within 0.5 s and down within 1.7 s, and every new connection
//! succeeds within 1.3 s (its SYN is steered elsewhere). The frozen server is in
//! `waiting/health_frozen.rs`.

use std::time::{Duration, SystemTime};

use lab::{Lab, LoadClient, Outcome};
use tests::health;
use tests::lifecycle::runs;
use tests::{close_books, measured};

const TIMES: &str = "interval = \"1s\"\ntimeout = \"500ms\"\nfall = 2";

#[test]
fn clients_of_a_silent_host_are_taken_elsewhere_within_their_first_retransmission() {
    let lab = Lab::builder().backends(3).queues(2).build().unwrap();
    let _web = lab.start_web().unwrap();
    let lb = health::start(&lab, &health::web(&lab, TIMES));
    let file = lab.files().ensure("50k").unwrap();
    let (mut suspected, mut down, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs(5) {
        // More than a browser's worth of clients, some of them of the silent host.
        let load = LoadClient::new(lab.vip_port(80), &file).threads(10).rate(500.0);
        let load = load.sources(lab.client(0).sources(200)).timeouts(PATIENT, PATIENT);
        let running = load.duration(Duration::from_secs(4)).start(lab.client(0).netns()).unwrap();
        std::thread::sleep(Duration::from_millis(1000 + 70 * u64::from(run)));
        let victim = lab.backend(usize::try_from(run % 3).unwrap());
        let silent = SystemTime::now();
        lab.unplug(victim).unwrap();
        // What began while the cable was being taken out may have got its answer halfway.
        let offset = running.began().elapsed();
        let report = running.finish();
        let limit = Duration::from_secs(3);
        let name = victim.name();
        suspected.push(health::await_verdict(&lb, &name, "UP -> SUSPECTED", silent, limit).0);
        down.push(health::await_verdict(&lb, &name, "UP -> DOWN", silent, limit).0);
        let mut worst = Duration::ZERO;
        for record in health::begun_after(&report, offset) {
            assert_eq!(record.outcome, Outcome::Ok, "{record:?}\n{report}\n{}", lb.log());
            worst = worst.max(record.end - record.start);
        }
        slowest.push(worst);
        let back = SystemTime::now();
        lab.plug(victim).unwrap();
        health::await_verdict(&lb, &name, "DOWN -> UP", back, Duration::from_secs(10));
    }
    let most = |values: &[Duration]| health::percentile(values, 100);
    measured("suspected_max", format!("{:.3}", most(&suspected).as_secs_f64()), "s", "<=0.5");
    measured("down_max", format!("{:.3}", most(&down).as_secs_f64()), "s", "<=1.7");
    measured("slowest_new_request", format!("{:.3}", most(&slowest).as_secs_f64()), "s", "<=1.3");
    close_books(&lb);
    assert!(most(&suspected) <= Duration::from_millis(500), "{suspected:?}\n{}", lb.log());
    assert!(most(&down) <= Duration::from_millis(1700), "{down:?}\n{}", lb.log());
    assert!(most(&slowest) <= Duration::from_millis(1300), "{slowest:?}\n{}", lb.log());
}

const PATIENT: Duration = Duration::from_secs(10);
