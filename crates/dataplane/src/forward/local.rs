//! Frames that are answered on the spot, and frames that belong to no single flow: ARP and
//! neighbour solicitations, echo requests, ICMP errors.

use super::reset::unreachable_for;
use super::service_match::ServiceMatch;
use super::{Burst, BurstContext, Decision, Forwarder, drop_for};
use crate::addr::{Addr, Mac};
use crate::key::FlowKey;
use crate::packet::{self, Packet};
use crate::slots::BackendSlot;
use crate::snapshot::Snapshot;
use crate::tick::Tick;
use crate::verdict::{DropReason, Verdict};

impl Forwarder {
    /// Decides a frame that is neither TCP nor UDP with ports.
    #[cold]
    #[inline(never)]
    pub(super) fn local(&self, ctx: &BurstContext<'_>, source: Mac, packet: &Packet) -> Decision {
        match *packet {
            Packet::WhoHas { target } => {
                // Two MACs for one VIP on one segment would take turns in each neighbour table.
                let shared = ctx.snapshot.vip(target).is_some_and(|vip| vip.port.is_none());
                if shared && ctx.snapshot.silent_ports.contains(&self.port) {
                    return drop_for(DropReason::Inactive);
                }
                self.asked_for(ctx, target)
            }
            Packet::EchoRequest { dst: target } => self.asked_for(ctx, target),
            Packet::IcmpError(key) => {
                super::refuse_own(ctx, source)?;
                self.icmp_error(ctx, source, &key)
            }
            Packet::Fragment(key) => {
                super::refuse_own(ctx, source)?;
                self.later_fragment(ctx, source, &key)
            }
            Packet::OtherHost => drop_for(DropReason::OtherHost),
            Packet::Malformed => drop_for(DropReason::Malformed),
            // TCP and UDP do not come here.
            Packet::Other { .. } | Packet::Tcp(..) | Packet::Udp(_) | Packet::FirstFragment(_) => {
                drop_for(DropReason::Unsupported)
            }
        }
    }

    /// ARP, neighbour solicitation, ping: answered only for a VIP that is active here.
    fn asked_for(&self, ctx: &BurstContext<'_>, target: Addr) -> Decision {
        let here = |vip: &&crate::Vip| vip.port.is_none_or(|port| port == self.port);
        match ctx.snapshot.vip(target).filter(here) {
            Some(vip) if ctx.active(vip.instance) => Err(Verdict::Answer),
            Some(_) => drop_for(DropReason::Inactive),
            None => drop_for(DropReason::NotVip),
        }
    }

    /// To the backend of the flow that the error is about. The error's own RSS hash is not the
    /// flow's: another worker may hold it, and what all workers see may not tell where it goes.
    fn icmp_error(&self, ctx: &BurstContext<'_>, source: Mac, key: &FlowKey) -> Decision {
        if let Some(backend) = self.flow_backend(ctx, key) {
            return usable(ctx.snapshot, backend);
        }
        let matched = ServiceMatch::find(&self.shared, ctx.snapshot, key)?.from(source);
        if let Some(backend) = self.remembered(ctx, &matched) {
            return usable(ctx.snapshot, backend);
        }
        if ctx.snapshot.workers.len() > 1 {
            return Err(Verdict::HandOver);
        }
        stray(ctx.snapshot, &matched)
    }

    fn flow_backend(&self, ctx: &BurstContext<'_>, key: &FlowKey) -> Option<BackendSlot> {
        Some(self.flows.find(self.flows.hash(key), key, ctx.now)?.backend)
    }

    pub(super) fn remembered(
        &self,
        ctx: &BurstContext<'_>,
        matched: &ServiceMatch<'_>,
    ) -> Option<BackendSlot> {
        let (backend, _) = self.recall(ctx, matched)?;
        matched.usable(ctx.snapshot, backend).then_some(backend)
    }

    /// A frame that another worker could not place: forwarded if its flow is ours, and if `last`,
    /// also to where a flow without an entry would be.
    ///
    /// The caller copies it into a frame of its own first, and counts it as adopted.
    pub fn adopt(
        &mut self,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[std::sync::atomic::AtomicU64],
        frame: &mut [u8],
        last: bool,
    ) -> Verdict {
        let ctx = BurstContext { now, snapshot, leases };
        let sender = packet::source_mac(frame).unwrap_or_default();
        let decision = match packet::parse(frame) {
            Packet::IcmpError(key) => match self.flow_backend(&ctx, &key) {
                Some(backend) => usable(snapshot, backend),
                None if last => ServiceMatch::find(&self.shared, snapshot, &key)
                    .and_then(|found| stray(snapshot, &found.from(sender))),
                None => drop_for(DropReason::NoFlow),
            },
            Packet::Tcp(..)
            | Packet::Udp(_)
            | Packet::FirstFragment(_)
            | Packet::Fragment(_)
            | Packet::EchoRequest { .. }
            | Packet::WhoHas { .. }
            | Packet::Other { .. }
            | Packet::OtherHost
            | Packet::Malformed => drop_for(DropReason::NoFlow),
        };
        match self.settle(&ctx, frame.len(), sender, decision) {
            Ok(next_hop) => {
                packet::rewrite_macs(frame, &next_hop.macs);
                Verdict::Forward(next_hop.port)
            }
            Err(verdict) => verdict,
        }
    }

    /// Writes the answer in place.
    #[cold]
    #[inline(never)]
    pub(super) fn answer<B: Burst>(
        &mut self,
        frames: &mut B,
        index: usize,
        packet: &Packet,
    ) -> Verdict {
        let mac = self.mac;
        let answer = match packet {
            Packet::Tcp(..) => packet::reset,
            Packet::Udp(_) => packet::unreachable,
            Packet::FirstFragment(_)
            | Packet::Fragment(_)
            | Packet::IcmpError(_)
            | Packet::EchoRequest { .. }
            | Packet::WhoHas { .. }
            | Packet::Other { .. }
            | Packet::OtherHost
            | Packet::Malformed => packet::answer,
        };
        if frames.transform(index, &mut |buffer, len| answer(buffer, len, mac)) {
            return Verdict::Answer;
        }
        self.counters.dropped(DropReason::Malformed).add(1);
        Verdict::Drop(DropReason::Malformed)
    }
}

fn stray(snapshot: &Snapshot, matched: &ServiceMatch<'_>) -> Decision {
    matched.stray(snapshot).ok_or(Verdict::Drop(DropReason::NoFlow))
}

fn usable(snapshot: &Snapshot, backend: BackendSlot) -> Decision {
    let next_hop = snapshot.next_hop(backend);
    if next_hop.usable { Ok(backend) } else { drop_for(unreachable_for(next_hop)) }
}
