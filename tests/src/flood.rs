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
use rustix::{
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg},
    thread::{sched_getaffinity, sched_setaffinity},
};

/// Sends datagrams until it is dropped. The rate may be changed at any time.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Nanoseconds from one burst of a thread to the next; 0: none.
    pause: AtomicU64,
}

impl Flood {
    /// Starts one thread per source, at rate 0, on other CPUs than `avoid`, if there are any.
    ///
    /// # Panics
    /// When a socket cannot be made.
    #[must_use]
    pub fn start(ns: &NetNs, sources: &[IpAddr], target: SocketAddr, avoid: u32) -> Self {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), pause: AtomicU64::new(0) });
        let thread = |(number, source): (usize, &IpAddr)| {
            // Several sockets: several flows, for several queues.
            let socket = || {
                let socket = UdpSocket::bind(SocketAddr::new(*source, 0)).unwrap();
                socket.connect(target).unwrap();
                socket
            };
            let sockets = ns.enter(|| std::array::from_fn(|_| socket())).unwrap();
            let shared = Arc::clone(&shared);
            let body = move || {
                choose_cpus(|cpu| cpu != avoid);
                shared.send(&sockets);
            };
            ns.spawn(&format!("flood-{number}"), body).unwrap()
        };
        let threads = sources.iter().enumerate().map(thread).collect();
        Self { shared, threads }
    }

    /// Sets the rate: datagrams a second over all threads, above 0.
    ///
    /// # Panics
    /// When it is not above 0, or so small that the pause between two bursts cannot be told.
    pub fn set_rate(&self, rate: f64) {
        let pause = Duration::from_secs_f64((BURST * self.threads.len()) as f64 / rate);
        let pause = u64::try_from(pause.as_nanos()).expect("a pause of less than 584 years");
        self.shared.pause.store(pause.max(1), Relaxed);
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
            let pause = Duration::from_nanos(self.pause.load(Relaxed));
            if pause.is_zero() {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            while let Some(early) = due.checked_duration_since(Instant::now()) {
                if early > Duration::from_micros(100) {
                    thread::sleep(early - Duration::from_micros(80));
                }
            }
            due = (due + pause).max(Instant::now() - Duration::from_millis(100));
            burst(socket, &payload);
        }
    }
}

fn burst(socket: &UdpSocket, payload: &[u8]) {
    let pieces = [IoSlice::new(payload)];
    let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BURST] = Default::default();
    let mut messages: Vec<MMsgHdr<'_>> =
        controls.iter_mut().map(|control| MMsgHdr::new(&pieces, control)).collect();
    // An error (a full queue, an ICMP error about an earlier one) costs the rest of the burst.
    let _ = sendmmsg(socket, &mut messages, SendFlags::DONTWAIT);
}

/// Keeps a CPU busy: threads on it get a part of its time only. Dropping it ends it.
#[derive(Debug)]
pub struct Hog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hog {
    /// Starts it on `cpu`.
    #[must_use]
    pub fn start(cpu: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            choose_cpus(|other| other == cpu);
            while !stopped.load(Relaxed) {
                std::hint::spin_loop();
            }
        };
        Self { stop, thread: Some(thread::spawn(body)) }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Binds the calling thread to those of its CPUs that `keep` names.
fn choose_cpus(keep: impl Fn(u32) -> bool) {
    let Ok(mut set) = sched_getaffinity(None) else { return };
    for cpu in (0_u32..).take(rustix::thread::CpuSet::MAX_CPU) {
        if !keep(cpu) {
            set.unset(cpu as usize);
        }
    }
    // Fails when none is left: then the thread stays where it may be.
    let _ = sched_setaffinity(None, &set);
}

const SOCKETS: usize = 8;
const BURST: usize = 8;
const PAYLOAD: usize = 18;
