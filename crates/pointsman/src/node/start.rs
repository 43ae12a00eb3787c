//! Starting up: what can be wrong with the machine is found before anything is changed, and what
//! goes wrong afterwards leaves nothing attached.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use arc_swap::ArcSwap;
use config::{Desired, Diagnostic, Diagnostics, Span, SpanIndex};
use control::{Controller, Event, XdpMode};
use dataplane::{PendingTable, PersistenceTable, PortId, SharedTables, Snapshot};
use steer::{KernelVersion, Steer, SteerError};
use tokio::sync::mpsc::{self, Receiver};
use tracing::warn;

use super::devices::Device;
use super::groups::SolicitedGroups;
use super::hooks::Hooks;
use super::vrrp_check::check_vrrp;
use super::{Inputs, Node, Schedule, permission};
use crate::clock;
use crate::health::unusable_tls;
use crate::netlink::{Netlink, Picture};
use crate::serve::Query;
use crate::signals::StopSignals;
use crate::systemd::Systemd;
use crate::worker::pool::{Pool, seed, usable_cpus};
use crate::worker::thread::WorkerEvent;

/// Longest IP packet that a 4 KiB frame holds: headroom, Ethernet header and two VLAN tags apart.
const MAX_MTU: u32 = 4096 - 256 - 14 - 8;
/// How long start waits for the queues: longer than binding is tried for.
const BIND_WAIT: Duration = Duration::from_secs(8);

impl Node {
    /// Checks the machine, attaches to the interfaces, binds every queue.
    ///
    /// # Errors
    /// Rendered [`Diagnostics`] for what the configuration asks and the machine does not have, and
    /// whatever the kernel refuses. Nothing stays attached then.
    pub async fn start(
        desired: Desired,
        spans: &SpanIndex,
        queries: Receiver<Query>,
    ) -> Result<(Self, Inputs)> {
        let stop = StopSignals::install()?;
        KernelVersion::check()?;
        if let Some(missing) = permission::missing() {
            bail!(missing);
        }
        let (netlink, notices) = Netlink::open()?;
        let picture = netlink.picture().await?;
        let mistakes = check_machine(&desired, spans, &picture);
        if !mistakes.is_empty() {
            bail!("{}", mistakes.render(false).trim_end());
        }
        warn_of_forwarding();
        let steer = Steer::load()?;
        let (reports, news) = mpsc::unbounded_channel();
        let snapshots = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let settings = &desired.dataplane;
        let half_open = settings.timeouts.half_open;
        let tables = Arc::new(SharedTables {
            pending: PendingTable::new(settings.pending_capacity, seed(), half_open),
            persistence: PersistenceTable::new(settings.persistence_capacity, seed()),
        });
        let pool = Pool::new(
            settings.clone(),
            Arc::clone(&snapshots),
            Arc::clone(&tables),
            steer.leases(),
            reports,
        );
        let devices = (0u16..)
            .zip(&desired.interfaces)
            .map(|(id, wanted)| Device::new(PortId(id), wanted.clone()))
            .collect();
        let mut node = Self {
            name: desired.node_name.clone().unwrap_or_else(host_name),
            started: clock::now(),
            controller: Controller::new(desired, clock::now()),
            devices,
            pool,
            tables,
            snapshots,
            retired: VecDeque::new(),
            netlink,
            stale: true,
            forgotten: BTreeSet::new(),
            hooks: Hooks::default(),
            health: None,
            groups: SolicitedGroups::default(),
            announced_ready: false,
            systemd: Systemd::from_environment(),
            next: Schedule::default(),
            vrrp: None,
            steer,
        };
        let mut inputs = Inputs { notices, news, queries, stop };
        node.take_devices(&picture, spans).await?;
        node.wait_for_queues(&mut inputs, spans).await?;
        node.start_vrrp(&picture)?;
        node.start_health();
        Ok((node, inputs))
    }

    async fn take_devices(&mut self, picture: &Picture, spans: &SpanIndex) -> Result<()> {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            device.link = picture.links.get(&device.wanted.name).copied();
            device.see_layers(&picture.layers);
            let (id, link) = (device.id, device.link);
            self.take_device(index).map_err(|error| self.locate(index, spans, error))?;
            let networks = link
                .and_then(|link| picture.networks.get(&link.ifindex).cloned())
                .unwrap_or_default();
            // Together: one without the other would look like a failure.
            self.controller.handle(Event::Networks(id, networks), clock::now());
            self.tell(Event::Link(id, link)).await;
        }
        self.look_at_neighbours().await;
        Ok(())
    }

    /// Every queue must be bound once: a queue that cannot be is a mistake to be told, not to be
    /// hidden behind later attempts.
    async fn wait_for_queues(&mut self, inputs: &mut Inputs, spans: &SpanIndex) -> Result<()> {
        let Inputs { news, stop, .. } = inputs;
        let bound = async {
            while self.devices.iter().any(|d| d.bound.len() < d.queues_wanted().len()) {
                match news.recv().await {
                    Some(WorkerEvent::Failed(id, refusal)) => {
                        let name = &self.devices[id.port.index()].wanted.name;
                        let place = spans.interface_setting(name, refusal.setting);
                        return Err(located(&place, refusal.text));
                    }
                    Some(news) => self.on_worker_event(news).await,
                    None => bail!("no worker is left"),
                }
            }
            Ok(())
        };
        tokio::select! {
            bound = tokio::time::timeout(BIND_WAIT, bound) => {
                bound.context("the queues were not bound in time")?
            }
            () = stop.requested() => bail!("told to stop before it was ready"),
        }
    }

    /// Says which line of the file asks for what an interface refused.
    fn locate(&self, index: usize, spans: &SpanIndex, error: anyhow::Error) -> anyhow::Error {
        let wanted = &self.devices[index].wanted;
        let setting = match error.downcast_ref::<SteerError>() {
            Some(SteerError::MtuTooLarge { .. } | SteerError::Attach { .. })
                if wanted.mode != XdpMode::Auto =>
            {
                "mode"
            }
            Some(
                SteerError::MtuTooLarge { .. }
                | SteerError::Attach { .. }
                | SteerError::Foreign(_)
                | SteerError::NoSuchInterface { .. },
            ) => "name",
            Some(
                SteerError::NoPermission { .. }
                | SteerError::Kernel { .. }
                | SteerError::Verifier { .. }
                | SteerError::Load { .. }
                | SteerError::Memlock
                | SteerError::Clock { .. }
                | SteerError::Map { .. }
                | SteerError::OutOfRange { .. }
                | SteerError::TooManyVips { .. }
                | SteerError::System { .. },
            )
            | None => return error,
        };
        located(&spans.interface_setting(&wanted.name, setting), format!("{error:#}"))
    }
}

/// One mistake that only the machine could find, rendered.
fn located(place: &Span, message: String) -> anyhow::Error {
    let mistake = Diagnostics::from_iter([Diagnostic::error(place, message)]);
    anyhow!("{}", mistake.render(false).trim_end())
}

/// Everything that the configuration asks and this machine does not have.
fn check_machine(desired: &Desired, spans: &SpanIndex, picture: &Picture) -> Diagnostics {
    let mut found = Vec::new();
    for interface in &desired.interfaces {
        found.extend(check_interface(interface, spans, picture));
    }
    found.extend(check_cpus(desired, spans));
    // Without its interface every backend would seem to be in the wrong place.
    let complete = desired.interfaces.iter().all(|i| picture.links.contains_key(&i.name));
    for service in &desired.services {
        found.extend(check_vip(service, spans, picture));
        for backend in service.hosts().filter(|_| complete) {
            let place = spans.backend_address(&service.name, &backend.name);
            found.extend(check_backend(desired, backend.address, &place, picture));
        }
    }
    found.extend(unusable_tls(desired).into_iter().map(|(service, index, error)| {
        let message = format!("service {service}: a check by https cannot be made: {error}");
        Diagnostic::error(&spans.health_check(&service, index), message)
            .with_label("would never pass")
            .with_help("name a readable file with certificates in PEM as `ca_file`")
    }));
    for instance in &desired.vrrp {
        found.extend(check_vrrp(desired, instance, spans, picture));
    }
    Diagnostics::from_iter(found)
}

fn check_vip(
    service: &control::Service,
    spans: &SpanIndex,
    picture: &Picture,
) -> Option<Diagnostic> {
    let vip = service.vip;
    let (owner, network) = picture.links.iter().find_map(|(name, link)| {
        let networks = picture.networks.get(&link.ifindex)?;
        Some((name, networks.iter().find(|network| network.address == vip)?))
    })?;
    Some(
        Diagnostic::error(
            &spans.service_vip(&service.name),
            format!("the kernel of this node owns the VIP {vip}"),
        )
        .with_label("must not be an address of this node")
        .with_help(format!(
            "remove it (`ip address del {vip}/{} dev {owner}`): pointsman answers for the VIP \
             itself, and only while it forwards",
            network.prefix
        )),
    )
}

fn check_cpus(desired: &Desired, spans: &SpanIndex) -> Option<Diagnostic> {
    let usable = usable_cpus();
    let missing = desired.dataplane.cpus.iter().flatten().find(|cpu| !usable.contains(cpu))?;
    let usable: Vec<String> = usable.iter().map(u32::to_string).collect();
    Some(
        Diagnostic::error(
            &spans.dataplane("cpus"),
            format!("CPU {missing} does not exist or may not be used by this process"),
        )
        .with_label("workers cannot be pinned to it")
        .with_help(format!("usable: {}; or say `cpus = \"auto\"`", usable.join(", "))),
    )
}

fn check_interface(
    interface: &control::Interface,
    spans: &SpanIndex,
    picture: &Picture,
) -> Option<Diagnostic> {
    let name = &interface.name;
    let Some(link) = picture.links.get(name) else {
        let known: Vec<&str> = picture.links.keys().map(String::as_str).collect();
        return Some(
            Diagnostic::error(&spans.interface(name), format!("interface {name} does not exist"))
                .with_label("no such interface in this network namespace")
                .with_help(format!("there are: {}", known.join(", "))),
        );
    };
    if link.mtu > MAX_MTU {
        return Some(
            Diagnostic::error(
                &spans.interface(name),
                format!("interface {name} has an MTU of {} bytes, above {MAX_MTU}", link.mtu),
            )
            .with_label("its packets do not fit into a frame of 4096 bytes")
            .with_help(format!("lower it: `ip link set {name} mtu 1500`")),
        );
    }
    if let Some(refusal) = picture.layers.unsuitable(link.ifindex) {
        let place = spans.interface(name);
        return Some(
            Diagnostic::error(&place, refusal.what)
                .with_label(refusal.why)
                .with_help(refusal.remedy),
        );
    }
    if picture.down.contains(name) {
        return Some(
            Diagnostic::error(&spans.interface(name), format!("interface {name} is down"))
                .with_label("takes no AF_XDP socket while it is down")
                .with_help(format!("set it up: `ip link set {name} up`")),
        );
    }
    let queues = xsk::rx_queues(name).unwrap_or(1);
    let missing = interface.queues.iter().flatten().find(|queue| **queue >= queues)?;
    Some(
        Diagnostic::error(
            &spans.interface_setting(name, "queues"),
            format!("interface {name} has no queue {missing}"),
        )
        .with_label(match queues {
            1 => "it has only queue 0".to_owned(),
            _ => format!("it has queues 0 to {}", queues - 1),
        })
        .with_help("name queues that exist, or say `queues = \"all\"`"),
    )
}

fn check_backend(
    desired: &Desired,
    address: IpAddr,
    place: &Span,
    picture: &Picture,
) -> Option<Diagnostic> {
    if picture.networks.values().flatten().any(|network| network.address == address) {
        return Some(
            Diagnostic::error(place, format!("{address} is an address of this node"))
                .with_label("frames would come back to the balancer")
                .with_help("a backend must be another host"),
        );
    }
    let on_network = |name: &str| {
        let link = picture.links.get(name)?;
        let networks = picture.networks.get(&link.ifindex)?;
        networks.iter().any(|network| network.contains(address)).then_some(())
    };
    if desired.interfaces.iter().any(|interface| on_network(&interface.name).is_some()) {
        return None;
    }
    let elsewhere = picture.links.keys().find(|name| on_network(name).is_some());
    let networks: Vec<String> = desired
        .interfaces
        .iter()
        .filter_map(|interface| picture.links.get(&interface.name))
        .filter_map(|link| picture.networks.get(&link.ifindex))
        .flatten()
        .filter(|network| !is_link_local(network.address))
        .map(|network| format!("{}/{}", network.address, network.prefix))
        .collect();
    let help = match elsewhere {
        Some(name) => format!("it is on a network of {name}: add an [[interface]] for {name}"),
        None => format!(
            "direct routing changes only the MAC address, so a backend must be a neighbour; the \
             configured interfaces have {}",
            if networks.is_empty() { "no address".to_owned() } else { networks.join(", ") }
        ),
    };
    Some(
        Diagnostic::error(
            place,
            format!("{address} is not on a network of a configured interface"),
        )
        .with_label("not directly reachable")
        .with_help(help),
    )
}

/// Every interface has such an IPv6 address: it tells nobody anything.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// With forwarding on, this kernel would route VIP packets that reach it by another way.
fn warn_of_forwarding() {
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0") {
            warn!(
                "{path} is on: while no socket serves a queue, the kernel forwards VIP packets \
                 itself; turn it off unless this node is a router too"
            );
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
