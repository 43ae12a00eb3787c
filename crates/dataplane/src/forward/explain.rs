//! Where the next packet of a client would go, and why: the packet path itself, run on copies of what
//! the tables say about that client. Nothing that is running changes, nor does a turn of a scheduler.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::service_match::ServiceMatch;
use super::{BurstContext, Forwarder, SharedTables, Work};
use crate::addr::{Addr, Mac};
use crate::counters::WorkerCounters;
use crate::flow::{FlowState, FlowTable, NewFlow, Origin, SeenFlow, Timeouts};
use crate::fragments::FragmentTable;
use crate::key::{FlowKey, Protocol};
use crate::packet::{EthernetSource, Packet, TcpFields};
use crate::pending::PendingTable;
use crate::persistence::{PersistenceTable, TemplateEntry, TemplateKey};
use crate::slots::{BackendSlot, PortId, ServiceSlot};
use crate::snapshot::Snapshot;
use crate::tick::Tick;
use crate::verdict::Verdict;

/// A client's packet, and what is known.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// From the client to the VIP.
    pub key: FlowKey,
    /// The flow that a worker has of it: then the packet is its next one, else the first of a connection.
    pub flow: Option<SeenFlow>,
    /// What workers decide by.
    pub snapshot: &'a Snapshot,
    /// What workers share.
    pub shared: &'a SharedTables,
    /// By instance: until when it is active.
    pub leases: &'a [AtomicU64],
    /// How long flows are remembered.
    pub timeouts: &'a Timeouts,
    /// The time of the packet.
    pub now: Tick,
}

/// What would become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The service that it is for, if any.
    pub service: Option<ServiceSlot>,
    /// The backend, or what else.
    pub outcome: Result<BackendSlot, Verdict>,
    /// What decided, if a backend was found.
    pub because: Option<Because>,
    /// The template of the source.
    pub template: Option<TemplateEntry>,
    /// Where the source's hash leads among the configured members; with `maglev`.
    pub home: Option<BackendSlot>,
}

/// What decides where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Its flow.
    Flow,
    /// The choice of its own SYN, whose handshake is not complete.
    Pending,
    /// The template of its source.
    Template,
    /// The choice of another connection of its source, whose handshake is not complete.
    SourcePending,
    /// The hash, among the configured members.
    Hash,
    /// The hash, past a member that takes no new sources.
    ReSteered,
    /// The scheduler's turn, or loads.
    Scheduler,
}

impl Question<'_> {
    /// Runs the packet path.
    pub fn explain(&self) -> Explanation {
        let Self { key, shared, snapshot, now, .. } = *self;
        let snapshot = snapshot.with_turns_of_its_own(key.dst, key.protocol, key.dst_port);
        let matched = ServiceMatch::find(shared, &snapshot, &key).ok();
        let outcome = self.run(&snapshot, matched.as_ref());
        let template = matched
            .as_ref()
            .and_then(|matched| shared.persistence.entry(&matched.template.as_ref()?.0, now));
        let home = matched.as_ref().and_then(|matched| {
            let scheduler = &matched.service.scheduler;
            scheduler.kind().hashes().then(|| scheduler.home(matched.hash))?
        });
        let because = outcome.ok().zip(matched.as_ref()).map(|(backend, matched)| {
            let template = template.map(|template| template.backend);
            self.because(&snapshot, matched, (backend, template, home))
        });
        let service = matched.map(|matched| matched.service.slot);
        Explanation { service, outcome, because, template, home }
    }

    /// The packet path, on copies.
    fn run(
        &self,
        snapshot: &Snapshot,
        matched: Option<&ServiceMatch<'_>>,
    ) -> Result<BackendSlot, Verdict> {
        let mut forwarder = self.forwarder(matched);
        let acknowledging = self.flow.is_some() && self.key.protocol == Protocol::Tcp;
        if let Some(flow) = &self.flow {
            forwarder.enter(&self.key, flow, self.now);
        }
        let tcp = if acknowledging { SECOND } else { SYN };
        let packet = match self.key.protocol {
            Protocol::Tcp => Packet::Tcp(self.key, tcp),
            Protocol::Udp => Packet::Udp(self.key),
        };
        let hash = forwarder.flows.hash(&self.key);
        let work = Work { packet, hash, source: EthernetSource::default() };
        let ctx = BurstContext { now: self.now, snapshot, leases: self.leases };
        let decision = forwarder.decide(&ctx, &work);
        if let Err(Verdict::Drop(reason)) = decision
            && forwarder.rejects(&ctx, &work.packet, reason)
        {
            return Err(Verdict::Answer);
        }
        forwarder.settle(&ctx, 0, Mac::default(), decision)?;
        decision
    }

    /// A packet path that knows no more than what concerns this client.
    fn forwarder(&self, matched: Option<&ServiceMatch<'_>>) -> Forwarder {
        let timeouts = self.timeouts;
        let full = !self.shared.persistence.is_roomy();
        let persistence = PersistenceTable::new(if full { 1 } else { SMALL }, 0);
        let tables = Arc::new(SharedTables {
            pending: PendingTable::new(SMALL, 0, timeouts.half_open),
            persistence,
            fragments: FragmentTable::new(SMALL, 0),
        });
        if let Some(matched) = matched {
            self.copy(matched, &tables);
        }
        let flows = FlowTable::new(SMALL, 0, timeouts);
        let counters = Arc::new(WorkerCounters::default());
        // Closed ports are answered where the VIP lives.
        let port = self.snapshot.vip(self.key.dst).and_then(|vip| vip.port).unwrap_or(PortId(0));
        Forwarder::new(port, Mac::default(), flows, timeouts, tables, counters)
    }

    /// Copies template and choices.
    fn copy(&self, matched: &ServiceMatch<'_>, tables: &SharedTables) {
        let Self { shared, now, .. } = *self;
        let copy = ServiceMatch::of(tables, matched.service, &self.key);
        if let Some((key, _)) = matched.template
            && let Some(template) = shared.persistence.get(&key, now)
        {
            tables.persistence.join(&key, template.backend, ENOUGH, false, now);
        } else if !shared.persistence.is_roomy() {
            // There is as little room as in the table itself.
            let other = TemplateKey::new(ServiceSlot::NONE, Addr::default(), 0);
            tables.persistence.join(&other, BackendSlot(0), ENOUGH, false, now);
        }
        for (from, to) in [(matched.connection, copy.connection), (matched.pending, copy.pending)] {
            let Some(found) = shared.pending.find(from, now) else { continue };
            if found.held {
                tables.pending.hold(to, found.backend, ENOUGH, now);
            } else {
                tables.pending.choose_or_join(to, now, || Some(found.backend), |_| true);
            }
        }
    }

    fn because(
        &self,
        snapshot: &Snapshot,
        matched: &ServiceMatch<'_>,
        (backend, template, home): (BackendSlot, Option<BackendSlot>, Option<BackendSlot>),
    ) -> Because {
        let own = |name: BackendSlot| matched.own(snapshot, name);
        let pending = |key| self.shared.pending.lookup(key, self.now);
        let is = |found: Option<BackendSlot>| found == Some(backend);
        if is(self.flow.map(|flow| flow.backend)) {
            Because::Flow
        } else if matched.template.is_some() && is(pending(matched.connection)) {
            Because::Pending
        } else if is(template.and_then(own)) {
            Because::Template
        } else if is(pending(matched.pending).and_then(own)) {
            if matched.template.is_some() { Because::SourcePending } else { Because::Pending }
        } else if is(home) {
            Because::Hash
        } else if home.is_some() {
            Because::ReSteered
        } else {
            Because::Scheduler
        }
    }
}

impl Forwarder {
    /// Enters a flow that came as far as this one.
    fn enter(&mut self, key: &FlowKey, flow: &SeenFlow, now: Tick) {
        let is_udp = flow.state == FlowState::Udp;
        let origin = match flow.state {
            FlowState::Udp => Origin::Udp,
            FlowState::PickedUp => Origin::PickUp,
            FlowState::Opening | FlowState::Established | FlowState::Closing | FlowState::Reset => {
                Origin::Handshake
            }
        };
        let new = NewFlow {
            service: ServiceSlot::NONE,
            backend: flow.backend,
            origin,
            tcp: (!is_udp).then_some(FIRST),
            client: Mac::default(),
            template: None,
        };
        let hash = self.flows.hash(key);
        let Ok(id) = self.flows.insert(hash, key, &new, now, &mut |_| ()) else { return };
        let segments: &[TcpFields] = match flow.state {
            FlowState::Udp | FlowState::PickedUp | FlowState::Opening => &[],
            FlowState::Established => &[SECOND],
            FlowState::Closing => &[SECOND, FIN],
            FlowState::Reset => &[SECOND, RST],
        };
        for segment in segments {
            self.flows.observe(id, Some(*segment), now);
        }
    }
}

/// Entries of a table that holds what concerns one client.
const SMALL: usize = 64;
/// How long copies last: until the packet was decided.
const ENOUGH: Duration = Duration::from_secs(600);

const FIRST: TcpFields = TcpFields { flags: 0x10, ack: 1, next: 1 };
const SECOND: TcpFields = TcpFields { flags: 0x10, ack: 2, next: 2 };
const FIN: TcpFields = TcpFields { flags: 0x11, ..SECOND };
const RST: TcpFields = TcpFields { flags: 0x14, ..SECOND };
const SYN: TcpFields = TcpFields { flags: 0x02, ack: 0, next: 0 };
