//! The loop guard: frames that would go round in circles because of the station that sent them.
//!
//! Two things make a frame circle. A bridge or a switch that reflects our own frame: its source is
//! our own MAC, which no frame that we receive may have. And a host that we send a client's frame to
//! and that routes it back, for it does not have the VIP, or takes us for its backend: the frame
//! comes from the very station that it would be sent to. So a frame is never sent back to the
//! station that it came from (split horizon); [`Sender::Backend`] says for whose frames that has
//! to be looked at. A gateway that is a backend as well is no loop: its clients' frames go to the
//! other backends.

use crate::addr::Mac;

/// What the source MACs of frames are to this node.
#[derive(Clone, Debug, Default)]
pub struct LoopGuard {
    /// One bit per hash of a listed MAC: almost every frame is decided by this alone.
    filter: [u64; FILTER_BITS / 64],
    /// Sorted by MAC.
    entries: Vec<(Mac, Sender)>,
}

/// What a station is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    /// A client, or a router that clients are behind.
    Client,
    /// A backend: what it sends must not go back to it.
    Backend,
    /// This node: a frame that comes back.
    Own,
}

const FILTER_BITS: usize = 1024;

impl LoopGuard {
    /// From the MACs of our own ports and of all backends.
    pub fn new(
        own: impl IntoIterator<Item = Mac>,
        backends: impl IntoIterator<Item = Mac>,
    ) -> Self {
        let backends = backends.into_iter().map(|mac| (mac, Sender::Backend));
        let own = own.into_iter().map(|mac| (mac, Sender::Own));
        // Of a MAC that is both, the last one counts.
        let map: std::collections::BTreeMap<Mac, Sender> = backends.chain(own).collect();
        let mut guard = Self::default();
        for (mac, sender) in map {
            let (word, bit) = position(mac);
            guard.filter[word] |= bit;
            guard.entries.push((mac, sender));
        }
        guard
    }

    /// What the station with this MAC is to this node.
    #[inline]
    pub fn sender(&self, mac: Mac) -> Sender {
        let (word, bit) = position(mac);
        if self.filter[word] & bit == 0 { Sender::Client } else { self.listed(mac) }
    }

    /// The MACs of our own ports.
    pub fn own(&self) -> impl Iterator<Item = Mac> + '_ {
        let own = self.entries.iter().filter(|(_, sender)| *sender == Sender::Own);
        own.map(|(mac, _)| *mac)
    }

    /// The filter has false hits: up to every second MAC where there are a thousand backends.
    #[inline(never)]
    fn listed(&self, mac: Mac) -> Sender {
        let found = self.entries.binary_search_by_key(&mac, |(mac, _)| *mac).ok();
        found.and_then(|at| self.entries.get(at)).map_or(Sender::Client, |(_, sender)| *sender)
    }
}

/// Word and bit of a MAC's filter position; the low bytes differ most between hosts.
#[inline]
fn position(mac: Mac) -> (usize, u64) {
    let [_, _, c, d, e, f] = mac.0;
    let mixed = u32::from_le_bytes([c, d, e, f]).wrapping_mul(0x9e37_79b1) >> 22;
    ((mixed / 64) as usize, 1 << (mixed % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const BACKEND: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_mac_that_is_own_and_a_backends_is_own() {
        let guard = LoopGuard::new([OWN], [BACKEND, OWN]);
        assert_eq!(guard.sender(OWN), Sender::Own);
        assert_eq!(guard.own().collect::<Vec<_>>(), [OWN]);
        assert_eq!(guard.sender(BACKEND), Sender::Backend);
        assert_eq!(guard.sender(Mac([2, 0, 0, 0, 0, 3])), Sender::Client);
    }

    #[test]
    fn a_false_hit_of_the_filter_is_a_client() {
        let mac = |i: u16| Mac([2, 0, 0, 7, i.to_be_bytes()[0], i.to_be_bytes()[1]]);
        let guard = LoopGuard::new([], (0..1000).map(mac));
        let clients = (1000..9000).map(mac);
        let hits = clients.clone().filter(|mac| {
            let (word, bit) = position(*mac);
            guard.filter[word] & bit != 0
        });
        assert!(hits.count() > 3000, "the filter alone would take them for backends");
        assert!(clients.into_iter().all(|mac| guard.sender(mac) == Sender::Client));
        assert!((0..1000).all(|i| guard.sender(mac(i)) == Sender::Backend));
    }
}
