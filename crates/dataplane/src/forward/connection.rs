//! Frames without a usable flow: new connections, and flows that arrive mid-stream.
//!
//! Only a SYN (for UDP: a first packet) schedules. What it chose is pending until the client's next
//! packet proves that the client exists; only then is there a flow entry and a template. Whatever
//! else misses the flow table takes its own SYN's choice, else the template, else its source's
//! pending choice, else the deterministic hash that all workers and both nodes share.
//!
//! With persistence a SYN leaves its choice twice: for its source, whose other connections join
//! it, and for its own 5-tuple. The source's may be replaced while handshakes are under way (its
//! backend is suspected, perhaps falsely): their ACKs and their retransmissions still go where
//! their SYNs went. Where a flood of SYNs overwrote one of the two, the ACK takes the other.

use std::sync::Arc;

use super::reset::unreachable_for;
use super::{BurstContext, Decision, Forwarder, SharedTables, Work, drop_for};
use crate::addr::Mac;
use crate::flow::{FlowHash, FlowId, Found, Membership, NewFlow, Origin, Transition};
use crate::key::{FlowKey, Protocol};
use crate::packet::TcpFields;
use crate::pending::{Choice, PendingKey};
use crate::persistence::TemplateKey;
use crate::scheduler::{self, Load};
use crate::slots::BackendSlot;
use crate::snapshot::{Service, Snapshot};
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

/// Who asks: the service, and the source as the service tells sources apart.
pub(super) struct ServiceMatch<'a> {
    pub(super) service: &'a Arc<Service>,
    /// The template's key and prefix length; `None` without persistence.
    pub(super) template: Option<(TemplateKey, u8)>,
    pub(super) pending: PendingKey,
    /// The 5-tuple's own: where its SYN went, whatever became of its source's choice since. Without
    /// persistence it is the same as `pending`.
    connection: PendingKey,
    /// Input of the scheduler: of the source prefix, else of the 5-tuple.
    pub(super) hash: u64,
    /// The station that the frame came from: a new connection does not go back there.
    sender: Mac,
}

impl<'a> ServiceMatch<'a> {
    /// Finds the service that `key` goes to.
    pub(super) fn find(
        tables: &SharedTables,
        snapshot: &'a Snapshot,
        key: &FlowKey,
    ) -> Result<Self, Verdict> {
        match snapshot.service(key.dst, key.protocol, key.dst_port) {
            Some(service) => Ok(Self::of(tables, service, key)),
            None if snapshot.vip(key.dst).is_some() => drop_for(DropReason::NotVipPort),
            None => drop_for(DropReason::NotVip),
        }
    }

    /// The match of a known service.
    pub(super) fn of(tables: &SharedTables, service: &'a Arc<Service>, key: &FlowKey) -> Self {
        let connection = tables.pending.flow_key(key);
        match &service.persistence {
            Some(persistence) => {
                let len = persistence.prefix_len(key.src);
                let source = key.src.masked(len);
                Self {
                    service,
                    template: Some((TemplateKey { service: service.slot, source }, len)),
                    pending: tables.pending.source_key(service.slot, source),
                    connection,
                    hash: scheduler::source_hash(source),
                    sender: Mac::default(),
                }
            }
            None => Self {
                service,
                template: None,
                pending: connection,
                connection,
                hash: scheduler::flow_hash(key),
                sender: Mac::default(),
            },
        }
    }

    /// The same, of a frame that came from this station.
    pub(super) const fn from(self, sender: Mac) -> Self {
        Self { sender, ..self }
    }

    /// Whether the frame came from the backend itself.
    fn is_sender(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        snapshot.next_hop(backend).mac() == self.sender
    }

    /// The deterministic choice: that of the scheduler's hash, unless the frame came from there.
    pub(super) fn stable(&self, snapshot: &Snapshot) -> Option<BackendSlot> {
        self.service.scheduler.stable_but(self.hash, &|slot| self.is_sender(snapshot, slot))
    }

    /// Whether the backend belongs to this service and may take a new connection.
    pub(super) fn eligible(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let next_hop = snapshot.next_hop(backend);
        next_hop.eligible
            && next_hop.service == self.service.slot
            && !self.is_sender(snapshot, backend)
    }

    /// Whether the backend belongs to this service and can be reached.
    pub(super) fn usable(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let next_hop = snapshot.next_hop(backend);
        next_hop.usable && next_hop.service == self.service.slot
    }

    /// Whether the backend belongs to this service and is down: what went to it is lost.
    fn lost(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let next_hop = snapshot.next_hop(backend);
        next_hop.service == self.service.slot
            && unreachable_for(next_hop) == DropReason::BackendDown
    }

    /// Whether a client whose template names this backend goes there with a new connection.
    fn returns_to(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let sticky = self.service.persistence.is_some_and(|p| p.sticky_when_drained);
        if sticky {
            self.usable(snapshot, backend)
                && !snapshot.next_hop(backend).avoid_existing_clients
                && !self.is_sender(snapshot, backend)
        } else {
            self.eligible(snapshot, backend)
        }
    }
}

/// Where a mid-stream packet's backend was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    /// The pending choice of its SYN: this is the handshake's ACK.
    Pending,
    /// The same, and its source's template names another backend.
    Detour,
    /// The template: the flow came from another queue, or its pending choices were overwritten.
    Template,
    /// None: placed by the deterministic hash.
    None,
}

impl Forwarder {
    /// A known flow whose packet was more than one more: `None` means "treat it as unknown".
    #[cold]
    #[inline(never)]
    pub(super) fn changed(
        &mut self,
        ctx: &BurstContext<'_>,
        (id, key): (FlowId, &FlowKey),
        transition: Option<Transition>,
        (work, tcp): (&Work, TcpFields),
    ) -> Option<Decision> {
        let flow = self.flows.get(id)?;
        self.flows.came_from(id, work.source.untagged().unwrap_or_default());
        let next_hop = ctx.snapshot.next_hop(flow.backend);
        match transition {
            Some(Transition::Confirmed) => self.attach(ctx, id, key, flow.backend),
            Some(Transition::Ended) => {
                let counters = self.counters.backend(flow.backend);
                counters.active.add(-1);
                counters.inactive.add(1);
                if let Some(template) = &flow.template {
                    self.shared.persistence.end(template, ctx.now);
                }
            }
            Some(Transition::Trailing) => {
                if let Some(template) = &flow.template {
                    self.shared.persistence.touch(template, ctx.now);
                }
            }
            Some(Transition::NewConnection) => {
                self.let_go(ctx.now, id);
                return None;
            }
            Some(Transition::Repeated) | None => {}
        }
        // A client that wants to connect is let go to another backend, whatever it had here.
        if tcp.opens() && (next_hop.avoid_existing_clients || !next_hop.usable) {
            self.let_go(ctx.now, id);
            return None;
        }
        if next_hop.usable {
            return Some(Ok(flow.backend));
        }
        let decision = self.refuse(ctx, flow.backend, key, tcp);
        if decision == Err(Verdict::Answer) {
            self.let_go(ctx.now, id);
        }
        Some(decision)
    }

    /// A flow that was picked up turned out to be a connection: it holds its source's template, if
    /// that names its backend.
    fn attach(&mut self, ctx: &BurstContext<'_>, id: FlowId, key: &FlowKey, backend: BackendSlot) {
        let Ok(matched) = ServiceMatch::find(&self.shared, ctx.snapshot, key) else { return };
        let Some((template, prefix_len)) = matched.template else { return };
        let epoch = self.shared.persistence.attach(&template, backend, ctx.now);
        if let Some(epoch) = epoch
            && !self.flows.join(id, Membership { epoch, prefix_len })
        {
            let template = crate::TemplateRef { key: template, epoch };
            self.shared.persistence.end(&template, ctx.now);
        }
    }

    pub(super) fn let_go(&mut self, now: Tick, id: FlowId) {
        if let Some(ended) = self.flows.remove(id, now) {
            super::end_flow(&self.shared, &self.counters, &ended);
        }
    }

    /// A SYN: the template's backend, else a pending choice, else the scheduler's.
    #[cold]
    #[inline(never)]
    pub(super) fn open_tcp(
        &mut self,
        ctx: &BurstContext<'_>,
        work: &Work,
        key: &FlowKey,
    ) -> Decision {
        let matched = ServiceMatch::find(&self.shared, ctx.snapshot, key)?;
        let matched = matched.from(work.source.mac());
        let Choice { backend, fresh } = self.choose(ctx, &matched)?;
        if ctx.active(matched.service.instance) {
            let noted = self.counters.watch(backend).attempt(matched.connection.tag(), ctx.now);
            self.counters.backend(backend).attempts.add((noted || fresh).into());
        }
        Ok(backend)
    }

    /// The first packets of a UDP flow: the first one chooses, the second one confirms.
    #[cold]
    #[inline(never)]
    pub(super) fn open_udp(
        &mut self,
        ctx: &BurstContext<'_>,
        work: &Work,
        key: &FlowKey,
    ) -> Decision {
        let matched = ServiceMatch::find(&self.shared, ctx.snapshot, key)?;
        let (hash, matched) = (work.hash, matched.from(work.source.mac()));
        let known = [matched.connection, matched.pending]
            .map(|choice| self.shared.pending.lookup(choice, ctx.now));
        let Choice { backend, .. } = self.choose(ctx, &matched)?;
        if known.contains(&Some(backend)) {
            // UDP has nothing to reset.
            let (last_ack, client) = (None, Mac::default());
            let flow = Newcomer { hash, key, backend, origin: Origin::Udp, last_ack, client };
            self.enter(ctx, &matched, &flow);
        }
        Ok(backend)
    }

    fn choose(
        &mut self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Result<Choice, Verdict> {
        let (snapshot, pending) = (ctx.snapshot, &self.shared.pending);
        if let Some(choice) = self.again(ctx, matched) {
            return Ok(choice);
        }
        let returns = |backend: &BackendSlot| matched.returns_to(snapshot, *backend);
        let returning = self.template_of(ctx, matched).filter(returns);
        let choice = pending.choose_or_join(
            matched.pending,
            ctx.now,
            || returning.or_else(|| self.schedule(ctx, matched)),
            |backend| match returning {
                Some(returning) => backend == returning,
                None => matched.eligible(snapshot, backend),
            },
        );
        let Some(Choice { mut backend, fresh }) = choice else {
            return Err(self.turn_away(ctx, matched));
        };
        if fresh {
            self.counters.backend(backend).half_open.add(1);
            // Between the two look-ups another worker may have turned the pending choice into a
            // template: then that is where this client goes.
            backend = self.template_of(ctx, matched).filter(returns).unwrap_or(backend);
        }
        if matched.template.is_some() {
            let went = || Some(backend);
            pending.choose_or_join(matched.connection, ctx.now, went, |other| other == backend);
        }
        Ok(Choice { backend, fresh })
    }

    /// A retransmission follows its SYN while its backend takes new connections, whatever its
    /// source's template or pending choice says by now.
    fn again(&self, ctx: &BurstContext<'_>, matched: &ServiceMatch<'_>) -> Option<Choice> {
        matched.template?;
        let renew = |key, valid: &dyn Fn(BackendSlot) -> bool| {
            self.shared.pending.choose_or_join(key, ctx.now, || None, valid)
        };
        let own = renew(matched.connection, &|backend| matched.eligible(ctx.snapshot, backend))?;
        // The source's choice lasts as long as the handshakes that it is for.
        renew(matched.pending, &|backend| backend == own.backend);
        Some(own)
    }

    /// A backend for a source without history. When no template will remember it, that is one that
    /// needs no memory.
    fn schedule(&self, ctx: &BurstContext<'_>, matched: &ServiceMatch<'_>) -> Option<BackendSlot> {
        let scheduler = &matched.service.scheduler;
        if matched.template.is_some() && !self.shared.persistence.has_room(ctx.now) {
            return matched.stable(ctx.snapshot);
        }
        let choice = scheduler.choose(matched.hash, &|slot| load(ctx.snapshot, slot))?;
        let back = matched.is_sender(ctx.snapshot, choice);
        if back { matched.stable(ctx.snapshot) } else { Some(choice) }
    }

    /// A packet that is not a SYN and belongs to no flow of this worker.
    #[cold]
    #[inline(never)]
    pub(super) fn resume_tcp(
        &mut self,
        ctx: &BurstContext<'_>,
        work: &Work,
        key: &FlowKey,
        tcp: TcpFields,
    ) -> Decision {
        let matched = ServiceMatch::find(&self.shared, ctx.snapshot, key)?;
        let matched = matched.from(work.source.mac());
        let Some((backend, history)) = self.history(ctx, &matched) else {
            self.counters.service(matched.service.slot).dropped.add(1);
            return drop_for(DropReason::NoBackend);
        };
        if !matched.usable(ctx.snapshot, backend) {
            return self.refuse(ctx, backend, key, tcp);
        }
        // The last packet of a connection must not start a flow, but it ends one that came from
        // another queue. What acknowledges nothing is of no connection that was ever established.
        if (tcp.ends() && history != History::Template) || !(tcp.ends() || tcp.acknowledges()) {
            return Ok(backend);
        }
        if matches!(history, History::Pending | History::Detour) {
            self.counters.watch(backend).complete(ctx.now);
        }
        let origin = match history {
            History::None => Origin::PickUp,
            History::Pending | History::Detour | History::Template => Origin::Handshake,
        };
        let (hash, client) = (work.hash, work.source.untagged().unwrap_or_default());
        let flow = Newcomer { hash, key, backend, origin, last_ack: Some(tcp.ack), client };
        self.enter(ctx, &matched, &flow);
        // A detour may be remembered for longer than its handshake takes.
        let moved = matches!(history, History::Detour | History::Template);
        if moved && !self.moved.is_full() {
            self.moved.push(*key);
        }
        if tcp.ends()
            && let Some(Found { id, .. }) = self.flows.find(hash, key, ctx.now)
        {
            let transition = self.flows.observe(id, Some(tcp), ctx.now);
            let changed = self.changed(ctx, (id, key), transition, (work, tcp));
            return changed.unwrap_or(Ok(backend));
        }
        Ok(backend)
    }

    /// The backend of a source with a past; the deterministic hash for one without. It may be one
    /// that is lost: then so is whatever the packet belongs to.
    fn history(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Option<(BackendSlot, History)> {
        let snapshot = ctx.snapshot;
        let template = self.template_of(ctx, matched);
        let lookup = |key| self.shared.pending.lookup(key, ctx.now);
        let own = lookup(matched.connection);
        let found = match (template, own.or_else(|| lookup(matched.pending))) {
            (Some(template), Some(pending))
                if template == pending || own.is_none() && !matched.usable(snapshot, template) =>
            {
                Some((pending, History::Pending))
            }
            // A SYN passed over the template of a backend that took nobody new: so does its ACK.
            (Some(_), Some(pending)) if own.is_some() => Some((pending, History::Detour)),
            (Some(template), _) => Some((template, History::Template)),
            (None, Some(pending)) => Some((pending, History::Pending)),
            (None, None) => None,
        };
        let known = |backend| matched.usable(snapshot, backend) || matched.lost(snapshot, backend);
        found.filter(|(backend, _)| known(*backend)).or_else(|| {
            let backend = matched.stable(snapshot)?;
            self.counters.totals.picked_up.add(1);
            Some((backend, History::None))
        })
    }

    /// The backend that the source's template names.
    pub(super) fn template_of(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Option<BackendSlot> {
        let (key, _) = matched.template.as_ref()?;
        Some(self.shared.persistence.get(key, ctx.now)?.backend)
    }

    /// Enters a flow, and has it join its source's template.
    fn enter(
        &mut self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        newcomer: &Newcomer<'_>,
    ) {
        let backend = newcomer.backend;
        let template = match newcomer.origin {
            // Nothing proves that such a client exists.
            Origin::PickUp => None,
            Origin::Handshake | Origin::Udp => self.join(ctx, matched, backend),
        };
        let flow = NewFlow {
            service: matched.service.slot,
            backend,
            origin: newcomer.origin,
            last_ack: newcomer.last_ack,
            client: newcomer.client,
            template,
        };
        let Self { flows, shared, counters, .. } = self;
        let mut ended = |ended| super::end_flow(shared, counters, &ended);
        let entered = flows.insert(newcomer.hash, newcomer.key, &flow, ctx.now, &mut ended);
        let to_backend = counters.backend(backend);
        if entered.is_err() {
            counters.totals.flow_table_full.add(1);
            if let (Some(member), Some((key, _))) = (template, matched.template) {
                let template = crate::TemplateRef { key, epoch: member.epoch };
                shared.persistence.end(&template, ctx.now);
            }
            return;
        }
        to_backend.connections.add(1);
        to_backend.active.add(1);
        // Flow and template remember the choice now: once they forget it, so must the node. A choice
        // of another backend is that of other handshakes.
        let remembered = matched.template.is_none() || template.is_some();
        let chosen = || shared.pending.lookup(matched.pending, ctx.now) == Some(backend);
        if remembered && chosen() {
            shared.pending.take(matched.pending, ctx.now);
            to_backend.half_open.add(-1);
        }
        if template.is_some() {
            shared.pending.take(matched.connection, ctx.now);
        }
    }

    fn join(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        backend: BackendSlot,
    ) -> Option<Membership> {
        let (key, prefix_len) = matched.template?;
        let timeout = matched.service.persistence?.timeout;
        // A template whose backend takes nobody new gives way to the new choice.
        let replace = self
            .template_of(ctx, matched)
            .is_some_and(|old| !matched.returns_to(ctx.snapshot, old));
        let joined = self.shared.persistence.join(&key, backend, timeout, replace, ctx.now);
        joined.epoch().map(|epoch| Membership { epoch, prefix_len })
    }
}

/// A flow about to be entered.
struct Newcomer<'a> {
    hash: FlowHash,
    key: &'a FlowKey,
    backend: BackendSlot,
    origin: Origin,
    last_ack: Option<u32>,
    client: Mac,
}

/// A backend's connections over all workers. Choices whose ACK has not come count as connections:
/// else a burst of SYNs would all go to the one that was emptiest before it.
fn load(snapshot: &Snapshot, backend: BackendSlot) -> Load {
    let mut active = 0;
    let mut inactive = 0;
    for worker in &snapshot.workers {
        let counters = worker.counters.backend(backend);
        active += counters.active.value() + counters.half_open.value();
        inactive += counters.inactive.value();
    }
    let clamp = |value: i64| u32::try_from(value.max(0)).unwrap_or(u32::MAX);
    Load { active: clamp(active), inactive: clamp(inactive) }
}

/// Protocol of a service match without ports.
pub(super) fn portless(src: crate::Addr, dst: crate::Addr, protocol: Protocol) -> FlowKey {
    FlowKey { src, dst, src_port: 0, dst_port: 0, protocol }
}
