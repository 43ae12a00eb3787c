//! A load client that behaves like many browsers and forgets nothing.
//!
//! Threads in the client's namespace fetch one file over and over, each request on a fresh or on
//! a kept connection, from a set of source addresses. Every request becomes a [`Record`] on a
//! [`Timeline`]; a [`LoadReport`] answers questions about it.
//!
//! Source ports are chosen here (1024 to 65535, in turn over the whole process), not by the
//! kernel: so that a connection is identified by its port, and because the kernel's search grows
//! slow when an address runs out of ports. Connections end with an ordinary FIN by the client,
//! which then holds the port in TIME_WAIT for 60 s: more than about 1,000 fresh connections a
//! second need more than one source address, as in reality.

mod client;
mod report;
mod timeline;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use report::{Latency, LoadReport};
pub use timeline::{Bucket, Gap, Outcome, Record, Stretch, Timeline};

use crate::{
    error::{LabError, Result},
    files::{Hash, Served},
    netns::NetNs,
};
use client::{Fetcher, ThreadRecords};

/// What to fetch, how, and for how long.
#[derive(Clone, Debug)]
pub struct LoadClient {
    target: SocketAddr,
    path: String,
    length: u64,
    hash: Option<Hash>,
    threads: u32,
    sources: Vec<IpAddr>,
    kept: bool,
    duration: Option<Duration>,
    requests: Option<u64>,
    connect_timeout: Duration,
    read_timeout: Duration,
    requests_per_second: Option<f64>,
    bytes_per_second: Option<u64>,
}

impl LoadClient {
    /// Fetches `file` from `target`: one thread, one request, fresh connections, time-outs of 1 s
    /// for the connection and 5 s for every wait for data.
    #[must_use]
    pub fn new(target: SocketAddr, file: &Served) -> Self {
        Self {
            target,
            path: file.path.clone(),
            length: file.length,
            hash: None,
            threads: 1,
            sources: Vec::new(),
            kept: false,
            duration: None,
            requests: None,
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(5),
            requests_per_second: None,
            bytes_per_second: None,
        }
    }

    /// Number of threads, each with one connection at a time.
    #[must_use]
    pub fn threads(mut self, count: u32) -> Self {
        self.threads = count;
        self
    }

    /// Source addresses: each new connection, whatever its thread, takes the next one in turn.
    /// None: the kernel chooses address and port.
    #[must_use]
    pub fn sources(mut self, addresses: Vec<IpAddr>) -> Self {
        self.sources = addresses;
        self
    }

    /// Keeps a connection for all requests of a thread, instead of one for each.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Begins no request after that time.
    #[must_use]
    pub fn duration(mut self, limit: Duration) -> Self {
        self.duration = Some(limit);
        self
    }

    /// Makes that many requests, over all threads.
    #[must_use]
    pub fn requests(mut self, count: u64) -> Self {
        self.requests = Some(count);
        self
    }

    /// Longest wait for the connection, and for the next data once it is there.
    #[must_use]
    pub fn timeouts(mut self, connect: Duration, read: Duration) -> Self {
        (self.connect_timeout, self.read_timeout) = (connect, read);
        self
    }

    /// Checks the SHA-256 of every body, not only its length.
    #[must_use]
    pub fn verify(mut self, file: &Served) -> Self {
        self.hash = Some(file.hash);
        self
    }

    /// At most that many requests a second, over all threads, evenly spaced. What was missed
    /// while the server was slow is not made up for.
    #[must_use]
    pub fn rate(mut self, requests_per_second: f64) -> Self {
        self.requests_per_second = Some(requests_per_second);
        self
    }

    /// Reads each body at most that fast: for long downloads. The kernel's receive buffer is
    /// kept small, so that the sender feels it.
    #[must_use]
    pub fn download_rate(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// As [`LoadClient::download_rate`], such that each body takes about `length`.
    #[must_use]
    pub fn download_time(self, length: Duration) -> Self {
        let rate = u128::from(self.length) * 1000 / length.as_millis().max(1);
        self.download_rate(u64::try_from(rate).unwrap_or(u64::MAX).max(1))
    }

    /// Starts the threads in `ns`.
    ///
    /// # Errors
    /// When a thread cannot be started there, or the plan is impossible (no threads, a rate of 0).
    pub fn start(mut self, ns: &NetNs) -> Result<RunningLoad> {
        let bad_rate = self.requests_per_second.is_some_and(|rate| rate.is_nan() || rate <= 0.0);
        if self.threads == 0 || bad_rate || self.bytes_per_second == Some(0) {
            let detail = "it needs at least one thread, and rates above 0".into();
            return Err(LabError::Malformed { what: "load plan".into(), detail });
        }
        if self.duration.is_none() && self.requests.is_none() {
            self.requests = Some(1);
        }
        let plan = Arc::new(self);
        let shared = Arc::new(Shared::new());
        let mut threads = Vec::new();
        for number in 0..plan.threads {
            let fetcher = Fetcher::new(Arc::clone(&plan), Arc::clone(&shared), number);
            let thread = ns.spawn(&format!("load-{number}"), move || fetcher.run());
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(RunningLoad { plan, shared, threads })
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    /// As [`LoadClient::start`].
    pub fn run(self, ns: &NetNs) -> Result<LoadReport> {
        Ok(self.start(ns)?.finish())
    }
}

/// Load that is running. Dropping it makes the threads stop after their current request.
#[derive(Debug)]
pub struct RunningLoad {
    plan: Arc<LoadClient>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<ThreadRecords>>,
}

impl RunningLoad {
    /// Requests done and failed so far.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.shared.done.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }

    /// When it began: the zero of its timeline.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.shared.began
    }

    /// Whether all threads have come to their end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Begins no more requests.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end and collects the records.
    ///
    /// # Panics
    /// When a thread panicked.
    #[must_use]
    pub fn finish(mut self) -> LoadReport {
        let threads = std::mem::take(&mut self.threads);
        let records = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let records: Vec<ThreadRecords> = records.collect();
        let length = self.shared.began.elapsed();
        LoadReport::new(client::merge(records, self.plan.sources.clone(), length))
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the threads of one load share.
#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    /// Requests that were begun, for the bound on their number.
    begun: AtomicU64,
    /// Connections that were begun, for the choice of their source.
    turn: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Shared {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}
