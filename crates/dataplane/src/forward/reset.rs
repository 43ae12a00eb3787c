//! Resets to clients: of a backend that is gone, and where no backend can serve them.
//!
//! Three ways: a reset as the answer to a segment for a backend that is down, the same without
//! having been asked (a downloading client may never send again), and an answer to a client that wants
//! to connect where no backend is left. All are bounded in rate, so that no host is flooded with
//! answers to forged packets, and nothing is sent without the lease.

use std::time::Duration;

use super::service_match::ServiceMatch;
use super::{BurstContext, Decision, Forwarder, drop_for};
use crate::counters::MAX_BACKENDS;
use crate::flow::Orphan;
use crate::key::{FlowKey, Protocol};
use crate::limiter::Limiter;
use crate::packet::{self, Packet, TcpFields};
use crate::slots::BackendSlot;
use crate::snapshot::{NextHop, Snapshot, UnusableAction};
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

/// What a worker may answer.
#[derive(Debug)]
pub(super) struct Limits {
    resets: Limiter,
    refusals: Limiter,
    errors: Limiter,
    /// Of closed ports, apart: a port scan must not keep the clients of a lost backend waiting.
    closed_resets: Limiter,
    closed_errors: Limiter,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            resets: Limiter::new(RESET_INTERVAL, RESET_BURST),
            refusals: Limiter::new(RESET_INTERVAL, RESET_BURST),
            errors: Limiter::new(ERROR_INTERVAL, ERROR_BURST),
            closed_resets: Limiter::new(RESET_INTERVAL, RESET_BURST),
            closed_errors: Limiter::new(ERROR_INTERVAL, ERROR_BURST),
        }
    }

    /// Whether one more packet to a closed port may be answered now.
    pub(super) fn allow_closed(&mut self, packet: &Packet, now: Tick) -> bool {
        let is_tcp = matches!(packet, Packet::Tcp(..));
        let limiter = if is_tcp { &mut self.closed_resets } else { &mut self.closed_errors };
        limiter.allow(now)
    }
}

/// A walk through the flow table that tells the clients of backends which were lost. It goes round
/// once after each snapshot that loses one.
#[derive(Debug)]
pub(super) struct Walk {
    /// Of the last snapshot that was looked at.
    generation: u64,
    /// The backends that were lost by then, as bits.
    lost: Box<Slots>,
    /// The bucket that comes next, and how many are to come.
    at: usize,
    left: usize,
    limiter: Limiter,
}

impl Walk {
    /// Through a table for `capacity` flows: fast enough for all of them to get theirs within a
    /// second.
    pub(super) fn new(capacity: usize) -> Self {
        let flows = u32::try_from(capacity.max(1)).unwrap_or(u32::MAX);
        let interval = (WALK_TIME / flows).min(RESET_INTERVAL);
        let limiter = Limiter::new(interval, RESET_BURST);
        Self { generation: u64::MAX, lost: Box::new(NOBODY), at: 0, left: 0, limiter }
    }

    /// Looks at a new snapshot: who is lost that was not before?
    #[cold]
    #[inline(never)]
    fn notice(&mut self, snapshot: &Snapshot, buckets: usize) {
        self.generation = snapshot.generation;
        let mut lost = NOBODY;
        let resets = snapshot.next_hops().iter().map(is_lost);
        for (slot, _) in resets.enumerate().filter(|&(_, is_lost)| is_lost) {
            if let Some(word) = lost.get_mut(slot / 64) {
                *word |= 1 << (slot % 64);
            }
        }
        if lost.iter().zip(self.lost.iter()).any(|(now, before)| now & !before != 0) {
            self.left = buckets;
        }
        *self.lost = lost;
    }

    fn advance(&mut self, buckets: usize) {
        self.at = if self.at + 1 < buckets { self.at + 1 } else { 0 };
        self.left -= 1;
    }
}

/// One bit per backend slot.
type Slots = [u64; MAX_BACKENDS / 64];
const NOBODY: Slots = [0; MAX_BACKENDS / 64];

impl Forwarder {
    /// What becomes of a segment whose backend cannot be reached. [`Verdict::Answer`]: its client
    /// gets a reset, and the flow is over.
    pub(super) fn refuse(
        &mut self,
        ctx: &BurstContext<'_>,
        backend: BackendSlot,
        key: &FlowKey,
        tcp: TcpFields,
    ) -> Decision {
        let next_hop = ctx.snapshot.next_hop(backend);
        if next_hop.when_unusable == UnusableAction::Reset && !ctx.active(next_hop.instance) {
            return drop_for(DropReason::Inactive);
        }
        let told = next_hop.when_unusable == UnusableAction::Reset
            && !tcp.resets()
            && packet::is_answerable(key)
            && self.limits.resets.allow(ctx.now);
        if told {
            self.counters.backend(backend).resets.add(1);
            return Err(Verdict::Answer);
        }
        drop_for(unreachable_for(next_hop))
    }

    /// No backend can take a new connection.
    pub(super) fn turn_away(
        &mut self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Verdict {
        let service = matched.service;
        let counters = self.counters.service(service.slot);
        let limiter = match service.key.protocol {
            // Of its own: a flood of SYNs must not keep the clients of a lost backend waiting.
            Protocol::Tcp => &mut self.limits.refusals,
            Protocol::Udp => &mut self.limits.errors,
        };
        if service.reject && ctx.active(service.instance) && limiter.allow(ctx.now) {
            counters.rejected.add(1);
            return Verdict::Answer;
        }
        counters.dropped.add(1);
        Verdict::Drop(DropReason::NoBackend)
    }

    /// Tells the clients of backends that `snapshot` is the first to call lost
    /// ([`UnusableAction::Reset`]): each live TCP flow ends with a reset from its last acknowledgment
    /// number. A bounded piece per call: call it in every turn. Returns how much of the table was
    /// looked at; 0: there is nothing to do now.
    ///
    /// `send` gets a whole frame for this worker's port and returns whether it took it; if not, it
    /// gets it again at the next call. Frames go to where the client's came from when the flow was
    /// entered, or last changed its state. Flows whose frames have VLAN tags are left out, and so
    /// are the ones that the client has closed: they get theirs as an answer.
    #[inline]
    pub fn reset_flows(
        &mut self,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[std::sync::atomic::AtomicU64],
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) -> usize {
        if self.walk.generation != snapshot.generation {
            let buckets = if self.flows.is_empty() { 0 } else { self.flows.buckets() };
            self.walk.notice(snapshot, buckets);
        }
        match self.walk.left {
            0 => 0,
            _ => self.walk_on(&BurstContext { now, snapshot, leases }, send),
        }
    }

    /// Whether flows of lost backends are still to be reset.
    pub const fn is_resetting(&self) -> bool {
        self.walk.left > 0
    }

    #[cold]
    #[inline(never)]
    fn walk_on(&mut self, ctx: &BurstContext<'_>, send: &mut dyn FnMut(&[u8]) -> bool) -> usize {
        let (mut sent, mut looked) = (0, 0);
        let told = |backend| {
            let next_hop = ctx.snapshot.next_hop(backend);
            is_lost(next_hop) && ctx.active(next_hop.instance)
        };
        while self.walk.left > 0 && looked < WALK_STEP {
            while let Some(orphan) = self.flows.orphan(self.walk.at, ctx.now, told) {
                let ready = sent < WALK_SENDS && self.walk.limiter.is_ready(ctx.now);
                if !ready || !self.tell(ctx, &orphan, send) {
                    return looked + sent;
                }
                sent += 1;
            }
            looked += 1;
            self.walk.advance(self.flows.buckets());
        }
        looked + sent
    }

    /// Resets one flow, unless the frame is not taken.
    fn tell(
        &mut self,
        ctx: &BurstContext<'_>,
        orphan: &Orphan,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        let Orphan { id, key, backend, seq, client } = orphan;
        let mut buffer = [0; packet::RESET_LEN];
        let len = packet::write_reset(&mut buffer, key, *seq, *client, self.mac);
        // The buffer has room for every reset.
        let frame = len.and_then(|len| buffer.get(..len)).unwrap_or_default();
        let taken = send(frame);
        if taken {
            self.walk.limiter.allow(ctx.now);
            self.counters.backend(*backend).resets.add(1);
            self.let_go(ctx.now, *id);
        }
        taken
    }
}

fn is_lost(next_hop: &NextHop) -> bool {
    !next_hop.usable && next_hop.when_unusable == UnusableAction::Reset
}

/// Why a frame for a backend that is not usable is dropped.
pub(super) fn unreachable_for(next_hop: &NextHop) -> DropReason {
    match next_hop.when_unusable {
        UnusableAction::Unreachable => DropReason::NoNeighbour,
        UnusableAction::Reset | UnusableAction::Discard => DropReason::BackendDown,
    }
}

/// 10,000 answers per second and worker.
const RESET_INTERVAL: Duration = Duration::from_micros(100);
const RESET_BURST: u32 = 1000;
/// 1,000 ICMP errors per second and worker (RFC 4443 §2.4 (f)).
const ERROR_INTERVAL: Duration = Duration::from_millis(1);
const ERROR_BURST: u32 = 50;

/// In which a whole table's flows can be reset.
const WALK_TIME: Duration = Duration::from_millis(800);
/// Buckets of 16 flows looked at in one call: some tens of microseconds.
const WALK_STEP: usize = 256;
/// Resets sent in one call: as many as frames in a burst.
const WALK_SENDS: usize = 64;
