//! Fragments. The first one of a datagram has ports and is decided like a whole packet; the others
//! follow it, and wait for it where nothing else tells where it goes.

use std::sync::atomic::AtomicU64;

use super::reset::unreachable_for;
use super::service_match::{ServiceMatch, portless};
use super::{BurstContext, Decision, Forwarder, Work, drop_for};
use crate::addr::Mac;
use crate::fragments::{FirstWent, FragmentTable};
use crate::key::FragmentKey;
use crate::packet::{self, Packet};
use crate::slots::BackendSlot;
use crate::snapshot::Snapshot;
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

impl Forwarder {
    /// Makes the work of a first fragment that of a whole packet. What its datagram is known by.
    pub(super) fn open_fragment(&self, frame: &[u8], work: &mut Work) -> Option<FragmentKey> {
        if !matches!(work.packet, Packet::FirstFragment(_)) {
            return None;
        }
        let (key, packet) = packet::first_fragment(frame)?;
        if let Packet::Tcp(flow, _) | Packet::Udp(flow) = &packet {
            work.hash = self.flows.hash(flow);
        }
        work.packet = packet;
        Some(key)
    }

    /// A fragment without ports: to where its first one went.
    pub(super) fn later_fragment(
        &self,
        ctx: &BurstContext<'_>,
        source: Mac,
        key: &FragmentKey,
    ) -> Decision {
        if let Some(first) = self.shared.fragments.find(key, ctx.now) {
            return follow(ctx.snapshot, key, first);
        }
        let mut services = ctx.snapshot.services_of(key.dst, key.protocol);
        let Some(service) = services.next() else {
            let is_vip = ctx.snapshot.vip(key.dst).is_some();
            return drop_for(if is_vip { DropReason::NotVipPort } else { DropReason::NotVip });
        };
        if !ctx.active(service.instance) {
            return drop_for(DropReason::Inactive);
        }
        match self.placed_by_source(ctx, source, key) {
            // No other service of the VIP could be meant.
            Some((backend, true)) if services.next().is_none() => Ok(backend),
            _ => Err(Verdict::Wait),
        }
    }

    /// Where a fragment goes whose first one is not known, if its source leaves one answer, and
    /// whether that is a template or a choice; else it is the shared hash.
    fn placed_by_source(
        &self,
        ctx: &BurstContext<'_>,
        source: Mac,
        key: &FragmentKey,
    ) -> Option<(BackendSlot, bool)> {
        let key = portless(key.src, key.dst, key.protocol);
        let services = || ctx.snapshot.services_of(key.dst, key.protocol);
        let mut known = services()
            .map(|service| ServiceMatch::of(&self.shared, service, &key))
            .filter(|matched| matched.template.is_some())
            .filter_map(|matched| self.remembered(ctx, &matched));
        if let Some(backend) = known.next() {
            return known.all(|other| other == backend).then_some((backend, true));
        }
        let matched = ServiceMatch::of(&self.shared, services().next()?, &key).from(source);
        if matched.template.is_none() || services().count() > 1 {
            return None;
        }
        Some((matched.stray(ctx.snapshot)?, false))
    }

    /// Decides and rewrites a fragment that has waited; never [`Verdict::Wait`]. `late`: its first
    /// one did not come.
    pub fn resume_fragment(
        &mut self,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[AtomicU64],
        frame: &mut [u8],
        late: bool,
    ) -> Verdict {
        let ctx = BurstContext { now, snapshot, leases };
        let sender = packet::source_mac(frame).unwrap_or_default();
        let decision = if let Packet::Fragment(key) = packet::parse(frame) {
            match self.later_fragment(&ctx, sender, &key) {
                Err(Verdict::Wait) => match self.placed_by_source(&ctx, sender, &key) {
                    Some((backend, _)) if late => Ok(backend),
                    _ => drop_for(DropReason::Fragment),
                },
                decision => decision,
            }
        } else {
            drop_for(DropReason::Malformed)
        };
        match self.settle(&ctx, frame.len(), sender, decision) {
            Ok(next_hop) => {
                packet::rewrite_macs(frame, &next_hop.macs);
                Verdict::Forward(next_hop.port)
            }
            Err(verdict) => verdict,
        }
    }

    /// Where the first fragments of datagrams went.
    pub fn fragments(&self) -> &FragmentTable {
        &self.shared.fragments
    }
}

fn follow(snapshot: &Snapshot, key: &FragmentKey, first: FirstWent) -> Decision {
    let FirstWent::To(backend) = first else { return drop_for(DropReason::Fragment) };
    let next_hop = snapshot.next_hop(backend);
    let mut services = snapshot.services_of(key.dst, key.protocol);
    if !services.any(|service| service.slot == next_hop.service) {
        return drop_for(DropReason::Fragment);
    }
    if next_hop.usable { Ok(backend) } else { drop_for(unreachable_for(next_hop)) }
}
