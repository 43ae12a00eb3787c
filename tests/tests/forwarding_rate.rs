//! Requirement: ten threads with fresh connections from several client addresses (ports 1024–65535;
//! one address alone runs out of ports) hold at least 1,699 requests/s for 30 s without a failure.
//! The same load straight to a backend runs beside it.
//!
//! Slices of both loads take turns, so that other work on the machine slows both. All of the lab,
//! clients and backends and their kernels' work included, shares the CPUs with the balancer.

use std::{net::SocketAddr, time::Duration};

use lab::{Lab, LoadClient, LoadReport, ServiceText};
use tests::{assert_all_done, close_books, measured};

#[test]
fn ten_threads_hold_the_rate_without_a_failure() {
    let lab = Lab::builder().backends(3).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    let lb = lab.start_pointsman(0, &ServiceText::web(&lab).to_toml()).unwrap();
    let backend = SocketAddr::new(lab.backend(0).address().into(), 80);
    let (mut balanced, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        balanced.push(load(&lab, lab.vip_port(80), BALANCED_SLICE));
        direct.push(load(&lab, backend, DIRECT_SLICE));
    }
    let (through, beside) = (Figures::of(&balanced), Figures::of(&direct));
    measured("requests_per_second_balanced", through.rate.round(), "1/s", ">=1699");
    measured("requests_per_second_direct", beside.rate.round(), "1/s", "beside");
    let ratio = format!("{:.2}", through.rate / beside.rate);
    measured("balanced_to_direct", ratio, "ratio", "beside");
    measured("worst_second_balanced", through.worst, "requests", "beside");
    measured("seconds_balanced", format!("{:.1}", through.seconds), "s", ">=30");
    measured("requests_failed", through.failed + beside.failed, "requests", "0");
    balanced.iter().chain(&direct).for_each(|report| assert_all_done(report, &lb));
    assert!(through.seconds >= 30.0);
    assert!(through.rate >= 1_699.0, "{}", balanced[0]);
    close_books(&lb);
}

fn load(lab: &Lab, target: SocketAddr, length: Duration) -> LoadReport {
    let file = lab.files().ensure("50k").unwrap();
    let client = lab.client(0);
    let load = LoadClient::new(target, &file).threads(10).sources(client.sources(200));
    load.duration(length).run(client.netns()).unwrap()
}

struct Figures {
    rate: f64,
    seconds: f64,
    failed: usize,
    /// Requests that ended in the worst whole second.
    worst: u64,
}

impl Figures {
    fn of(slices: &[LoadReport]) -> Self {
        let seconds: f64 = slices.iter().map(|s| s.timeline().length().as_secs_f64()).sum();
        let done: usize = slices.iter().map(LoadReport::done).sum();
        let whole = |slice: &LoadReport| {
            let mut buckets = slice.buckets(Duration::from_secs(1));
            // The last one is what ended after the last whole second.
            buckets.pop();
            buckets.iter().map(|bucket| bucket.ok).min().unwrap_or(0)
        };
        Self {
            rate: done as f64 / seconds,
            seconds,
            failed: slices.iter().map(LoadReport::failed).sum(),
            worst: slices.iter().map(whole).min().unwrap_or(0),
        }
    }
}

const SLICES: usize = 3;
const BALANCED_SLICE: Duration = Duration::from_secs(10);
const DIRECT_SLICE: Duration = Duration::from_secs(2);
