//! The hashes that all workers and all nodes share.
//!
//! SipHash-1-3 with keys that are published here: two nodes must agree without talking. A
//! sender that knows the keys can pick sources that share a backend, which hashing of addresses
//! cannot prevent anyway; no sender can make them collide in a table, as those are keyed per start.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::HashSeed;
use crate::addr::Addr;
use crate::key::FlowKey;

/// The hash of a masked source address.
#[inline]
pub fn source_hash(source: Addr) -> u64 {
    hasher().hash(&source.octets())
}

/// The hash of a 5-tuple: for services without persistence.
#[inline]
pub fn flow_hash(key: &FlowKey) -> u64 {
    let mut hasher = hasher();
    hasher.write(&key.src.octets());
    hasher.write(&key.dst.octets());
    hasher.write(&key.src_port.to_be_bytes());
    hasher.write(&key.dst_port.to_be_bytes());
    hasher.write(&[key.protocol as u8]);
    hasher.finish()
}

/// Other hashes that follow from one, as SplitMix64 does it; the first is the hash itself.
pub(super) const fn nth(hash: u64, at: u64) -> u64 {
    if at == 0 {
        return hash;
    }
    let mixed = hash.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The hash of a backend; `purpose` makes it several independent ones.
pub(super) fn backend_hash(seed: HashSeed, backend: Addr, purpose: u8) -> u64 {
    let mut hasher = hasher();
    if let HashSeed::Service(service) = seed {
        hasher.write(&service.vip.octets());
        hasher.write(&[service.protocol as u8]);
        hasher.write(&service.first_port.to_be_bytes());
        hasher.write(&service.last_port.to_be_bytes());
    }
    hasher.write(&backend.octets());
    hasher.write(&[purpose]);
    hasher.finish()
}

#[inline]
fn hasher() -> SipHasher13 {
    SipHasher13::new_with_key(KEY)
}

/// Changing it makes nodes of different versions disagree about every source.
const KEY: &[u8; 16] = b"pointsman/shared";

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::key::{Protocol, ServiceKey};

    /// Nodes of different versions and architectures must agree: these numbers, computed with
    /// another implementation of SipHash-1-3, may never change.
    #[test]
    fn hashes_are_part_of_the_protocol_between_nodes() {
        let address = |last| Addr::from(IpAddr::from(Ipv4Addr::new(192, 0, 2, last)));
        let (src, dst) = (address(1), address(2));
        let flow = FlowKey { src, dst, src_port: 3, dst_port: 4, protocol: Protocol::Udp };
        let service =
            ServiceKey { vip: dst, protocol: Protocol::Tcp, first_port: 80, last_port: 81 };
        assert_eq!(source_hash(src), 0x8fb0_0f10_6804_24ce);
        assert_eq!(flow_hash(&flow), 0xecea_d888_45e5_7e2b);
        assert_eq!(backend_hash(service.into(), src, 1), 0x5177_6ea9_99ba_fd02);
    }
}
