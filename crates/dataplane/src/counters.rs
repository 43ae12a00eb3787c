//! Counters of one worker. Single writer (the worker), any number of readers (metrics): plain
//! relaxed load and store, never a locked instruction.
//!
//! The packet equation, per worker and in sum:
//! `received + adopted = forwarded + answered + Σ dropped[reason] + handed_over + waiting`.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use crate::flow::FlowState;
use crate::handshakes::{HandshakeTimes, HandshakeWatch, Handshakes};
use crate::slots::{BackendSlot, ServiceSlot};
use crate::verdict::DropReason;

/// Backend slots of a node: the sum of backends over all services.
pub const MAX_BACKENDS: usize = 4096;
/// Service slots of a node.
pub const MAX_SERVICES: usize = 1024;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may call this.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Adds, or takes away; only the owning worker may call this.
    #[inline]
    pub fn add_signed(&self, by: i32) {
        self.add(i64::from(by).cast_unsigned());
    }

    /// The value, possibly a moment old.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number with one writer that goes both ways, of up to 31 bits. One worker's share may be negative (a choice made
/// on one queue and confirmed on another): only the sum over workers means something.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI32);

impl Gauge {
    /// Adds; only the owning worker may call this.
    #[inline]
    pub fn add(&self, by: i32) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Moves the value towards zero by an eighth (at least one).
    pub fn decay(&self) {
        let value = self.0.load(Relaxed);
        let step = value / 8;
        self.0.store(value - if step == 0 { value.signum() } else { step }, Relaxed);
    }

    /// The value, possibly a moment old.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed).into()
    }
}

/// What one worker counted.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Totals of the worker.
    pub totals: CachePadded<Totals>,
    /// By reason, indexed by [`DropReason::index`].
    dropped: [Counter; DropReason::ALL.len()],
    backends: Box<[BackendCounters; MAX_BACKENDS]>,
    handshakes: Box<[HandshakeWatch; MAX_BACKENDS]>,
    services: Box<[ServiceCounters; MAX_SERVICES]>,
}

/// Totals of one worker.
#[derive(Debug, Default)]
pub struct Totals {
    /// Frames taken from the RX ring.
    pub received: Counter,
    /// Frames taken from the mailbox.
    pub adopted: Counter,
    /// Frames rewritten for a backend and put on a TX ring.
    pub forwarded: Counter,
    /// ARP, NA and echo replies, resets and ICMP errors put on the TX ring.
    pub answered: Counter,
    /// Frames copied to another worker's mailbox.
    pub handed_over: Counter,
    /// Fragments that wait for the first one of their datagram.
    pub waiting: Gauge,
    /// Frames whose checksum the sender had left to a card and the worker finished: no part of the
    /// equation.
    pub checksums_finished: Counter,
    /// Unsolicited resets put on the TX ring: no part of the equation.
    pub originated: Counter,
    /// The same that the TX ring refused.
    pub originated_lost: Counter,
    /// Answers that say that a port or protocol of a VIP is closed; among the answered.
    pub closed: Counter,
    /// New connections whose flow found no room: forwarded by the deterministic hash.
    pub flow_table_full: Counter,
    /// Mid-stream packets without history, placed by the deterministic hash.
    pub picked_up: Counter,
}

/// What one worker sent to one backend.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct BackendCounters {
    /// Frames.
    pub packets: Counter,
    /// Bytes, Ethernet header included.
    pub bytes: Counter,
    /// Flows entered.
    pub connections: Counter,
    /// Flows that live (ip_vs: ActiveConn).
    pub active: Gauge,
    /// Flows that ended but are still remembered (ip_vs: InActConn).
    pub inactive: Gauge,
    /// Scheduler choices whose connection is not proven yet; abandoned ones decay.
    pub half_open: Gauge,
    /// Flows that nothing proves to be connections.
    pub unproven: Gauge,
    /// New connections tried: SYNs, but for the retransmissions that were recognised.
    pub attempts: Counter,
    /// Resets to its clients on its behalf, as answers and unasked: also the ones that could not be
    /// written or that the TX ring refused.
    pub resets: Counter,
    /// Bytes that clients of TCP acknowledged: what it sent them, as far as it arrived. A segment that was
    /// overtaken takes away what the other one added, so it may go back a little.
    pub acked: Counter,
}

impl BackendCounters {
    /// Whether this worker still remembers a flow or a choice of the backend.
    pub fn in_use(&self) -> bool {
        let gauges = [&self.active, &self.inactive, &self.half_open, &self.unproven];
        gauges.iter().any(|gauge| gauge.value() != 0)
    }

    /// Where flows in this state are counted.
    pub(crate) const fn flows(&self, state: FlowState) -> &Gauge {
        if state.is_live() {
            &self.active
        } else if state.is_unproven() {
            &self.unproven
        } else {
            &self.inactive
        }
    }
}

/// What one worker did for one service.
#[derive(Debug, Default)]
#[repr(align(32))]
pub struct ServiceCounters {
    /// Frames forwarded.
    pub packets: Counter,
    /// Bytes forwarded, Ethernet header included.
    pub bytes: Counter,
    /// Frames dropped after the service was known.
    pub dropped: Counter,
    /// New connections refused with an answer.
    pub rejected: Counter,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            totals: CachePadded::default(),
            dropped: std::array::from_fn(|_| Counter::default()),
            backends: Box::new(std::array::from_fn(|_| BackendCounters::default())),
            handshakes: Box::new(std::array::from_fn(|_| HandshakeWatch::default())),
            services: Box::new(std::array::from_fn(|_| ServiceCounters::default())),
        }
    }
}

impl WorkerCounters {
    /// The counter of a reason.
    #[inline]
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        // Reasons index an array of exactly their number.
        &self.dropped[reason.index()]
    }

    /// The counters of a backend; slots past the end (none are given out) share the others' entries.
    #[inline]
    pub fn backend(&self, slot: BackendSlot) -> &BackendCounters {
        &self.backends[slot.index() % MAX_BACKENDS]
    }

    /// Which of a backend's new connections this worker saw answered.
    pub fn handshakes(&self, slot: BackendSlot) -> Handshakes {
        self.watch(slot).handshakes()
    }

    /// How long handshakes of a backend took that this worker saw begin and end.
    pub fn handshake_times(&self, slot: BackendSlot) -> HandshakeTimes {
        self.watch(slot).times()
    }

    /// Where the worker notes them.
    pub(crate) fn watch(&self, slot: BackendSlot) -> &HandshakeWatch {
        &self.handshakes[slot.index() % MAX_BACKENDS]
    }

    /// The counters of a service; slots past the end (none are given out) share the others' entries.
    #[inline]
    pub fn service(&self, slot: ServiceSlot) -> &ServiceCounters {
        &self.services[slot.index() % MAX_SERVICES]
    }

    /// Both sides of the packet equation: what came in, and where it went.
    pub fn equation(&self) -> (u64, u64) {
        let t = &self.totals;
        let dropped: u64 = self.dropped.iter().map(Counter::value).sum();
        let came = t.received.value() + t.adopted.value();
        let waiting = u64::try_from(t.waiting.value()).unwrap_or_default();
        let sent = t.forwarded.value() + t.answered.value() + t.handed_over.value();
        (came, sent + waiting + dropped)
    }

    /// Lets unconfirmed choices fade; called about eight times per half-open timeout.
    pub fn decay_half_open(&self) {
        for backend in self.backends.iter() {
            backend.half_open.decay();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauge_decays_to_zero_from_both_sides() {
        for start in [100, -100, 1, -1, 0] {
            let gauge = Gauge::default();
            gauge.add(start);
            for _ in 0..60 {
                gauge.decay();
            }
            assert_eq!(gauge.value(), 0);
        }
    }

    #[test]
    fn a_backend_has_its_own_cache_line() {
        assert_eq!(size_of::<BackendCounters>(), 64);
    }
}
