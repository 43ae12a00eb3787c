//! Frames without a usable flow: new connections, and flows that arrive mid-stream.
//!
//! Only a SYN (for UDP: a first packet) schedules. What it chose is pending until the client's next
//! packet proves that the client exists; only then is there a flow entry and a template. Whatever
//! else misses the flow table takes the template, else the pending choice, else the deterministic
//! hash that all workers and both nodes share.

use std::sync::Arc;

use super::{Decision, Forwarder, Scene, SharedTables, drop_for};
use crate::flow::{FlowHash, FlowId, Found, Membership, NewFlow, Origin, Transition};
use crate::key::{FlowKey, Protocol};
use crate::packet::TcpFields;
use crate::pending::PendingKey;
use crate::persistence::TemplateKey;
use crate::scheduler::{self, Load};
use crate::slots::BackendSlot;
use crate::snapshot::{Service, Snapshot};
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

/// Who asks: the service, and the source as the service tells sources apart.
pub(super) struct Visit<'a> {
    pub(super) service: &'a Arc<Service>,
    /// The template's key and prefix length; `None` without persistence.
    pub(super) template: Option<(TemplateKey, u8)>,
    pub(super) pending: PendingKey,
    /// Input of the scheduler: of the source prefix, else of the 5-tuple.
    pub(super) hash: u64,
}

impl<'a> Visit<'a> {
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

    /// A visit to a known service.
    pub(super) fn of(tables: &SharedTables, service: &'a Arc<Service>, key: &FlowKey) -> Self {
        match &service.persistence {
            Some(persistence) => {
                let len = persistence.prefix_len(key.src);
                let source = key.src.masked(len);
                Self {
                    service,
                    template: Some((TemplateKey { service: service.slot, source }, len)),
                    pending: tables.pending.source_key(service.slot, source),
                    hash: scheduler::source_hash(source),
                }
            }
            None => Self {
                service,
                template: None,
                pending: tables.pending.flow_key(key),
                hash: scheduler::flow_hash(key),
            },
        }
    }

    /// Whether the backend belongs to this service and may take a new connection.
    pub(super) fn eligible(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let hop = snapshot.hop(backend);
        hop.eligible && hop.service == self.service.slot
    }

    /// Whether the backend belongs to this service and can be reached.
    pub(super) fn usable(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let hop = snapshot.hop(backend);
        hop.usable && hop.service == self.service.slot
    }

    /// Whether a client whose template names this backend goes there with a new connection.
    fn returns_to(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let sticky = self.service.persistence.is_some_and(|p| p.sticky_when_drained);
        if sticky { self.usable(snapshot, backend) } else { self.eligible(snapshot, backend) }
    }
}

/// Where a mid-stream packet's backend was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    /// The pending choice of its SYN: this is the handshake's ACK.
    Pending,
    /// The template: the flow came from another queue, or its pending choice was overwritten.
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
        scene: &Scene<'_>,
        (id, key): (FlowId, &FlowKey),
        transition: Option<Transition>,
        tcp: TcpFields,
    ) -> Option<Decision> {
        let flow = self.flows.get(id)?;
        match transition {
            Some(Transition::Confirmed) => self.attach(scene, id, key, flow.backend),
            Some(Transition::Ended) => {
                let counters = self.counters.backend(flow.backend);
                counters.active.add(-1);
                counters.inactive.add(1);
                if let Some(template) = &flow.template {
                    self.shared.persistence.end(template, scene.now);
                }
            }
            Some(Transition::Trailing) => {
                if let Some(template) = &flow.template {
                    self.shared.persistence.touch(template, scene.now);
                }
            }
            Some(Transition::NewConnection) => {
                self.let_go(scene.now, id);
                return None;
            }
            None => {}
        }
        if scene.snapshot.hop(flow.backend).usable {
            return Some(Ok(flow.backend));
        }
        if tcp.opens() {
            self.let_go(scene.now, id);
            return None;
        }
        Some(drop_for(DropReason::NoNeighbour))
    }

    /// A flow that was picked up turned out to be a connection: it holds its source's template, if
    /// that names its backend.
    fn attach(&mut self, scene: &Scene<'_>, id: FlowId, key: &FlowKey, backend: BackendSlot) {
        let Ok(visit) = Visit::find(&self.shared, scene.snapshot, key) else { return };
        let Some((template, prefix_len)) = visit.template else { return };
        let epoch = self.shared.persistence.attach(&template, backend, scene.now);
        if let Some(epoch) = epoch
            && !self.flows.join(id, Membership { epoch, prefix_len })
        {
            let template = crate::TemplateRef { key: template, epoch };
            self.shared.persistence.end(&template, scene.now);
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
    pub(super) fn open_tcp(&mut self, scene: &Scene<'_>, key: &FlowKey) -> Decision {
        let visit = Visit::find(&self.shared, scene.snapshot, key)?;
        self.choose(scene, &visit)
    }

    /// The first packets of a UDP flow: the first one chooses, the second one confirms.
    #[cold]
    #[inline(never)]
    pub(super) fn open_udp(
        &mut self,
        scene: &Scene<'_>,
        hash: FlowHash,
        key: &FlowKey,
    ) -> Decision {
        let visit = Visit::find(&self.shared, scene.snapshot, key)?;
        let known = self.shared.pending.lookup(visit.pending, scene.now);
        let backend = self.choose(scene, &visit)?;
        if known == Some(backend) {
            let flow = Newcomer { hash, key, backend, origin: Origin::Udp, last_ack: None };
            self.enter(scene, &visit, &flow);
        }
        Ok(backend)
    }

    fn choose(&mut self, scene: &Scene<'_>, visit: &Visit<'_>) -> Decision {
        let snapshot = scene.snapshot;
        let returning =
            self.template_of(scene, visit).filter(|backend| visit.returns_to(snapshot, *backend));
        let choice = self.shared.pending.choose_or_join(
            visit.pending,
            scene.now,
            || returning.or_else(|| self.schedule(snapshot, visit)),
            |backend| match returning {
                Some(returning) => backend == returning,
                None => visit.eligible(snapshot, backend),
            },
        );
        let Some(choice) = choice else {
            self.counters.service(visit.service.slot).dropped.add(1);
            return drop_for(DropReason::NoBackend);
        };
        if choice.fresh {
            self.counters.backend(choice.backend).half_open.add(1);
            // Between the two look-ups another worker may have turned the pending choice into a
            // template: then that is where this client goes.
            let raced = self.template_of(scene, visit);
            if let Some(backend) = raced.filter(|backend| visit.returns_to(snapshot, *backend)) {
                return Ok(backend);
            }
        }
        Ok(choice.backend)
    }

    /// A backend for a source without history. When no template will remember it, that is one that
    /// needs no memory.
    fn schedule(&self, snapshot: &Snapshot, visit: &Visit<'_>) -> Option<BackendSlot> {
        let (templates, scheduler) = (&self.shared.persistence, &visit.service.scheduler);
        if visit.template.is_some() && templates.len() >= templates.capacity() {
            return scheduler.stable(visit.hash);
        }
        scheduler.choose(visit.hash, &|slot| load(snapshot, slot))
    }

    /// A packet that is not a SYN and belongs to no flow of this worker.
    #[cold]
    #[inline(never)]
    pub(super) fn resume_tcp(
        &mut self,
        scene: &Scene<'_>,
        hash: FlowHash,
        key: &FlowKey,
        tcp: TcpFields,
    ) -> Decision {
        let visit = Visit::find(&self.shared, scene.snapshot, key)?;
        let Some((backend, history)) = self.history(scene, &visit) else {
            self.counters.service(visit.service.slot).dropped.add(1);
            return drop_for(DropReason::NoBackend);
        };
        // The last packet of a connection must not start a flow, but it ends one that came from
        // another queue.
        if tcp.ends() && history != History::Template {
            return Ok(backend);
        }
        let origin = match history {
            History::None => Origin::PickUp,
            History::Pending | History::Template => Origin::Handshake,
        };
        let flow = Newcomer { hash, key, backend, origin, last_ack: Some(tcp.ack) };
        self.enter(scene, &visit, &flow);
        if history == History::Template && !self.moved.is_full() {
            self.moved.push(*key);
        }
        if tcp.ends()
            && let Some(Found { id, .. }) = self.flows.find(hash, key, scene.now)
        {
            let transition = self.flows.observe(id, Some(tcp), scene.now);
            return self.changed(scene, (id, key), transition, tcp).unwrap_or(Ok(backend));
        }
        Ok(backend)
    }

    /// The backend of a source with a past; the deterministic hash for one without.
    fn history(&self, scene: &Scene<'_>, visit: &Visit<'_>) -> Option<(BackendSlot, History)> {
        let snapshot = scene.snapshot;
        let template = self.template_of(scene, visit);
        let pending = self.shared.pending.lookup(visit.pending, scene.now);
        // A SYN passes over the template of a backend that takes nobody new: so does its ACK.
        let overruled = template.is_some_and(|backend| !visit.returns_to(snapshot, backend));
        let found = match (pending, template) {
            (Some(pending), Some(template)) if !overruled && pending != template => {
                Some((template, History::Template))
            }
            (Some(pending), _) => Some((pending, History::Pending)),
            (None, Some(template)) => Some((template, History::Template)),
            (None, None) => None,
        };
        found.filter(|(backend, _)| visit.usable(snapshot, *backend)).or_else(|| {
            let backend = visit.service.scheduler.stable(visit.hash)?;
            self.counters.totals.picked_up.add(1);
            Some((backend, History::None))
        })
    }

    /// The backend that the source's template names.
    pub(super) fn template_of(&self, scene: &Scene<'_>, visit: &Visit<'_>) -> Option<BackendSlot> {
        let (key, _) = visit.template.as_ref()?;
        Some(self.shared.persistence.get(key, scene.now)?.backend)
    }

    /// Enters a flow, and has it join its source's template.
    fn enter(&mut self, scene: &Scene<'_>, visit: &Visit<'_>, newcomer: &Newcomer<'_>) {
        let backend = newcomer.backend;
        let template = match newcomer.origin {
            // Nothing proves that such a client exists.
            Origin::PickUp => None,
            Origin::Handshake | Origin::Udp => self.join(scene, visit, backend),
        };
        let flow = NewFlow {
            service: visit.service.slot,
            backend,
            origin: newcomer.origin,
            last_ack: newcomer.last_ack,
            template,
        };
        let Self { flows, shared, counters, .. } = self;
        let mut ended = |ended| super::end_flow(shared, counters, &ended);
        let entered = flows.insert(newcomer.hash, newcomer.key, &flow, scene.now, &mut ended);
        let to_backend = counters.backend(backend);
        if entered.is_err() {
            counters.totals.flow_table_full.add(1);
            if let (Some(member), Some((key, _))) = (template, visit.template) {
                let template = crate::TemplateRef { key, epoch: member.epoch };
                shared.persistence.end(&template, scene.now);
            }
            return;
        }
        to_backend.connections.add(1);
        to_backend.active.add(1);
        // Flow and template remember the choice now: once they forget it, so must the node.
        let remembered = visit.template.is_none() || template.is_some();
        if remembered && shared.pending.take(visit.pending, scene.now).is_some() {
            to_backend.half_open.add(-1);
        }
    }

    fn join(
        &self,
        scene: &Scene<'_>,
        visit: &Visit<'_>,
        backend: BackendSlot,
    ) -> Option<Membership> {
        let (key, prefix_len) = visit.template?;
        let timeout = visit.service.persistence?.timeout;
        // A template whose backend takes nobody new gives way to the new choice.
        let replace = self
            .template_of(scene, visit)
            .is_some_and(|old| !visit.returns_to(scene.snapshot, old));
        let joined = self.shared.persistence.join(&key, backend, timeout, replace, scene.now);
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

/// Protocol of a visit without ports.
pub(super) fn portless(src: crate::Addr, dst: crate::Addr, protocol: Protocol) -> FlowKey {
    FlowKey { src, dst, src_port: 0, dst_port: 0, protocol }
}
