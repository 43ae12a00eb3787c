//! The tables beside those of ipvsadm 1.31 on Linux 6.1 (`golden/`), whose numbers they are given.

use std::borrow::Cow;

use api::listing::{Flow, FlowState, Template};
use api::status::{Backend, Rates, Service, Status, example};
use dataplane::{Protocol, SchedulerKind};
use regex::Regex;

use super::rows::Table;
use super::{CONNECTIONS, connection, template};

/// Address and, of the plain table, weight, active, inactive, templates; of the others connections,
/// packets and bytes; connections, packets and bytes a second.
type Row = (&'static str, [u32; 4], [u64; 3], [f64; 3]);

fn backend(&(address, [weight, active, inactive, templates], totals, rates): &Row) -> Backend {
    let like = example().services.remove(0).backends.remove(0);
    let [active, inactive, templates] = [active, inactive, templates].map(u64::from);
    let [connections, packets, bytes] = totals;
    let [new, pps, bps] = rates;
    Backend {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        effective_weight: weight.into(),
        active,
        inactive,
        templates,
        connections,
        packets,
        bytes: bytes + 14 * packets,
        rates: Rates { connections: new, packets: pps, bytes: bps + 14.0 * pps, acked_bytes: 0.0 },
        ..like
    }
}

fn service(
    vip: (&str, Protocol, &str),
    scheduler: SchedulerKind,
    persistent: Option<(f64, u8)>,
    rows: &[Row],
) -> Service {
    let backends: Vec<Backend> = rows.iter().map(backend).collect();
    let sum = |value: fn(&Backend) -> u64| backends.iter().map(value).sum();
    let rate = |value: fn(&Rates) -> f64| backends.iter().map(|one| value(&one.rates)).sum();
    Service {
        name: format!("{}/{}", vip.0, vip.2),
        vip: vip.0.parse().unwrap(),
        protocol: vip.1,
        port: vip.2.to_owned(),
        scheduler,
        persistence_seconds: persistent.map(|(seconds, _)| seconds),
        persistence_prefix: persistent.map(|(_, len)| len),
        packets: sum(|backend| backend.packets),
        bytes: sum(|backend| backend.bytes),
        rates: Rates {
            connections: rate(|rates| rates.connections),
            packets: rate(|rates| rates.packets),
            bytes: rate(|rates| rates.bytes),
            acked_bytes: 0.0,
        },
        backends,
        ..example().services.remove(0)
    }
}

/// What ip_vs had when the tables were printed, but for the service by firewall mark.
fn status() -> Status {
    use Protocol::{Tcp, Udp};
    use SchedulerKind::{Lc, Maglev, Rr, Wlc};
    let web: [Row; 3] = [
        ("10.77.0.3", [1, 0, 0, 0], [0; 3], [0.0; 3]),
        ("10.77.0.4", [1, 0, 0, 0], [0; 3], [0.0; 3]),
        ("10.77.0.5", [1, 3, 40, 1], [43, 491, 28_876], [2.0, 27.0, 1583.0]),
    ];
    let dns: [Row; 2] = [
        ("10.77.0.3", [10, 0, 2, 0], [2, 2, 114], [0.0, 0.0, 11.0]),
        ("10.77.0.4", [10, 0, 3, 0], [3, 3, 171], [0.0, 0.0, 16.0]),
    ];
    let six: [Row; 2] = [
        ("fd77::3", [1, 0, 10, 1], [10, 124, 9788], [1.0, 9.0, 703.0]),
        ("fd77::4", [0, 0, 0, 0], [0; 3], [0.0; 3]),
    ];
    let services = vec![
        service(("10.77.0.100", Tcp, "80"), Wlc, Some((50.0, 32)), &web),
        service(("10.77.0.100", Tcp, "443"), Lc, None, &[]),
        service(("10.77.0.100", Udp, "53"), Rr, None, &dns),
        service(("fd77::100", Tcp, "81"), Maglev, Some((300.0, 64)), &six),
    ];
    Status { services, flow_capacity: 4096, ..example() }
}

/// A golden table without the service by firewall mark, and with the scheduler `sh` as `lc`.
fn golden(text: &str) -> String {
    let mark = text.find("FWM").unwrap_or(text.len());
    text[..mark].replace(":443 sh", ":443 lc")
}

#[test]
fn the_tables_are_those_of_ipvsadm() {
    let status = status();
    for (table, expected) in [
        (Table::Plain, include_str!("golden/Ln.txt")),
        (Table::PersistentConn, include_str!("golden/Ln_persistent_conn.txt")),
        (Table::Stats { exact: false }, include_str!("golden/Ln_stats.txt")),
        (Table::Stats { exact: true }, include_str!("golden/Ln_stats.txt")),
        (Table::Rate { exact: false }, include_str!("golden/Ln_rate.txt")),
    ] {
        assert_eq!(table.text(&status, true), golden(expected), "{table:?}");
    }
    let of_one = Table::Plain.text(&status, false);
    assert!(of_one.starts_with("Prot LocalAddress:Port Scheduler Flags\n"), "{of_one}");
}

#[test]
fn large_numbers_are_cut_as_ipvsadm_does() {
    let mut status = status();
    status.services.truncate(1);
    let service = &mut status.services[0];
    service.backends.truncate(1);
    service.backends[0].connections = 99_999_999;
    (service.backends[0].packets, service.backends[0].bytes) = (123_456_789, 123_456_789 * 14);
    (service.packets, service.bytes) = (99_999_999_999, 99_999_999_999 * 1014);
    let table = Table::Stats { exact: false }.text(&status, true);
    let lines: Vec<&str> = table.lines().skip(3).collect();
    assert_eq!(
        lines,
        [
            "TCP  10.77.0.100:80               99999999   99999M        0   99999G        0",
            "  -> 10.77.0.3:80                 99999999  123456K        0        0        0",
        ]
    );
    let table = Table::Stats { exact: true }.text(&status, true);
    assert!(table.contains(" 99999999 99999999999        0 99999999999000        0\n"), "{table}");
}

#[test]
fn what_exporters_look_for_is_there() {
    let status = status();
    let service =
        Regex::new(r"^(?P<proto>TCP|UDP)\s+(?P<vip>\S+):(?P<port>\d+)\s+(?P<sched>\w+)").unwrap();
    let server = Regex::new(
        r"^\s+->\s+(?P<rs>\S+):(?P<port>\d+)\s+(?P<fwd>Route|Masq|Tunnel|Local)\s+(?P<weight>\d+)\s+(?P<active>\d+)\s+(?P<inactive>\d+)\s*$",
    )
    .unwrap();
    let stats = Regex::new(r"^(?:TCP|UDP|\s+->)\s+\S+:\d+(?:\s+\d+[KMGT]?){5}$").unwrap();
    let plain = Table::Plain.text(&status, true);
    assert_eq!(plain.lines().filter(|line| service.is_match(line)).count(), 4);
    let active: u64 = plain
        .lines()
        .filter_map(|line| server.captures(line))
        .map(|found| found["active"].parse::<u64>().unwrap())
        .sum();
    assert_eq!((plain.lines().filter(|line| server.is_match(line)).count(), active), (7, 3));
    for table in [Table::Stats { exact: false }, Table::Rate { exact: true }] {
        let text = table.text(&status, true);
        assert_eq!(text.lines().filter(|line| stats.is_match(line)).count(), 11, "{text}");
    }
}

#[test]
fn connections_and_templates_are_those_of_ipvsadm() {
    let status = status();
    let flow = |name: &'static str, protocol, source: &'static str, vip: &'static str, rest| {
        let (address, state, seconds): (&str, FlowState, f64) = rest;
        let flow = Flow {
            protocol,
            source: Cow::Borrowed(source),
            destination: Cow::Borrowed(vip),
            service: Cow::Borrowed(name),
            backend: Cow::Borrowed("a"),
            address: Some(address.parse().unwrap()),
            state,
            idle_seconds: 0.0,
            expires_seconds: seconds,
        };
        connection(&status, &flow).unwrap()
    };
    let of_source = |name: &'static str, source: &str, address: &str, seconds| {
        let entry = Template {
            source: source.parse().unwrap(),
            service: Cow::Borrowed(name),
            backend: Cow::Borrowed("a"),
            address: Some(address.parse().unwrap()),
            live_flows: 0,
            expires_seconds: seconds,
        };
        template(&status, &entry).unwrap()
    };
    let (web, six, dns) = ("10.77.0.100/80", "fd77::100/81", "10.77.0.100/53");
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let (vip, vip6) = ("10.77.0.100:80", "[fd77::100]:81");
    let lines = [
        format!("{CONNECTIONS}\n"),
        flow(six, tcp, "[fd77::1]:37790", vip6, ("fd77::3", FlowState::Closing, 114.0)),
        flow(web, tcp, "10.77.0.1:60024", vip, ("10.77.0.5", FlowState::Closing, 112.9)),
        flow(web, tcp, "10.77.0.1:60194", vip, ("10.77.0.5", FlowState::Established, 896.0)),
        flow(dns, udp, "10.77.0.1:55530", "10.77.0.100:53", ("10.77.0.4", FlowState::Udp, 295.0)),
        of_source(web, "10.77.0.1", "10.77.0.5", 46.0),
        of_source(six, "fd77::", "fd77::3", 295.0),
    ];
    let golden = include_str!("golden/Lcn.txt");
    for line in lines {
        assert!(golden.contains(&line), "{line}");
    }
}
