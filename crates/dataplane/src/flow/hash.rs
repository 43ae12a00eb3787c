//! Keyed hashing of what clients can choose.

use std::fmt;

use crate::addr::Addr;
use crate::key::FlowKey;
use crate::slots::ServiceSlot;

/// A hash of folded multiplications (as foldhash and wyhash have them), every operand of which is
/// keyed from a seed. With public multipliers, as most such hashes have, a source that equals one of
/// them would make the product zero, whatever the seed.
#[derive(Clone)]
pub(crate) struct KeyedHash {
    keys: [u64; 6],
}

impl KeyedHash {
    /// Two seeds give two unrelated hashes.
    pub(crate) fn new(seed: u64) -> Self {
        let step = |at: u64| seed.wrapping_add(at.wrapping_mul(GOLDEN_RATIO));
        Self { keys: [1, 2, 3, 4, 5, 6].map(|at| split_mix(step(at))) }
    }

    /// What it is keyed with: a secret.
    pub(crate) const fn keys(&self) -> [u64; 6] {
        self.keys
    }

    /// All 37 bytes of the 5-tuple in three multiplications, of which only the last has to wait.
    #[inline]
    pub(crate) const fn flow(&self, key: &FlowKey) -> u64 {
        let ports = (key.src_port as u64) << 32 | (key.dst_port as u64) << 16 | key.protocol as u64;
        let [a, b, c, d, e, f] = self.keys;
        let src = fold(upper(key.src) ^ a, lower(key.src) ^ b);
        let dst = fold(upper(key.dst) ^ c, lower(key.dst) ^ d);
        fold(src ^ ports ^ e, dst ^ f)
    }

    /// A source of a service.
    #[inline]
    pub(crate) const fn source(&self, service: ServiceSlot, source: Addr) -> u64 {
        let [a, b, c, d, ..] = self.keys;
        let source = fold(upper(source) ^ a, lower(source) ^ b);
        fold(source ^ service.0 as u64 ^ c, d)
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed is a secret.
        f.write_str("KeyedHash")
    }
}

/// Both halves of the product, one over the other: its middle bits depend on the most input bits.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    lower_of(product) ^ upper_of(product)
}

#[inline]
const fn upper(addr: Addr) -> u64 {
    upper_of(addr.bits())
}

#[inline]
const fn lower(addr: Addr) -> u64 {
    lower_of(addr.bits())
}

#[inline]
const fn upper_of(bits: u128) -> u64 {
    (bits >> 64) as u64
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn lower_of(bits: u128) -> u64 {
    bits as u64
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014).
const fn split_mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Maps 32 uniform bits to `0..range` without a division; `range` below 2^32.
#[inline]
pub(crate) const fn reduce(bits: u32, range: u32) -> u32 {
    ((bits as u64 * range as u64) >> 32) as u32
}

/// The lower half.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
pub(crate) const fn low(bits: u64) -> u32 {
    bits as u32
}

/// The upper half.
#[inline]
pub(crate) const fn high(bits: u64) -> u32 {
    low(bits >> 32)
}

/// The step of SplitMix64.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Protocol;

    #[test]
    fn every_field_of_the_key_counts() {
        let hash = KeyedHash::new(7);
        let key = FlowKey {
            src: Addr::from_v4([192, 0, 2, 1]),
            dst: Addr::from_v4([192, 0, 2, 2]),
            src_port: 1024,
            dst_port: 80,
            protocol: Protocol::Tcp,
        };
        let others = [
            FlowKey { src: Addr::from_v4([192, 0, 2, 3]), ..key },
            FlowKey { dst: Addr::from_v4([192, 0, 2, 3]), ..key },
            FlowKey { src: key.dst, dst: key.src, ..key },
            FlowKey { src_port: 80, dst_port: 1024, ..key },
            FlowKey { protocol: Protocol::Udp, ..key },
        ];
        for other in others {
            assert_ne!(hash.flow(&other), hash.flow(&key), "{other:?}");
        }
        assert_ne!(KeyedHash::new(8).flow(&key), hash.flow(&key));
        assert_ne!(
            hash.source(ServiceSlot(1), key.src),
            hash.source(ServiceSlot(2), key.src),
            "services do not share templates"
        );
    }

    #[test]
    fn reduction_stays_in_range() {
        for range in [1, 3, 1000, u32::MAX] {
            assert_eq!(reduce(0, range), 0);
            assert_eq!(reduce(u32::MAX, range), range - 1);
        }
    }
}
