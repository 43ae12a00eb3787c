//! How busy each backend is, per second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use api::status::{Histogram, Rates};
use control::Meter;
use dataplane::{BackendSlot, HANDSHAKE_BOUNDS, HandshakeTimes, Tick};

use super::Node;

/// What is followed of each backend.
#[derive(Debug, Default)]
pub(super) struct Meters(BTreeMap<BackendSlot, Followed>);

#[derive(Debug, Default)]
struct Followed {
    /// Connections, packets, bytes, bytes that clients acknowledged.
    meter: Meter<4>,
    /// The most bytes that were acknowledged: what is shown never goes back.
    acked: AtomicU64,
}

impl Meters {
    /// Of a backend; 0 while it has no slot.
    pub(super) fn of(&self, slot: Option<BackendSlot>) -> Rates {
        let followed = slot.and_then(|slot| self.0.get(&slot));
        let [connections, packets, bytes, acked_bytes] =
            followed.map(|followed| followed.meter.rates()).unwrap_or_default();
        Rates { connections, packets, bytes, acked_bytes }
    }

    /// The bytes that a backend's clients acknowledged, where the counters say `acked` now.
    pub(super) fn acked(&self, slot: BackendSlot, acked: u64) -> u64 {
        let most = self.0.get(&slot).map(|followed| followed.acked.fetch_max(acked, Relaxed));
        most.unwrap_or_default().max(acked)
    }
}

impl Node {
    /// Reads the counters of all backends; forgets those that are gone.
    pub(super) fn look_at_rates(&mut self, now: Tick) {
        let mut meters = std::mem::take(&mut self.meters.0);
        let services = self.controller.services();
        let slots = services.flat_map(|service| service.backends).filter_map(|one| one.slot);
        let looked = slots.map(|slot| {
            let mut followed = meters.remove(&slot).unwrap_or_default();
            followed.meter.look(self.busy(slot), now);
            (slot, followed)
        });
        let looked = looked.collect();
        self.meters.0 = looked;
    }

    /// The counters of the meters.
    fn busy(&self, slot: BackendSlot) -> [u64; 4] {
        let mut sums = [0_u64; 4];
        for counters in self.all_counters() {
            let of = counters.backend(slot);
            let values = [&of.connections, &of.packets, &of.bytes, &of.acked];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(value.value());
            }
        }
        sums
    }

    /// How long a backend's handshakes took.
    pub(super) fn handshake_seconds(&self, slot: BackendSlot) -> Histogram {
        let mut counts = [0_u64; HANDSHAKE_BOUNDS.len() + 1];
        let mut sum = 0.0;
        for counters in self.all_counters() {
            let times: HandshakeTimes = counters.handshake_times(slot);
            counts.iter_mut().zip(times.counts).for_each(|(count, more)| *count += more);
            sum += times.sum.as_secs_f64();
        }
        let bounds =
            HANDSHAKE_BOUNDS.map(|micros| std::time::Duration::from_micros(micros).as_secs_f64());
        Histogram { bounds: bounds.to_vec(), counts: counts.to_vec(), sum }
    }
}
