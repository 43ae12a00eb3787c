//! Keyed hashing of what clients can choose.

use std::fmt;
use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use crate::addr::Addr;
use crate::key::FlowKey;
use crate::slots::ServiceSlot;

/// A hash whose every multiplier comes from a seed.
///
/// `foldhash::FixedState` keys only the start value: its multipliers are public, and an IPv6
/// source that equals one of them makes the product zero, whatever the seed. So the multipliers
/// are derived from the seed as well.
#[derive(Clone)]
pub(crate) struct KeyedHash {
    start: u64,
    multipliers: SharedSeed,
}

impl KeyedHash {
    /// Two seeds give two unrelated hashes.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { start: seed.rotate_left(32) ^ START, multipliers: SharedSeed::from_u64(seed) }
    }

    /// All 37 bytes of the 5-tuple in four multiplications.
    #[inline]
    pub(crate) fn flow(&self, key: &FlowKey) -> u64 {
        let mut hasher = self.hasher();
        hasher.write_u128(key.src.bits());
        hasher.write_u128(key.dst.bits());
        hasher.write_u64(
            u64::from(key.src_port) << 32 | u64::from(key.dst_port) << 16 | key.protocol as u64,
        );
        hasher.finish()
    }

    /// A source of a service.
    #[inline]
    pub(crate) fn source(&self, service: ServiceSlot, source: Addr) -> u64 {
        let mut hasher = self.hasher();
        hasher.write_u128(source.bits());
        hasher.write_u64(u64::from(service.0));
        hasher.finish()
    }

    #[inline]
    fn hasher(&self) -> FoldHasher<'_> {
        FoldHasher::with_seed(self.start, &self.multipliers)
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed is a secret.
        f.write_str("KeyedHash")
    }
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

/// Arbitrary, so that the seed zero is as good as any.
const START: u64 = 0x9e37_79b9_7f4a_7c15;

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
