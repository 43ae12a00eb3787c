//! The checks `tcp`, `udp`, `ping` and `script`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use control::health::{CheckKind, Failure, TcpCheck, UdpCheck};

use super::servers;
use super::{AMPLE, SHORT, check, nobody, probe, result};

fn tcp(send: &[u8], expect: &[u8]) -> CheckKind {
    CheckKind::Tcp(TcpCheck { send: send.to_vec(), expect: expect.to_vec() })
}

#[tokio::test]
async fn tcp_answers_and_verdicts() {
    let upper = servers::tcp(|mut stream| {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            // In two parts, so that what is expected arrives in two parts.
            let answer = buffer[..count].to_ascii_uppercase();
            let _ = stream.write_all(&answer[..count / 2]);
            std::thread::sleep(Duration::from_millis(20));
            let _ = stream.write_all(&answer[count / 2..]);
        }
    });
    let closing = servers::tcp(drop);
    let resetting = servers::tcp(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        servers::reset(stream);
    });
    let greeting = servers::tcp(|mut stream| {
        let _ = stream.write_all(b"220 hello\r\n");
    });
    let table = [
        ("connect", upper, tcp(b"", b""), AMPLE, Ok(())),
        ("echo", upper, tcp(b"ping", b"PING"), AMPLE, Ok(())),
        ("in the middle", upper, tcp(b"abcdefgh", b"CDEF"), AMPLE, Ok(())),
        ("another answer", upper, tcp(b"ping", b"PONG"), SHORT, Err(Failure::Timeout)),
        ("greeting", greeting, tcp(b"", b"220 "), AMPLE, Ok(())),
        ("another greeting", greeting, tcp(b"", b"250 "), AMPLE, Err(Failure::Mismatch)),
        ("closed", closing, tcp(b"", b"220 "), AMPLE, Err(Failure::Closed)),
        ("reset", resetting, tcp(b"ping", b"PING"), AMPLE, Err(Failure::Reset)),
        ("refused", nobody(), tcp(b"", b""), AMPLE, Err(Failure::Refused)),
    ];
    for (name, address, kind, timeout, expected) in table {
        assert_eq!(result(kind, address, timeout).await, expected, "{name}");
    }
}

#[tokio::test]
async fn tcp_reads_no_more_than_64_kib() {
    let endless = servers::tcp(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let (outcome, took) = probe(&check(tcp(b"", b"never"), AMPLE), endless, false).await;
    assert_eq!(outcome.result, Err(Failure::Mismatch));
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

/// A server that answers each datagram with these.
fn udp_server(answers: &'static [&'static [u8]]) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        while let Ok((_, client)) = socket.recv_from(&mut [0; 64]) {
            for answer in answers {
                let _ = socket.send_to(answer, client);
            }
        }
    });
    address
}

#[tokio::test]
async fn udp_answers_and_verdicts() {
    let udp = |expect: &[u8]| {
        let (payload, expect) = (b"ping".to_vec(), expect.to_vec());
        CheckKind::Udp(UdpCheck { payload, expect, refusal_window: None })
    };
    let pong = udp_server(&[b"noise", b"the pong"]);
    let empty = udp_server(&[b""]);
    let silent = udp_server(&[]);
    let nobody = {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.local_addr().expect("an address")
    };
    let table = [
        ("any answer", pong, udp(b""), AMPLE, Ok(())),
        ("an empty answer", empty, udp(b""), AMPLE, Ok(())),
        ("the second answer", pong, udp(b"pong"), AMPLE, Ok(())),
        ("other answers", pong, udp(b"none"), SHORT, Err(Failure::Mismatch)),
        ("no answer", silent, udp(b""), SHORT, Err(Failure::Timeout)),
        ("refused", nobody, udp(b""), AMPLE, Err(Failure::Refused)),
    ];
    for (name, address, kind, timeout, expected) in table {
        assert_eq!(result(kind, address, timeout).await, expected, "{name}");
    }
}

/// Needs CAP_NET_RAW.
#[tokio::test]
async fn ping_answers_and_verdicts() {
    let ping = |address: IpAddr, timeout: Duration| {
        result(CheckKind::Ping, SocketAddr::new(address, 80), timeout)
    };
    assert_eq!(ping(Ipv4Addr::LOCALHOST.into(), AMPLE).await, Ok(()));
    assert_eq!(ping(Ipv6Addr::LOCALHOST.into(), AMPLE).await, Ok(()));
    // The loopback interface does not have this address.
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1).into();
    assert_eq!(ping(elsewhere, SHORT).await, Err(Failure::Timeout));
}

#[tokio::test]
async fn many_pings_at_once_do_not_mistake_each_other() {
    let ping = || result(CheckKind::Ping, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), AMPLE);
    let all = futures_util::future::join_all((0..50).map(|_| ping())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

fn script(line: &str) -> CheckKind {
    CheckKind::Script(["/bin/sh", "-c", line].map(str::to_owned).to_vec())
}

#[tokio::test]
async fn script_ends_and_verdicts() {
    let told = "test $POINTSMAN_SERVICE-$POINTSMAN_BACKEND-$POINTSMAN_VIP = web-rs1-192.0.2.10 &&
        test $POINTSMAN_ADDRESS:$POINTSMAN_PORT = 127.0.0.1:8080";
    let table = [
        ("exit 0", script("exit 0"), AMPLE, Ok(())),
        ("told", script(told), AMPLE, Ok(())),
        ("exit 3", script("exit 3"), AMPLE, Err(Failure::Exit(3))),
        ("killed", script("kill -9 $$"), AMPLE, Err(Failure::Signal(9))),
        ("too long", script("sleep 60"), SHORT, Err(Failure::Timeout)),
    ];
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080);
    for (name, kind, timeout, expected) in table {
        assert_eq!(result(kind, address, timeout).await, expected, "{name}");
    }
    let missing = CheckKind::Script(vec!["/nonexistent/probe".to_owned()]);
    let failure = result(missing, address, AMPLE).await.expect_err("no program");
    assert_eq!(failure.name(), "local", "{failure}");
}

#[tokio::test]
async fn a_script_that_takes_too_long_is_killed_with_its_children() {
    let file = std::env::temp_dir().join(format!("pointsman-script-{}", std::process::id()));
    let line = format!("sleep 60 & echo $! >{0}.new; mv {0}.new {0}; wait", file.display());
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    assert_eq!(result(script(&line), address, 3 * SHORT).await, Err(Failure::Timeout));
    let child = std::fs::read_to_string(&file).expect("the child's id");
    std::fs::remove_file(&file).expect("the file");
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    };
    let begin = std::time::Instant::now();
    // Dead, though perhaps not reaped by its new parent.
    while state().is_some_and(|state| state != 'Z') {
        assert!(begin.elapsed() < AMPLE, "the child is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
