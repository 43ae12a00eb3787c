//! Routers whose adverts must be discarded, and what is said about them. Needs root.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lab::topology::vip;
use lab::{Pointsman, Result};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use crate::keepalived::{LONG, MULTICAST, PASSWORD, Way, instance, masters, wait_for};

fn discarded(ours: &Pointsman, reason: &str) -> u64 {
    let seen = instance(ours);
    let counts = seen["rejected"].as_array().into_iter().flatten();
    let named = counts.filter(|count| count["name"] == reason);
    named.filter_map(|count| count["value"].as_u64()).sum()
}

/// A router of another owner has our VRID and a higher priority: it takes nothing away, is counted,
/// and named with its addresses.
#[test]
fn a_router_with_other_addresses_takes_no_vip() -> Result<()> {
    let lab = MULTICAST.lab()?;
    let ours = lab.start_pointsman(0, &MULTICAST.config(&lab, 0, 100, true))?;
    wait_for(&ours, "active")?;
    let foreign = Way { first_vip: 7, ..MULTICAST };
    let mut theirs = foreign.start_keepalived(&lab, 1, 200, true)?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    // keepalived sends few adverts while it hears ours and discards them.
    until(|| discarded(&ours, "addresses") >= 1);
    std::thread::sleep(20 * MULTICAST.interval);
    let seen = instance(&ours);
    assert_eq!(
        (&seen["state"], &seen["vips_active"]),
        (&"active".into(), &true.into()),
        "{seen:#}"
    );
    let line = format!("It has {}", vip(7));
    until(|| ours.log().contains(&line));
    assert!(ours.log().contains("has no `peers`"), "a warning at start: {}", ours.log());
    Ok(())
}

/// A peer with another password: both are Active, and status, metric and log say so until the
/// passwords agree.
#[test]
fn a_peer_with_another_password_is_told_of() -> Result<()> {
    let way = Way { unicast: true, ..PASSWORD };
    let lab = way.lab()?;
    let ours = lab.start_pointsman(0, &way.config(&lab, 0, 100, true))?;
    wait_for(&ours, "active")?;
    let wrong = Way { pass: "other", ..way };
    let mut theirs = wrong.start_keepalived(&lab, 1, 200, true)?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    let peer = lab.balancer(1).address().to_string();
    let warning = format!("peer {peer} is heard, but its adverts are discarded (auth): two owners");
    until(|| ours.log().contains(&warning));
    let seen = instance(&ours);
    assert_eq!(seen["state"], "active", "{seen:#}");
    assert_eq!(seen["discarded_peer"]["address"], peer.as_str(), "{seen:#}");
    assert_eq!(seen["discarded_peer"]["reason"], "auth", "{seen:#}");
    let gauge =
        |value: u8| format!("pointsman_vrrp_two_owners_possible{{instance=\"VI_1\"}} {value}");
    assert!(ours.http("/metrics")?.1.contains(&gauge(1)), "{}", gauge(1));
    theirs.kill()?;
    way.flush(&lab, 1)?;
    until(|| ours.http("/metrics").is_ok_and(|(_, page)| page.contains(&gauge(0))));
    let _theirs = way.start_keepalived(&lab, 1, 200, true)?;
    wait_for(&ours, "backup")?;
    assert!(instance(&ours)["discarded_peer"].is_null());
    Ok(())
}

/// Adverts that are not from the link, or not from a listed peer, are counted without waking the
/// real-time thread for each; adverts that leave are marked as network control (DSCP CS6).
#[test]
fn adverts_from_beyond_the_link_do_not_wake_the_thread() -> Result<()> {
    let way = Way { unicast: true, ..MULTICAST };
    let lab = MULTICAST.lab()?;
    let (listed, open) = (way.config(&lab, 0, 150, true), MULTICAST.config(&lab, 1, 100, true));
    let ours = lab.start_pointsman(0, &listed.replace("mode = \"unicast\"\n", ""))?;
    wait_for(&ours, "active")?;
    let backup = lab.start_pointsman(1, &open)?;
    wait_for(&backup, "backup")?;
    let client = lab.client(0);
    client.netns().enter(|| {
        let socket = raw_socket();
        let index = rustix::net::netdevice::name_to_index(&socket, "eth0").expect("eth0");
        let any = InterfaceIndexOrAddress::Index(index);
        socket.join_multicast_v4_n(&GROUP, &any).expect("a member");
        socket.set_read_timeout(Some(LONG)).expect("a time-out");
        let mut packet = [0; 64];
        let len = (&socket).read(&mut packet).expect("an advert");
        assert!(len >= 20);
        assert_eq!(packet[1], 0xc0, "TOS of an advert");
    })?;
    for (who, ttl, reason) in [(&ours, 255, "source"), (&ours, 64, "ttl"), (&backup, 64, "ttl")] {
        let overflowed = |of: &Pointsman| instance(of)["overflowed"].as_u64().unwrap_or(0);
        let count = || discarded(who, reason) + overflowed(who);
        let mut before = (count(), switches(who));
        until(|| {
            std::thread::sleep(Duration::from_millis(300));
            let last = std::mem::replace(&mut before, (count(), switches(who)));
            last.0 == before.0
        });
        let sent = client.netns().enter(|| flood(ttl))?;
        std::thread::sleep(Duration::from_millis(500));
        let after = (count(), switches(who));
        // What waits in the socket when the flood ends is read, what does not fit was counted; while
        // it is full, so is every other advert.
        let counted = after.0 - before.0;
        assert!((sent..sent + 50).contains(&counted), "{counted} {reason}: {:#}", instance(who));
        let woken = after.1 - before.1;
        assert!(woken < sent / 10, "{reason}: woken {woken} times by {sent} packets");
    }
    Ok(())
}

/// Waits until it is so.
fn until(mut so: impl FnMut() -> bool) {
    let limit = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < limit, "in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often the VRRP thread went to sleep.
fn switches(of: &Pointsman) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", of.pid())).expect("it runs");
    let paths = tasks.filter_map(|task| Some(task.ok()?.path()));
    let mut vrrp = paths.filter(|path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "vrrp")
    });
    let status = vrrp.next().and_then(|path| std::fs::read_to_string(path.join("status")).ok());
    let status = status.expect("a VRRP thread");
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("a number")
}

fn raw_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112))).expect("root");
    socket.bind_device(Some(b"eth0")).expect("eth0");
    socket
}

/// Sends 10,000 adverts of priority 255 in a second.
fn flood(ttl: u32) -> u64 {
    let mut advert = [0x31, 51, 255, 1, 0, 10, 0, 0, 10, 77, 0, 100];
    let words = advert.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    advert[6..8].copy_from_slice(&(!u16::try_from(folded).expect("16 bits")).to_be_bytes());
    let socket = raw_socket();
    socket.set_multicast_ttl_v4(ttl).expect("a TTL");
    socket.set_multicast_loop_v4(false).expect("no loop");
    let to: SockAddr = std::net::SocketAddr::from((GROUP, 0)).into();
    let begin = Instant::now();
    for sent in 0..10_000_u64 {
        while u64::try_from(begin.elapsed().as_micros()).unwrap_or(0) < sent * 100 {
            std::thread::sleep(Duration::from_micros(200));
        }
        socket.send_to(&advert, &to).expect("sent");
    }
    10_000
}

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
