//! What arrives at a backend, seen there: the judge of what a balancer sent where.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::NetNs;
use socket2::SockRef;

/// Takes datagrams in and answers none. Dropping it ends it.
#[derive(Debug)]
pub struct Arrivals {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    packets: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    sources: BTreeSet<IpAddr>,
    last: Option<Instant>,
}

impl Arrivals {
    /// Listens in `ns` on `address`, a VIP's.
    ///
    /// # Panics
    /// When the address cannot be bound.
    #[must_use]
    pub fn start(ns: &NetNs, address: SocketAddr) -> Self {
        let socket = ns.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // Best effort: what finds no room is not seen, and proves nothing.
        let _ = SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = ns.spawn("arrivals", move || own.take_in(&socket)).unwrap();
        Self { shared, thread: Some(thread) }
    }

    /// Datagrams so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.shared.packets.load(Relaxed)
    }

    /// From whom.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<IpAddr> {
        self.shared.seen().sources.clone()
    }

    /// When the last of them came.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        self.shared.seen().last
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Shared {
    fn take_in(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while !self.stop.load(Relaxed) {
            let Ok((_, from)) = socket.recv_from(&mut buffer) else { continue };
            self.packets.fetch_add(1, Relaxed);
            let mut seen = self.seen();
            seen.sources.insert(from.ip());
            seen.last = Some(Instant::now());
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One flow per source, all going on until it is dropped.
#[derive(Debug)]
pub struct Streams {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// A datagram of each source every `pause`.
    ///
    /// # Panics
    /// When a socket cannot be made.
    #[must_use]
    pub fn start(ns: &NetNs, sources: &[IpAddr], target: SocketAddr, pause: Duration) -> Self {
        let socket = |source: &IpAddr| {
            let socket = UdpSocket::bind(SocketAddr::new(*source, 0)).unwrap();
            socket.connect(target).unwrap();
            socket
        };
        let sockets: Vec<UdpSocket> = ns.enter(|| sources.iter().map(socket).collect()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            while !stopped.load(Relaxed) {
                // An ICMP error about an earlier one costs a datagram.
                sockets.iter().for_each(|socket| drop(socket.send(b"on")));
                thread::sleep(pause);
            }
        };
        Self { stop, thread: Some(ns.spawn("streams", body).unwrap()) }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
