//! Requirement: a RST from a forged address, which the backend does not take for its client's, costs the
//! connection neither its backend nor anything else, also when it is silent for long afterwards.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, ServiceText};
use tests::raw::{Packet, RawSender};
use tests::{close_books, measured};

const CONNECTIONS: usize = 40;

#[test]
fn connections_outlive_forged_resets() -> Result<()> {
    let lab = Lab::builder().backends(4).queues(4).build()?;
    let _web = lab.start_web()?;
    // A connection that was reset is forgotten at once; nothing but that it was told where it is keeps
    // it where it is.
    let text = ServiceText::web(&lab).scheduler("rr").to_toml() + TIMEOUTS;
    let lb = lab.start_pointsman(0, &text)?;
    let netns = lab.client(0).netns();
    let target = lab.vip_port(80);
    let mut streams = netns.enter(|| -> Result<Vec<TcpStream>> {
        (0..CONNECTIONS).map(|_| Ok(TcpStream::connect(target)?)).collect()
    })??;
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        ask(stream).context("before")?;
    }
    let raw = RawSender::open(netns);
    for stream in &streams {
        for seq in [1, 1 << 30, 1 << 31] {
            raw.send(&Packet::reset(stream.local_addr()?, target, seq));
        }
    }
    // Longer than the time-out, and than a sweep takes.
    std::thread::sleep(Duration::from_secs(12));
    let lost = streams.iter_mut().filter_map(|stream| ask(stream).err()).count();
    measured("lost_after_forged_resets", lost, "connections", &format!("=0 of {CONNECTIONS}"));
    ensure!(lost == 0, "{lost} of {CONNECTIONS}\n{}", lb.log());
    drop(streams);
    close_books(&lb);
    Ok(())
}

/// A request on a connection that is kept.
fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"ok\n") {
        let len = stream.read(&mut buffer)?;
        ensure!(len > 0, "closed");
        answer.extend_from_slice(&buffer[..len]);
    }
    Ok(())
}

const TIMEOUTS: &str = "\n[dataplane.timeouts]\nreset = \"300ms\"\n";
