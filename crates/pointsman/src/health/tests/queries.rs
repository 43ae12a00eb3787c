//! Checks without an answer, of name servers, and from an address of choice.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use control::health::{Check, CheckKind, DnsCheck, Failure, TcpCheck, UdpCheck};

use super::{AMPLE, SHORT, check, get, probe, result, servers};

/// A UDP server that answers each datagram with what `answer` makes of it.
fn udp(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut datagram = [0; 1024];
        while let Ok((len, client)) = socket.recv_from(&mut datagram) {
            if let Some(answer) = answer(&datagram[..len]) {
                let _ = socket.send_to(&answer, client);
            }
        }
    });
    address
}

/// A UDP port without a server.
fn closed() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("an address")
}

#[tokio::test]
async fn without_an_answer_only_a_refusal_fails() {
    let window = Duration::from_millis(150);
    let one_way = |payload: &[u8], expect: &[u8]| {
        let (payload, expect) = (payload.to_vec(), expect.to_vec());
        let kind = CheckKind::Udp(UdpCheck { payload, expect, refusal_window: Some(window) });
        check(kind, AMPLE)
    };
    let silent = udp(|_| None);
    let echo = udp(|datagram| Some(datagram.to_vec()));
    let table = [
        ("silence", silent, one_way(b"<14>up", b""), Ok(())),
        ("silence, though an answer would be judged", silent, one_way(b"x", b"y"), Ok(())),
        ("without a payload", silent, one_way(b"", b""), Ok(())),
        ("refused", closed(), one_way(b"x", b""), Err(Failure::Refused)),
        ("a wrong answer", echo, one_way(b"x", b"y"), Err(Failure::Mismatch)),
        ("a right one", echo, one_way(b"x", b"x"), Ok(())),
    ];
    for (name, address, check, expected) in table {
        let (outcome, took) = probe(&check, address, false).await;
        assert_eq!(outcome.result, expected, "{name}");
        assert!(took < Duration::from_secs(1), "{name}: the window ends before the deadline");
        let waits = address == silent;
        assert!(!waits || took >= window, "{name}: {took:?} is too short to hear of a refusal");
    }
}

/// A name server that answers every query with this code; `flaw` spoils its answers.
fn name_server(code: u8, flaw: fn(&mut Vec<u8>)) -> SocketAddr {
    udp(move |query| {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[3] |= code;
        flaw(&mut answer);
        Some(answer)
    })
}

fn dns(rcodes: &[u8]) -> CheckKind {
    let (name, rcodes) = ("www.example.org".to_owned(), rcodes.iter().copied().collect());
    CheckKind::Dns(DnsCheck { name, rtype: 1, rcodes })
}

#[tokio::test]
async fn dns_answers_and_verdicts() {
    let well = name_server(0, |_| ());
    let table = [
        ("NOERROR", well, dns(&[0]), AMPLE, Ok(())),
        ("NXDOMAIN", name_server(3, |_| ()), dns(&[0]), AMPLE, Err(Failure::Answer("NXDOMAIN"))),
        ("accepted", name_server(3, |_| ()), dns(&[0, 3]), AMPLE, Ok(())),
        ("not accepted", well, dns(&[3]), AMPLE, Err(Failure::Answer("NOERROR"))),
        ("SERVFAIL", name_server(2, |_| ()), dns(&[0]), AMPLE, Err(Failure::Answer("SERVFAIL"))),
        ("another number", name_server(0, |a| a[0] ^= 1), dns(&[0]), SHORT, Err(Failure::Mismatch)),
        ("another name", name_server(0, |a| a[13] ^= 1), dns(&[0]), SHORT, Err(Failure::Mismatch)),
        ("an echo", name_server(0, |a| a[2] &= 0x7f), dns(&[0]), SHORT, Err(Failure::Mismatch)),
        ("cut", name_server(0, |a| a.truncate(20)), dns(&[0]), SHORT, Err(Failure::Mismatch)),
        ("silent", udp(|_| None), dns(&[0]), SHORT, Err(Failure::Timeout)),
        ("refused", closed(), dns(&[0]), AMPLE, Err(Failure::Refused)),
    ];
    for (name, address, kind, timeout, expected) in table {
        assert_eq!(result(kind, address, timeout).await, expected, "{name}");
    }
}

/// A server that tells from where each connection comes.
fn telling() -> (SocketAddr, Receiver<IpAddr>) {
    let (sender, seen) = channel();
    let address = servers::tcp(move |mut stream| {
        let _ = sender.send(stream.peer_addr().expect("a peer").ip());
        servers::head(&mut stream);
    });
    (address, seen)
}

#[tokio::test]
async fn probes_come_from_their_source() {
    let from =
        |kind: CheckKind, source: IpAddr| Check { source: Some(source), ..check(kind, AMPLE) };
    let (address, seen) = telling();
    let source = IpAddr::from([127, 0, 0, 9]);
    for kind in [CheckKind::Tcp(TcpCheck::default()), CheckKind::Http(get("/"))] {
        let _ = probe(&from(kind, source), address, false).await;
        assert_eq!(seen.recv_timeout(AMPLE), Ok(source));
    }
    let echo = udp(|datagram| Some(datagram.to_vec()));
    let udp = UdpCheck { payload: b"x".to_vec(), ..UdpCheck::default() };
    for kind in [CheckKind::Udp(udp.clone()), CheckKind::Ping] {
        let (outcome, _) = probe(&from(kind, source), echo, false).await;
        assert_eq!(outcome.result, Ok(()));
    }
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
    let (outcome, _) = probe(&from(CheckKind::Ping, v6.ip()), v6, false).await;
    assert_eq!(outcome.result, Ok(()));
    let (outcome, _) = probe(&from(CheckKind::Tcp(TcpCheck::default()), v6.ip()), v6, false).await;
    assert_eq!(outcome.result, Err(Failure::Refused), "the source was no obstacle");
}

#[tokio::test]
async fn a_source_that_this_node_lacks_blames_this_node() {
    let (address, _seen) = telling();
    let kinds = [
        CheckKind::Tcp(TcpCheck::default()),
        CheckKind::Udp(UdpCheck::default()),
        CheckKind::Dns(DnsCheck { name: String::new(), rtype: 2, rcodes: BTreeSet::from([0]) }),
        CheckKind::Ping,
    ];
    for kind in kinds {
        let source = Some(IpAddr::from([192, 0, 2, 9]));
        let (outcome, _) = probe(&Check { source, ..check(kind, AMPLE) }, address, false).await;
        let failure = outcome.result.expect_err("no such address");
        assert_eq!(
            failure.to_string(),
            "cannot probe: this node does not have the source 192.0.2.9"
        );
        assert_eq!(failure.name(), "local");
    }
}
