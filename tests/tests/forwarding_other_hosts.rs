//! Requirement: a frame whose destination MAC is not ours is never forwarded. With promiscuous
//! ports, a switch that floods and two active balancers, a datagram is forwarded once; a new MAC of
//! the interface is followed within a second.

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Capture, Direction, Lab, LabError, Node, Pointsman, ProbeClient};
use tests::lifecycle::{config, echo_everywhere, named, outcome, run, runs, status, udp, wait_for};
use tests::{close_books, measured};

/// Each of the two would forward what the other one has forwarded.
#[test]
fn two_active_balancers_on_a_flooding_switch_forward_a_datagram_once() -> Result<()> {
    let lab = Lab::builder().balancers(2).backends(1).build()?;
    let lbs = [0, 1].map(|index| lab.start_pointsman(index, &config(&udp(&lab))));
    let [first, second] = lbs.map(Result::unwrap);
    flood(&lab)?;
    for index in [0, 1] {
        lab.balancer(index).netns().ip("link set eth0 promisc on\n")?;
    }
    ask_at(&lab, &mac_of(lab.balancer(0)))?;
    let filter = format!("udp and dst host {} and dst port 53", lab.vip());
    let rs = lab.backend(0);
    let file = rs.dir().join("flooded.pcap");
    // On the wire to the backend is everything that the switch floods.
    let mut wire = Capture::start(lab.switch(), &rs.name(), Direction::Out, &filter, file)?;
    let sent = u64::from(runs(10));
    for number in 0..sent {
        // A port each: no flow is known.
        let port = u16::try_from(20_000 + number)?;
        let from = (lab.client(0).address(), port);
        let to = (lab.vip(), 53);
        let client = lab.client(0).netns().enter(|| UdpSocket::bind(from))??;
        client.send_to(b"once", to)?;
    }
    let settled = wire.settle(Duration::from_millis(500), Duration::from_secs(2));
    ensure!(!matches!(settled, Err(LabError::Timeout { .. })), "frames keep circling");
    settled?;
    // Each datagram as it came, and as it was forwarded.
    let frames = wire.finish()?.len();
    measured("frames_of_ten_datagrams", frames, "frames", "=20");
    ensure!(frames as u64 == 2 * sent, "{frames} frames of {sent} datagrams");
    let strangers = |lb: &Pointsman| -> Result<u64> { Ok(outcome(&status(lb)?, "other_host")) };
    // The first one sees the frames that it has sent no more; the second sees both.
    ensure!(strangers(&second)? == 2 * sent, "{:?}", status(&second)?["interfaces"]);
    ensure!(tests::forwarded(&close_books(&first)) == sent);
    ensure!(tests::forwarded(&close_books(&second)) == 0);
    Ok(())
}

/// The program and the workers follow the MAC of the interface.
#[test]
fn frames_to_a_new_mac_are_served_within_a_second() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    ask_at(&lab, &mac_of(lab.balancer(0)))?;
    for round in 0..runs(3) {
        let mac = format!("02:00:00:00:88:{round:02x}");
        lab.balancer(0).netns().ip(&format!("link set eth0 address {mac}\n"))?;
        ask_at(&lab, &mac)?;
        let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
        sleep(Duration::from_millis(1500));
        let report = probe.finish();
        measured("outage_after_a_new_mac", report.longest_outage().as_millis(), "ms", "<=1000");
        ensure!(report.answered > 200, "{report:?}\n{}", lb.log());
        ensure!(report.longest_outage() <= Duration::from_secs(1), "{report:?}");
        // Frames to the former one are another host's by now.
        let before = outcome(&status(&lb)?, "other_host");
        ask_at(&lab, &mac_of(lab.balancer(0)))?;
        let client =
            lab.client(0).netns().enter(|| UdpSocket::bind((lab.client(0).address(), 0)))??;
        client.send_to(b"late", (lab.vip(), 53))?;
        wait_for("it is counted", Duration::from_secs(2), || {
            Ok(outcome(&status(&lb)?, "other_host") == before + 1)
        })?;
    }
    let dropped = named(&status(&lb)?["dropped"], "not_vip");
    ensure!(dropped == 0, "{dropped}");
    close_books(&lb);
    Ok(())
}

/// The switch learns nothing: every frame goes to every port.
fn flood(lab: &Lab) -> Result<()> {
    lab.switch().ip("link set br0 type bridge ageing_time 0\n")?;
    let ports = run(lab.switch(), &["bridge", "link", "show"])?;
    for port in ports.lines().filter_map(|line| line.split([' ', '@', ':']).nth(2)) {
        run(lab.switch(), &["bridge", "link", "set", "dev", port, "learning", "off"])?;
    }
    Ok(lab.switch().ip("link set br0 type bridge fdb_flush\n")?)
}

/// The client takes the VIP to be at this MAC.
fn ask_at(lab: &Lab, mac: &str) -> Result<()> {
    let vip = lab.vip();
    Ok(lab
        .client(0)
        .netns()
        .ip(&format!("neigh replace {vip} lladdr {mac} dev eth0 nud permanent\n"))?)
}

fn mac_of(node: &Node) -> String {
    node.mac().map(|byte| format!("{byte:02x}")).join(":")
}
