//! What is allowed, and what it means.

use std::net::IpAddr;
use std::time::Duration;

use config::{Desired, Parsed, parse};
use control::vrrp::{ChecksumMode, ChecksumStyle, Handover, Version};
use control::{Interface, Poll, Service, TaggedFrames, Vrrp, XdpMode, ZeroCopy};
use dataplane::{HashInput, Protocol, SchedulerKind};

fn accept(text: &str) -> Parsed {
    parse("good.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn desired(text: &str) -> Desired {
    let parsed = accept(&format!("interface = [{{ name = \"eth0\" }}]\n{text}"));
    parsed.desired
}

/// A service with one backend and these settings.
fn service(settings: &str) -> Service {
    let text = "[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\n\
                backend = [{ name = \"web1\", address = \"192.0.2.11\" }]\n";
    let port = if settings.contains("port") { "" } else { "port = 80\n" };
    desired(&format!("{text}{port}{settings}")).services.remove(0)
}

fn interface(settings: &str) -> Interface {
    let text = format!("[[interface]]\nname = \"eth0\"\n{settings}");
    accept(&text).desired.interfaces.remove(0)
}

#[test]
fn ports() {
    let cases = [
        ("1", (1, 1)),
        ("65_535", (65_535, 65_535)),
        ("0x50", (80, 80)),
        ("\"8000-8100\"", (8000, 8100)),
        ("\"1 - 65535\"", (1, 65_535)),
        ("\"80-80\"", (80, 80)),
        ("\"any\"", (0, 65_535)),
    ];
    for (written, expected) in cases {
        let service = service(&format!("port = {written}"));
        assert_eq!((service.first_port, service.last_port), expected, "{written}");
    }
}

#[test]
fn what_is_hashed() {
    let persistence = "\n[service.persistence]\ntimeout = \"50s\"";
    let (source, flow) = (HashInput::Source, HashInput::Flow);
    let cases = [
        ("", None, flow),
        ("hash = \"flow\"", Some(flow), flow),
        ("hash = \"source\"", Some(source), source),
        ("scheduler = \"sh\"", Some(source), source),
        ("scheduler = \"sh\"\nhash = \"flow\"", Some(flow), flow),
        (persistence, None, source),
        (&format!("hash = \"source\"{persistence}"), Some(source), source),
    ];
    for (written, hash, input) in cases {
        let service = service(written);
        assert_eq!((service.hash, service.hash_input()), (hash, input), "{written}");
    }
}

#[test]
fn services_of_a_group_name_their_backends_alike() {
    let service = |name: &str, vip: &str, address: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nport = 80\n\
             persistence = {{ timeout = \"50s\", group = \"shop\" }}\n\
             backend = [{{ name = \"web1\", address = \"{address}\" }}]\n"
        )
    };
    // One machine with two addresses.
    let text = service("http", "192.0.2.10", "192.0.2.11")
        + &service("http6", "2001:db8::10", "2001:db8::11")
        + &service("other", "192.0.2.20", "192.0.2.21");
    let desired = desired(&text);
    assert!(desired.services.iter().all(|service| service.group() == Some("shop")));
}

#[test]
fn schedulers_and_protocols() {
    let cases = [
        ("maglev", SchedulerKind::Maglev),
        ("sh", SchedulerKind::Maglev),
        ("rr", SchedulerKind::Rr),
        ("wrr", SchedulerKind::Wrr),
        ("lc", SchedulerKind::Lc),
        ("wlc", SchedulerKind::Wlc),
    ];
    for (written, expected) in cases {
        assert_eq!(service(&format!("scheduler = \"{written}\"")).scheduler, expected);
    }
    for (written, expected) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)] {
        assert_eq!(service(&format!("protocol = \"{written}\"")).protocol, expected);
    }
    assert_eq!(service("").protocol, Protocol::Tcp);
}

#[test]
fn interfaces() {
    for (written, expected) in
        [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)]
    {
        assert_eq!(interface(&format!("mode = \"{written}\"")).mode, expected);
    }
    for (written, expected) in
        [("auto", ZeroCopy::Auto), ("on", ZeroCopy::On), ("off", ZeroCopy::Off)]
    {
        assert_eq!(interface(&format!("zero_copy = \"{written}\"")).zero_copy, expected);
    }
    assert_eq!(interface("queues = \"all\"").queues, None);
    assert_eq!(interface("queues = [3, 0]").queues, Some(vec![3, 0]));
    for (written, expected) in [("keep", TaggedFrames::Keep), ("none", TaggedFrames::None)] {
        let text = format!("tagged_frames = \"{written}\"");
        assert_eq!(interface(&text).tagged_frames, expected);
    }
    assert_eq!(interface("").tagged_frames, TaggedFrames::Keep);
    assert_eq!(interface("").name, "eth0");
}

#[test]
fn the_limits_themselves_are_allowed() {
    let low = desired(
        "[dataplane]\ncpus = [0]\npoll = \"busy\"\nframes = 4096\nflow_capacity = 1024\n\
         timeouts.udp = \"100ms\"\n",
    );
    assert_eq!((low.dataplane.cpus, low.dataplane.poll), (Some(vec![0]), Poll::Busy));
    assert_eq!((low.dataplane.frames, low.dataplane.flow_capacity), (4096, 1024));
    assert_eq!(low.dataplane.timeouts.udp, Duration::from_millis(100));
    let high = desired(
        "[dataplane]\nframes = 65536\nflow_capacity = 67108864\ntimeouts.udp = \"1week\"\n",
    );
    assert_eq!((high.dataplane.frames, high.dataplane.flow_capacity), (65_536, 67_108_864));
    assert_eq!(high.dataplane.timeouts.udp, Duration::from_secs(604_800));
    let socket = format!("/{}", "s".repeat(106));
    let node = format!("[node]\nname = \"{}\"\n[control]\nsocket = \"{socket}\"", "n".repeat(63));
    let node = desired(&node);
    assert_eq!(node.control_socket.as_os_str().len(), 107);
    assert_eq!(node.node_name.map(|name| name.len()), Some(63));
    assert_eq!(interface("").name.len(), 4);
    accept("[[interface]]\nname = \"exactly-fifteen\"");
}

/// An instance with a service of each of these VIPs.
fn instance(vip: &str, settings: &str) -> Vrrp {
    let text = format!(
        "[[vrrp]]\nname = \"VI_1\"\ninterface = \"eth0\"\nvrid = 255\n{settings}\n\
         [[service]]\nname = \"web\"\nvip = \"{vip}\"\nport = 80\nvrrp = \"VI_1\"\n"
    );
    desired(&text).vrrp.remove(0)
}

#[test]
fn vrrp_limits_themselves_are_allowed() {
    let ms = Duration::from_millis;
    let v4 = |settings: &str| instance("192.0.2.10", settings);
    assert_eq!(v4("").advert_interval, ms(1000));
    assert_eq!(v4("advert_interval = \"10ms\"").advert_interval, ms(10));
    assert_eq!(v4("advert_interval = \"40s 950ms\"").advert_interval, ms(40_950));
    let slow = v4("version = 2\nadvert_interval = \"255s\"");
    assert_eq!((slow.version, slow.advert_interval), (Version::V2, ms(255_000)));
    let owner = v4("priority = 255\ndown_adverts = 100");
    assert_eq!((owner.priority, owner.down_adverts, owner.vrid.get()), (255, 100, 255));
    let unicast = instance("fd00::10", "mode = \"unicast\"\npeers = [\"fe80::2\"]");
    assert!(unicast.unicast && unicast.peers.len() == 1);
    let styles =
        [("rfc9568", ChecksumStyle::Plain), ("pseudo-header", ChecksumStyle::PseudoHeader)];
    for (word, style) in styles {
        let read = v4(&format!("checksum = \"{word}\"")).checksum;
        assert_eq!(read, ChecksumMode::Fixed(style));
    }
    assert_eq!(v4("handover = \"at-once\"").handover, Handover::AtOnce);
    let refresh = v4("announce = { count = 100, refresh = \"60s\" }").announce;
    assert_eq!((refresh.count, refresh.refresh), (100, Some(ms(60_000))));
}

#[test]
fn one_vrid_may_serve_both_families() {
    let vrrp = |name: &str| {
        format!("[[vrrp]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = 7\ngroup = \"g\"\n")
    };
    let service = |name: &str, vip: &str, vrrp: &str| {
        format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nport = 80\nvrrp = \"{vrrp}\"\n")
    };
    let text = [
        vrrp("four"),
        vrrp("six"),
        service("a", "192.0.2.10", "four"),
        service("b", "2001:db8::10", "six"),
        service("c", "192.0.2.11", "four"),
    ];
    let desired = desired(&text.concat());
    let vips: [IpAddr; 2] = [[192, 0, 2, 10].into(), [192, 0, 2, 11].into()];
    assert_eq!(desired.vips_of("four"), vips);
    assert_eq!(desired.vips_of("six").len(), 1);
}

#[test]
fn durations_may_be_compound() {
    let persistence = service("persistence = { timeout = \"1m 30s\" }").persistence;
    assert_eq!(persistence.map(|p| p.timeout), Some(Duration::from_secs(90)));
    assert_eq!(service("").persistence, None);
}

#[test]
fn metrics_can_be_off() {
    assert_eq!(desired("[metrics]\nlisten = \"off\"").metrics_listen, None);
    let listen = desired("[metrics]\nlisten = \"[::1]:9000\"").metrics_listen;
    assert_eq!(listen.map(|listen| listen.to_string()).as_deref(), Some("[::1]:9000"));
}

#[test]
fn one_vip_may_have_many_services() {
    let text = "[[service]]\nname = \"http\"\nvip = \"192.0.2.10\"\nport = 80\n\
                [[service]]\nname = \"https\"\nvip = \"192.0.2.10\"\nport = 443\n\
                [[service]]\nname = \"http3\"\nvip = \"192.0.2.10\"\nport = 443\n\
                protocol = \"udp\"\n\
                [[service]]\nname = \"low\"\nvip = \"192.0.2.10\"\nport = \"1-79\"\n\
                [[service]]\nname = \"other\"\nvip = \"2001:db8::10\"\nport = \"any\"\n";
    assert_eq!(desired(text).services.len(), 5);
}

#[test]
fn two_services_may_share_backends() {
    let backend = "backend = [{ name = \"web1\", address = \"192.0.2.11\", weight = 65535 }]\n";
    let text = format!(
        "[[service]]\nname = \"http\"\nvip = \"192.0.2.10\"\nport = 80\n{backend}\
         [[service]]\nname = \"https\"\nvip = \"192.0.2.10\"\nport = 443\n{backend}"
    );
    let parsed = accept(&format!("[[interface]]\nname = \"eth0\"\n{text}"));
    assert!(parsed.warnings.is_empty(), "{}", parsed.warnings);
    assert_eq!(parsed.desired.services[0].backends, parsed.desired.services[1].backends);
}

#[test]
fn line_endings_and_a_byte_order_mark_do_not_matter() {
    let unix = "[[interface]]\nname = \"eth0\"\n\n[node]\nname = \"lb1\"\n";
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    assert_eq!(accept(&windows).desired, accept(unix).desired);
}
