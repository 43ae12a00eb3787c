//! Which service a packet is for, and what the tables call its source and its connection.

use std::sync::Arc;
use std::time::Duration;

use super::reset::unreachable_for;
use super::{SharedTables, drop_for};
use crate::addr::Mac;
use crate::key::{FlowKey, Protocol};
use crate::pending::PendingKey;
use crate::persistence::TemplateKey;
use crate::scheduler::{self, HashInput};
use crate::slots::{BackendSlot, ServiceSlot};
use crate::snapshot::{Service, Snapshot, Suspicion};
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

/// Who asks: the service, and the source as the service tells sources apart.
pub(super) struct ServiceMatch<'a> {
    pub(super) service: &'a Arc<Service>,
    /// The template's key and prefix length; `None` without persistence.
    pub(super) template: Option<(TemplateKey, u8)>,
    /// The source's choice: a [name](Self::name), as that of a template.
    pub(super) pending: PendingKey,
    /// The 5-tuple's own: where its SYN went, whatever became of its source's choice since. Without
    /// persistence it is the same as `pending`.
    pub(super) connection: PendingKey,
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
        let (connection, sender) = (tables.pending.flow_key(key), Mac::default());
        let Some(persistence) = &service.persistence else {
            let hash = match service.hash {
                HashInput::Source => scheduler::source_hash(key.src),
                HashInput::Flow => scheduler::flow_hash(key),
            };
            return Self { service, template: None, pending: connection, connection, hash, sender };
        };
        let len = persistence.prefix_len(key.src);
        let source = key.src.masked(len);
        let owner = owner_of(service);
        Self {
            service,
            template: Some((TemplateKey { service: owner, source }, len)),
            pending: tables.pending.source_key(owner, source),
            connection,
            hash: scheduler::source_hash(source),
            sender,
        }
    }

    /// Under which slot the service's templates are kept.
    pub(super) fn owner(&self) -> ServiceSlot {
        owner_of(self.service)
    }

    /// What templates and the source's pending choice call a backend of this service: in a group the
    /// member that it is.
    pub(super) fn name(&self, backend: BackendSlot) -> BackendSlot {
        let group = self.service.group.as_ref();
        group.and_then(|group| group.member(backend)).unwrap_or(backend)
    }

    /// The backend of this service that is called so. `None`: only others of its group have it.
    pub(super) fn own(&self, snapshot: &Snapshot, name: BackendSlot) -> Option<BackendSlot> {
        let Some(group) = &self.service.group else { return Some(name) };
        group.backends_of(name).find(|slot| snapshot.next_hop(*slot).service == self.service.slot)
    }

    /// Whether a template that names this backend gives way to another choice: it takes none of its
    /// sources any more, neither here nor in another service of the group.
    pub(super) fn gives_way(&self, snapshot: &Snapshot, name: BackendSlot) -> bool {
        let takes = |slot: BackendSlot| {
            self.welcomes(snapshot, slot) || snapshot.next_hop(slot).suspicion != Suspicion::None
        };
        match &self.service.group {
            Some(group) => !group.backends_of(name).any(takes),
            None => {
                let suspected = self.suspicion(snapshot, name) != Suspicion::None;
                !self.returns_to(snapshot, name) && !suspected
            }
        }
    }

    /// Whether what the source's template or choice names takes its connections in another service of
    /// the group, though not in this one.
    pub(super) fn is_held_elsewhere(
        &self,
        tables: &SharedTables,
        snapshot: &Snapshot,
        now: Tick,
    ) -> bool {
        let Some((key, _)) = self.template.filter(|_| self.service.group.is_some()) else {
            return false;
        };
        let template = tables.persistence.get(&key, now).map(|template| template.backend);
        let Some(name) = template.or_else(|| tables.pending.lookup(self.pending, now)) else {
            return false;
        };
        let is_here = self.own(snapshot, name).is_some_and(|own| self.returns_to(snapshot, own));
        !is_here && !self.gives_way(snapshot, name)
    }

    /// The same, with choices that last as long as a flow of UDP does, and those for a source as long
    /// as its template would: there is no handshake after which they are not needed any more.
    pub(super) fn lasting(self, idle: Duration) -> Self {
        let timeout = self.service.persistence.map_or(idle, |persistence| persistence.timeout);
        Self {
            pending: self.pending.lasting(timeout),
            connection: self.connection.lasting(idle.max(timeout)),
            ..self
        }
    }

    /// The same, of a frame that came from this station.
    pub(super) const fn from(self, sender: Mac) -> Self {
        Self { sender, ..self }
    }

    /// Whether the frame came from the backend itself.
    pub(super) fn is_sender(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        snapshot.next_hop(backend).mac() == self.sender
    }

    /// The deterministic choice for a new connection: that of the scheduler's hash, unless the frame
    /// came from there.
    pub(super) fn stable(&self, snapshot: &Snapshot) -> Option<BackendSlot> {
        self.service.scheduler.stable_but(self.hash, &|slot| self.is_sender(snapshot, slot))
    }

    /// The deterministic choice for a segment of a connection without history: among the configured
    /// members, so that no verdict about others moves it.
    pub(super) fn stray(&self, snapshot: &Snapshot) -> Option<BackendSlot> {
        let taken = |slot| self.usable(snapshot, slot) && !self.is_sender(snapshot, slot);
        self.service.scheduler.stray(self.hash, &taken)
    }

    /// Where a worker without an entry places a packet of the connection when nothing else tells: a
    /// datagram is scheduled anew, which is by the hash with `maglev` only.
    pub(super) fn placed_by_hash(&self, snapshot: &Snapshot) -> Option<BackendSlot> {
        let scheduler = &self.service.scheduler;
        match self.service.key.protocol {
            Protocol::Tcp => self.stray(snapshot),
            Protocol::Udp if scheduler.kind().hashes() => scheduler.stable(self.hash),
            Protocol::Udp => None,
        }
    }

    /// Where the connection is placed that has no choice of its own.
    pub(super) fn placed(
        &self,
        tables: &SharedTables,
        snapshot: &Snapshot,
        now: Tick,
    ) -> Option<BackendSlot> {
        let of_source = self.template.and_then(|(key, _)| {
            let template = tables.persistence.get(&key, now).map(|template| template.backend);
            let name = template.or_else(|| tables.pending.lookup(self.pending, now))?;
            self.own(snapshot, name)
        });
        of_source.or_else(|| self.placed_by_hash(snapshot))
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
    pub(super) fn lost(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let next_hop = snapshot.next_hop(backend);
        next_hop.service == self.service.slot
            && unreachable_for(next_hop) == DropReason::BackendDown
    }

    /// Whether the backend is suspected: nothing is decided, templates that name it stay.
    pub(super) fn suspicion(&self, snapshot: &Snapshot, backend: BackendSlot) -> Suspicion {
        let next_hop = snapshot.next_hop(backend);
        if next_hop.service == self.service.slot { next_hop.suspicion } else { Suspicion::None }
    }

    /// Whether a client whose template names this backend goes there with a new connection.
    pub(super) fn returns_to(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        snapshot.next_hop(backend).service == self.service.slot && self.welcomes(snapshot, backend)
    }

    /// The same of a backend of whatever service of the group.
    fn welcomes(&self, snapshot: &Snapshot, backend: BackendSlot) -> bool {
        let sticky = self.service.persistence.is_some_and(|p| p.sticky_when_drained);
        let next_hop = snapshot.next_hop(backend);
        let takes = if sticky || next_hop.keeps_clients {
            next_hop.usable && !next_hop.avoid_existing_clients
        } else {
            next_hop.eligible
        };
        takes && !self.is_sender(snapshot, backend)
    }
}

/// Under which slot a service's templates are kept.
fn owner_of(service: &Service) -> ServiceSlot {
    service.group.as_ref().map_or(service.slot, |group| group.slot)
}

/// Protocol of a service match without ports.
pub(super) fn portless(src: crate::Addr, dst: crate::Addr, protocol: Protocol) -> FlowKey {
    FlowKey { src, dst, src_port: 0, dst_port: 0, protocol }
}
