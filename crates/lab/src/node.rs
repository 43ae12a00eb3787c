//! One machine of the lab: a namespace with one network interface, `eth0`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::netns::NetNs;

/// What a node is for. Decides its addresses and its kernel settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends requests; owns a routed range of source addresses.
    Client,
    /// Runs the product.
    Balancer,
    /// Answers requests; has the VIPs on `lo`.
    Backend,
}

/// A client, balancer or backend.
#[derive(Debug)]
pub struct Node {
    pub(crate) netns: Arc<NetNs>,
    pub(crate) role: Role,
    /// Counts from 1 within its role.
    pub(crate) number: u8,
    pub(crate) dir: PathBuf,
}

impl Node {
    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// `client1`, `lb1`, `rs1`, … ; also the name of its port on the switch.
    #[must_use]
    pub fn name(&self) -> String {
        node_name(self.role, self.number)
    }

    /// Its IPv4 address in the common subnet 10.77.0.0/16.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        addresses_of(self.role, self.number).0
    }

    /// Its IPv6 address in the common subnet fd77::/64.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        addresses_of(self.role, self.number).1
    }

    /// The MAC address of its `eth0`: 02:00 and the four bytes of [`Node::address`].
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        mac_of(self.role, self.number)
    }

    /// A directory for its files, removed with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first `count` addresses of the client's own range 10.(100+n).0.0/16, which everybody
    /// else reaches through the client's address: no ARP per source. All are ready for `bind`.
    #[must_use]
    pub fn sources(&self, count: u16) -> Vec<IpAddr> {
        let net = self.range_byte();
        let address = |index: u16| {
            let [high, low] = index.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(10, net, high, low))
        };
        (1..=count).map(address).collect()
    }

    /// The same for IPv6, from fd77:0:0:(100+n)::/64.
    #[must_use]
    pub fn sources_v6(&self, count: u16) -> Vec<IpAddr> {
        let net = u16::from(self.range_byte());
        (1..=count).map(|i| IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, net, 0, 0, 0, i))).collect()
    }

    /// The client's IPv4 and IPv6 source ranges in CIDR notation.
    pub(crate) fn ranges(&self) -> (String, String) {
        let net = self.range_byte();
        (format!("10.{net}.0.0/16"), format!("fd77:0:0:{:x}::/64", u16::from(net)))
    }

    /// Lines for `ip` that lead to the client's ranges.
    pub(crate) fn routes(&self) -> String {
        let (v4, v6) = self.ranges();
        let (via, via_v6) = (self.address(), self.address_v6());
        format!("route replace {v4} via {via}\nroute replace {v6} via {via_v6}\n")
    }

    /// The third byte of the ranges. At most 100 clients, see [`MAX_PER_ROLE`].
    fn range_byte(&self) -> u8 {
        100 + self.number
    }
}

impl Role {
    /// Third byte of the addresses in the common subnet.
    fn subnet(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Balancer => 2,
            Self::Backend => 3,
        }
    }
}

/// The addresses of a node in the common subnet.
pub(crate) fn addresses_of(role: Role, number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let subnet = role.subnet();
    let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, subnet.into(), number.into());
    (Ipv4Addr::new(10, 77, subnet, number), v6)
}

/// The MAC address of a node.
#[must_use]
pub fn mac_of(role: Role, number: u8) -> [u8; 6] {
    let [a, b, c, d] = addresses_of(role, number).0.octets();
    [0x02, 0x00, a, b, c, d]
}

pub(crate) fn node_name(role: Role, number: u8) -> String {
    match role {
        Role::Client => format!("client{number}"),
        Role::Balancer => format!("lb{number}"),
        Role::Backend => format!("rs{number}"),
    }
}

/// Largest number of nodes of one role.
pub const MAX_PER_ROLE: u8 = 100;
