//! Interfaces as the control plane sees them.

use std::net::IpAddr;

use dataplane::{Addr, Mac, PortId};

/// A configured interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Kernel name.
    pub name: String,
    /// Its slot: the position in the configuration.
    pub id: PortId,
    /// What the kernel says; `None` while the device does not exist.
    pub link: Option<Link>,
    /// Connected networks.
    pub networks: Vec<Network>,
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index; a re-created device has a new one.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Administratively up and with carrier.
    pub up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
}

/// A connected network: the address of the interface and its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// The interface's own address.
    pub address: IpAddr,
    /// Prefix length as configured, 0–32 or 0–128.
    pub prefix: u8,
}

impl Network {
    /// Whether `ip` is on this network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        if self.address.is_ipv4() != ip.is_ipv4() {
            return false;
        }
        let bits = self.prefix.saturating_add(if ip.is_ipv4() { 96 } else { 0 });
        Addr::from(self.address).masked(bits) == Addr::from(ip).masked(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_respects_family_and_prefix() {
        let v4 = Network { address: [10, 1, 2, 3].into(), prefix: 24 };
        assert!(v4.contains([10, 1, 2, 200].into()));
        assert!(!v4.contains([10, 1, 3, 1].into()));
        let v6 = Network { address: "fd00::1".parse().unwrap(), prefix: 64 };
        assert!(v6.contains("fd00::ffff".parse().unwrap()));
        assert!(!v6.contains("fd00:0:0:1::1".parse().unwrap()));
        let all = Network { address: [10, 1, 2, 3].into(), prefix: 0 };
        assert!(all.contains([192, 0, 2, 1].into()));
        assert!(!all.contains("fd00::1".parse().unwrap()), "another family");
    }
}
