//! The hot path, bytes part: a burst of frames in, a verdict for each out.
//!
//! Three passes over the burst, so that the memory of one frame's flow arrives while another frame
//! is worked on: parse all, look up all, forward all whose flow is [`known`]. Such a frame costs two
//! flow-table lines, one next_hop and its counters. A fourth pass decides what is left, in order:
//! [`connection`] has the frames without a flow, [`local`] those that are answered or belong to no
//! single flow.

mod closed;
mod connection;
mod explain;
mod flows;
mod fragment;
mod known;
mod local;
mod remember;
mod reset;
mod resume;
mod service_match;

pub use explain::{Because, Explanation, Question};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arrayvec::ArrayVec;

use self::remember::Memory;
use self::reset::{Limits, Walk};
use crate::addr::Mac;
use crate::counters::WorkerCounters;
use crate::flow::{self, EndedFlow, FlowHash, FlowId, FlowState, FlowTable, Found, Timeouts};
use crate::fragments::FragmentTable;
use crate::guard::Sender;
use crate::key::FlowKey;
use crate::packet::{self, EthernetSource, Packet, TcpFields};
use crate::pending::PendingTable;
use crate::persistence::PersistenceTable;
use crate::slots::{BackendSlot, InstanceSlot, PortId};
use crate::snapshot::{NextHop, Snapshot};
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

/// Frames of one burst.
pub const BURST: usize = 64;

/// The frames of a burst, wherever they live: the same ones in the same order every time.
pub trait Burst {
    /// How many, at most [`BURST`].
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes of each frame, from the Ethernet header on.
    fn frames(&mut self) -> impl Iterator<Item = &mut [u8]>;
    /// The bytes of the frame at `index`, which is below `len`.
    fn frame(&mut self, index: usize) -> &mut [u8];
    /// Lets `answer` rewrite a frame within its whole buffer: it gets the buffer and the frame's
    /// length and returns the new length, or `None` to leave the frame alone. Returns whether it
    /// did.
    fn transform(
        &mut self,
        index: usize,
        answer: &mut dyn FnMut(&mut [u8], usize) -> Option<usize>,
    ) -> bool;
}

/// The tables that all workers of a node share.
#[derive(Debug)]
pub struct SharedTables {
    /// Choices between a SYN and its ACK.
    pub pending: PendingTable,
    /// Which backend a source keeps.
    pub persistence: PersistenceTable,
    /// Where the first fragments of datagrams went.
    pub fragments: FragmentTable,
}

/// The packet path of one worker.
pub struct Forwarder {
    port: PortId,
    mac: Mac,
    flows: FlowTable,
    shared: Arc<SharedTables>,
    counters: Arc<WorkerCounters>,
    /// One entry for each frame of a burst; taken out while a burst is worked on.
    work: Box<[Work]>,
    /// Flows that arrived here from another queue: the others should let them go.
    moved: ArrayVec<FlowKey, BURST>,
    swept: Tick,
    next_decay: Tick,
    decay_interval: Duration,
    timeouts: Timeouts,
    /// Of the snapshot that the flows were last compared with, and the buckets that are to be
    /// compared with it yet.
    compared: u64,
    to_compare: usize,
    limits: Limits,
    walk: Walk,
}

/// One frame between the passes.
#[derive(Clone, Copy, Debug)]
struct Work {
    packet: Packet,
    hash: FlowHash,
    source: EthernetSource,
}

/// What the look-ups of one burst have in common.
#[derive(Clone, Copy)]
struct BurstContext<'a> {
    now: Tick,
    snapshot: &'a Snapshot,
    leases: &'a [AtomicU64],
}

impl BurstContext<'_> {
    /// Whether this node holds the instance's lease.
    #[inline]
    fn active(&self, instance: InstanceSlot) -> bool {
        self.leases
            .get(instance.index())
            .is_some_and(|until| self.now.as_nanos() < until.load(Relaxed))
    }
}

/// Where a frame goes: to a backend, or to a verdict that is final.
type Decision = Result<BackendSlot, Verdict>;

impl Forwarder {
    /// The packet path of the worker that serves `port`, whose MAC is `mac`.
    pub fn new(
        port: PortId,
        mac: Mac,
        flows: FlowTable,
        timeouts: &Timeouts,
        shared: Arc<SharedTables>,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let idle = Work {
            packet: Packet::Malformed,
            hash: FlowHash::default(),
            source: EthernetSource::default(),
        };
        let walk = Walk::new(flows.capacity());
        Self {
            port,
            mac,
            flows,
            shared,
            counters,
            work: Box::new([idle; BURST]),
            moved: ArrayVec::new(),
            swept: Tick::default(),
            next_decay: Tick::default(),
            decay_interval: timeouts.half_open / 8,
            timeouts: *timeouts,
            compared: 0,
            to_compare: 0,
            limits: Limits::new(),
            walk,
        }
    }

    /// The MAC that frames leave with; changes when the device was re-created.
    pub fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
    }

    /// Decides and rewrites a burst; `verdicts` gets one verdict per frame, in order.
    ///
    /// `leases` is indexed by instance slot and holds the tick until which the instance is active.
    ///
    /// True if every frame is the next packet of a known flow and leaves by the worker's own port:
    /// that saves a look at each verdict.
    pub fn burst<B: Burst>(
        &mut self,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[AtomicU64],
        frames: &mut B,
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) -> bool {
        let ctx = BurstContext { now, snapshot, leases };
        let mut work = std::mem::take(&mut self.work);
        let count = frames.len().min(work.len());
        self.counters.totals.received.add(count as u64);
        *verdicts = ArrayVec::from([UNDECIDED; BURST]);
        verdicts.truncate(count);
        self.parse_all(frames, &mut work[..count]);
        self.look_up_all(&mut work[..count]);
        let onwards = self.forward_known(&ctx, frames, &work[..count], verdicts);
        if !onwards {
            self.decide_others(&ctx, frames, &work[..count], verdicts);
        }
        self.work = work;
        onwards
    }

    /// First pass: classify, and ask for the cache lines that say where the flow may be.
    #[inline]
    fn parse_all<B: Burst>(&self, frames: &mut B, work: &mut [Work]) {
        for (frame, work) in frames.frames().zip(work) {
            match packet::plain_tcp(frame) {
                Some((key, tcp)) if packet::is_sent_to(frame, self.mac) => {
                    work.hash = self.flows.hash(&key);
                    self.flows.prefetch(work.hash);
                    work.packet = Packet::Tcp(key, tcp);
                }
                _ => self.parse_other(frame, work),
            }
            work.source = packet::ethernet_source(frame).unwrap_or_default();
        }
    }

    #[inline(never)]
    fn parse_other(&self, frame: &[u8], work: &mut Work) {
        if !packet::is_sent_to(frame, self.mac) {
            work.packet = parse_stray(frame);
            return;
        }
        packet::parse_others_into(frame, &mut work.packet);
        if let Packet::Tcp(key, _) | Packet::Udp(key) = &work.packet {
            work.hash = self.flows.hash(key);
            self.flows.prefetch(work.hash);
        }
    }

    /// Second pass: find out where the flow probably is, and ask for that cache line. One in ten is
    /// in its second bucket, if at all: that one's tags are asked for only now.
    #[inline]
    fn look_up_all(&self, work: &mut [Work]) {
        let mut elsewhere = ArrayVec::<&mut FlowHash, BURST>::new();
        for Work { packet, hash, .. } in work {
            if let Packet::Tcp(..) | Packet::Udp(_) = packet
                && !self.flows.prefetch_entry(hash)
            {
                elsewhere.push(hash);
            }
        }
        for hash in &mut elsewhere {
            self.flows.prefetch_second(hash);
        }
    }

    /// Fourth pass: whatever is not forwarded yet.
    #[cold]
    #[inline(never)]
    fn decide_others<B: Burst>(
        &mut self,
        ctx: &BurstContext<'_>,
        frames: &mut B,
        work: &[Work],
        verdicts: &mut [Verdict],
    ) {
        self.prefetch_choices(ctx, work, verdicts);
        for (index, (work, verdict)) in work.iter().zip(verdicts).enumerate() {
            if *verdict == UNDECIDED {
                *verdict = self.decide_one(ctx, frames, index, work);
            }
        }
    }

    fn decide_one<B: Burst>(
        &mut self,
        ctx: &BurstContext<'_>,
        frames: &mut B,
        index: usize,
        work: &Work,
    ) -> Verdict {
        let mut work = *work;
        let first = self.open_fragment(frames.frame(index), &mut work);
        if let Packet::Tcp(_, tcp) = &mut work.packet
            && tcp.acknowledges()
            && first.is_none()
        {
            tcp.next = packet::next_sequence(frames.frame(index));
        }
        let decision = self.decide(ctx, &work);
        if let Some(key) = first {
            self.shared.fragments.publish(&key, decision.ok(), ctx.now);
        }
        if let Err(Verdict::Drop(reason)) = decision
            && self.rejects(ctx, &work.packet, reason)
        {
            return self.reject(frames, index, reason);
        }
        let frame = frames.frame(index);
        match self.settle(ctx, frame.len(), work.source.mac(), decision) {
            Ok(next_hop) => {
                packet::rewrite_macs(frame, &next_hop.macs);
                Verdict::Forward(next_hop.port)
            }
            Err(Verdict::Answer) => self.answer(frames, index, &work.packet),
            Err(verdict) => verdict,
        }
    }

    /// Where does it go?
    fn decide(&mut self, ctx: &BurstContext<'_>, work: &Work) -> Decision {
        match &work.packet {
            Packet::Tcp(key, tcp) => {
                refuse_own(ctx, work.source.mac())?;
                self.tcp(ctx, work, key, *tcp)
            }
            Packet::Udp(key) => {
                refuse_own(ctx, work.source.mac())?;
                self.udp(ctx, work, key)
            }
            other @ (Packet::FirstFragment(_)
            | Packet::Fragment(_)
            | Packet::IcmpError(_)
            | Packet::EchoRequest { .. }
            | Packet::WhoHas { .. }
            | Packet::Other { .. }
            | Packet::OtherHost
            | Packet::Malformed) => self.local(ctx, work.source.mac(), other),
        }
    }

    /// TCP: a known flow whose packet is more than one more, a new connection, or one that arrives
    /// mid-stream.
    fn tcp(
        &mut self,
        ctx: &BurstContext<'_>,
        work: &Work,
        key: &FlowKey,
        tcp: TcpFields,
    ) -> Decision {
        if let Some(Found { id, backend }) = self.flows.find(work.hash, key, ctx.now) {
            let last = self.flows.get(id).and_then(|flow| flow.last_ack);
            let transition = self.flows.observe(id, Some(tcp), ctx.now);
            self.count_acked(id, last);
            if transition.is_none() && ctx.snapshot.next_hop(backend).usable {
                return Ok(backend);
            }
            if let Some(decision) = self.changed(ctx, (id, key), transition, (work, tcp)) {
                return decision;
            }
        }
        if tcp.opens() {
            self.open_tcp(ctx, work, key)
        } else {
            self.resume_tcp(ctx, work, key, tcp)
        }
    }

    /// Counts what a packet of the flow acknowledged beyond `last`.
    fn count_acked(&self, id: FlowId, last: Option<u32>) {
        if let Some((flow, last)) = self.flows.get(id).zip(last) {
            let acked = flow::acked(last, flow.last_ack.unwrap_or(last));
            self.counters.backend(flow.backend).acked.add_signed(acked);
        }
    }

    /// UDP: the first packets of a flow, or one whose backend cannot be reached any more.
    fn udp(&mut self, ctx: &BurstContext<'_>, work: &Work, key: &FlowKey) -> Decision {
        if let Some(Found { id, backend }) = self.flows.find(work.hash, key, ctx.now) {
            if ctx.snapshot.next_hop(backend).usable {
                self.flows.observe(id, None, ctx.now);
                return Ok(backend);
            }
            // UDP has nothing to reset: the flow starts anew on a backend that can be reached.
            self.let_go(ctx.now, id);
        }
        self.open_udp(ctx, work, key)
    }

    /// Checks the lease, and that the frame would not go back to its sender, and counts. The next
    /// hop that the frame leaves by, or why it does not.
    fn settle<'a>(
        &self,
        ctx: &BurstContext<'a>,
        len: usize,
        sender: Mac,
        decision: Decision,
    ) -> Result<&'a NextHop, Verdict> {
        let verdict = match decision {
            Ok(backend) => {
                let next_hop = ctx.snapshot.next_hop(backend);
                if next_hop.mac() == sender {
                    Verdict::Drop(DropReason::Loop)
                } else if !ctx.active(next_hop.instance) {
                    Verdict::Drop(DropReason::Inactive)
                } else {
                    let to_backend = self.counters.backend(backend);
                    to_backend.packets.add(1);
                    to_backend.bytes.add(len as u64);
                    let to_service = self.counters.service(next_hop.service);
                    to_service.packets.add(1);
                    to_service.bytes.add(len as u64);
                    return Ok(next_hop);
                }
            }
            Err(verdict) => verdict,
        };
        if let Verdict::Drop(reason) = verdict {
            self.counters.dropped(reason).add(1);
        }
        Err(verdict)
    }

    /// Work between bursts: sweeps the flow table once per [`SWEEP_PERIOD`], a bounded piece at a
    /// time, and lets unconfirmed choices fade. A new snapshot is compared with all flows within
    /// [`COMPARE_PERIOD`].
    pub fn housekeep(&mut self, now: Tick, snapshot: &Snapshot) {
        let since = now.saturating_since(self.swept);
        if since < SWEEP_STEP {
            return;
        }
        self.swept = now;
        if self.compared != snapshot.generation {
            (self.compared, self.to_compare) = (snapshot.generation, self.flows.buckets());
        }
        let period = if self.to_compare > 0 { COMPARE_PERIOD } else { SWEEP_PERIOD };
        let share = self.flows.buckets() as u128 * since.as_nanos() / period.as_nanos();
        let most = if self.to_compare > 0 { COMPARE_MAX } else { SWEEP_MAX };
        let buckets = usize::try_from(share).unwrap_or(usize::MAX).clamp(1, most);
        self.sweep(now, snapshot, buckets);
        if now >= self.next_decay {
            self.counters.decay_half_open();
            self.next_decay = now + self.decay_interval;
        }
    }

    fn sweep(&mut self, now: Tick, snapshot: &Snapshot, buckets: usize) {
        let Self { flows, shared, counters, to_compare, .. } = self;
        let memory = Memory::new(shared, snapshot, *to_compare > 0, now);
        *to_compare = to_compare.saturating_sub(buckets);
        let mut ended = |ended| end_flow(shared, counters, now, &ended);
        flows.sweep_and_visit(now, buckets, &mut ended, &mut |key, flow| memory.keep(key, flow));
    }

    /// Ends every flow: the worker stops for good.
    pub fn end_all_flows(&mut self, now: Tick) {
        let Self { flows, shared, counters, .. } = self;
        flows.clear(now, &mut |ended| end_flow(shared, counters, now, &ended));
    }

    /// A flow that moved here from another worker, which should forget it; each is announced once.
    #[inline]
    pub fn next_moved(&mut self) -> Option<FlowKey> {
        self.moved.pop()
    }

    /// Another worker has taken this flow over.
    pub fn forget(&mut self, key: &FlowKey, now: Tick) {
        let hash = self.flows.hash(key);
        if let Some(found) = self.flows.find(hash, key, now) {
            self.let_go(now, found.id);
        }
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder")
            .field("port", &self.port)
            .field("flows", &self.flows.len())
            .finish_non_exhaustive()
    }
}

/// A frame that was not sent to our MAC: a port in promiscuous mode sees it, or the switch does not
/// know the destination. Only who asks all hosts for an address asks us as well.
#[cold]
fn parse_stray(frame: &[u8]) -> Packet {
    let packet = packet::parse(frame);
    let is_question = matches!(packet, Packet::WhoHas { .. }) && packet::is_sent_to_group(frame);
    if is_question || packet == Packet::Malformed { packet } else { Packet::OtherHost }
}

/// A frame that we have sent ourselves came back.
fn refuse_own(ctx: &BurstContext<'_>, source: Mac) -> Result<(), Verdict> {
    match ctx.snapshot.guard.sender(source) {
        Sender::Own => drop_for(DropReason::Loop),
        Sender::Client | Sender::Backend => Ok(()),
    }
}

fn drop_for<T>(reason: DropReason) -> Result<T, Verdict> {
    Err(Verdict::Drop(reason))
}

/// Settles the accounts of a flow that is gone. One that had to make room leaves its choice behind:
/// it may go on.
fn end_flow(shared: &SharedTables, counters: &WorkerCounters, now: Tick, ended: &EndedFlow) {
    counters.backend(ended.backend).flows(ended.state).add(-1);
    let (key, backend) = (shared.pending.flow_key(&ended.key), ended.backend);
    match ended.state {
        FlowState::Opening | FlowState::Closing if ended.evicted => {
            shared.pending.choose_or_join(key, now, || Some(backend), |other| other == backend);
        }
        FlowState::Udp if ended.evicted => {
            shared.pending.hold(key, backend, remember::EVICTED_UDP, now);
        }
        FlowState::Opening
        | FlowState::Closing
        | FlowState::Udp
        | FlowState::PickedUp
        | FlowState::Established
        | FlowState::Reset => {}
    }
    if let Some(template) = &ended.template {
        shared.persistence.end(template, ended.at);
    }
}

/// What the third pass leaves alone: it only forwards.
const UNDECIDED: Verdict = Verdict::HandOver;

/// An expired flow is noticed at the latest after this, if no packet does it before.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// The same when there is a new snapshot: its backends' flows have to be remembered in other ways
/// before they need it.
const COMPARE_PERIOD: Duration = Duration::from_secs(1);
/// The sweep's smallest step.
const SWEEP_STEP: Duration = Duration::from_millis(1);
/// Buckets looked at in one step, most of whose flows are looked at in no other table.
const SWEEP_MAX: usize = 1024;
/// The same when each flow's template is looked up: below 100 µs.
const COMPARE_MAX: usize = 64;

#[cfg(test)]
mod tests;
