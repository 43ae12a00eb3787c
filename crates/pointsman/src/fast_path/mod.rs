//! What the XDP program needs to forward the packets of known flows itself: memory for the flow tables,
//! which it reads as well, and a picture of each snapshot.

pub mod publisher;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use dataplane::{Addr, PortId, ServiceSlot, Snapshot, Words};
use steer::{FastPath, Mapped, Picture, abi};

/// A flow table's memory, which the XDP program reads as well.
#[derive(Debug)]
pub struct SharedFlows(pub Mapped);

impl Words for SharedFlows {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// The snapshot as the XDP programs need it; `ifindex` knows the interfaces. A backend without one, or
/// whose VIP has no number, is left out: its flows are user space's.
pub fn picture(
    snapshot: &Snapshot,
    fast_path: &FastPath,
    ifindex: impl Fn(PortId) -> Option<u32>,
) -> Picture {
    let vips: BTreeMap<ServiceSlot, Addr> =
        snapshot.services().iter().map(|service| (service.slot, service.key.vip)).collect();
    let hops = snapshot.next_hops().iter().enumerate().filter_map(|(slot, hop)| {
        let vip = vips.get(&hop.service)?;
        let next_hop = abi::NextHop {
            macs: hop.macs,
            ifindex: ifindex(hop.port)?,
            instance: hop.instance.0,
            vip: fast_path.vip_slot(vip.octets())?,
            usable: hop.usable,
        };
        Some((u16::try_from(slot).ok()?, next_hop))
    });
    Picture::new(snapshot.guard.own().map(|mac| mac.0), hops)
}

#[cfg(test)]
mod tests;
