//! VIPs that belong to no instance: where they are announced.
//!
//! The VRRP thread announces them; this module tells it when they become active, and when the MAC
//! address or the link of an interface changes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::{Mac, PortId};
use tracing::{info, warn};

use super::Node;
use crate::vrrp::{Command, Standalone};

/// Where VIPs were announced last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    ifindex: u32,
    mac: Mac,
    vips: Vec<IpAddr>,
}

impl Node {
    /// Has VIPs announced on interfaces where they, the MAC or the link are new.
    pub(super) fn follow_standalone(&mut self) {
        let wanted = self.to_announce();
        let Some(vrrp) = &mut self.vrrp else { return };
        let gone: Vec<PortId> =
            vrrp.announced.keys().filter(|port| !wanted.contains_key(port)).copied().collect();
        for port in gone {
            vrrp.announced.remove(&port);
            vrrp.thread.send(Command::Announce(port, None));
        }
        for (port, announced) in wanted {
            if vrrp.announced.get(&port) == Some(&announced) {
                continue;
            }
            let name = &self.controller.ports()[port.index()].name;
            match Standalone::open(announced.ifindex, announced.mac, announced.vips.clone()) {
                Ok(standalone) => {
                    let vips: Vec<String> =
                        announced.vips.iter().map(ToString::to_string).collect();
                    info!(
                        "Sending gratuitous ARPs and neighbour advertisements on {name} for {}: they \
                         are at {} now",
                        vips.join(", "),
                        announced.mac
                    );
                    vrrp.thread.send(Command::Announce(port, Some(Box::new(standalone))));
                }
                Err(error) => warn!("cannot announce the VIPs on {name}: {error}"),
            }
            // One that fails is tried again when something changes.
            vrrp.announced.insert(port, announced);
        }
    }

    /// The VIPs without an instance, while they are active, on every interface with a link that
    /// answers for them.
    fn to_announce(&self) -> BTreeMap<PortId, Announced> {
        let desired = self.controller.desired();
        let services = desired.services.iter().filter(|service| service.vrrp.is_none());
        let mut vips: Vec<IpAddr> = services.map(|service| service.vip).collect();
        vips.sort_unstable();
        vips.dedup();
        let active = self.vrrp.as_ref().is_some_and(|vrrp| vrrp.standalone);
        if vips.is_empty() || !active {
            return BTreeMap::new();
        }
        let ports = self.controller.ports();
        let silent = control::silent_ports(ports);
        let speaking = ports.iter().filter(|port| !silent.contains(&port.id));
        let announced = |port: &control::Port| {
            let link = port.link.filter(|link| link.up)?;
            let vips = vips.clone();
            Some((port.id, Announced { ifindex: link.ifindex, mac: link.mac, vips }))
        };
        speaking.filter_map(announced).collect()
    }
}
