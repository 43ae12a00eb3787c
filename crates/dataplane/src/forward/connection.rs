//! New connections, and what becomes of a known flow whose packet is more than one more.
//!
//! Only a SYN (for UDP: a first packet) schedules. What it chose is pending; the client's next
//! packet makes a flow entry, and once its numbers advance, the flow is proven and joins or makes
//! the source's template. Whatever else misses the flow table takes its own SYN's choice, else the
//! template, else its source's pending choice, else the deterministic hash that all workers and both
//! nodes share: it is a flow that was picked up.
//!
//! With persistence a SYN leaves its choice twice: for its source, whose other connections join
//! it, and for its own 5-tuple. The source's may be replaced while handshakes are under way (its
//! backend is suspected, perhaps falsely): their ACKs and their retransmissions still go where
//! their SYNs went. Where a flood of SYNs overwrote one of the two, the ACK takes the other.
//!
//! A connection for which the flow table has no room is known by its own choice alone, which its
//! packets renew.

use super::service_match::ServiceMatch;
use super::{BurstContext, Decision, Forwarder, UNDECIDED, Work};
use crate::addr::Mac;
use crate::flow::{FlowHash, FlowId, Membership, NewFlow, Origin, TableFull, Transition};
use crate::key::{FlowKey, Protocol};
use crate::packet::{Packet, TcpFields};
use crate::pending::Choice;
use crate::scheduler::Load;
use crate::slots::BackendSlot;
use crate::snapshot::{Snapshot, Suspicion};
use crate::tick::Tick;
use crate::verdict::Verdict;

impl Forwarder {
    /// Asks for what the pending table holds of the SYNs that are undecided, so that the cache misses of
    /// a burst of new connections overlap. They are waited for one after the other in
    /// [`choose`](Self::choose). Other packets need too little of it for that to pay.
    pub(super) fn prefetch_choices(
        &self,
        ctx: &BurstContext<'_>,
        work: &[Work],
        verdicts: &[Verdict],
    ) {
        for (work, verdict) in work.iter().zip(verdicts) {
            if *verdict == UNDECIDED
                && let Packet::Tcp(key, tcp) = &work.packet
                && tcp.opens()
                && let Some(service) = ctx.snapshot.service(key.dst, key.protocol, key.dst_port)
            {
                let matched = ServiceMatch::of(&self.shared, service, key);
                self.shared.pending.prefetch(matched.connection);
                self.shared.pending.prefetch(matched.pending);
            }
        }
    }

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
        let backend = self.flows.get(id)?.backend;
        self.flows.came_from(id, work.source.untagged().unwrap_or_default());
        if transition == Some(Transition::NewConnection) {
            self.let_go(ctx.now, id);
            return None;
        }
        if let Some(transition) = transition {
            self.book(ctx, (id, key), transition, tcp);
        }
        if let Some(Transition::Proven { picked_up }) = transition {
            self.prove(ctx, (id, key), backend, picked_up);
            if tcp.ends()
                && let Some(end) = self.flows.observe(id, Some(tcp), ctx.now)
            {
                self.book(ctx, (id, key), end, tcp);
            }
        }
        let next_hop = ctx.snapshot.next_hop(backend);
        // A client that wants to connect is let go to another backend, whatever it had here; not
        // because of a suspicion, for the SYN may be as forged as that.
        let decided = next_hop.avoid_existing_clients && next_hop.suspicion == Suspicion::None;
        if tcp.opens() && (decided || !next_hop.usable) {
            self.let_go(ctx.now, id);
            return None;
        }
        if next_hop.usable {
            return Some(Ok(backend));
        }
        let decision = self.refuse(ctx, backend, key, tcp);
        if decision == Err(Verdict::Answer) {
            self.let_go(ctx.now, id);
        }
        Some(decision)
    }

    /// Counts the flow in its new state, and tells its template.
    fn book(
        &self,
        ctx: &BurstContext<'_>,
        (id, key): (FlowId, &FlowKey),
        transition: Transition,
        tcp: TcpFields,
    ) {
        let Some(flow) = self.flows.get(id) else { return };
        let counters = self.counters.backend(flow.backend);
        match transition {
            Transition::Proven { .. } => {
                counters.unproven.add(-1);
                counters.active.add(1);
            }
            Transition::Ended => {
                counters.active.add(-1);
                counters.inactive.add(1);
                if let Some(template) = &flow.template {
                    self.shared.persistence.end(template, ctx.now);
                }
                if tcp.acknowledges() {
                    self.forget_choice(ctx, key);
                } else {
                    self.doubt_end(ctx, key, flow.backend);
                }
            }
            Transition::Abandoned => {
                counters.unproven.add(-1);
                counters.inactive.add(1);
                self.forget_choice(ctx, key);
            }
            Transition::Trailing => {
                if let Some(template) = &flow.template {
                    self.shared.persistence.touch(template, ctx.now);
                }
            }
            Transition::Repeated | Transition::NewConnection => {}
        }
    }

    /// A RST that acknowledges nothing ended the flow, which any host may have sent: if the client goes
    /// on all the same, it finds its backend without the entry, which gives way soon.
    fn doubt_end(&self, ctx: &BurstContext<'_>, key: &FlowKey, backend: BackendSlot) {
        let pending = &self.shared.pending;
        pending.hold(pending.flow_key(key), backend, self.timeouts.established, ctx.now);
    }

    /// A new connection on this 5-tuple is to be a new choice.
    fn forget_choice(&self, ctx: &BurstContext<'_>, key: &FlowKey) {
        let pending = &self.shared.pending;
        pending.take(pending.flow_key(key), ctx.now);
    }

    /// A flow turned out to be a connection. It joins its source's template, or makes one; if it was
    /// picked up, it only joins the one that is there, if that names its backend.
    fn prove(
        &mut self,
        ctx: &BurstContext<'_>,
        (id, key): (FlowId, &FlowKey),
        backend: BackendSlot,
        picked_up: bool,
    ) {
        let Ok(matched) = ServiceMatch::find(&self.shared, ctx.snapshot, key) else { return };
        // Other workers may hold an entry of a flow that moved.
        if picked_up && ctx.snapshot.workers.len() > 1 && !self.moved.is_full() {
            self.moved.push(*key);
        }
        let member = if picked_up {
            self.attach(ctx, &matched, backend)
        } else {
            self.join(ctx, &matched, backend)
        };
        if let Some((member, (key, _))) = member.zip(matched.template)
            && !self.flows.join(id, member)
        {
            let template = crate::TemplateRef { key, epoch: member.epoch };
            self.shared.persistence.end(&template, ctx.now);
        }
        if !picked_up {
            self.settle_choice(ctx, &matched, backend, member.is_some());
        }
    }

    /// Flow and template remember the choice now: once they forget it, so must the node. A choice of
    /// another backend is that of other handshakes.
    fn settle_choice(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        backend: BackendSlot,
        is_member: bool,
    ) {
        let pending = &self.shared.pending;
        let name = matched.name(backend);
        let chosen = || pending.lookup(matched.pending, ctx.now) == Some(name);
        if matched.template.is_none() && chosen() {
            self.counters.backend(backend).half_open.add(-1);
        } else if is_member && chosen() {
            pending.take(matched.pending, ctx.now);
            self.counters.backend(backend).half_open.add(-1);
        }
        let alone = ctx.snapshot.workers.len() < 2;
        let placed = || matched.placed_by_hash(ctx.snapshot) == Some(backend);
        if is_member || matched.template.is_none() && (alone || placed()) {
            pending.take(matched.connection, ctx.now);
        } else {
            // Other workers have to know, until the next sweep tells them.
            pending.hold(matched.connection, backend, super::remember::HELD, ctx.now);
        }
    }

    fn attach(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        backend: BackendSlot,
    ) -> Option<Membership> {
        let (template, prefix_len) = matched.template?;
        let name = matched.name(backend);
        let epoch = self.shared.persistence.attach(&template, name, ctx.now)?;
        Some(Membership { epoch, prefix_len })
    }

    pub(super) fn let_go(&mut self, now: Tick, id: FlowId) {
        if let Some(ended) = self.flows.remove(id, now) {
            super::end_flow(&self.shared, &self.counters, now, &ended);
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

    /// The first packets of a UDP flow: the first one chooses, the second one enters the flow.
    #[cold]
    #[inline(never)]
    pub(super) fn open_udp(
        &mut self,
        ctx: &BurstContext<'_>,
        work: &Work,
        key: &FlowKey,
    ) -> Decision {
        let matched = ServiceMatch::find(&self.shared, ctx.snapshot, key)?;
        let matched = matched.from(work.source.mac()).lasting(self.timeouts.udp);
        let pending = &self.shared.pending;
        let of_source = pending.lookup(matched.pending, ctx.now);
        let known = [
            pending.lookup(matched.connection, ctx.now),
            of_source.and_then(|name| matched.own(ctx.snapshot, name)),
        ];
        let Choice { backend, .. } = self.choose(ctx, &matched)?;
        if known.contains(&Some(backend)) {
            self.enter_udp(ctx, &matched, (work.hash, key), backend);
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
        let resent = pending.find(matched.connection, ctx.now).is_some();
        let returns = |backend: &BackendSlot| {
            let doubted = matched.suspicion(snapshot, *backend) == Suspicion::Syns;
            let goes_back = matched.is_sender(snapshot, *backend);
            matched.returns_to(snapshot, *backend) || doubted && !resent && !goes_back
        };
        let returning = self.template_of(ctx, matched).filter(returns);
        if returning.is_none() && matched.is_held_elsewhere(&self.shared, snapshot, ctx.now) {
            return self.choose_apart(ctx, matched);
        }
        let own = |name| matched.own(snapshot, name);
        let choice = pending.choose_or_join(
            matched.pending,
            ctx.now,
            || {
                let choice = returning.or_else(|| self.schedule(ctx, matched))?;
                Some(matched.name(choice))
            },
            |name| match returning {
                Some(returning) => own(name) == Some(returning),
                None => own(name).is_some_and(|backend| matched.eligible(snapshot, backend)),
            },
        );
        let found = choice.and_then(|choice| Some((own(choice.backend)?, choice.fresh)));
        let Some((mut backend, fresh)) = found else {
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

    /// The source's template or choice names a member of the group that takes its connections
    /// elsewhere, but not here: this connection goes where the source's hash leads in this service, and
    /// what the group remembers stays.
    fn choose_apart(
        &mut self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Result<Choice, Verdict> {
        let choice = self.shared.pending.choose_or_join(
            matched.connection,
            ctx.now,
            || matched.stable(ctx.snapshot),
            |backend| matched.eligible(ctx.snapshot, backend),
        );
        choice.ok_or_else(|| self.turn_away(ctx, matched))
    }

    /// A retransmission follows its SYN while its backend takes new connections, whatever its
    /// source's template or pending choice says by now.
    fn again(&self, ctx: &BurstContext<'_>, matched: &ServiceMatch<'_>) -> Option<Choice> {
        matched.template?;
        let renew = |key, valid: &dyn Fn(BackendSlot) -> bool| {
            self.shared.pending.choose_or_join(key, ctx.now, || None, valid)
        };
        // What is held is the choice of a connection before this one.
        let before = self.shared.pending.find(matched.connection, ctx.now)?;
        if before.held && matched.service.key.protocol == Protocol::Tcp {
            return None;
        }
        let own = renew(matched.connection, &|backend| matched.eligible(ctx.snapshot, backend))?;
        // The source's choice lasts as long as the handshakes that it is for.
        renew(matched.pending, &|name| name == matched.name(own.backend));
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

    /// The backend that the source's template names.
    pub(super) fn template_of(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Option<BackendSlot> {
        let (key, _) = matched.template.as_ref()?;
        let template = self.shared.persistence.get(key, ctx.now)?;
        matched.own(ctx.snapshot, template.backend)
    }

    /// Enters a flow of UDP, which lives from here on, and has it join its source's template.
    fn enter_udp(
        &mut self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        flow: (FlowHash, &FlowKey),
        backend: BackendSlot,
    ) {
        let member = self.join(ctx, matched, backend);
        let new = NewFlow {
            service: matched.owner(),
            backend,
            origin: Origin::Udp,
            tcp: None,
            // UDP has nothing to reset.
            client: Mac::default(),
            template: member,
        };
        if self.insert(ctx, flow, &new).is_ok() {
            self.settle_choice(ctx, matched, backend, member.is_some());
        } else if let Some((member, (key, _))) = member.zip(matched.template) {
            let template = crate::TemplateRef { key, epoch: member.epoch };
            self.shared.persistence.end(&template, ctx.now);
        }
    }

    /// Enters a flow and counts it.
    pub(super) fn insert(
        &mut self,
        ctx: &BurstContext<'_>,
        (hash, key): (FlowHash, &FlowKey),
        new: &NewFlow,
    ) -> Result<(), TableFull> {
        let Self { flows, shared, counters, .. } = self;
        let mut ended = |ended| super::end_flow(shared, counters, ctx.now, &ended);
        let id = flows.insert(hash, key, new, ctx.now, &mut ended).inspect_err(|_| {
            counters.totals.flow_table_full.add(1);
        })?;
        let to_backend = counters.backend(new.backend);
        to_backend.connections.add(1);
        if let Some(flow) = flows.get(id) {
            to_backend.flows(flow.state).add(1);
        }
        Ok(())
    }

    fn join(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        backend: BackendSlot,
    ) -> Option<Membership> {
        let (key, prefix_len) = matched.template?;
        let timeout = matched.service.persistence?.timeout;
        // A template whose backend takes no new sources gives way to the new choice.
        let persistence = &self.shared.persistence;
        let old = persistence.get(&key, ctx.now).map(|template| template.backend);
        let replace = old.is_some_and(|old| matched.gives_way(ctx.snapshot, old));
        let joined = persistence.join(&key, matched.name(backend), timeout, replace, ctx.now);
        joined.epoch().map(|epoch| Membership { epoch, prefix_len })
    }
}

/// A backend's connections over all workers. Choices whose connection is not proven yet count as
/// connections: else a burst of SYNs would all go to the one that was emptiest before it. Flows that
/// are not proven do not count: any host can make any number of them.
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
