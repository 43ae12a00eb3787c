//! The hot path's third pass: the next packets of known flows, which are nearly all there are.

use super::{Burst, BurstContext, Forwarder, Work};
use crate::counters::WorkerCounters;
use crate::guard::Sender;
use crate::packet::{self, EthernetSource, Packet};
use crate::slots::ServiceSlot;
use crate::snapshot::NextHop;
use crate::verdict::Verdict;

impl Forwarder {
    /// Third pass: forwards what is the next packet of a flow whose backend can be reached. Returns
    /// whether that was every frame, and all by this port.
    #[inline]
    pub(super) fn forward_known<B: Burst>(
        &mut self,
        ctx: &BurstContext<'_>,
        frames: &mut B,
        work: &[Work],
        verdicts: &mut [Verdict],
    ) -> bool {
        let (mut run, mut onwards) = (Run::new(), true);
        for ((frame, work), verdict) in frames.frames().zip(work).zip(verdicts) {
            if let Some(next_hop) = self.known(ctx, &mut run, work, frame.len()) {
                packet::rewrite_macs(frame, &next_hop.macs);
                *verdict = Verdict::Forward(next_hop.port);
                onwards &= next_hop.port == self.port;
            } else {
                onwards = false;
            }
        }
        run.book(&self.counters);
        onwards
    }

    /// Counts such a packet and says by which next_hop it leaves; `None`, and nothing counted, for all
    /// others.
    #[inline(always)]
    fn known<'a>(
        &mut self,
        ctx: &BurstContext<'a>,
        run: &mut Run,
        work: &Work,
        len: usize,
    ) -> Option<&'a NextHop> {
        if run.source != work.source {
            let sender = ctx.snapshot.guard.sender(work.source.mac());
            if sender == Sender::Own {
                return None;
            }
            (run.source, run.from_backend) = (work.source, sender == Sender::Backend);
        }
        let (backend, acked) = if let Packet::Tcp(key, tcp) = &work.packet {
            self.flows.hit(work.hash, key, Some(*tcp), ctx.now)?
        } else if let Packet::Udp(key) = &work.packet {
            self.flows.hit(work.hash, key, None, ctx.now)?
        } else {
            return None;
        };
        let next_hop = ctx.snapshot.next_hops().get(backend.index())?;
        if !next_hop.usable || (run.from_backend && next_hop.mac() == work.source.mac()) {
            return None;
        }
        if run.service != next_hop.service {
            if !ctx.active(next_hop.instance) {
                return None;
            }
            run.book(&self.counters);
            *run = Run { service: next_hop.service, packets: 0, bytes: 0, ..*run };
        }
        run.packets += 1;
        run.bytes += len as u64;
        let to_backend = self.counters.backend(backend);
        to_backend.packets.add(1);
        to_backend.bytes.add(len as u64);
        to_backend.acked.add_signed(acked);
        Some(next_hop)
    }
}

/// What was found out about one frame and holds for the next ones as well: who may send, and which
/// service is active. Packets of one service in a row are booked at once.
struct Run {
    /// Not our own. None at first: no frame's source and type are all zero.
    source: EthernetSource,
    /// Whether the source is a backend, to which its frames must not go.
    from_backend: bool,
    /// An active one, or none.
    service: ServiceSlot,
    packets: u64,
    bytes: u64,
}

impl Run {
    fn new() -> Self {
        let (source, service) = (EthernetSource::default(), ServiceSlot::NONE);
        Self { source, from_backend: false, service, packets: 0, bytes: 0 }
    }

    #[inline]
    fn book(&self, counters: &WorkerCounters) {
        let service = counters.service(self.service);
        service.packets.add(self.packets);
        service.bytes.add(self.bytes);
    }
}
