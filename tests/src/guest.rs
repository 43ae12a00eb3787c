//! What the tests of kernels and network cards share: traffic in both directions that must arrive
//! as it was sent.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{EchoResponder, Lab, LoadClient, NetNs, Nginx, ServiceText, files::Served, node::Role};

use crate::lifecycle;

/// The servers on the backends: nginx on port 80, a sink for uploads, an echo for datagrams.
#[derive(Debug)]
pub struct Servers {
    _web: Vec<Nginx>,
    _sinks: Vec<JoinHandle<()>>,
    _echoes: Vec<EchoResponder>,
}

impl Servers {
    /// Starts them on all backends, on both VIPs.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let vips = [IpAddr::V4(lab.vip()), IpAddr::V6(lab.vip_v6())];
        let (mut sinks, mut echoes) = (Vec::new(), Vec::new());
        for node in lab.nodes_of(Role::Backend) {
            for vip in vips {
                sinks.push(sink(node.netns(), SocketAddr::new(vip, UPLOAD))?);
                echoes.push(EchoResponder::start(node.netns(), SocketAddr::new(vip, DATAGRAMS))?);
            }
        }
        Ok(Self { _web: lab.start_web()?, _sinks: sinks, _echoes: echoes })
    }
}

/// The configuration for [`forwards`], with small tables; `lines` go to the table of `eth0`.
#[must_use]
pub fn config(lab: &Lab, lines: &str) -> String {
    config_on(lab, "eth0", lines)
}

/// The same on another device.
#[must_use]
pub fn config_on(lab: &Lab, device: &str, lines: &str) -> String {
    let (v4, v6) = (ServiceText::web(lab), ServiceText::web_v6(lab));
    let services = [
        v4.clone().name("web"),
        v4.clone().name("upload").port(UPLOAD),
        v4.name("datagrams").udp().port(DATAGRAMS),
        v6.clone().name("web6"),
        v6.clone().name("upload6").port(UPLOAD),
        v6.name("datagrams6").udp().port(DATAGRAMS),
    ];
    let services: String = services.iter().map(ServiceText::service_toml).collect();
    format!("{}\n[[interface]]\nname = \"{device}\"\n{lines}\n{services}", lifecycle::SMALL)
}

/// Checks that everything arrives, over IPv4 and IPv6: downloads of 50 KB, uploads of 200 KB, and
/// datagrams of 1,400 bytes; first with the client's offloads off, then on.
///
/// # Errors
/// With what was lost or garbled.
pub fn forwards(lab: &Lab) -> Result<()> {
    for offloads in ["off", "on"] {
        set_offloads(lab, offloads)?;
        for vip in [IpAddr::V4(lab.vip()), IpAddr::V6(lab.vip_v6())] {
            let what = || format!("to {vip} with the client's offloads {offloads}");
            all_ways(lab, vip, MUCH).with_context(what)?;
        }
    }
    Ok(())
}

/// The same with little traffic, over IPv4 and with the offloads as they are: whether it goes on after
/// something happened.
///
/// # Errors
/// With what was lost or garbled.
pub fn forwards_again(lab: &Lab) -> Result<()> {
    all_ways(lab, lab.vip().into(), LITTLE)
}

fn all_ways(lab: &Lab, vip: IpAddr, amount: Amount) -> Result<()> {
    downloads(lab, vip, amount)?;
    uploads(lab, vip, amount)?;
    datagrams(lab, vip, amount)
}

/// Checksums and segmentation by the client's card: what it sends is then unfinished, or larger
/// than the MTU, until a card on the way finishes it.
///
/// # Errors
/// When `ethtool` fails.
pub fn set_offloads(lab: &Lab, state: &str) -> Result<()> {
    let argv = ["ethtool", "-K", "eth0", "tx", state, "tso", state, "gso", state];
    lifecycle::run(lab.client(0).netns(), &argv).map(drop)
}

fn downloads(lab: &Lab, vip: IpAddr, amount: Amount) -> Result<()> {
    let file = lab.files().ensure("50k")?;
    let load = LoadClient::new(SocketAddr::new(vip, 80), &file)
        .verify(&file)
        .threads(2)
        .sources(sources(lab, vip, amount.sources))
        .timeouts(amount.patience, amount.patience)
        .requests(amount.sources.into());
    let report = load.run(lab.client(0).netns())?;
    let all = report.done() == usize::from(amount.sources) && report.failed() == 0;
    ensure!(all, "downloads of 50 KB: {report}");
    Ok(())
}

/// Each over a connection of its own, from another source.
fn uploads(lab: &Lab, vip: IpAddr, amount: Amount) -> Result<()> {
    let file = lab.files().ensure("200k")?;
    let body = std::fs::read(lab.files().dir().join("200k"))?;
    for (number, source) in sources(lab, vip, amount.uploads).into_iter().enumerate() {
        let netns = lab.client(0).netns();
        let (to, patience) = (SocketAddr::new(vip, UPLOAD), amount.patience);
        let answer = netns.enter(|| upload(source, to, &body, &file, patience))?;
        answer.with_context(|| format!("upload {number} of 200 KB"))?;
    }
    Ok(())
}

fn upload(
    from: IpAddr,
    to: SocketAddr,
    body: &[u8],
    file: &Served,
    patience: Duration,
) -> Result<()> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), patience).context("connect")?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let head = format!("POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body).context("send")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("wait for the answer")?;
    let expected = format!("HTTP/1.0 200 OK\r\n\r\n{}", lab::files::hex(&file.hash));
    ensure!(answer == expected, "answer {answer:?}, not {expected:?}");
    Ok(())
}

/// Each from another source. A datagram that is lost is sent once: there is no reason to lose one.
fn datagrams(lab: &Lab, vip: IpAddr, amount: Amount) -> Result<()> {
    let content: Vec<u8> = (0..=250).cycle().take(1_400).collect();
    let to = SocketAddr::new(vip, DATAGRAMS);
    let sources = sources(lab, vip, amount.sources);
    let equal = lab.client(0).netns().enter(|| -> Result<usize> {
        let sockets: Vec<UdpSocket> = sources
            .iter()
            .map(|source| UdpSocket::bind(SocketAddr::new(*source, 0)))
            .collect::<std::io::Result<_>>()?;
        for socket in &sockets {
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            socket.send_to(&content, to)?;
        }
        let mut buffer = [0; 2048];
        let came =
            |socket: &UdpSocket| socket.recv(&mut buffer).ok().map(|n| buffer[..n] == content);
        Ok(sockets.iter().filter_map(came).filter(|equal| *equal).count())
    })??;
    ensure!(
        equal == sources.len(),
        "{equal} of {} datagrams of 1,400 bytes came back",
        sources.len()
    );
    Ok(())
}

fn sources(lab: &Lab, vip: IpAddr, count: u16) -> Vec<IpAddr> {
    let client = lab.client(0);
    if vip.is_ipv4() { client.sources(count) } else { client.sources_v6(count) }
}

/// How much is sent each way.
#[derive(Clone, Copy, Debug)]
struct Amount {
    /// Sources of one download and one datagram each.
    sources: u16,
    /// Sources of one upload each.
    uploads: u16,
    /// Time-out of every step of a connection.
    patience: Duration,
}

/// Answers every upload with the SHA-256 of its body.
fn sink(ns: &NetNs, address: SocketAddr) -> Result<JoinHandle<()>> {
    let listener = ns.enter(|| TcpListener::bind(address))?.context("bind the sink")?;
    let serve = move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is noticed by the client's side of the test.
            let _ = take(stream);
        }
    };
    Ok(ns.spawn("sink", serve)?)
}

fn take(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    let mut piece = [0; 16_384];
    loop {
        let length = stream.read(&mut piece)?;
        ensure!(length > 0, "an early end");
        bytes.extend_from_slice(&piece[..length]);
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]);
        let expected = text.rsplit_once(' ').and_then(|(_, n)| n.parse().ok());
        let expected: usize = expected.context("no length")?;
        let body = &bytes[head + 4..];
        if body.len() >= expected {
            let hash = lab::files::sha256(body);
            let answer = format!("HTTP/1.0 200 OK\r\n\r\n{}", lab::files::hex(&hash));
            return Ok(stream.write_all(answer.as_bytes())?);
        }
    }
}

/// Port of the sinks.
pub const UPLOAD: u16 = 81;
/// Port of the echoes.
pub const DATAGRAMS: u16 = 5353;
/// Emulated CPUs are slow, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);
const MUCH: Amount = Amount { sources: 16, uploads: 8, patience: PATIENCE };
const LITTLE: Amount = Amount { sources: 4, uploads: 2, patience: Duration::from_secs(3) };
