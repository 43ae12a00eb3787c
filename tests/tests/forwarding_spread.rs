//! Requirement: 1,000 addresses over 4 equal backends spread within ±20 %, and 10,000 addresses
//! follow the weights within ±10 %, under every scheduler. Unit tests show it for the schedulers
//! alone; here real connections go through the whole balancer.
//!
//! Two requests at a time, no more: a connection that lives weighs as much as 256 that have ended
//! (ip_vs: active × 256 + inactive), so with many short ones at a time `wlc` rightly favours the
//! light backend that has none at the moment (eight at a time: 15 % more for the lightest here).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lab::{Lab, LoadClient, ServiceText, topology::vip};
use tests::{assert_all_done, close_books, measured, patient};

#[test]
fn a_thousand_addresses_spread_evenly_under_every_scheduler() {
    let lab = Lab::builder().backends(4).queues(4).vips(5).build().unwrap();
    let schedulers = ["maglev", "rr", "wrr", "lc", "wlc"];
    let counts = spread(&lab, &schedulers, &[1, 1, 1, 1], 1_000);
    for (scheduler, counts) in schedulers.iter().zip(&counts) {
        let worst = deviation(counts, &[250.0; 4]);
        measured(&format!("spread_of_1000_{scheduler}"), worst, "%", "<=20");
        assert!(worst <= 20.0, "{scheduler}: {counts:?}");
    }
}

#[test]
fn ten_thousand_addresses_follow_the_weights() {
    let lab = Lab::builder().backends(4).queues(4).vips(3).build().unwrap();
    let schedulers = ["maglev", "wrr", "wlc"];
    let counts = spread(&lab, &schedulers, &[1, 2, 3, 4], 10_000);
    for (scheduler, counts) in schedulers.iter().zip(&counts) {
        let worst = deviation(counts, &[1_000.0, 2_000.0, 3_000.0, 4_000.0]);
        measured(&format!("weights_of_10000_{scheduler}"), worst, "%", "<=10");
        assert!(worst <= 10.0, "{scheduler}: {counts:?}");
    }
}

/// One VIP per scheduler; one request from each of `count` addresses. Addresses per backend.
fn spread(lab: &Lab, schedulers: &[&str], weights: &[u32], count: u16) -> Vec<Vec<usize>> {
    let _web = lab.start_web().unwrap();
    let mut config = "[[interface]]\nname = \"eth0\"\n".to_owned();
    for (scheduler, vip) in schedulers.iter().zip((0..).map(vip)) {
        let text = ServiceText::web(lab).name(scheduler).vip(vip.into()).scheduler(scheduler);
        config += &text.weights(weights).persistence("50s").service_toml();
    }
    let lb = lab.start_pointsman(0, &config).unwrap();
    let file = lab.files().ensure("1b").unwrap();
    let counts = schedulers.iter().zip((0..).map(vip)).map(|(_, vip)| {
        let client = lab.client(0);
        let load = LoadClient::new(SocketAddr::new(IpAddr::V4(vip), 80), &file).threads(2);
        let load = load.sources(client.sources(count)).requests(count.into());
        let report = patient(load).run(client.netns()).unwrap();
        assert_all_done(&report, &lb);
        let by_source = report.backends_by_source();
        assert_eq!(by_source.len(), usize::from(count), "each address once");
        let mut per_backend: BTreeMap<String, usize> =
            (0..weights.len()).map(|n| (lab.backend(n).name(), 0)).collect();
        for name in by_source.values().flatten() {
            *per_backend.get_mut(name).expect("a backend of the lab") += 1;
        }
        per_backend.into_values().collect()
    });
    let counts = counts.collect();
    close_books(&lb);
    counts
}

/// The largest deviation from what is expected, in per cent, to a tenth.
fn deviation(counts: &[usize], expected: &[f64]) -> f64 {
    let off = |(count, expected): (&usize, &f64)| (*count as f64 / expected - 1.0).abs() * 100.0;
    let worst = counts.iter().zip(expected).map(off).fold(0.0, f64::max);
    (worst * 10.0).round() / 10.0
}
