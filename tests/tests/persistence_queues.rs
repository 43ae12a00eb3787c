//! Requirement: one client address stays on one backend for the whole time-out, over all queues
//! (4-queue veth, each queue carrying at least 5 % of the packets), and a flow that moves to
//! another queue midway keeps its backend.

use std::{num::NonZero, thread, time::Duration};

use lab::{Lab, LoadClient, LoadReport, Pointsman, RunningLoad, ServiceText};
use tests::{assert_all_done, close_books, measured, patient, received, status};

#[test]
fn one_address_sticks_to_one_backend_over_all_queues() {
    let lab = Lab::builder().backends(4).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    // Round robin: nothing but persistence makes an address return.
    let text = ServiceText::web(&lab).scheduler("rr").persistence("6s");
    let lb = lab.start_pointsman(0, &text.to_toml()).unwrap();
    let file = lab.files().ensure("1b").unwrap();
    let load = |requests| {
        let load = LoadClient::new(lab.vip_port(80), &file).threads(6).requests(requests);
        patient(load).sources(lab.client(0).sources(1)).run(lab.client(0).netns()).unwrap()
    };
    let first = load(4_000);
    // Most of the time-out passes without any connection.
    thread::sleep(Duration::from_millis(4_500));
    let second = load(1_000);
    [&first, &second].into_iter().for_each(|report| assert_all_done(report, &lb));
    let mut backends: Vec<String> = [&first, &second]
        .map(|r| r.per_backend())
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    backends.dedup();
    measured("backends_of_one_address", backends.len(), "backends", "=1");
    let status = close_books(&lb);
    let least = shares(&received(&status)).into_iter().fold(100.0, f64::min);
    measured("least_share_of_a_queue", format!("{least:.1}"), "%", ">=5");
    assert_eq!(backends.len(), 1, "{backends:?}");
    assert_eq!(received(&status).len(), 4);
    assert!(least >= 5.0, "{:?}", received(&status));
}

#[test]
fn a_flow_that_changes_its_queue_keeps_its_backend() {
    // Templates lead back where the scheduler has no memory; the hash does where there are none.
    moved_flows("rr", Some("50s"));
    moved_flows("maglev", None);
}

/// Slow downloads, during which the client's interface is made to use one transmit queue and then
/// all again: by that the veth behind it chooses the balancer's receive queue.
fn moved_flows(scheduler: &str, persistence: Option<&str>) {
    let lab = Lab::builder().backends(4).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    let mut text = ServiceText::web(&lab).scheduler(scheduler);
    if let Some(timeout) = persistence {
        text = text.persistence(timeout);
    }
    let lb = lab.start_pointsman(0, &text.to_toml()).unwrap();
    let file = lab.files().ensure("1m").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).verify(&file).threads(FLOWS);
    let load = load.sources(lab.client(0).sources(FLOWS.try_into().unwrap()));
    let load = load.requests(FLOWS.into()).download_rate(200_000);
    let running = patient(load).start(lab.client(0).netns()).unwrap();
    thread::sleep(Duration::from_millis(500));
    let before = window(&lb, &running);
    steer(&lab, true);
    let moved = window(&lb, &running);
    steer(&lab, false);
    let back = window(&lb, &running);
    let report: LoadReport = running.finish();

    let (least, most) = (
        |of: &[f64]| of.iter().copied().fold(100.0, f64::min),
        |of: &[f64]| of.iter().copied().fold(0.0, f64::max),
    );
    let what = |what: &str| format!("{what}_{scheduler}");
    let percent = |share: f64| format!("{share:.1}");
    measured(&what("least_queue_before_the_move"), percent(least(&before)), "%", ">=5");
    measured(&what("fullest_queue_during_the_move"), percent(most(&moved)), "%", ">=95");
    measured(&what("least_queue_after_the_move"), percent(least(&back)), "%", ">=5");
    measured(&what("moved_flows_that_failed"), report.failed(), "flows", &format!("0 of {FLOWS}"));
    assert!(least(&before) >= 5.0 && most(&moved) >= 95.0 && least(&back) >= 5.0);
    // A packet at another backend would have been answered with a reset.
    assert_all_done(&report, &lb);
    assert_eq!(report.total(), FLOWS as usize);
    let books = close_books(&lb);
    let packets: u64 = books.services[0].backends.iter().map(|backend| backend.packets).sum();
    assert_eq!(packets, tests::forwarded(&books));
}

/// Each queue's share of what came in during most of a second, in per cent.
fn window(lb: &Pointsman, running: &RunningLoad) -> Vec<f64> {
    // What was on its way when the queues changed.
    thread::sleep(Duration::from_millis(150));
    let begin = received(&status(lb));
    thread::sleep(Duration::from_millis(700));
    let end = received(&status(lb));
    assert_eq!(running.progress(), (0, 0), "all flows are half-way");
    shares(&end.iter().zip(&begin).map(|(end, begin)| end - begin).collect::<Vec<_>>())
}

/// Has all of the client's packets leave by transmit queue 2 (transmit packet steering), or by the
/// one that each flow's hash chooses.
fn steer(lab: &Lab, steered: bool) {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    // Groups of eight digits with commas between, as the kernel reads CPU masks.
    let groups: Vec<String> = (0..cpus.div_ceil(32))
        .rev()
        .map(|group| {
            let bits = if steered { (cpus - 32 * group).min(32) } else { 0 };
            format!("{:x}", (1_u64 << bits) - 1)
        })
        .collect();
    let write = format!("echo {} > /sys/class/net/eth0/queues/tx-2/xps_cpus", groups.join(","));
    let netns = lab.client(0).netns();
    // The namespace's own view of sysfs is what `ip netns exec` adds.
    let argv = ["ip", "netns", "exec", netns.name(), "sh", "-c", &write];
    netns.run(&argv, Duration::from_secs(5)).unwrap().ok().unwrap();
}

fn shares(counts: &[u64]) -> Vec<f64> {
    let all: u64 = counts.iter().sum();
    counts.iter().map(|count| 100.0 * *count as f64 / all.max(1) as f64).collect()
}

/// So many that a queue with less than a twentieth of them is not to be expected.
const FLOWS: u32 = 96;
