//! Membership in the solicited-node multicast groups of the IPv6 VIPs.
//!
//! A neighbour solicitation goes to the group of the address that is asked for (RFC 4291 §2.7.1),
//! and a host must have joined it (RFC 4862 §5.4.2): network cards filter multicast by address, and
//! switches with MLD snooping pass a group to its members only. The kernel joins for addresses that
//! it owns, and it must not own a VIP.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use control::Desired;
use socket2::{Domain, Socket, Type};
use tracing::warn;

use super::Node;

/// The memberships, which end with their sockets.
#[derive(Debug, Default)]
pub(super) struct SolicitedGroups {
    _sockets: Vec<Socket>,
    /// (Interface index, group) of all memberships.
    joined: BTreeSet<(u32, Ipv6Addr)>,
    /// The last attempt failed, and the log says so.
    failed: bool,
}

impl SolicitedGroups {
    /// Makes `wanted` the memberships.
    fn set(&mut self, wanted: BTreeSet<(u32, Ipv6Addr)>) {
        if self.joined == wanted {
            return;
        }
        match join(&wanted) {
            Ok(sockets) => {
                *self = Self { _sockets: sockets, joined: wanted, failed: false };
            }
            Err(error) => {
                if !self.failed {
                    warn!(%error, "cannot join the multicast groups of the IPv6 VIPs: cards that \
                        filter multicast will not deliver questions for them; is IPv6 disabled on \
                        the interface (net.ipv6.conf.*.disable_ipv6)?");
                }
                self.failed = true;
            }
        }
    }
}

impl Node {
    /// Joins the groups of active VIPs on the devices that there are now, and leaves others.
    pub(super) fn follow_groups(&mut self) {
        let desired = self.controller.desired();
        let device = |interface: &str| {
            let device = self.devices.iter().find(|device| device.wanted.name == interface);
            device.and_then(|device| device.link).map(|link| link.ifindex)
        };
        let active =
            |instance: Option<&str>| self.vrrp.as_ref().is_some_and(|vrrp| vrrp.owns(instance));
        let wanted = memberships(desired, device, active);
        self.groups.set(wanted);
    }
}

/// The groups of active IPv6 VIPs, each on the interface of its VRRP instance, or on all interfaces when
/// it has none. `device` gives the index of an interface that exists, `active` says whether the VIPs of
/// an instance are active here, or (`None`) those without one.
fn memberships(
    desired: &Desired,
    device: impl Fn(&str) -> Option<u32>,
    active: impl Fn(Option<&str>) -> bool,
) -> BTreeSet<(u32, Ipv6Addr)> {
    let mut found = BTreeSet::new();
    for service in &desired.services {
        let IpAddr::V6(vip) = service.vip else { continue };
        if !active(service.vrrp.as_deref()) {
            continue;
        }
        let instance = desired.vrrp.iter().find(|vrrp| service.vrrp.as_ref() == Some(&vrrp.name));
        let of_instance = instance.map(|vrrp| vrrp.interface.as_str());
        let all = desired.interfaces.iter().map(|interface| interface.name.as_str());
        for interface in all.filter(|name| of_instance.is_none_or(|only| only == *name)) {
            found.extend(device(interface).map(|ifindex| (ifindex, solicited_node(vip))));
        }
    }
    found
}

/// ff02::1:ff00:0/104 with the last 24 bits of the address (RFC 4291 §2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// Several sockets: the memberships of one are limited by `net.core.optmem_max`.
fn join(wanted: &BTreeSet<(u32, Ipv6Addr)>) -> io::Result<Vec<Socket>> {
    let wanted: Vec<_> = wanted.iter().collect();
    let join = |groups: &[&(u32, Ipv6Addr)]| -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        groups.iter().try_for_each(|(ifindex, group)| socket.join_multicast_v6(group, *ifindex))?;
        Ok(socket)
    };
    wanted.chunks(GROUPS_PER_SOCKET).map(join).collect()
}

const GROUPS_PER_SOCKET: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_has_the_last_24_bits() {
        let group = |address: &str| solicited_node(address.parse().unwrap()).to_string();
        // The example of RFC 4291 §2.7.1.
        assert_eq!(group("4037::01:800:200E:8C6C"), "ff02::1:ff0e:8c6c");
        assert_eq!(group("fd77::100"), "ff02::1:ff00:100");
    }

    #[test]
    fn a_vip_is_joined_where_it_may_be_asked_for() {
        let text = "[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth1\"\n\
            [[vrrp]]\nname = \"VI_6\"\ninterface = \"eth1\"\nvrid = 6\npriority = 100\n\
            [[service]]\nname = \"own\"\nvip = \"2001:db8::6\"\nprotocol = \"tcp\"\nport = 80\n\
            vrrp = \"VI_6\"\n\
            [[service.backend]]\nname = \"rs1\"\naddress = \"2001:db8::11\"\n\
            [[service]]\nname = \"any\"\nvip = \"2001:db8::7\"\nprotocol = \"tcp\"\nport = 80\n\
            [[service.backend]]\nname = \"rs1\"\naddress = \"2001:db8::11\"\n\
            [[service]]\nname = \"v4\"\nvip = \"192.0.2.7\"\nprotocol = \"tcp\"\nport = 80\n\
            [[service.backend]]\nname = \"rs1\"\naddress = \"192.0.2.11\"\n";
        let desired = config::parse("test.toml", text).expect("a sound configuration").desired;
        let group = |last| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, last);
        let both = |name: &str| Some(if name == "eth0" { 2 } else { 3 });
        let expected = BTreeSet::from([(2, group(7)), (3, group(6)), (3, group(7))]);
        assert_eq!(memberships(&desired, both, |_| true), expected);
        let backup = |instance: Option<&str>| instance.is_none();
        let standalone = BTreeSet::from([(2, group(7)), (3, group(7))]);
        assert_eq!(memberships(&desired, both, backup), standalone, "a Backup leaves");
        let one = |name: &str| (name == "eth0").then_some(2);
        assert_eq!(memberships(&desired, one, |_| true), BTreeSet::from([(2, group(7))]));
    }
}
