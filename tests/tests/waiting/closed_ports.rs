//! Requirement: a port of a VIP that no service has refuses at once, over IPv4 and IPv6, as that of a
//! host; with `closed_ports = "drop"` it is silent.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Lab, ServiceText};
use tests::lifecycle::{config, named, number, status};
use tests::{close_books, measured};

const CLOSED: u16 = 81;
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn closed_ports_refuse_at_once() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let services = [ServiceText::web(&lab), ServiceText::web_v6(&lab).name("web6")];
    let text = config(&services[0]) + &services[1].service_toml();
    let lb = lab.start_pointsman(0, &text)?;
    for vip in [IpAddr::V4(lab.vip()), IpAddr::V6(lab.vip_v6())] {
        for attempt in [connect, ask] {
            let (kind, took) = lab.client(0).netns().enter(|| attempt((vip, CLOSED).into()))?;
            ensure!(kind == Some(ErrorKind::ConnectionRefused), "{vip}: {kind:?} after {took:?}");
            measured("closed_port_refused_after", took.as_millis(), "ms", "<=500");
            ensure!(took < Duration::from_millis(500), "{took:?}");
        }
    }
    let closed = number(&status(&lb)?, "/workers/0/counters/closed")?;
    ensure!(closed == 4, "{closed}");
    close_books(&lb);
    Ok(())
}

#[test]
fn a_vip_that_drops_is_silent() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let text = config(&ServiceText::web(&lab).with("closed_ports = \"drop\""));
    let lb = lab.start_pointsman(0, &text)?;
    for attempt in [connect, ask] {
        let closed = (lab.vip(), CLOSED).into();
        let (kind, took) = lab.client(0).netns().enter(|| attempt(closed))?;
        ensure!(
            kind != Some(ErrorKind::ConnectionRefused) && took >= PATIENCE,
            "{kind:?} {took:?}"
        );
    }
    ensure!(named(&status(&lb)?["dropped"], "not_vip_port") >= 2);
    close_books(&lb);
    Ok(())
}

fn connect(to: SocketAddr) -> (Option<ErrorKind>, Duration) {
    let begin = Instant::now();
    let result = TcpStream::connect_timeout(&to, PATIENCE);
    (result.err().map(|error| error.kind()), begin.elapsed())
}

fn ask(to: SocketAddr) -> (Option<ErrorKind>, Duration) {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let begin = Instant::now();
    socket.send(b"anyone?").unwrap();
    let result = socket.recv(&mut [0; 16]);
    (result.err().map(|error| error.kind()), begin.elapsed())
}
