//! A scraper that keeps its connection. Needs root.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Lab, ServiceText};
use tests::lifecycle::config;

/// A minute is a usual interval of scrapes: the connection must outlive it.
#[test]
fn scrapes_a_minute_apart_share_a_connection() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9477);
    let mut stream = lab.balancer(0).netns().enter(|| TcpStream::connect(address))??;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    for pause in [60, 0] {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut page = String::new();
        let mut piece = [0; 65_536];
        while !page.contains("\npointsman_xsk_") {
            let length = stream.read(&mut piece)?;
            ensure!(length > 0, "closed after {} bytes", page.len());
            page += std::str::from_utf8(&piece[..length])?;
        }
        ensure!(page.starts_with("HTTP/1.1 200 "), "{page}");
        // The rest of the page arrives meanwhile.
        sleep(Duration::from_millis(500));
        stream.set_nonblocking(true)?;
        while matches!(stream.read(&mut piece), Ok(1..)) {}
        stream.set_nonblocking(false)?;
        sleep(Duration::from_secs(pause));
    }
    Ok(())
}
