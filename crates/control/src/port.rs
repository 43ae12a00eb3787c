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

/// Interfaces that are on one segment with an earlier one that has a link.
///
/// A VIP without an instance is active on all interfaces, but on one segment a single MAC may answer
/// for it: hosts would hear another one at each question.
pub fn silent_ports(ports: &[Port]) -> Vec<PortId> {
    let up = |port: &&Port| port.link.is_some_and(|link| link.up);
    let up: Vec<&Port> = ports.iter().filter(up).collect();
    let repeated = up.iter().enumerate().filter(|(at, port)| {
        up.iter().take(*at).any(|earlier| share_a_network(&earlier.networks, &port.networks))
    });
    repeated.map(|(_, port)| port.id).collect()
}

/// Every interface is on a link-local network, which says nothing.
fn share_a_network(some: &[Network], others: &[Network]) -> bool {
    let link_local = |network: &Network| match network.address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    some.iter().filter(|one| !link_local(one)).any(|one| {
        others.iter().any(|other| one.prefix == other.prefix && one.contains(other.address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_interfaces_on_one_segment_the_first_with_a_link_speaks() {
        let network = |text: &str, prefix| Network { address: text.parse().unwrap(), prefix };
        let port = |id: u16, up, networks: &[Network]| Port {
            name: format!("eth{id}"),
            id: PortId(id),
            link: Some(Link { ifindex: u32::from(id) + 2, mac: Mac::default(), up, mtu: 1500 }),
            networks: networks.to_vec(),
        };
        let local = network("fe80::1", 64);
        let (a, b) = (network("10.0.0.1", 24), network("10.0.0.2", 24));
        let elsewhere = network("10.0.1.1", 24);
        let silent = |first_up| {
            let first = port(0, first_up, &[a, local]);
            let other = port(1, true, &[elsewhere, local]);
            silent_ports(&[first, other, port(2, true, &[b, local])])
        };
        assert_eq!(silent(true), [PortId(2)]);
        assert_eq!(silent(false), [], "the first one has no link");
    }

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
