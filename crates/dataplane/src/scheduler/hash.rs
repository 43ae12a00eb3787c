//! The hashes that all workers and all nodes share.
//!
//! SipHash-1-3 with keys that are published here: two nodes must agree without talking. Whoever
//! knows the keys can pick sources that share a backend, which hashing of addresses cannot prevent
//! anyway; nobody can make them collide in a table, as those are keyed per start.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::addr::Addr;
use crate::key::{FlowKey, ServiceKey};

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

/// The hash of a backend in a service; `purpose` makes it several independent ones.
pub(super) fn backend_hash(service: &ServiceKey, backend: Addr, purpose: u8) -> u64 {
    let mut hasher = hasher();
    hasher.write(&service.vip.octets());
    hasher.write(&[service.protocol as u8]);
    hasher.write(&service.first_port.to_be_bytes());
    hasher.write(&service.last_port.to_be_bytes());
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
    use crate::key::Protocol;

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
        assert_eq!(backend_hash(&service, src, 1), 0x5177_6ea9_99ba_fd02);
    }
}
