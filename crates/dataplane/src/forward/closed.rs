//! Packets to a VIP that no service wants: answered as a host does whose port is closed.

use super::{Burst, BurstContext, Forwarder};
use crate::packet::{self, Packet};
use crate::verdict::{DropReason, Verdict};

impl Forwarder {
    /// Whether a packet that is dropped for this reason is answered: its VIP is active here and
    /// rejects, and the limit is not reached.
    pub(super) fn rejects(
        &mut self,
        ctx: &BurstContext<'_>,
        packet: &Packet,
        reason: DropReason,
    ) -> bool {
        if !matches!(reason, DropReason::NotVipPort | DropReason::Unsupported) {
            return false;
        }
        let dst = match packet {
            Packet::Tcp(_, tcp) if tcp.resets() => return false,
            Packet::Tcp(key, _) | Packet::Udp(key) => key.dst,
            Packet::Other { dst } => *dst,
            Packet::FirstFragment(_)
            | Packet::Fragment(_)
            | Packet::IcmpError(_)
            | Packet::EchoRequest { .. }
            | Packet::WhoHas { .. }
            | Packet::OtherHost
            | Packet::Malformed => return false,
        };
        let rejects = ctx.snapshot.vip(dst).is_some_and(|vip| {
            let here = vip.port.is_none_or(|port| port == self.port);
            here && vip.reject_closed && ctx.active(vip.instance)
        });
        rejects && self.limits.allow_closed(packet, ctx.now)
    }

    /// Writes the answer in place; drops what must not be answered.
    #[cold]
    #[inline(never)]
    pub(super) fn reject<B: Burst>(
        &self,
        frames: &mut B,
        index: usize,
        reason: DropReason,
    ) -> Verdict {
        let mac = self.mac;
        if frames.transform(index, &mut |buffer, len| packet::closed(buffer, len, mac)) {
            self.counters.totals.closed.add(1);
            return Verdict::Answer;
        }
        self.counters.dropped(reason).add(1);
        Verdict::Drop(reason)
    }
}
