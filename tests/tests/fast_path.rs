//! Requirement: where frames are copied, the XDP program forwards the packets of known flows itself,
//! as the worker would: every request is answered, by the backend that its source has, and what
//! passed is in the books of interface, service and backend. Off, nothing is forwarded by it.

use lab::{Lab, LoadClient, Pointsman, ServiceText};
use tests::{Status, assert_all_done, close_books, forwarded, measured, patient};

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
    let all = fast + forwarded(&status);
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
    let name = "pointsman_fast_path_packets_total{interface=\"eth0\"} ";
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}
