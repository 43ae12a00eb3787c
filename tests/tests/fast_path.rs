//! Requirement: where frames are copied, the XDP program forwards the packets of known flows itself,
//! as the worker would: every request is answered, by the backend that its source has, and what
//! passed is in the books of interface, service and backend. Off, nothing is forwarded by it. With
//! "auto" it forwards on a veth only while the other end receives; what a driver drops is counted.

use std::{
    thread,
    time::{Duration, Instant},
};

use lab::{Lab, LoadClient, Pointsman, ServiceText};
use tests::{Status, assert_all_done, close_books, forwarded, measured, patient, status};

#[test]
fn known_flows_are_forwarded_by_the_program_and_in_the_books() {
    let lab = lab();
    let _web = lab.start_web().unwrap();
    let lb = start(&lab, "on");
    let file = lab.files().ensure("1m").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).threads(4).requests(60);
    let load = load.sources(lab.client(0).sources(20));
    let report = patient(load).run(lab.client(0).netns()).unwrap();
    assert_all_done(&report, &lb);
    let moved = report.timeline().records().iter().filter(|one| {
        let mut others =
            report.timeline().records().iter().filter(|other| other.source == one.source);
        others.any(|other| other.backend != one.backend)
    });
    assert_eq!(moved.count(), 0, "a source keeps its backend");

    let status = close_books(&lb);
    let interface = &status.interfaces[0];
    assert!(interface.fast_path, "{}", interface.fast_path_reason);
    let fast = interface.forwarded();
    let all = forwarded(&status);
    let share = fast as f64 / all as f64;
    measured("forwarded_by_the_program", format!("{share:.3}"), "of all", ">0.5");
    assert!(share > 0.5, "{fast} of {all}");
    assert_eq!(packets(&status), [all; 2], "services and backends");
    assert_eq!(metric(&lb), fast);
}

#[test]
fn off_means_off() {
    let lab = lab();
    let _web = lab.start_web().unwrap();
    let lb = start(&lab, "off");
    let file = lab.files().ensure("50k").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).threads(2).requests(20);
    let report = patient(load).run(lab.client(0).netns()).unwrap();
    assert_all_done(&report, &lb);
    let status = close_books(&lb);
    assert!(!status.interfaces[0].fast_path);
    assert_eq!(status.interfaces[0].forwarded(), 0);
    assert_eq!(packets(&status), [forwarded(&status); 2]);
}

#[test]
fn auto_follows_the_other_end_of_a_veth() {
    let lab = lab();
    let (port, dir) = (lab.balancer(0).name(), lab.balancer(0).dir());
    lab::fast_path::stop_receiving(lab.switch(), &port).unwrap();
    let _web = lab.start_web().unwrap();
    let lb = start(&lab, "auto");
    let now = || status(&lb).interfaces.remove(0);
    let first = now();
    assert!(!first.fast_path, "{}", first.fast_path_reason);
    if first.fast_path_reason.contains("this kernel does not") {
        measured("auto_on_a_veth", "off", "", &first.fast_path_reason);
        return;
    }
    assert!(first.fast_path_reason.contains("no XDP program"), "{}", first.fast_path_reason);
    let file = lab.files().ensure("1m").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).verify(&file).threads(8).requests(16);
    let load = patient(load).download_rate(200_000).start(lab.client(0).netns()).unwrap();
    lab::fast_path::receive(lab.switch(), &port, dir).unwrap();
    wait_for("it is on", || now().fast_path);
    wait_for("it forwards", || now().forwarded() > 100);
    lab::fast_path::stop_receiving(lab.switch(), &port).unwrap();
    wait_for("it is off", || !now().fast_path);
    let before = now().forwarded();
    assert_all_done(&load.finish(), &lb);
    assert_eq!(now().forwarded(), before, "off is off");
    close_books(&lb);
}

#[test]
fn what_the_driver_drops_is_counted() {
    let lab = lab();
    lab::fast_path::stop_receiving(lab.switch(), &lab.balancer(0).name()).unwrap();
    let _web = lab.start_web().unwrap();
    let lb = start(&lab, "on");
    let file = lab.files().ensure("1m").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).threads(4).requests(8);
    // Nothing that the program sends arrives, so these may fail.
    let limit = Duration::from_secs(2);
    load.timeouts(limit, limit).run(lab.client(0).netns()).unwrap();
    let lost = || status(&lb).interfaces[0].fast_path_lost;
    wait_for("lost frames are counted", || lost() > 0);
    let status = close_books(&lb);
    let interface = &status.interfaces[0];
    measured("lost_in_the_driver", interface.fast_path_lost, "packets", ">0");
    assert!(interface.fast_path_lost <= interface.forwarded());
    let (_, text) = lb.http("/metrics").unwrap();
    let line = format!(
        "pointsman_fast_path_lost_total{{interface=\"eth0\"}} {}",
        interface.fast_path_lost
    );
    assert!(text.lines().any(|found| found == line), "{line}");
}

fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let begin = Instant::now();
    while !ready() {
        assert!(begin.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn lab() -> Lab {
    let lab = Lab::builder().backends(3).queues(4).build().unwrap();
    let balancer = lab.balancer(0);
    if !lab::fast_path::is_on() {
        lab::fast_path::receive(lab.switch(), &balancer.name(), balancer.dir()).unwrap();
    }
    lab
}

fn start(lab: &Lab, fast_path: &str) -> Pointsman {
    let text = ServiceText::web(lab).persistence("50s").to_toml();
    lab.start_pointsman(0, &format!("{text}\n[dataplane]\nfast_path = \"{fast_path}\"\n")).unwrap()
}

/// Of all services, and of all backends.
fn packets(status: &Status) -> [u64; 2] {
    let services = status.services.iter().map(|service| service.packets).sum();
    let backends = status.services.iter().flat_map(|service| &service.backends);
    [services, backends.map(|backend| backend.packets).sum()]
}

fn metric(lb: &Pointsman) -> u64 {
    let (_, text) = lb.http("/metrics").unwrap();
    let name = "pointsman_fast_path_packets_total{interface=\"eth0\",queue=\"";
    let of_queues = text.lines().filter_map(|line| line.strip_prefix(name)?.split_once("\"} "));
    of_queues.map(|(_, packets)| packets.parse::<u64>().unwrap()).sum()
}
