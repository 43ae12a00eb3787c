//! Two interfaces of a balancer on one segment: a single MAC answers for the VIPs. Needs root.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::node::mac_of;
use lab::{Capture, Direction, Lab, LoadClient, Pointsman, ServiceText, node::Role};
use tests::close_books;
use tests::lifecycle::{SMALL, wait_for};

/// How often a client asks for each VIP.
const QUESTIONS: usize = 5;

/// Hosts would hear two MACs in turns, and the frames of one connection would take turns as well. When
/// the interface that answers loses its link, the other one takes over, and gives back later.
#[test]
fn of_two_interfaces_on_one_segment_one_mac_answers() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _web = lab.start_web()?;
    let (first, second) = (lab.balancer(0).mac(), mac_of(Role::Balancer, 77));
    connect_again(&lab, second)?;
    let (v4, v6) = (ServiceText::web(&lab), ServiceText::web_v6(&lab).name("web-v6"));
    let interfaces = "[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth1\"\n";
    let text = format!("{SMALL}{interfaces}{}{}", v4.service_toml(), v6.service_toml());
    let lb = lab.start_pointsman(0, &text)?;
    wait_for("serving", Duration::from_secs(10), || Ok(lb.ready()?))?;
    only_answers(&lab, &lb, first)?;
    lab.balancer(0).netns().ip("link set eth0 down\n")?;
    taken_over(&lab, second)?;
    only_answers(&lab, &lb, second)?;
    // What the kernel forgets of an interface that goes down.
    let back = format!("link set eth0 up\naddr add {}/64 dev eth0 nodad\n", address_v6(&lab));
    lab.balancer(0).netns().ip(&back)?;
    taken_over(&lab, first)?;
    only_answers(&lab, &lb, first)?;
    close_books(&lb);
    Ok(())
}

/// Makes `eth1` of the balancer, on the segment of its `eth0`.
fn connect_again(lab: &Lab, mac: [u8; 6]) -> Result<()> {
    let node = lab.balancer(0);
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    lab.switch().ip(&format!(
        "link add lb1b type veth peer name eth1 address {mac} netns {}\nlink set lb1b master br0 up\n",
        node.netns().name()
    ))?;
    node.netns().ip("link set eth1 up\naddr add 10.77.2.77/16 dev eth1\n\
                     addr add fd77::2:77/64 dev eth1 nodad\n")?;
    Ok(())
}

fn address_v6(lab: &Lab) -> std::net::Ipv6Addr {
    lab.balancer(0).address_v6()
}

/// Waits until the first answer comes from this MAC.
fn taken_over(lab: &Lab, mac: [u8; 6]) -> Result<()> {
    wait_for("the other interface answers", Duration::from_secs(5), || {
        let seen = answers(lab)?;
        Ok(!seen.is_empty() && seen.iter().all(|(_, by)| *by == mac))
    })?;
    Ok(())
}

/// A client asks for both VIPs, and each time one station answers.
fn only_answers(lab: &Lab, lb: &Pointsman, mac: [u8; 6]) -> Result<()> {
    for _ in 0..QUESTIONS {
        let seen = answers(lab)?;
        let of = |v6: bool| seen.iter().filter(move |(is_v6, _)| *is_v6 == v6).count();
        ensure!(of(false) > 0 && of(true) > 0, "not answered: {seen:x?}\n{}", lb.log());
        let others = seen.iter().filter(|(_, by)| *by != mac);
        ensure!(others.count() == 0, "not only {mac:x?}: {seen:x?}\n{}", lb.log());
    }
    let client = lab.client(0);
    let file = lab.files().ensure("1k")?;
    for (vip, sources) in
        [(lab.vip_port(80), client.sources(1)), (vip_v6(lab), client.sources_v6(1))]
    {
        let load = LoadClient::new(vip, &file).sources(sources).requests(3);
        let report = load.run(client.netns())?;
        ensure!(report.failed() == 0 && report.done() == 3, "{report}");
    }
    Ok(())
}

/// Has the client ask for both VIPs once: whether it was IPv6, and the MAC of the frame that
/// answered.
fn answers(lab: &Lab) -> Result<Vec<(bool, [u8; 6])>> {
    let client = lab.client(0);
    let (v4, v6) = (lab.vip(), lab.vip_v6());
    let filter = format!(
        "(arp[6:2] = 2 and arp src host {v4}) or (icmp6 and ip6[40] = 136 and src host {v6})"
    );
    let file = client.dir().join("answers.pcap");
    let mut capture = Capture::start(client.netns(), "eth0", Direction::In, &filter, file)?;
    client.netns().ip("neigh flush dev eth0\n")?;
    client.netns().enter(|| -> std::io::Result<()> {
        for (own, vip) in [("0.0.0.0:0", SocketAddr::new(v4.into(), 80)), ("[::]:0", vip_v6(lab))] {
            std::net::UdpSocket::bind(own)?.send_to(b"?", vip)?;
        }
        Ok(())
    })??;
    // A second station would answer at once, like the first.
    let _ = capture.wait_for(2, Duration::from_secs(2));
    capture.settle(Duration::from_millis(200), Duration::from_secs(2))?;
    let frames = capture.finish()?;
    let answer = |frame: &lab::pcap::Frame| {
        let is_v6 = frame.bytes.get(12..14) == Some(&[0x86, 0xdd]);
        Some((is_v6, frame.summary()?.source_mac))
    };
    Ok(frames.iter().filter_map(answer).collect())
}

fn vip_v6(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.vip_v6().into(), 80)
}
