//! Addresses as keys: 128 bits for both families, IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address; IPv4 is held as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr(u128);

const V4_MAPPED: u128 = 0xffff_0000_0000;

impl Addr {
    /// From four bytes in network order.
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self(V4_MAPPED | u32::from_be_bytes(bytes) as u128)
    }

    /// From sixteen bytes in network order.
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The 128 bits, most significant first.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Sixteen bytes in network order: the key of the BPF VIP map.
    pub const fn octets(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Whether this is an IPv4 address.
    pub const fn is_v4(self) -> bool {
        self.0 >> 32 == V4_MAPPED >> 32
    }

    /// The address with all but its first `len` bits cleared; `len` counts from the 128-bit form
    /// (an IPv4 /24 is 120) and is capped at 128.
    pub const fn masked(self, len: u8) -> Self {
        match len {
            0 => Self(0),
            1..=127 => Self(self.0 & (u128::MAX << (128 - len as u32))),
            _ => self,
        }
    }

    /// As the standard library has it.
    pub const fn ip(self) -> IpAddr {
        let v6 = Ipv6Addr::from_bits(self.0);
        match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(v6),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4(ip.octets())
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self(v6.to_bits()),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether a frame may be sent to it: neither all zero nor a group address (IEEE 802.3 §3.2.3).
    pub const fn is_unicast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a & 1 == 0 && (a | b | c | d | e | f) != 0
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_is_mapped() {
        let addr = Addr::from(IpAddr::from([192, 0, 2, 1]));
        assert!(addr.is_v4());
        assert_eq!(addr.to_string(), "192.0.2.1");
        assert_eq!(addr.masked(120).to_string(), "192.0.2.0");
        assert!(!Addr::from(IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1])).is_v4());
    }

    #[test]
    fn masks_at_the_edges() {
        let addr = Addr::from_v6([0xff; 16]);
        assert_eq!(addr.masked(0).bits(), 0);
        assert_eq!(addr.masked(1).bits(), 1 << 127);
        assert_eq!(addr.masked(128), addr);
        assert_eq!(addr.masked(200), addr);
    }

    #[test]
    fn group_and_null_macs_are_not_unicast() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!Mac([1, 0, 0x5e, 0, 0, 18]).is_unicast());
        assert!(!Mac::default().is_unicast());
    }
}
