//! Which backends frames can be sent to, and how.
//!
//! A link that goes down changes nothing here at once: every backend keeps its path, for the node's
//! own trouble is not a backend's. [`Reach::outage`] says since when there is no link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use dataplane::{Mac, PortId, Tick};

use crate::desired::Desired;
use crate::neighbour::{Neighbour, Unusable};
use crate::port::{Link, Network, Port};
use crate::resolution::Resolution;

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
    /// Of each of them, in the same order.
    carriers: Vec<Carrier>,
    /// The interface that each backend is reached by on-link, as the kernel routes.
    routes: BTreeMap<IpAddr, PortId>,
    /// Whether they are known.
    routed: bool,
    /// Of backend addresses only.
    neighbours: BTreeMap<IpAddr, Resolution>,
    /// Backends whose resolution has a deadline.
    pending: BTreeSet<IpAddr>,
    now: Tick,
}

/// What is remembered of a link.
#[derive(Clone, Copy, Debug, Default)]
struct Carrier {
    /// `None` before the first look.
    up: Option<bool>,
    /// Since when it has been so, if it was seen to change.
    since: Tick,
    /// Its own MAC, the last one known.
    mac: Option<Mac>,
    /// Since when the interface has an address to ask neighbours from, if it was seen to get one:
    /// IPv4, IPv6 (link-local: `ndisc_send_ns` in Linux asks from no other).
    addressed: [Option<Tick>; 2],
}

/// A link that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage<'a> {
    /// The interface.
    pub(super) interface: &'a str,
    /// Since when.
    pub(super) since: Tick,
}

/// For so long after the loss of a link its backends stay what they were: longer than a link takes
/// that flaps. Nothing can be sent meanwhile, but new connections only lose a SYN, and nothing that
/// outlasts the flap is decided.
pub(super) const LINK_PATIENCE: Duration = Duration::from_secs(1);
/// The same for backends that were never up: attaching the XDP program resets the link of some cards,
/// which then negotiate for some seconds.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// What passing time changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lapsed {
    /// Backends that were given up.
    pub(super) silent: Vec<IpAddr>,
    /// Whether a link has been down for as long as is waited for it.
    pub(super) outage: bool,
}

impl Reach {
    pub(super) fn new(desired: &Desired, now: Tick) -> Self {
        let ports = (0u16..).zip(&desired.interfaces).map(|(id, interface)| Port {
            name: interface.name.clone(),
            id: PortId(id),
            link: None,
            networks: Vec::new(),
        });
        Self {
            ports: ports.collect(),
            carriers: vec![Carrier { since: now, ..Carrier::default() }; desired.interfaces.len()],
            routes: BTreeMap::new(),
            routed: false,
            neighbours: BTreeMap::new(),
            pending: BTreeSet::new(),
            now,
        }
    }

    /// A device appeared, changed or (`None`) disappeared.
    pub(super) fn set_link(&mut self, id: PortId, link: Option<Link>) {
        let Some(port) = self.ports.get_mut(id.index()) else { return };
        port.link = link;
        let Some(carrier) = self.carriers.get_mut(id.index()) else { return };
        let up = link.is_some_and(|link| link.up);
        if carrier.up != Some(up) {
            // One that is up at first may have been so for days.
            let seen = carrier.up.is_some() || !up;
            carrier.since = if seen { self.now } else { Tick::default() };
            carrier.up = Some(up);
        }
        carrier.mac = link.map(|link| link.mac).or(carrier.mac);
        if !up {
            let here = self.routes.iter().filter(|(_, port)| **port == id);
            for (address, _) in here {
                if let Some(resolution) = self.neighbours.get_mut(address) {
                    resolution.link_lost(self.now);
                }
            }
        }
    }

    /// The usable addresses of an interface changed.
    pub(super) fn set_networks(&mut self, id: PortId, networks: Vec<Network>) {
        let Some(port) = self.ports.get_mut(id.index()) else { return };
        let before = std::mem::replace(&mut port.networks, networks);
        let Some(carrier) = self.carriers.get_mut(id.index()) else { return };
        let asks = |network: &Network, v4: bool| match network.address {
            IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => !v4 && v6.is_unicast_link_local(),
        };
        let has = |networks: &[Network], v4| networks.iter().any(|network| asks(network, v4));
        for (addressed, v4) in carrier.addressed.iter_mut().zip([true, false]) {
            if !has(&before, v4) && has(&port.networks, v4) {
                *addressed = Some(self.now);
            }
        }
    }

    /// Takes in by which interface the kernel reaches each backend on-link; returns whether that is
    /// news. A link that goes down takes its routes along: then the last one is kept.
    pub(super) fn set_routes(&mut self, mut routes: BTreeMap<IpAddr, Option<PortId>>) -> bool {
        for (address, route) in &mut routes {
            *route = route.or_else(|| {
                let known = self.routes.get(address).copied()?;
                self.up_since(known).is_none().then_some(known)
            });
        }
        let routes: BTreeMap<IpAddr, PortId> =
            routes.into_iter().filter_map(|(address, route)| Some((address, route?))).collect();
        let Self { neighbours, pending, now, .. } = self;
        neighbours.retain(|address, _| routes.get(address) == self.routes.get(address));
        pending.retain(|address| neighbours.contains_key(address));
        for address in routes.keys() {
            if !neighbours.contains_key(address) {
                neighbours.insert(*address, Resolution::new(*now));
                pending.insert(*address);
            }
        }
        let first = !std::mem::replace(&mut self.routed, true);
        let before = std::mem::replace(&mut self.routes, routes);
        first || before != self.routes
    }

    /// Takes in what the kernel says of a neighbour; returns whether that is news.
    pub(super) fn learn(&mut self, address: IpAddr, neighbour: Neighbour) -> bool {
        let up_since = self.askable_since(address);
        let Some(resolution) = self.neighbours.get_mut(&address) else { return false };
        let news = resolution.hear(neighbour, up_since, self.now);
        if resolution.is_pending() {
            self.pending.insert(address);
        } else {
            self.pending.remove(&address);
        }
        news
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: Tick) -> Lapsed {
        let before = self.now;
        self.now = before.max(now);
        let passed = |at: &Tick| *at > before && *at <= self.now;
        let outage = self.outage_deadlines().any(|at| passed(&at));
        let mut silent = Vec::new();
        for address in self.pending.clone() {
            let up_since = self.askable_since(address);
            if let Some(resolution) = self.neighbours.get_mut(&address)
                && resolution.handle_timeout(up_since, self.now)
            {
                self.pending.remove(&address);
                silent.push(address);
            }
        }
        Lapsed { silent, outage }
    }

    /// When [`Self::advance`] will have something to say.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        let pending = self.pending.iter().filter_map(|address| {
            self.neighbours.get(address)?.next_deadline(self.askable_since(*address))
        });
        pending.chain(self.outage_deadlines().filter(|at| *at > self.now)).min()
    }

    fn outage_deadlines(&self) -> impl Iterator<Item = Tick> {
        let down = self.carriers.iter().filter(|carrier| carrier.up != Some(true));
        down.flat_map(|carrier| [LINK_PATIENCE, FIRST_PATIENCE].map(|wait| carrier.since + wait))
    }

    /// The MAC of a backend, whether or not its link is up.
    pub(super) fn mac(&self, address: IpAddr) -> Option<Mac> {
        self.neighbours.get(&address)?.mac().ok()
    }

    /// Whether no MAC of a backend is known.
    pub(super) fn is_unresolved(&self, address: IpAddr) -> bool {
        self.neighbours.get(&address).is_some_and(|resolution| resolution.mac().is_err())
    }

    /// Whether an administrator entered the MAC of a backend.
    pub(super) fn is_static(&self, address: IpAddr) -> bool {
        self.neighbours.get(&address).is_some_and(Resolution::is_static)
    }

    /// The interface that a backend is reached by.
    pub(super) fn port_towards(&self, address: IpAddr) -> Option<&Port> {
        self.ports.get(self.routes.get(&address)?.index())
    }

    /// The outage of the link towards a backend, if it is down.
    pub(super) fn outage(&self, address: IpAddr) -> Option<Outage<'_>> {
        let port = self.port_towards(address)?;
        let carrier = self.carriers.get(port.id.index())?;
        let down = carrier.up != Some(true);
        down.then_some(Outage { interface: &port.name, since: carrier.since })
    }

    /// Since when the link towards a backend is up.
    pub(super) fn up_since_towards(&self, address: IpAddr) -> Option<Tick> {
        self.up_since(*self.routes.get(&address)?)
    }

    /// Since when neighbour discovery can reach a backend.
    fn askable_since(&self, address: IpAddr) -> Option<Tick> {
        let up_since = self.up_since_towards(address)?;
        let carrier = self.carriers.get(self.routes.get(&address)?.index())?;
        let [v4, v6] = carrier.addressed;
        let addressed = if address.is_ipv4() { v4 } else { v6 };
        Some(addressed.map_or(up_since, |since| since.max(up_since)))
    }

    fn up_since(&self, id: PortId) -> Option<Tick> {
        let carrier = self.carriers.get(id.index())?;
        (carrier.up == Some(true)).then_some(carrier.since)
    }

    /// The path to a backend, or why it has none, whether or not its link is up.
    pub(super) fn path_to(&self, address: IpAddr) -> Result<Path, Unusable> {
        let none = if self.routed { Unusable::OffLink } else { Unusable::Resolving };
        let port = self.port_towards(address).ok_or(none)?;
        let own = self.carriers.get(port.id.index()).and_then(|carrier| carrier.mac);
        let own = own.ok_or_else(|| Unusable::LinkDown(port.name.clone()))?;
        let resolution = self.neighbours.get(&address).ok_or(Unusable::Resolving)?;
        let mac = resolution.mac()?;
        if self.carriers.iter().any(|carrier| carrier.mac == Some(mac)) {
            return Err(Unusable::OwnMac);
        }
        Ok(Path { port: port.id, own, mac })
    }
}
