//! Segments that are no SYN and hit no entry of this worker: the ACK of a handshake, a flow that came
//! from another queue or another node, a connection for which there was no room, or a stray.

use super::service_match::ServiceMatch;
use super::{BurstContext, Decision, Forwarder, SharedTables, Work, drop_for};
use crate::flow::{NewFlow, Origin, TableFull};
use crate::key::FlowKey;
use crate::packet::TcpFields;
use crate::slots::BackendSlot;
use crate::verdict::DropReason;

/// Where a mid-stream packet's backend was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    /// The pending choice of its SYN: this is the handshake's ACK.
    Pending,
    /// The same, and its source's template names another backend.
    Detour,
    /// A choice that is held: the flow came from another queue, or had no room.
    Held,
    /// The template: the flow came from another queue, or its pending choices were overwritten.
    Template,
    /// None: placed by the deterministic hash.
    None,
}

impl Forwarder {
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
        if tcp.ends() {
            self.end_elsewhere(ctx, &matched, key, history);
            return Ok(backend);
        }
        // What acknowledges nothing is of no connection that was ever established.
        if !tcp.acknowledges() {
            return Ok(backend);
        }
        let handshake = matches!(history, History::Pending | History::Detour);
        if handshake {
            self.counters.watch(backend).complete(matched.connection.tag(), ctx.now);
        }
        let new = NewFlow {
            service: matched.owner(),
            backend,
            origin: if handshake { Origin::Handshake } else { Origin::PickUp },
            tcp: Some(tcp),
            client: work.source.untagged().unwrap_or_default(),
            template: None,
        };
        let entered = self.insert(ctx, (work.hash, key), &new);
        let picked_up = new.origin == Origin::PickUp && entered.is_ok();
        if picked_up || entered == Err(TableFull { again: false }) {
            self.hold(ctx, &matched, backend, history);
        }
        Ok(backend)
    }

    /// The last packet of a connection starts no flow, but it ends one that came from another queue,
    /// and the choice of one that had no room.
    fn end_elsewhere(
        &mut self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        key: &FlowKey,
        history: History,
    ) {
        if history == History::Held {
            self.shared.pending.release(matched.connection, ctx.now);
        }
        let moved = matches!(history, History::Held | History::Template);
        if moved && ctx.snapshot.workers.len() > 1 && !self.moved.is_full() {
            self.moved.push(*key);
        }
    }

    /// There is no room for the flow, or its entry may have to make room: its choice is to last as
    /// long as the entry of a connection would, and so is the choice or the template of its source.
    /// Not where nothing but the hash placed it.
    fn hold(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
        backend: BackendSlot,
        history: History,
    ) {
        let SharedTables { pending, persistence, .. } = &*self.shared;
        if history == History::None {
            return;
        }
        pending.hold(matched.connection, backend, self.timeouts.established, ctx.now);
        let Some((key, _)) = matched.template else { return };
        let name = matched.name(backend);
        match persistence.get(&key, ctx.now) {
            Some(template) if template.backend == name => {
                persistence.touch(&crate::TemplateRef { key, epoch: template.epoch }, ctx.now);
            }
            Some(_) => {}
            None => {
                let joined = |other| other == name;
                pending.choose_or_join(matched.pending, ctx.now, || None, joined);
            }
        }
    }

    /// The backend of a source with a past; the deterministic hash for one without. It may be one
    /// that is lost: then so is whatever the packet belongs to.
    fn history(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Option<(BackendSlot, History)> {
        let snapshot = ctx.snapshot;
        let known = |backend| matched.usable(snapshot, backend) || matched.lost(snapshot, backend);
        self.recall(ctx, matched).filter(|(backend, _)| known(*backend)).or_else(|| {
            let backend = matched.stray(snapshot)?;
            self.counters.totals.picked_up.add(1);
            Some((backend, History::None))
        })
    }

    /// What the tables that all workers see say about the connection.
    pub(super) fn recall(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Option<(BackendSlot, History)> {
        let template = self.template_of(ctx, matched);
        if let Some(own) = self.shared.pending.find(matched.connection, ctx.now) {
            let history = match template {
                _ if own.held => History::Held,
                // A SYN passed over the template of a backend that took no new sources: so does its ACK.
                Some(template) if template != own.backend => History::Detour,
                _ => History::Pending,
            };
            return Some((own.backend, history));
        }
        let source = self.shared.pending.lookup(matched.pending, ctx.now);
        let source = source.and_then(|name| matched.own(ctx.snapshot, name));
        match (template, source) {
            (Some(template), Some(source)) if !matched.usable(ctx.snapshot, template) => {
                Some((source, History::Pending))
            }
            (Some(template), _) => Some((template, History::Template)),
            (None, source) => source.map(|source| (source, History::Pending)),
        }
    }
}
