//! The loop guard: frames that must not be forwarded because of who sent them.
//!
//! A backend that routes a VIP packet back, a balancer that has the other as its backend, or a
//! bridge that reflects our own frame would otherwise make a frame circle for ever.

use crate::addr::{Addr, Mac};

/// Source MACs that are refused, for every VIP or for some.
#[derive(Clone, Debug, Default)]
pub struct LoopGuard {
    /// One bit per hash of a listed MAC: almost every frame is decided by this alone.
    filter: [u64; FILTER_BITS / 64],
    /// Sorted by MAC.
    entries: Vec<(Mac, Refused)>,
}

#[derive(Clone, Debug)]
enum Refused {
    Always,
    /// Sorted.
    For(Vec<Addr>),
}

const FILTER_BITS: usize = 1024;

impl LoopGuard {
    /// From the MACs of our own ports and our peers, and from (backend MAC, VIP) pairs.
    pub fn new(
        always: impl IntoIterator<Item = Mac>,
        backends: impl IntoIterator<Item = (Mac, Addr)>,
    ) -> Self {
        let mut map = std::collections::BTreeMap::new();
        for (mac, vip) in backends {
            if let Refused::For(vips) =
                map.entry(mac).or_insert_with(|| Refused::For(Vec::with_capacity(1)))
            {
                vips.push(vip);
            }
        }
        for mac in always {
            map.insert(mac, Refused::Always);
        }
        let mut guard = Self::default();
        for (mac, mut refused) in map {
            if let Refused::For(vips) = &mut refused {
                vips.sort_unstable();
                vips.dedup();
            }
            let (word, bit) = position(mac);
            guard.filter[word] |= bit;
            guard.entries.push((mac, refused));
        }
        guard
    }

    /// Whether a frame from `source` to `vip` would loop.
    pub fn refuses(&self, source: Mac, vip: Addr) -> bool {
        self.may_refuse(source) && self.listed(source, vip)
    }

    /// False for almost every source that is not listed, and only for those.
    #[inline]
    pub(crate) fn may_refuse(&self, source: Mac) -> bool {
        let (word, bit) = position(source);
        self.filter[word] & bit != 0
    }

    fn listed(&self, source: Mac, vip: Addr) -> bool {
        self.entries.binary_search_by_key(&source, |(mac, _)| *mac).is_ok_and(|at| {
            match &self.entries[at].1 {
                Refused::Always => true,
                Refused::For(vips) => vips.binary_search(&vip).is_ok(),
            }
        })
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
    const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 3]);

    #[test]
    fn own_frames_always_backends_for_their_vip_only() {
        let (web, mail) = (Addr::from_v4([10, 0, 0, 100]), Addr::from_v4([10, 0, 0, 101]));
        let guard = LoopGuard::new([OWN], [(BACKEND, web)]);
        assert!(guard.refuses(OWN, web) && guard.refuses(OWN, mail));
        assert!(guard.refuses(BACKEND, web));
        assert!(!guard.refuses(BACKEND, mail), "a backend may be the client of another VIP");
        assert!(!guard.refuses(CLIENT, web));
    }

    #[test]
    fn a_mac_that_is_own_and_backend_is_always_refused() {
        let vip = Addr::from_v4([10, 0, 0, 100]);
        let guard = LoopGuard::new([OWN], [(OWN, vip)]);
        assert!(guard.refuses(OWN, Addr::from_v4([10, 0, 0, 200])));
    }

    #[test]
    fn many_entries_agree_with_a_list() {
        let vip = Addr::from_v4([10, 0, 0, 100]);
        let listed: Vec<Mac> = (0..200u8).map(|i| Mac([2, 0, 0, 7, i, 255 - i])).collect();
        let guard = LoopGuard::new([], listed.iter().map(|mac| (*mac, vip)));
        for i in 0..=255u8 {
            let mac = Mac([2, 0, 0, 7, i, 255 - i]);
            assert_eq!(guard.refuses(mac, vip), listed.contains(&mac), "{mac}");
        }
    }
}
