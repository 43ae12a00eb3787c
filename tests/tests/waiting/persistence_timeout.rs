//! Requirement: a client without connections is scheduled anew after the persistence time-out
//! (shown with `rr`), and the time-out does not run while one of its connections lives.
//!
//! The life cycle itself is tested with injected time; this shows that the running balancer does
//! it.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use lab::{Lab, LoadClient, LoadReport, Pointsman, ServiceText};
use tests::{assert_all_done, close_books, measured, patient};

#[test]
fn after_the_time_out_without_connections_round_robin_goes_on() {
    let lab = Lab::builder().backends(3).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    let text = ServiceText::web(&lab).scheduler("rr").persistence("2s");
    let lb = lab.start_pointsman(0, &(text.to_toml() + TIMEOUTS)).unwrap();
    let source = lab.client(0).sources(1)[0];
    let mut sequence = Vec::new();
    let mut changes = 0;
    for period in 0..PERIODS {
        if period > 0 {
            thread::sleep(TIMEOUT + MARGIN);
        }
        // Longer than the time-out in all: each connection begins it anew.
        let mut last = Instant::now();
        let first = request(&lab, &lb, source);
        for _ in 0..VISITS {
            thread::sleep(Duration::from_millis(450));
            let again = request(&lab, &lb, source);
            assert!(last.elapsed() < TIMEOUT, "the machine stood still for {:?}", last.elapsed());
            last = Instant::now();
            changes += usize::from(again != first);
        }
        sequence.push(first);
    }
    let advanced = sequence.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let used: BTreeSet<&String> = sequence.iter().collect();
    measured("changes_within_the_time_out", changes, "requests", "=0");
    measured("scheduled_anew_after_the_time_out", advanced, "times", &format!("={}", PERIODS - 1));
    assert_eq!(changes, 0, "{sequence:?}");
    assert_eq!((advanced, used.len()), (PERIODS - 1, 3), "{sequence:?}");
    let books = close_books(&lb);
    assert_eq!(books.persistence.created, PERIODS as u64);
}

#[test]
fn the_time_out_does_not_run_while_a_connection_lives() {
    let lab = Lab::builder().backends(3).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    let text = ServiceText::web(&lab).scheduler("rr").persistence("2s");
    let lb = lab.start_pointsman(0, &(text.to_toml() + TIMEOUTS)).unwrap();
    let source = lab.client(0).sources(1)[0];
    let file = lab.files().ensure("1m").unwrap();
    let long = patient(LoadClient::new(lab.vip_port(80), &file)).sources(vec![source]);
    // Five seconds.
    let long = long.download_rate(file.length / 5).start(lab.client(0).netns()).unwrap();
    thread::sleep(TIMEOUT + MARGIN);
    let meanwhile = request(&lab, &lb, source);
    let still_there = !long.is_finished();
    let long = long.finish();
    assert_all_done(&long, &lb);
    assert!(still_there, "the download was over too early to show anything");
    let holds = meanwhile == only(&long);
    measured("held_by_a_living_connection", usize::from(holds), "of 1", "=1");
    assert!(holds, "{} and {meanwhile}", only(&long));
    close_books(&lb);
}

/// One request on a fresh connection: who answered.
fn request(lab: &Lab, lb: &Pointsman, source: IpAddr) -> String {
    let file = lab.files().ensure("1b").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).sources(vec![source]);
    let report = patient(load).run(lab.client(0).netns()).unwrap();
    assert_all_done(&report, lb);
    only(&report)
}

fn only(report: &LoadReport) -> String {
    let mut names = report.per_backend().into_keys();
    let name = names.next().expect("a backend answered");
    assert_eq!(names.next(), None);
    name
}

/// Closed connections are forgotten at once: the template's time-out alone counts.
const TIMEOUTS: &str = "
[dataplane.timeouts]
half_open = \"500ms\"
closing = \"300ms\"
reset = \"300ms\"
";
const TIMEOUT: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_millis(700);
const PERIODS: usize = 4;
const VISITS: usize = 5;
