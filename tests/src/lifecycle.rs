//! What the tests of start, stop, devices, neighbours and endpoints share: the status document,
//! the books, what is left behind, and a session that must not be interrupted.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab::metrics::http_get;
use lab::topology::vip;
use lab::{EchoResponder, Lab, NetNs, Node, Pointsman, ServiceText};
use serde_json::Value;

/// How often a timing test repeats what it measures.
#[must_use]
pub fn runs(short: u32) -> u32 {
    if std::env::var_os("POINTSMAN_LONG").is_some() { 20 } else { short }
}

/// The product on all queues of `eth0`, with small tables: they are filled by other tests.
#[must_use]
pub fn config(service: &ServiceText) -> String {
    format!("{SMALL}\n{}", service.to_toml())
}

/// Small tables, for texts that are put together by hand.
pub const SMALL: &str = "[dataplane]\nflow_capacity = 16384\npersistence_capacity = 16384\n";

/// A UDP service on port 53 of the first VIP.
#[must_use]
pub fn udp(lab: &Lab) -> ServiceText {
    ServiceText::web(lab).udp().port(53)
}

/// What answers the service of [`udp`] on all backends.
///
/// # Errors
/// When a socket cannot be bound.
pub fn echo_everywhere(lab: &Lab) -> Result<Vec<EchoResponder>> {
    let target = SocketAddr::new(vip(0).into(), 53);
    let backends = lab.nodes_of(lab::node::Role::Backend);
    backends.map(|node| Ok(EchoResponder::start(node.netns(), target)?)).collect()
}

/// `/status.json`.
///
/// # Errors
/// When it is not served, or is not JSON.
pub fn status(lb: &Pointsman) -> Result<Value> {
    let (code, body) = lb.http("/status.json")?;
    ensure!(code == 200, "/status.json: {code} {body}");
    serde_json::from_str(&body).context("/status.json is not JSON")
}

/// The value of a list of `{"name": …, "value": …}`.
#[must_use]
pub fn named(list: &Value, name: &str) -> u64 {
    let items = list.as_array().into_iter().flatten();
    items.filter(|item| item["name"] == name).filter_map(|item| item["value"].as_u64()).sum()
}

/// What the XDP program on the first interface counted.
#[must_use]
pub fn outcome(status: &Value, name: &str) -> u64 {
    named(&status["interfaces"][0]["outcomes"], name)
}

/// A number of a status document.
///
/// # Errors
/// When there is none at the JSON pointer.
pub fn number(value: &Value, pointer: &str) -> Result<u64> {
    value.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no number {pointer}"))
}

/// Waits until `ready` says yes; returns how long that took.
///
/// # Errors
/// When it does not within `limit`, or what `ready` returns.
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        if ready()? {
            return Ok(begin.elapsed());
        }
        ensure!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One HTTP request through the VIP, on a connection of its own.
///
/// # Errors
/// When there is no answer.
pub fn fetch(lab: &Lab) -> Result<()> {
    let answer = lab
        .client(0)
        .netns()
        .enter(|| http_get(lab.vip_port(80), "/health", Duration::from_secs(2)))??;
    ensure!(answer == (200, "ok\n".to_owned()), "{answer:?}");
    Ok(())
}

/// Gives the first balancer's `eth0` an MTU that no frame of an AF_XDP socket holds.
///
/// # Errors
/// When `ip` fails.
pub fn make_mtu_too_large(lab: &Lab) -> Result<()> {
    if lab::fast_path::is_on() {
        // With an XDP program at the other end the kernel would not allow it.
        lab::fast_path::stop_receiving(lab.switch(), "lb1")?;
    }
    Ok(lab.balancer(0).netns().ip("link set eth0 mtu 9000\n")?)
}

/// What a balancer left in its namespace: XDP programs and AF_XDP sockets, by description. Both go
/// a moment after the process, so they are looked for until `limit`.
///
/// # Errors
/// When something is left, or cannot be looked for.
pub fn nothing_attached(node: &Node, limit: Duration) -> Result<Duration> {
    let mut left = String::new();
    let gone = wait_for("nothing attached", limit, || {
        left = attached(node)?;
        Ok(left.is_empty())
    });
    gone.with_context(|| format!("left behind: {left}"))
}

/// XDP programs and AF_XDP sockets in a namespace; empty when there are none.
///
/// # Errors
/// When they cannot be looked for.
pub fn attached(node: &Node) -> Result<String> {
    let links = run(node.netns(), &["ip", "-d", "link"])?;
    let mut found: String = links.lines().filter(|line| line.contains("xdp")).collect();
    // The number of sockets of this namespace is the third column.
    let protocols = run(node.netns(), &["cat", "/proc/net/protocols"])?;
    let xdp = protocols.lines().find(|line| line.starts_with("XDP "));
    let sockets = xdp.and_then(|line| line.split_ascii_whitespace().nth(2)).unwrap_or("0");
    if sockets != "0" {
        found.push_str(&format!(" {sockets} AF_XDP sockets"));
    }
    Ok(found)
}

/// Detaches the program of `eth0` behind the back of the process that attached it.
///
/// # Errors
/// When there is none.
pub fn detach(node: &Node) -> Result<()> {
    let json =
        |argv: &[&str]| -> Result<Value> { Ok(serde_json::from_str(&run(node.netns(), argv)?)?) };
    let devices = json(&["ip", "-j", "-d", "link", "show", "dev", "eth0"])?;
    let program = number(&devices, "/0/xdp/prog/id")?;
    // The list is that of the whole machine; the program is ours alone.
    let links = json(&["bpftool", "-j", "link"])?;
    let mut links = links.as_array().into_iter().flatten();
    let link = links.find(|link| link["prog_id"] == program).context("no such link")?;
    let id = number(link, "/id")?.to_string();
    run(node.netns(), &["bpftool", "link", "detach", "id", &id]).map(drop)
}

/// Runs a tool in a namespace; what it printed.
///
/// # Errors
/// When it fails or takes longer than 10 s.
pub fn run(netns: &NetNs, argv: &[&str]) -> Result<String> {
    Ok(netns.run(argv, Duration::from_secs(10))?.ok()?)
}

/// The processor time that a process has used so far (all threads, user and system).
///
/// # Errors
/// When `/proc` does not tell.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything; `utime` is the 12th field behind it.
    let (_, fields) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs(ticks) / 100)
}

/// A long-lived TCP connection to an address of the balancer itself, with a message and its echo
/// every 10 ms: what an operator's ssh session would notice.
#[derive(Debug)]
pub struct Session {
    stop: Arc<AtomicBool>,
    client: Option<JoinHandle<Result<Seen>>>,
    server: Option<JoinHandle<()>>,
}

/// What the session saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Messages that came back.
    pub messages: u32,
    /// The longest time between two of them.
    pub longest_gap: Duration,
}

impl Session {
    /// Connects from `client` to the balancer's own address.
    ///
    /// # Errors
    /// When it cannot.
    pub fn start(client: &Node, balancer: &Node) -> Result<Self> {
        let address = SocketAddr::new(IpAddr::V4(balancer.address()), 2222);
        let listener = balancer.netns().enter(|| TcpListener::bind(address))??;
        let stream = client
            .netns()
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)))??;
        let (accepted, _) = listener.accept()?;
        for side in [&stream, &accepted] {
            side.set_nodelay(true)?;
            side.set_read_timeout(Some(Duration::from_secs(5)))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let server = Some(thread::spawn(move || echo(accepted)));
        let client = Some(thread::spawn(move || talk(stream, &flag)));
        Ok(Self { stop, client, server })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the connection was reset, or stood still for 5 s.
    pub fn finish(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(client) = self.client.take() else { bail!("the session was finished before") };
        let seen = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if let Some(Err(panic)) = self.server.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        Ok(seen)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn talk(mut stream: TcpStream, stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"are you there?").context("the session broke")?;
        let mut answer = [0; 14];
        stream.read_exact(&mut answer).context("the session broke")?;
        ensure!(&answer == b"are you there?", "the session was garbled");
        seen.longest_gap = seen.longest_gap.max(last.elapsed());
        last = Instant::now();
        seen.messages += 1;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(seen)
}

/// A stand-in for the product's binary that starts it in another way: `before` are words in front of
/// it (`env NAME=VALUE`), `after` redirections behind its arguments.
///
/// # Errors
/// When there is no binary, or the script cannot be written.
pub fn started_by_shell(node: &Node, before: &str, after: &str) -> Result<PathBuf> {
    let binary = lab::pointsman_binary()?;
    let path = node.dir().join("start-pointsman");
    let script = format!("#!/bin/sh\nexec {before} {} \"$@\" {after}\n", binary.display());
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Has a thread of a debug build panic: `worker`, `vrrp`, `control`, `task`, `page`, `connection`.
///
/// # Errors
/// When the daemon cannot be asked, or is a release build.
pub fn order_panic(lb: &Pointsman, thread: &str) -> Result<()> {
    let mut stream = UnixStream::connect(lb.socket())?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        format!("{{\"version\":1,\"verb\":\"panic\",\"arguments\":\"{thread}\"}}\n").as_bytes(),
    )?;
    let mut answer = String::new();
    // It may be gone before it answers.
    let _ = stream.read_to_string(&mut answer);
    ensure!(!answer.contains("error"), "{answer}");
    Ok(())
}
