//! Gratuitous ARP at a start and when the MAC or the link changes. Needs root.

use std::io::Read as _;
use std::time::{Duration, Instant};

use lab::{Lab, Result, ServiceText, VrrpText};
use socket2::{Domain, Protocol, Socket, Type};

/// The VIP is announced when the balancer starts, when its MAC changes and when its link comes back:
/// five times at once and five times more.
#[test]
fn a_vip_without_an_instance_is_announced() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let (client, balancer) = (lab.client(0), lab.balancer(0));
    let vip = lab.vip().octets();
    let ear = client.netns().enter(listen)?;
    let ours = lab.start_pointsman(0, &ServiceText::web(&lab).to_toml())?;
    let old = balancer.mac();
    assert_eq!(heard(&ear, vip, old, 10), 10, "at start: {}", ours.log());
    let new = [2, 0, 0, 0, 0, 0x77];
    balancer.netns().ip("link set eth0 address 02:00:00:00:00:77\n")?;
    assert_eq!(heard(&ear, vip, new, 10), 10, "another MAC: {}", ours.log());
    balancer.netns().ip("link set eth0 down\n")?;
    std::thread::sleep(Duration::from_secs(1));
    balancer.netns().ip("link set eth0 up\n")?;
    assert!(heard(&ear, vip, new, 5) >= 5, "the link is back: {}", ours.log());
    Ok(())
}

/// An Active whose interface gets another MAC stays Active and announces its VIPs at once.
#[test]
fn an_active_with_another_mac_stays_active_and_announces() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let (client, balancer) = (lab.client(0), lab.balancer(0));
    let ear = client.netns().enter(listen)?;
    let vrrp = VrrpText::new("VI_1", 150, Duration::from_millis(100));
    let text = ServiceText::web(&lab).with("vrrp = \"VI_1\"").to_toml() + &vrrp.to_toml();
    let ours = lab.start_pointsman(0, &text)?;
    let old = heard(&ear, lab.vip().octets(), balancer.mac(), 10);
    assert_eq!(old, 10, "at start: {}", ours.log());
    let transitions = || ours.log().matches("Entering").count();
    let before = transitions();
    balancer.netns().ip("link set eth0 address 02:00:00:00:00:77\n")?;
    let begin = Instant::now();
    let new = heard(&ear, lab.vip().octets(), [2, 0, 0, 0, 0, 0x77], 5);
    assert!(new >= 5 && begin.elapsed() < Duration::from_secs(2), "{new} {:?}", begin.elapsed());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(transitions(), before, "{}", ours.log());
    Ok(())
}

/// Gratuitous ARP that arrives within 15 s, at most `most`.
fn heard(ear: &Socket, vip: [u8; 4], mac: [u8; 6], most: usize) -> usize {
    let limit = Instant::now() + Duration::from_secs(15);
    let (mut count, mut frame) = (0, [0; 128]);
    while count < most && Instant::now() < limit {
        let Ok(len) = (&*ear).read(&mut frame) else { continue };
        let gratuitous = len >= 42 && frame[28..32] == vip && frame[38..42] == vip;
        count += usize::from(gratuitous && frame[22..28] == mac);
    }
    count
}

fn listen() -> Socket {
    let arp = i32::from(0x0806_u16.to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(arp))).expect("root");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    socket
}
