//! Which backends frames can be sent to, and how.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::{Mac, PortId};

use crate::desired::Desired;
use crate::neighbour::{Neighbour, Unusable};
use crate::port::Port;

/// How to reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The egress port.
    pub(super) port: PortId,
    /// Its MAC.
    pub(super) own: Mac,
    /// The backend's MAC.
    pub(super) mac: Mac,
}

/// What is known of the links and of the hosts on them.
#[derive(Debug)]
pub(super) struct Reach {
    /// The configured interfaces.
    pub(super) ports: Vec<Port>,
    /// Of backend addresses only.
    neighbours: BTreeMap<IpAddr, Neighbour>,
}

impl Reach {
    pub(super) fn new(desired: &Desired) -> Self {
        let ports = (0u16..).zip(&desired.interfaces).map(|(id, interface)| Port {
            name: interface.name.clone(),
            id: PortId(id),
            link: None,
            networks: Vec::new(),
        });
        Self { ports: ports.collect(), neighbours: BTreeMap::new() }
    }

    pub(super) fn with_port(&mut self, id: PortId, change: impl FnOnce(&mut Port)) {
        if let Some(port) = self.ports.get_mut(id.index()) {
            change(port);
        }
        let Self { ports, neighbours } = self;
        neighbours.retain(|address, known| {
            *known != Neighbour::Failed || !is_cut_off(port_towards(ports, *address))
        });
    }

    /// Whether that is news. That nobody answers while the link is down says nothing of anybody.
    pub(super) fn learn(&mut self, address: IpAddr, neighbour: Neighbour) -> bool {
        let mut neighbour = neighbour.after(self.neighbours.get(&address).copied());
        if neighbour == Neighbour::Failed && is_cut_off(self.port_towards(address)) {
            neighbour = Neighbour::Missing;
        }
        self.neighbours.insert(address, neighbour) != Some(neighbour)
    }

    /// The MAC of a backend, whether or not its link is up.
    pub(super) fn mac(&self, address: IpAddr) -> Option<Mac> {
        self.neighbours.get(&address)?.mac()
    }

    /// The interface whose network a backend is on.
    pub(super) fn port_towards(&self, address: IpAddr) -> Option<&Port> {
        port_towards(&self.ports, address)
    }

    /// The path to a backend, or why it has none.
    pub(super) fn path_to(&self, address: IpAddr) -> Result<Path, Unusable> {
        let port = self.port_towards(address).ok_or(Unusable::OffLink)?;
        let link = port
            .link
            .filter(|link| link.up)
            .ok_or_else(|| Unusable::LinkDown(port.name.clone()))?;
        let neighbour = self.neighbours.get(&address).copied().unwrap_or(Neighbour::Missing);
        let Some(mac) = neighbour.mac() else {
            return Err(match neighbour {
                Neighbour::Failed => Unusable::NoAnswer,
                Neighbour::Resolved(_) | Neighbour::Asking(_) | Neighbour::Missing => {
                    Unusable::Resolving
                }
            });
        };
        if self.ports.iter().any(|port| port.link.is_some_and(|link| link.mac == mac)) {
            return Err(Unusable::OwnMac);
        }
        Ok(Path { port: port.id, own: link.mac, mac })
    }
}

fn port_towards(ports: &[Port], address: IpAddr) -> Option<&Port> {
    ports.iter().find(|port| port.networks.iter().any(|net| net.contains(address)))
}

/// Whether this node has no link there.
fn is_cut_off(port: Option<&Port>) -> bool {
    port.is_some_and(|port| !port.link.is_some_and(|link| link.up))
}
