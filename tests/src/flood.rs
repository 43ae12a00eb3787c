//! A flood of small datagrams at a chosen rate, and the place where they end.

use std::{
    io::IoSlice,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lab::NetNs;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// Sends datagrams until it is dropped. The rate may be changed at any time.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Datagrams a second, over all threads.
    rate: AtomicU64,
    sent: AtomicU64,
    threads: u64,
}

impl Flood {
    /// Starts one thread per source, at rate 0.
    ///
    /// # Panics
    /// When a socket cannot be made.
    #[must_use]
    pub fn start(ns: &NetNs, sources: &[IpAddr], target: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            threads: sources.len() as u64,
        });
        let thread = |(number, source): (usize, &IpAddr)| {
            // Several sockets: several flows, for several queues.
            let socket = || {
                let socket = UdpSocket::bind(SocketAddr::new(*source, 0)).unwrap();
                socket.connect(target).unwrap();
                socket
            };
            let sockets = ns.enter(|| std::array::from_fn(|_| socket())).unwrap();
            let shared = Arc::clone(&shared);
            ns.spawn(&format!("flood-{number}"), move || shared.send(&sockets)).unwrap()
        };
        let threads = sources.iter().enumerate().map(thread).collect();
        Self { shared, threads }
    }

    /// Sets the rate: datagrams a second over all threads.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Relaxed);
    }

    /// Datagrams sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    /// Bursts of one system call each; what a slow machine missed is made up for, up to 100 ms.
    fn send(&self, sockets: &[UdpSocket; SOCKETS]) {
        let payload = [0_u8; PAYLOAD];
        let mut due = Instant::now();
        for socket in sockets.iter().cycle() {
            if self.stop.load(Relaxed) {
                return;
            }
            let rate = self.rate.load(Relaxed) / self.threads;
            if rate == 0 {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            while let Some(early) = due.checked_duration_since(Instant::now()) {
                if early > Duration::from_micros(100) {
                    thread::sleep(early - Duration::from_micros(80));
                }
            }
            let pause = Duration::from_nanos(1_000_000_000 * BURST as u64 / rate);
            due = (due + pause).max(Instant::now() - Duration::from_millis(100));
            self.sent.fetch_add(burst(socket, &payload), Relaxed);
        }
    }
}

/// Sends a burst; how many datagrams the kernel took.
fn burst(socket: &UdpSocket, payload: &[u8]) -> u64 {
    let pieces = [IoSlice::new(payload)];
    let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BURST] = Default::default();
    let mut messages: Vec<MMsgHdr<'_>> =
        controls.iter_mut().map(|control| MMsgHdr::new(&pieces, control)).collect();
    // An error (a full queue, an ICMP error about an earlier one) costs this burst only.
    sendmmsg(socket, &mut messages, SendFlags::DONTWAIT).unwrap_or(0) as u64
}

const SOCKETS: usize = 8;
const BURST: usize = 8;
const PAYLOAD: usize = 18;
