//! ARP requests of forged senders, many a second: each makes the host that it asks enter or change a
//! neighbour.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::Node;
use socket2::{Domain, Socket, Type};

use crate::syn::burst;

/// Asks until it is dropped.
#[derive(Debug)]
pub struct ArpFlood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
}

/// Who asks whom, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The host that is asked: its address and MAC. No other host sees the frames.
    pub of: (Ipv4Addr, [u8; 6]),
    /// Senders' addresses, from 10.77.128.0 on, taken at random; each time with another MAC.
    pub senders: u16,
    /// Requests a second.
    pub rate: f64,
}

impl ArpFlood {
    /// Starts to ask from the `eth0` of a node.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    pub fn start(from: &Node, asking: Asking) -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let own = from.mac();
        let body = move || {
            let ifindex = rustix::net::netdevice::name_to_index(any_socket(), "eth0");
            let socket = Socket::new(Domain::PACKET, Type::RAW, None).expect("root");
            // With protocol 0 it receives nothing.
            pointsman::sys::bind_packet(socket.as_fd(), ifindex.expect("eth0"), 0).expect("bind");
            flood(&socket, own, asking, &seen);
        };
        let thread = Some(from.netns().spawn("arp-flood", body).expect("a thread"));
        Self { shared, thread }
    }

    /// Requests sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Relaxed)
    }
}

impl Drop for ArpFlood {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn any_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket")
}

/// Bursts of one system call each; what a slow machine missed is made up for, up to 100 ms.
fn flood(socket: &Socket, own: [u8; 6], asking: Asking, shared: &Shared) {
    let pause = Duration::from_secs_f64(BURST as f64 / asking.rate);
    let (mut due, mut random) = (Instant::now(), 0x9e37_79b9_7f4a_7c15);
    while !shared.stop.load(Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due = (due + pause).max(Instant::now() - Duration::from_millis(100));
        let frames: [_; BURST] = std::array::from_fn(|_| request(own, asking, next(&mut random)));
        shared.sent.fetch_add(burst(socket, &frames), Relaxed);
    }
}

/// RFC 826. The frame itself comes from the node's own MAC, so that the switch learns no other.
fn request(own: [u8; 6], asking: Asking, random: u64) -> [u8; LENGTH] {
    let [.., high, low] = (random % u64::from(asking.senders)).to_be_bytes();
    let [a, b, c, d, ..] = random.to_be_bytes();
    let mut frame = [0; LENGTH];
    frame[0..6].copy_from_slice(&asking.of.1);
    frame[6..12].copy_from_slice(&own);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&[2, 0xaa, a, b, c, d]);
    frame[28..32].copy_from_slice(&[10, 77, 128 + high, low]);
    frame[38..42].copy_from_slice(&asking.of.0.octets());
    frame
}

/// xorshift64 (Marsaglia 2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

const BURST: usize = 32;
/// The shortest frame, without its checksum.
const LENGTH: usize = 60;
