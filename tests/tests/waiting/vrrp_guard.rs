//! Other stations that claim a VIP: named, counted, and answered. Needs root.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use lab::{LabError, Process, Result, pointsman_binary};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::vrrp::{Pair, Settings, ms, note};

/// The classic mistake of direct routing: a backend that answers ARP for the VIP that it has. It
/// answers whoever asks, so the Active asks, too.
#[test]
fn a_backend_that_answers_arp_for_the_vip_is_named() -> Result<()> {
    let pair = Pair::start(&Settings::fast())?;
    let backend = pair.lab.backend(0);
    backend
        .netns()
        .set_sysctls(&["net/ipv4/conf/all/arp_ignore=0", "net/ipv4/conf/eth0/arp_ignore=0"])?;
    assert_eq!(pair.instance(1)["foreign_claims"], 0);
    // Whoever becomes Active asks a second later.
    pair.resign(0, "60s")?;
    pair.wait_active(1)?;
    wait_for(&pair, "a claim", ms(3000), || pair.instance(1)["foreign_claims"] == 1)?;
    let claim = &pair.instance(1)["last_foreign_claim"];
    assert_eq!((&claim["vip"], &claim["mac"]), (&"10.77.0.100".into(), &mac_text(backend.mac())));
    assert_eq!(claim["backend"], "rs1", "{claim}");

    let second = pair.balancers[1].as_ref().expect("it runs");
    let log = second.log();
    let line = log.lines().find(|line| line.contains("claims the VIP")).expect("a line");
    for part in ["02:00:0a:4d:03:01 claims the VIP 10.77.0.100", "backend rs1", "arp_ignore=1"] {
        assert!(line.contains(part), "{line}");
    }
    let foreign =
        second.metrics()?.value("pointsman_vrrp_foreign_vip_total", &[("instance", "VI_1")]);
    assert_eq!(foreign, Some(1.0));
    let (binary, socket) = (pointsman_binary()?, second.socket().display().to_string());
    let argv = [&*binary.to_string_lossy(), "vrrp", "--socket", &socket];
    let shown = pair.lab.balancer(1).netns().run(&argv, ms(5000))?.ok()?;
    let expected =
        "claimed by others: 1 times, last 10.77.0.100 by 02:00:0a:4d:03:01, backend rs1, ";
    assert!(shown.contains(expected), "{shown}");
    assert_eq!(pair.instance(0)["foreign_claims"], 0, "a Backup does not mind");
    pair.check_packets();
    Ok(())
}

/// A stranger's gratuitous ARP takes the client away for no longer than it takes us to announce the
/// VIP again, and a stranger that repeats itself does not make us repeat ourselves as often.
#[test]
fn a_strangers_gratuitous_arp_is_answered() -> Result<()> {
    let mut pair = Pair::start(&Settings::fast())?;
    let vip = pair.lab.vip().to_string();
    let stranger = |count: &str, pause: &str| {
        let argv =
            ["arping", "-q", "-U", "-i", "eth0", "-s", STRANGER_TEXT, "-S", &vip, "-c", count];
        let argv = [&argv[..], &["-W", pause, &vip]].concat();
        pair.lab.backend(1).netns().run(&argv, ms(10_000))
    };
    let took = recaptured(&pair, &vip, || stranger("1", "0.01").map(drop))?;
    note(&format!("the client's ARP entry is ours again after {took:?}"));
    let instance = pair.instance(0);
    assert_eq!(instance["foreign_claims"], 1, "{instance:#}");
    assert_eq!(instance["last_foreign_claim"]["backend"], Value::Null, "{instance:#}");
    assert!(took <= AGAIN, "{took:?}");

    let before = instance["announced"].as_u64().unwrap_or(0);
    let begin = Instant::now();
    stranger("200", "0.01")?;
    pair.wait(ms(1200));
    let instance = pair.instance(0);
    let bursts = (instance["announced"].as_u64().unwrap_or(0) - before) / 5;
    let most = begin.elapsed().as_secs() + 2;
    assert_eq!(instance["foreign_claims"], 201, "every claim is counted");
    assert!((1..=most).contains(&bursts), "{bursts} bursts in {:?}", begin.elapsed());
    let lines = pair.first().log().matches("claims the VIP").count();
    assert_eq!(lines, 1, "the same claim is told once a minute");
    pair.wait_reachable()?;
    assert_eq!(pair.states()?, ["active", "backup"]);
    pair.check_packets();
    Ok(())
}

/// The same with a neighbour advertisement.
#[test]
fn a_strangers_neighbour_advertisement_is_answered() -> Result<()> {
    let pair = Pair::start(&Settings { both_families: true, ..Settings::fast() })?;
    let six = || pair.nth_instance(0, 1);
    wait_for(&pair, "the IPv6 VIP", ms(10_000), || six()["vips_active"] == true)?;
    let vip = pair.lab.vip_v6();
    let text = vip.to_string();
    // Now the client knows it.
    let argv = ["ping", "-c", "1", "-W", "2", &text];
    pair.lab.client(0).netns().run(&argv, ms(5000))?.ok()?;
    let host = pair.lab.backend(1).netns();
    let took = recaptured(&pair, &text, || host.enter(|| advertise(vip))?)?;
    note(&format!("the client's neighbour entry is ours again after {took:?}"));
    let instance = six();
    assert_eq!(instance["foreign_claims"], 1, "{instance:#}");
    assert_eq!(instance["last_foreign_claim"]["mac"], STRANGER_TEXT);
    assert_eq!(pair.instance(0)["foreign_claims"], 0, "the other family's instance");
    assert!(took <= AGAIN, "{took:?}");
    pair.check_packets();
    Ok(())
}

/// From `attack` until the client's entry for the VIP is the first balancer's again; that it was the
/// stranger's meanwhile is a condition.
fn recaptured(pair: &Pair, vip: &str, attack: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let client = pair.lab.client(0);
    let log = client.dir().join("neighbours.log");
    let argv = ["stdbuf", "-oL", "ip", "monitor", "neigh", "dev", "eth0"];
    let monitor = Process::start(client.netns(), "ip monitor", &argv, &log)?;
    let ours = format!("lladdr {}", mac_text(pair.lab.balancer(0).mac()).as_str().unwrap_or("?"));
    let changes = || -> Vec<bool> {
        let text = monitor.log();
        let lines = text.lines().filter(|line| line.split(' ').next() == Some(vip));
        lines.filter(|line| line.contains("lladdr")).map(|line| line.contains(&ours)).collect()
    };
    // It listens when it is asleep in recvmsg; a fifth of a second is long for that.
    pair.wait(ms(200));
    let begin = Instant::now();
    attack()?;
    let back = || changes().windows(2).any(|pair| pair == [false, true]);
    wait_for(pair, &format!("ours again: {ours}"), ms(5000), back)?;
    Ok(begin.elapsed())
}

/// An unsolicited neighbour advertisement of a stranger: override flag, link-layer address option.
fn advertise(vip: Ipv6Addr) -> Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("root");
    socket.bind_device(Some(b"eth0")).expect("eth0");
    socket.set_multicast_hops_v6(255).expect("a hop limit");
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(vip.octets());
    message.extend([2, 1]);
    message.extend(STRANGER);
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, 0);
    // The kernel fills in the checksum.
    socket.send_to(&message, &all_nodes.into()).expect("a link");
    Ok(())
}

fn wait_for(pair: &Pair, what: &str, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !ready() {
        if begin.elapsed() > limit {
            return Err(LabError::Timeout { what: pair.late(what).to_string(), limit });
        }
        std::thread::sleep(ms(5));
    }
    Ok(())
}

fn mac_text(mac: [u8; 6]) -> Value {
    mac.map(|byte| format!("{byte:02x}")).join(":").into()
}

const STRANGER: [u8; 6] = [0x02, 0x99, 0, 0, 0, 0x42];
const STRANGER_TEXT: &str = "02:99:00:00:00:42";
/// Announcements are at least a second apart, and those of the take-over may be recent.
const AGAIN: Duration = Duration::from_millis(1200);
