//! What a worker thread and the control thread share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use dataplane::{FlowReader, Tick};
use xsk::{Accounting, Bound, Counters, Statistics};

/// Written by the worker, read by the control thread.
#[derive(Debug, Default)]
pub struct WorkerShared {
    /// When the worker was last seen alive, nanoseconds of the one clock.
    heartbeat: AtomicU64,
    /// Generation of the snapshot that it works with.
    pub acknowledged: AtomicU64,
    /// Whether its socket is bound.
    pub bound: AtomicBool,
    /// Whether what it sends does not leave.
    pub stalled: AtomicBool,
    /// Whether the card receives and the XDP program sees nothing; written by the control thread.
    pub blind: AtomicBool,
    /// Flows remembered.
    pub flows: AtomicU64,
    /// Share of time spent on frames in the last interval, in millionths.
    pub busy_ppm: AtomicU64,
    report: Mutex<Report>,
    flow_reader: Mutex<Option<FlowReader>>,
}

/// What the worker says of its port, renewed with the heartbeat.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How the socket was bound; `None` before the first time.
    pub how: Option<Bound>,
    /// Why it is not bound.
    pub error: Option<String>,
    /// Whether packets leave by a packet socket.
    pub packet_socket: bool,
    /// Frames that were given to the kernel and never left, on all sockets so far.
    pub unsent: u64,
    /// Where the frames are.
    pub accounting: Accounting,
    /// What the port counted since the socket was bound.
    pub counters: Counters,
    /// What the kernel counted since the socket was bound.
    pub statistics: Statistics,
}

impl WorkerShared {
    /// The worker is alive.
    pub fn beat(&self, now: Tick) {
        self.heartbeat.store(now.as_nanos(), Relaxed);
    }

    /// When the worker was last seen alive.
    pub fn last_beat(&self) -> Tick {
        Tick::from_nanos(self.heartbeat.load(Relaxed))
    }

    /// Whether its socket is bound and what it sends does not leave.
    pub fn is_stalled(&self) -> bool {
        self.bound.load(Relaxed) && self.stalled.load(Relaxed)
    }

    /// Whether it can forward, as far as is known.
    pub fn is_able(&self) -> bool {
        self.bound.load(Relaxed) && !self.stalled.load(Relaxed) && !self.blind.load(Relaxed)
    }

    /// Changes the report; never blocks the worker for longer than a copy takes.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// Where the flows lie now, for other threads to read.
    pub fn set_flow_reader(&self, reader: FlowReader) {
        *self.flow_reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reader);
    }

    /// A reader of the flows; `None` of a worker that has no table yet.
    pub fn flow_reader(&self) -> Option<FlowReader> {
        self.flow_reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The last report.
    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
