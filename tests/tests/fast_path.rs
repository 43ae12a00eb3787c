//! Requirement: where frames are copied, the XDP program forwards the packets of known flows itself,
//! as the worker would: every request is answered, by the backend that its source has, and what
//! passed is in the books of interface, service and backend, also where it leaves by another interface.
//! Off, nothing is forwarded by it. With "auto" it forwards on a veth only while the other end receives,
//! by an XDP program or GRO; what a driver drops is counted.

use std::{
    thread,
    time::{Duration, Instant},
};

use lab::{Lab, LoadClient, Pointsman, ServiceText};
use tests::two_armed::{
    add_second_arm, on_second_arm, take_uploads, two_interfaces_with, upload, upload_service,
};
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
    let lab = plain_lab();
    let (port, dir) = (lab.balancer(0).name(), lab.balancer(0).dir());
    let _web = lab.start_web().unwrap();
    let lb = start(&lab, "auto");
    let now = || status(&lb).interfaces.remove(0);
    let first = now();
    assert!(!first.fast_path, "{}", first.fast_path_reason);
    if first.fast_path_reason.contains("this kernel does not") {
        measured("auto_on_a_veth", "off", "", &first.fast_path_reason);
        return;
    }
    assert!(first.fast_path_reason.contains("other end"), "{}", first.fast_path_reason);
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

/// The kernel does not look at a ring of GRO's after `XDP_TX`, but after a redirect.
#[test]
fn gro_at_the_other_end_of_a_veth_is_enough() {
    let lab = plain_lab();
    let argv = ["ethtool", "-K", &lab.balancer(0).name(), "gro", "on"];
    lab.switch().run(&argv, Duration::from_secs(10)).unwrap().ok().unwrap();
    let _web = lab.start_web().unwrap();
    let lb = start(&lab, "auto");
    let file = lab.files().ensure("1m").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).verify(&file).threads(4).requests(40);
    let report = patient(load).run(lab.client(0).netns()).unwrap();
    assert_all_done(&report, &lb);
    let status = close_books(&lb);
    let interface = &status.interfaces[0];
    if interface.fast_path_reason.contains("this kernel does not") {
        return;
    }
    assert!(interface.fast_path, "{}", interface.fast_path_reason);
    let all = forwarded(&status);
    let fast = interface.forwarded();
    measured("forwarded_by_the_program", fast, &format!("packets of {all}"), ">half");
    assert!(fast * 2 > all, "{fast} of {all}");
    assert_eq!(interface.fast_path_lost, 0);
}

#[test]
fn known_flows_leave_by_another_interface() {
    let lab = plain_lab();
    add_second_arm(&lab).unwrap();
    receive(&lab, "lb1");
    take_uploads(&lab).unwrap();
    let service = on_second_arm(&upload_service(&lab).service_toml());
    let config = format!("{}{service}", two_interfaces_with("auto"));
    let lb = lab.start_pointsman(0, &config).unwrap();

    // The switch's port of the second interface takes nothing yet.
    upload(&lab, 4, 1 << 20, None).unwrap();
    let near = |status: &Status| status.interfaces[0].forwarded();
    let before = close_books(&lb);
    assert!(before.interfaces[0].fast_path, "{}", before.interfaces[0].fast_path_reason);
    assert_eq!(near(&before), 0, "nothing that would be lost");

    receive(&lab, "lb1b");
    wait_for("programs send by it", || status(&lb).interfaces[1].fast_path);
    upload(&lab, 4, 8 << 20, None).unwrap();
    let after = close_books(&lb);
    let (fast, all) = (near(&after), forwarded(&after) - forwarded(&before));
    measured("forwarded_by_the_program", fast, &format!("packets of {all}"), ">half");
    assert!(fast * 2 > all, "{fast} of {all}");
    assert_eq!(packets(&after), [forwarded(&after); 2], "services and backends");
    assert!(after.interfaces.iter().all(|interface| interface.fast_path_lost == 0));
}

#[test]
fn what_the_driver_drops_is_counted() {
    let lab = lab();
    let _web = lab.start_web().unwrap();
    let lb = start(&lab, "on");
    let file = lab.files().ensure("1m").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).verify(&file).threads(8).requests(16);
    let load = patient(load).download_rate(200_000).start(lab.client(0).netns()).unwrap();
    let now = || status(&lb).interfaces.remove(0);
    wait_for("it forwards", || now().forwarded() > 100);
    // Until that is noticed, nothing that the program sends arrives.
    lab::fast_path::stop_receiving(lab.switch(), &lab.balancer(0).name()).unwrap();
    wait_for("lost frames are counted", || now().fast_path_lost > 0);
    wait_for("it is off, though it is asked for", || !now().fast_path);
    assert_all_done(&load.finish(), &lb);
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

#[test]
fn on_in_generic_mode_is_warned_of_once() {
    let lab = lab();
    let text = ServiceText::web(&lab).to_toml();
    let text = text.replace(
        "name = \"eth0\"",
        "name = \"eth0\"\nmode = \"generic\"\ntagged_frames = \"none\"",
    );
    let config = format!("{text}\n[dataplane]\nfast_path = \"on\"\n");
    let lb = lab.start_pointsman(0, &config).unwrap();
    let interface = status(&lb).interfaces.remove(0);
    assert!(interface.fast_path, "{}", interface.fast_path_reason);
    assert!(interface.fast_path_reason.contains("generic mode"), "{}", interface.fast_path_reason);
    assert_eq!(lb.log().matches("may lose frames here").count(), 1, "{}", lb.log());
}

fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let begin = Instant::now();
    while !ready() {
        assert!(begin.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn plain_lab() -> Lab {
    let lab = Lab::builder().backends(3).queues(4).build().unwrap();
    if lab::fast_path::is_on() {
        lab::fast_path::stop_receiving(lab.switch(), &lab.balancer(0).name()).unwrap();
    }
    lab
}

fn lab() -> Lab {
    let lab = plain_lab();
    receive(&lab, &lab.balancer(0).name());
    lab
}

fn receive(lab: &Lab, port: &str) {
    lab::fast_path::receive(lab.switch(), port, lab.balancer(0).dir()).unwrap();
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
