//! What is said, once, of senders on this very host: they leave checksums and the cutting into
//! packets to a card that their frames never meet.

use dataplane::DropReason;
use tracing::{info, warn};

use super::Node;
use crate::layers::Kind;

/// What was logged already, for one interface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    checksums: bool,
    too_long: bool,
}

impl Node {
    /// Looks at what the workers found.
    pub(super) fn look_at_local_senders(&mut self) {
        for device in &mut self.devices {
            let (mut checksums, mut too_long) = (0, 0);
            for (_, handle) in self.pool.iter().filter(|(id, _)| id.port == device.id) {
                checksums += handle.counters.totals.checksums_finished.value();
                let statistics = handle.shared.report().statistics;
                // The kernel drops what does not fit into a frame of the socket. It counts that
                // together with frames that came while no buffer was there.
                let oversized =
                    statistics.rx_dropped.saturating_sub(statistics.rx_fill_ring_empty_descs);
                too_long += handle.counters.dropped(DropReason::TooLong).value() + oversized;
            }
            let name = &device.wanted.name;
            if checksums > 0 && !std::mem::replace(&mut device.said.checksums, true) {
                info!(interface = %name, "senders on this host leave checksums to a card: finished here");
            }
            let may_be_merged = device.kind.has_local_senders(device.is_generic());
            if may_be_merged && too_long > 0 && !std::mem::replace(&mut device.said.too_long, true)
            {
                warn!(interface = %name, frames = too_long,
                    "frames longer than the MTU were dropped: {}", remedy(device.kind));
            }
        }
    }
}

fn remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Veth => {
            "their sender leaves segmentation to the card; switch that off where it is \
             (`ethtool -K … tso off gso off`), or serve this interface with mode = \"native\", \
             for which the kernel does so at the other end of the veth"
        }
        Kind::Card
        | Kind::Tap
        | Kind::Internal
        | Kind::Vlan
        | Kind::MacVlan
        | Kind::IpVlan
        | Kind::Bond
        | Kind::Team
        | Kind::Bridge { .. } => {
            "their sender leaves segmentation to the card, or a device below merges packets; \
             switch that off there (`ethtool -K … tso off gso off`, `… gro off lro off`)"
        }
    }
}
