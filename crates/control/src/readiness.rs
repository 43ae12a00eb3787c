//! Whether a client would be served now, and if not, what is missing.
//!
//! The driver gathers [`Facts`]; [`missing`] turns them into reasons. A reason is about this node.
//! Backends that are known to be down are none: their state says so.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// What the driver sees.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The configured interfaces.
    pub interfaces: Vec<InterfaceFacts>,
    /// The workers of queues that should be served.
    pub workers: Vec<WorkerFacts>,
    /// Time since the VRRP thread, which renews all leases, was last seen alive. `None`: not
    /// started.
    pub vrrp_silent: Option<Duration>,
    /// VIPs that are not steered to the workers yet.
    pub unsteered: Vec<IpAddr>,
    /// Backends whose MAC address is being asked for.
    pub resolving: Vec<BackendId>,
    /// Backends whose first verdict is not in.
    pub unchecked: Vec<BackendId>,
    /// Whether the VIPs without a VRRP instance, if there are any, are active.
    pub standalone: Option<Lease>,
    /// The VRRP instances.
    pub instances: Vec<InstanceFacts>,
}

/// A configured interface.
#[derive(Clone, Debug, Default)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Whether the device exists.
    pub exists: bool,
    /// Whether it is set up (`ip link set … up`).
    pub admin_up: bool,
    /// Whether it has a link.
    pub link: bool,
    /// Why the program could not be attached, if it could not.
    pub refused: Option<String>,
    /// Why frames do not arrive as they were on the wire, or are not received at all.
    pub trouble: Vec<String>,
    /// Queues that should be served and have no bound socket, and why, if that is known.
    pub unbound: Vec<(u32, Option<String>)>,
    /// Addresses of this node that duplicate address detection (RFC 4862 §5.4) holds back.
    pub tentative: Vec<IpAddr>,
    /// Families of which it needs an address, to reach a backend or to send adverts, and has none.
    pub lacks: BTreeSet<Family>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct WorkerFacts {
    /// Its interface.
    pub interface: String,
    /// Its queue.
    pub queue: u32,
    /// Time since it was last seen alive.
    pub silent: Duration,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendId {
    /// Its service.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// Its address.
    pub address: IpAddr,
}

/// Whether VIPs are active on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// They are, and were announced.
    Held,
    /// They are not.
    Ended,
}

/// A VRRP instance.
#[derive(Clone, Debug)]
pub struct InstanceFacts {
    /// Its name.
    pub name: String,
    /// What it does.
    pub standing: Standing,
}

/// What a VRRP instance does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not started.
    Waiting,
    /// It cannot forward, for this reason.
    Blocked(String),
    /// It listens: another node is Active, or will be in a moment.
    Backup,
    /// It is Active.
    Active(Lease),
}

/// One thing that keeps clients from being served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The device does not exist.
    Interface(String),
    /// The program could not be attached.
    Refused(String, String),
    /// The device is not set up.
    AdminDown(String),
    /// The device has no link.
    Link(String),
    /// Frames do not arrive as they were on the wire, or are not received at all.
    Trouble(String, String),
    /// The device has no address of this family.
    Address(String, Family),
    /// An address of this node is still being checked for duplicates.
    Tentative(String, IpAddr),
    /// A queue has no bound socket.
    Queue(String, u32, Option<String>),
    /// A worker gives no sign of life.
    Worker(String, u32, Duration),
    /// The thread that renews the leases gives no sign of life.
    VrrpThread(Option<Duration>),
    /// A VIP is not steered to the workers.
    Vip(IpAddr),
    /// A backend's MAC address is being asked for.
    Neighbour(BackendId),
    /// A backend's first verdict is not in.
    Verdict(BackendId),
    /// The VIPs without a VRRP instance are not active.
    Standalone,
    /// A VRRP instance has not started.
    Instance(String),
    /// A VRRP instance cannot forward.
    Blocked(String, String),
    /// A VRRP instance is Active and its VIPs are not.
    Lease(String),
}

/// A worker beats every 50 ms and the VRRP thread looks every 100 ms; what is silent for longer than
/// this does not serve.
pub const SILENT: Duration = Duration::from_secs(1);

/// What keeps clients from being served, the cause before what follows from it.
pub fn missing(facts: &Facts) -> Vec<Missing> {
    let mut missing = Vec::new();
    for interface in &facts.interfaces {
        missing_of_interface(interface, &mut missing);
    }
    let silent = facts.workers.iter().filter(|worker| worker.silent > SILENT);
    missing.extend(
        silent.map(|worker| Missing::Worker(worker.interface.clone(), worker.queue, worker.silent)),
    );
    if facts.vrrp_silent.is_none_or(|silent| silent > SILENT) {
        missing.push(Missing::VrrpThread(facts.vrrp_silent));
    }
    missing.extend(facts.resolving.iter().map(|backend| Missing::Neighbour(backend.clone())));
    missing.extend(facts.unchecked.iter().map(|backend| Missing::Verdict(backend.clone())));
    missing.extend(facts.unsteered.iter().map(|vip| Missing::Vip(*vip)));
    if facts.standalone == Some(Lease::Ended) {
        missing.push(Missing::Standalone);
    }
    missing.extend(facts.instances.iter().filter_map(missing_of_instance));
    missing
}

/// Without a device nothing else can be said of it.
fn missing_of_interface(interface: &InterfaceFacts, missing: &mut Vec<Missing>) {
    let name = || interface.name.clone();
    if let Some(why) = &interface.refused {
        missing.push(Missing::Refused(name(), why.clone()));
        return;
    }
    if !interface.exists {
        missing.push(Missing::Interface(name()));
        return;
    }
    if !interface.admin_up {
        missing.push(Missing::AdminDown(name()));
        return;
    }
    if !interface.link {
        missing.push(Missing::Link(name()));
    }
    missing.extend(interface.lacks.iter().map(|family| Missing::Address(name(), *family)));
    missing.extend(interface.tentative.iter().map(|ip| Missing::Tentative(name(), *ip)));
    missing.extend(interface.trouble.iter().map(|why| Missing::Trouble(name(), why.clone())));
    let unbound = interface.unbound.iter();
    missing.extend(unbound.map(|(queue, why)| Missing::Queue(name(), *queue, why.clone())));
}

fn missing_of_instance(instance: &InstanceFacts) -> Option<Missing> {
    let name = || instance.name.clone();
    match &instance.standing {
        Standing::Waiting => Some(Missing::Instance(name())),
        Standing::Blocked(why) => Some(Missing::Blocked(name(), why.clone())),
        Standing::Active(Lease::Ended) => Some(Missing::Lease(name())),
        Standing::Active(Lease::Held) | Standing::Backup => None,
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name} does not exist"),
            Self::Refused(name, why) => write!(f, "interface {name} cannot be used: {why}"),
            Self::AdminDown(name) => {
                write!(f, "interface {name} is down: set it up with `ip link set {name} up`")
            }
            Self::Link(name) => write!(f, "interface {name} has no link"),
            Self::Trouble(name, why) => write!(f, "interface {name}: {why}"),
            Self::Address(name, family) => write!(f, "interface {name} has no {family} address"),
            Self::Tentative(name, address) => {
                write!(f, "interface {name}: {address} is being checked for duplicates")
            }
            Self::Queue(name, queue, why) => {
                write!(f, "interface {name}: queue {queue} is not bound{}", because(why.as_ref()))
            }
            Self::Worker(name, queue, silent) => write!(
                f,
                "interface {name}: the worker of queue {queue} gave no sign of life for {:.1} s",
                silent.as_secs_f64()
            ),
            Self::VrrpThread(None) => f.write_str("the thread that renews the leases is starting"),
            Self::VrrpThread(Some(silent)) => write!(
                f,
                "the thread that renews the leases gave no sign of life for {:.1} s",
                silent.as_secs_f64()
            ),
            Self::Vip(vip) => write!(f, "VIP {vip} is not steered yet"),
            Self::Neighbour(id) => write!(f, "{id}: its MAC address is not resolved yet"),
            Self::Verdict(id) => write!(f, "{id}: its first check is not over"),
            Self::Standalone => f.write_str("the VIPs without VRRP are not active"),
            Self::Instance(name) => write!(f, "VRRP instance {name} has not started"),
            Self::Blocked(name, why) => write!(f, "VRRP instance {name} is blocked: {why}"),
            Self::Lease(name) => {
                write!(f, "VRRP instance {name} is Active and its VIPs are not active")
            }
        }
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, backend, address } = self;
        write!(f, "backend {service}/{backend} {address}")
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

fn because(why: Option<&String>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0() -> InterfaceFacts {
        InterfaceFacts {
            name: "eth0".into(),
            exists: true,
            admin_up: true,
            link: true,
            ..InterfaceFacts::default()
        }
    }

    /// A node that serves.
    fn serving() -> Facts {
        let instance = |name: &str, standing| InstanceFacts { name: name.into(), standing };
        Facts {
            interfaces: vec![eth0()],
            workers: vec![WorkerFacts {
                interface: "eth0".into(),
                queue: 0,
                silent: Duration::from_millis(80),
            }],
            vrrp_silent: Some(Duration::from_millis(100)),
            standalone: Some(Lease::Held),
            instances: vec![
                instance("VI_1", Standing::Active(Lease::Held)),
                instance("VI_2", Standing::Backup),
            ],
            ..Facts::default()
        }
    }

    fn with(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = serving();
        change(&mut facts);
        missing(&facts).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_that_serves_misses_nothing() {
        assert_eq!(missing(&serving()), []);
        assert_eq!(with(|facts| facts.standalone = None), [""; 0], "every VIP has VRRP");
    }

    #[test]
    fn every_part_that_fails_is_named() {
        let rs1 = || BackendId {
            service: "web".into(),
            backend: "rs1".into(),
            address: [192, 0, 2, 11].into(),
        };
        let vip = IpAddr::from([192, 0, 2, 10]);
        type Change = Box<dyn FnOnce(&mut Facts)>;
        let cases: Vec<(Change, &str)> = vec![
            (Box::new(|f| f.interfaces[0].exists = false), "interface eth0 does not exist"),
            (
                Box::new(|f| f.interfaces[0].admin_up = false),
                "interface eth0 is down: set it up with `ip link set eth0 up`",
            ),
            (Box::new(|f| f.interfaces[0].link = false), "interface eth0 has no link"),
            (
                Box::new(|f| f.interfaces[0].refused = Some("foreign program".into())),
                "interface eth0 cannot be used: foreign program",
            ),
            (
                Box::new(|f| f.interfaces[0].unbound = vec![(3, Some("busy".into()))]),
                "interface eth0: queue 3 is not bound: busy",
            ),
            (
                Box::new(|f| f.interfaces[0].trouble = vec!["it hides VLAN tags".into()]),
                "interface eth0: it hides VLAN tags",
            ),
            (
                Box::new(|f| f.interfaces[0].unbound = vec![(3, None)]),
                "interface eth0: queue 3 is not bound",
            ),
            (
                Box::new(|f| f.interfaces[0].lacks = [Family::V6].into()),
                "interface eth0 has no IPv6 address",
            ),
            (
                Box::new(move |f| f.interfaces[0].tentative = vec![vip]),
                "interface eth0: 192.0.2.10 is being checked for duplicates",
            ),
            (
                Box::new(|f| f.workers[0].silent = Duration::from_millis(1500)),
                "interface eth0: the worker of queue 0 gave no sign of life for 1.5 s",
            ),
            (
                Box::new(|f| f.vrrp_silent = Some(Duration::from_millis(1100))),
                "the thread that renews the leases gave no sign of life for 1.1 s",
            ),
            (Box::new(|f| f.vrrp_silent = None), "the thread that renews the leases is starting"),
            (Box::new(move |f| f.unsteered = vec![vip]), "VIP 192.0.2.10 is not steered yet"),
            (
                Box::new(move |f| f.resolving = vec![rs1()]),
                "backend web/rs1 192.0.2.11: its MAC address is not resolved yet",
            ),
            (
                Box::new(move |f| f.unchecked = vec![rs1()]),
                "backend web/rs1 192.0.2.11: its first check is not over",
            ),
            (
                Box::new(|f| f.standalone = Some(Lease::Ended)),
                "the VIPs without VRRP are not active",
            ),
            (
                Box::new(|f| f.instances[1].standing = Standing::Waiting),
                "VRRP instance VI_2 has not started",
            ),
            (
                Box::new(|f| f.instances[1].standing = Standing::Blocked("no link".into())),
                "VRRP instance VI_2 is blocked: no link",
            ),
            (
                Box::new(|f| f.instances[0].standing = Standing::Active(Lease::Ended)),
                "VRRP instance VI_1 is Active and its VIPs are not active",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(with(change), [expected]);
        }
    }

    #[test]
    fn of_a_device_that_is_not_there_only_that_is_said() {
        let told = with(|facts| {
            facts.interfaces[0].exists = false;
            facts.interfaces[0].link = false;
            facts.interfaces[0].lacks.insert(Family::V4);
            facts.interfaces[0].unbound = vec![(0, None)];
        });
        assert_eq!(told, ["interface eth0 does not exist"]);
    }
}
