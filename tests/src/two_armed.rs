//! A lab with two arms: clients are on the one segment, and the balancer reaches the backends on
//! another one. Backends answer clients on the first segment, past the balancer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::sync::{Arc, Barrier};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::status::{Count, SocketCounter, Status, Worker};
use dataplane::DropReason;
use lab::files::sha256;
use lab::node::Role;
use lab::{Lab, NetNs, Node, Pointsman, ServiceText};

use crate::lifecycle::SMALL;

/// Adds the segment: `eth1` of the balancers, with as many queues as `eth0`, and of the backends, in
/// 10.88.0.0/16 with the last two bytes of their first address. The switch's ports are named `lb1b`,
/// `rs1b` and so on.
///
/// # Errors
/// The first step that fails.
pub fn add_second_arm(lab: &Lab) -> Result<()> {
    lab.switch().ip("link add br1 type bridge stp_state 0 mcast_snooping 0\nlink set br1 up\n")?;
    lab.nodes_of(Role::Balancer).try_for_each(|node| connect(lab, node, lab.queues()))?;
    lab.nodes_of(Role::Backend).try_for_each(|node| connect(lab, node, 1))
}

/// Makes `eth1` of a node, also after it was removed.
///
/// # Errors
/// The first step that fails.
pub fn connect(lab: &Lab, node: &Node, queues: u8) -> Result<()> {
    let [_, _, subnet, number] = node.address().octets();
    let (port, name) = (format!("{}b", node.name()), node.netns().name());
    lab.switch().ip(&format!(
        "link add {port} numtxqueues {queues} numrxqueues {queues} type veth peer name eth1 \
         numtxqueues {queues} numrxqueues {queues} netns {name}\nlink set {port} master br1 up\n"
    ))?;
    node.netns().set_sysctls(&[
        "net/ipv4/conf/eth1/rp_filter=0",
        "net/ipv4/conf/eth1/arp_ignore=1",
        "net/ipv4/conf/eth1/arp_announce=2",
    ])?;
    let address = format!("10.88.{subnet}.{number}/16");
    node.netns().ip(&format!("link set eth1 up\naddr add {address} dev eth1\n"))?;
    Ok(())
}

/// The backends' addresses on the second segment, in a text that names those on the first one.
#[must_use]
pub fn on_second_arm(service: &str) -> String {
    service.replace("\"10.77.3.", "\"10.88.3.")
}

/// Both interfaces, small tables, and no fast path: frames go through the workers.
#[must_use]
pub fn two_interfaces() -> String {
    two_interfaces_with("off")
}

/// Both interfaces and small tables.
#[must_use]
pub fn two_interfaces_with(fast_path: &str) -> String {
    let interfaces = "[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth1\"\n";
    format!("{SMALL}fast_path = \"{fast_path}\"\n{interfaces}")
}

/// A TCP service on port 9000.
#[must_use]
pub fn upload_service(lab: &Lab) -> ServiceText {
    ServiceText::web(lab).port(UPLOAD)
}

/// Starts what takes uploads on every backend and answers each with its SHA-256. Ends with the lab.
///
/// # Errors
/// When a socket or thread cannot be made.
pub fn take_uploads(lab: &Lab) -> Result<()> {
    lab.nodes_of(Role::Backend).try_for_each(|node| sink(node.netns()))
}

fn sink(ns: &NetNs) -> Result<()> {
    let any = SocketAddr::new([0, 0, 0, 0].into(), UPLOAD);
    let listener = ns.enter(|| TcpListener::bind(any))??;
    let serve = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream));
        }
    };
    ns.spawn("sink", serve)?;
    Ok(())
}

fn answer(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    if stream.read_to_end(&mut bytes).is_ok() {
        // First that all is here: the hash takes its time.
        let _ = stream.write_all(b"!").and_then(|()| stream.write_all(&sha256(&bytes)));
    }
}

/// What parallel uploads came to.
#[derive(Clone, Copy, Debug)]
pub struct Uploads {
    /// Bytes a second, all together.
    pub rate: f64,
    /// Segments that the client sent again.
    pub again: u64,
}

/// Uploads `count` times `bytes` in parallel, each through a connection of its own, all together at
/// most `limit` bytes a second. Each has to arrive with its SHA-256.
///
/// # Errors
/// When a connection fails, takes more than 60 s, or brings other bytes.
pub fn upload(lab: &Lab, count: u8, bytes: usize, limit: Option<f64>) -> Result<Uploads> {
    let client = lab.client(0).netns();
    let target = lab.vip_port(UPLOAD);
    let each = limit.map(|limit| limit / f64::from(count));
    let before = sent_again(client)?;
    let start = Arc::new(Barrier::new(usize::from(count)));
    let run = |number| {
        let start = Arc::clone(&start);
        client.spawn("upload", move || upload_one(target, &content(number, bytes), each, &start))
    };
    let threads: Vec<JoinHandle<Result<Duration>>> =
        (0..count).map(run).collect::<Result<_, _>>()?;
    let done = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|p| resume_unwind(p)));
    let took = done.collect::<Vec<_>>().into_iter().collect::<Result<Vec<Duration>>>()?;
    let took = took.into_iter().max().unwrap_or_default();
    let rate = (usize::from(count) * bytes) as f64 / took.as_secs_f64();
    Ok(Uploads { rate, again: sent_again(client)? - before })
}

/// Connects, begins when all others are connected, and tells how long the upload took.
fn upload_one(
    target: SocketAddr,
    content: &[u8],
    limit: Option<f64>,
    start: &Barrier,
) -> Result<Duration> {
    let connected = TcpStream::connect_timeout(&target, Duration::from_secs(10));
    start.wait();
    let (mut stream, begin) = (connected?, Instant::now());
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    for (at, piece) in content.chunks(PIECE).enumerate() {
        if let Some(limit) = limit {
            let due = Duration::from_secs_f64((at * PIECE) as f64 / limit);
            sleep(due.saturating_sub(begin.elapsed()));
        }
        stream.write_all(piece)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    let took = begin.elapsed();
    let mut hash = Vec::new();
    stream.read_to_end(&mut hash)?;
    ensure!(hash == sha256(content), "an upload arrived with other bytes");
    Ok(took)
}

/// Bytes that differ from upload to upload.
fn content(number: u8, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    (0..bytes / 8).flat_map(|_| word()).collect()
}

/// `RetransSegs` of a namespace.
fn sent_again(ns: &NetNs) -> Result<u64> {
    let text = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = lines.next().zip(lines.next()).context("no counters of TCP")?;
    let mut all = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = all.find(|(name, _)| *name == "RetransSegs").context("no RetransSegs")?;
    Ok(value.parse()?)
}

/// Frames that the balancer lost: in its workers, by any reason, and before them, for want of room on
/// their rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Dropped by workers.
    pub dropped: u64,
    /// Those whose reason is a full mailbox.
    pub mailbox_full: u64,
    /// Refused by the kernel, for want of room on the RX ring or of frames on the fill ring.
    pub refused: u64,
    /// Taken from RX rings.
    pub received: u64,
}

/// What was lost since the start.
#[must_use]
pub fn lost(lb: &Pointsman) -> Lost {
    let Status { dropped, workers, .. } = crate::settled_status(lb);
    let refused = |counter| move |worker: &Worker| Count::of(&worker.socket, counter);
    let sum = |counter| workers.iter().map(refused(counter)).sum::<u64>();
    Lost {
        dropped: dropped.iter().map(|count| count.value).sum(),
        mailbox_full: Count::of(&dropped, DropReason::MailboxFull),
        refused: sum(SocketCounter::RxRingFull) + sum(SocketCounter::FillRingEmpty),
        received: workers.iter().map(|worker| worker.counters.received).sum(),
    }
}

const UPLOAD: u16 = 9000;
/// Bytes that are written at once, where there is a limit.
const PIECE: usize = 16 << 10;
