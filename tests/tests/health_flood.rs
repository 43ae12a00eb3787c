//! Requirement: a flood of at least 100,000 spoofed SYNs/s for 20 s at healthy backends takes no
//! backend down.

use std::time::Duration;

use lab::{Lab, LoadClient};
use tests::{health, measured, settled_status, status, syn};

const LENGTH: Duration = Duration::from_secs(20);
const RATE: f64 = 100_000.0;

#[test]
fn a_flood_of_forged_syns_takes_no_backend_down() {
    let lab = Lab::builder().backends(3).queues(1).build().unwrap();
    let _web = lab.start_web().unwrap();
    let lb = health::start(&lab, &health::web(&lab, ""));
    let client = lab.client(0);
    let file = lab.files().ensure("1b").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).sources(client.sources(10));
    assert_eq!(load.clone().requests(10).run(client.netns()).unwrap().failed(), 0);
    let before = status(&lb).workers.iter().map(|worker| worker.counters.received).sum::<u64>();
    let log = lb.log().len();
    let sent = syn::flood(client.netns(), (lab.vip(), 80), RATE * 1.05, LENGTH);
    let rate = sent as f64 / LENGTH.as_secs_f64();
    let arrived =
        settled_status(&lb).workers.iter().map(|worker| worker.counters.received).sum::<u64>();
    measured("forged_syns_per_second", rate.round(), "1/s", ">=100000");
    measured("forged_syns_taken", arrived - before, "frames", "beside");
    measured("down_verdicts", health::downs(&lb, log), "verdicts", "0");
    let triggers = lb.metrics().unwrap().sum("pointsman_backend_suspicions_total", &[]);
    measured("checks_triggered", triggers, "checks", "bounded by the hold-off");
    assert!(rate >= RATE, "the generator is too slow: {rate:.0}/s");
    assert!(arrived - before >= sent / 4, "{arrived} of {sent} arrived");
    assert_eq!(health::downs(&lb, log), 0, "{}", lb.log());
    assert_eq!(load.requests(10).run(client.netns()).unwrap().failed(), 0, "{}", lb.log());
}
