//! Adverts from a station that is no peer. Needs root.

mod vrrp;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lab::Result;
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use vrrp::{Pair, Settings, ms, note};

/// For half a minute 10,000 adverts a second with priority 255, from a stranger and from beyond the
/// link: nothing changes, our own adverts are on time, everything is counted, the log says each
/// reason at most once a second.
#[test]
fn forged_adverts_change_nothing_and_are_counted() -> Result<()> {
    let peers = "peers = [\"10.77.2.2\"]\n";
    let settings = Settings::fast();
    let mut pair = Pair::start(&settings)?;

    pair.settings.extra = peers.to_owned();
    pair.kill_first()?;
    pair.restart_first()?;
    pair.wait_active(0)?;
    pair.wait_reachable()?;
    let count = |pair: &Pair, name: &str| -> u64 {
        let instance = pair.instance(0);
        let named = instance["rejected"].as_array().into_iter().flatten();
        let named = named.filter(|count| count["name"] == name);
        named.filter_map(|count| count["value"].as_u64()).sum()
    };
    let transitions = |pair: &Pair| -> u64 {
        let instance = pair.instance(0);
        let list = instance["transitions"].as_array().into_iter().flatten();
        list.filter_map(|count| count["value"].as_u64()).sum()
    };
    let before = transitions(&pair);
    let log = pair.first().log().len();
    let probes = pair.probe()?;
    let late = late_by_10_ms(&pair);
    let client = pair.lab.client(0);
    let sent = client.netns().enter(|| flood(TIME))?;
    pair.wait(ms(300));
    let report = probes.finish();
    assert_eq!(transitions(&pair), before, "{:#}", pair.instance(0));
    assert_eq!(report.answered, report.sent, "{report:?}");
    let overflowed = pair.instance(0)["overflowed"].as_u64().unwrap_or(0);
    let (source, ttl) = (count(&pair, "source"), count(&pair, "ttl"));
    note(&format!("{sent} forged: source {source}, ttl {ttl}, overflow {overflowed}"));
    assert_eq!(source + ttl + overflowed, sent);
    assert!(u128::from(sent) >= RATE * TIME.as_millis() / 1000 * 95 / 100, "{sent} sent");
    let lines = pair.first().log()[log..].matches("advert discarded").count();
    // Two reasons; the first line of each comes at once.
    let most = 2 * (usize::try_from(TIME.as_secs()).unwrap_or(0) + 1);
    assert!((2..=most).contains(&lines), "{lines} lines");
    let (timers, after) = late_by_10_ms(&pair);
    note(&format!("{} own timers, {} late by more than 10 ms", timers - late.0, after - late.1));
    assert!(timers - late.0 >= 10 * TIME.as_secs() - 1, "an advert every 100 ms");
    assert_eq!(after, late.1, "{:#}", pair.instance(0)["late"]);
    Ok(())
}

/// Timers of the Active so far, and those that were late by more than 10 ms.
fn late_by_10_ms(pair: &Pair) -> (u64, u64) {
    let instance = pair.instance(0);
    let list = |name: &str| instance["late"][name].as_array().cloned().unwrap_or_default();
    let (bounds, counts) = (list("bounds"), list("counts"));
    let counts: Vec<u64> = counts.iter().filter_map(Value::as_u64).collect();
    let bound = bounds.iter().position(|bound| bound.as_f64() == Some(0.01)).expect("10 ms");
    (counts.iter().sum(), counts[bound + 1..].iter().sum())
}

/// Half of the adverts have TTL 255, half have 64; about 10,000 a second.
fn flood(time: Duration) -> u64 {
    // VRRPv3, VRID 51, priority 255, one address, 1 s; then the checksum.
    let mut advert = [0x31, 51, 255, 1, 0, 100, 0, 0, 10, 77, 0, 100];
    let words = advert.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    advert[6..8].copy_from_slice(&(!u16::try_from(folded).expect("16 bits")).to_be_bytes());
    let group = Ipv4Addr::new(224, 0, 0, 18);
    let sockets = [255, 64].map(|ttl| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112))).expect("root");
        socket.bind_device(Some(b"eth0")).expect("eth0");
        socket.set_multicast_ttl_v4(ttl).expect("a TTL");
        socket.set_multicast_loop_v4(false).expect("no loop");
        socket
    });
    let to: SockAddr = std::net::SocketAddr::from((group, 0)).into();
    let (begin, mut sent) = (Instant::now(), 0_u64);
    while begin.elapsed() < time {
        let due = u64::try_from(begin.elapsed().as_micros()).unwrap_or(0) / 100;
        while sent < due {
            let socket = if sent.is_multiple_of(2) { &sockets[0] } else { &sockets[1] };
            if socket.send_to(&advert, &to).is_err() {
                return sent;
            }
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    sent
}

const TIME: Duration = Duration::from_secs(30);
/// Adverts a second.
const RATE: u128 = 10_000;
