//! Frames that are answered on the spot, and frames that belong to no single flow: ARP and
//! neighbour solicitations, echo requests, ICMP errors, later fragments.

use super::connection::{Visit, portless};
use super::reset::unreachable_for;
use super::{Burst, Decision, Forwarder, Scene, drop_for};
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
    pub(super) fn local(&self, scene: &Scene<'_>, source: Mac, packet: &Packet) -> Decision {
        match *packet {
            Packet::WhoHas { target } | Packet::EchoRequest { dst: target } => {
                self.asked_for(scene, target)
            }
            Packet::IcmpError(key) => {
                super::refuse_loop(scene, source, &key)?;
                self.icmp_error(scene, &key)
            }
            Packet::Fragment { src, dst, protocol } => {
                let key = portless(src, dst, protocol);
                super::refuse_loop(scene, source, &key)?;
                self.fragment(scene, &key)
            }
            Packet::Malformed => drop_for(DropReason::Malformed),
            // TCP and UDP do not come here.
            Packet::Other { .. } | Packet::Tcp(..) | Packet::Udp(_) => {
                drop_for(DropReason::Unsupported)
            }
        }
    }

    /// ARP, neighbour solicitation, ping: answered only for a VIP that is active here.
    fn asked_for(&self, scene: &Scene<'_>, target: Addr) -> Decision {
        let here = |vip: &&crate::Vip| vip.port.is_none_or(|port| port == self.port);
        match scene.snapshot.vip(target).filter(here) {
            Some(vip) if scene.active(vip.instance) => Err(Verdict::Answer),
            Some(_) => drop_for(DropReason::Inactive),
            None => drop_for(DropReason::NotVip),
        }
    }

    /// To the backend of the flow that the error is about. The error's own RSS hash is not the
    /// flow's: with one connection per schedule, only the worker that holds the flow knows.
    fn icmp_error(&self, scene: &Scene<'_>, key: &FlowKey) -> Decision {
        if let Some(backend) = self.flow_backend(scene, key) {
            return usable(scene.snapshot, backend);
        }
        let visit = Visit::find(&self.shared, scene.snapshot, key)?;
        if let Some(backend) = self.remembered(scene, &visit) {
            return usable(scene.snapshot, backend);
        }
        if scene.snapshot.workers.len() > 1 {
            return Err(Verdict::HandOver);
        }
        visit.service.scheduler.stable(visit.hash).ok_or(Verdict::Drop(DropReason::NoFlow))
    }

    /// A later fragment has no ports: it follows its source when that leaves one answer.
    fn fragment(&self, scene: &Scene<'_>, key: &FlowKey) -> Decision {
        let services = || scene.snapshot.services_of(key.dst, key.protocol);
        let Some(first) = services().next() else {
            let is_vip = scene.snapshot.vip(key.dst).is_some();
            return drop_for(if is_vip { DropReason::NotVipPort } else { DropReason::NotVip });
        };
        let mut known = services()
            .map(|service| Visit::of(&self.shared, service, key))
            .filter(|visit| visit.template.is_some())
            .filter_map(|visit| self.remembered(scene, &visit));
        if let Some(backend) = known.next() {
            return if known.all(|other| other == backend) {
                Ok(backend)
            } else {
                drop_for(DropReason::Fragment)
            };
        }
        let visit = Visit::of(&self.shared, first, key);
        if visit.template.is_none() || services().count() > 1 {
            return drop_for(DropReason::Fragment);
        }
        visit.service.scheduler.stable(visit.hash).ok_or(Verdict::Drop(DropReason::Fragment))
    }

    fn flow_backend(&self, scene: &Scene<'_>, key: &FlowKey) -> Option<BackendSlot> {
        Some(self.flows.find(self.flows.hash(key), key, scene.now)?.backend)
    }

    fn remembered(&self, scene: &Scene<'_>, visit: &Visit<'_>) -> Option<BackendSlot> {
        self.template_of(scene, visit)
            .or_else(|| self.shared.pending.lookup(visit.pending, scene.now))
            .filter(|backend| visit.usable(scene.snapshot, *backend))
    }

    /// A frame that another worker could not place: forwarded if its flow is ours.
    ///
    /// The caller copies it into a frame of its own first, and counts it as adopted.
    pub fn adopt(
        &mut self,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[std::sync::atomic::AtomicU64],
        frame: &mut [u8],
    ) -> Verdict {
        let scene = Scene { now, snapshot, leases };
        let decision = match packet::parse(frame) {
            Packet::IcmpError(key) => match self.flow_backend(&scene, &key) {
                Some(backend) => usable(snapshot, backend),
                None => drop_for(DropReason::NoFlow),
            },
            Packet::Tcp(..)
            | Packet::Udp(_)
            | Packet::Fragment { .. }
            | Packet::EchoRequest { .. }
            | Packet::WhoHas { .. }
            | Packet::Other { .. }
            | Packet::Malformed => drop_for(DropReason::NoFlow),
        };
        match self.settle(&scene, frame.len(), decision) {
            Ok(hop) => {
                packet::rewrite_macs(frame, &hop.macs);
                Verdict::Forward(hop.port)
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
            Packet::Fragment { .. }
            | Packet::IcmpError(_)
            | Packet::EchoRequest { .. }
            | Packet::WhoHas { .. }
            | Packet::Other { .. }
            | Packet::Malformed => packet::answer,
        };
        if frames.transform(index, &mut |buffer, len| answer(buffer, len, mac)) {
            return Verdict::Answer;
        }
        self.counters.dropped(DropReason::Malformed).add(1);
        Verdict::Drop(DropReason::Malformed)
    }
}

fn usable(snapshot: &Snapshot, backend: BackendSlot) -> Decision {
    let hop = snapshot.hop(backend);
    if hop.usable { Ok(backend) } else { drop_for(unreachable_for(hop)) }
}
