//! Starting up: what can be wrong with the machine is found before anything is changed, and what
//! goes wrong afterwards leaves nothing attached.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use arc_swap::ArcSwap;
use config::{Diagnostic, Diagnostics, Parsed, Span, SpanIndex};
use control::{Controller, Event, Repeats, Reuse, XdpMode};
use dataplane::{FragmentTable, PendingTable, PersistenceTable, PortId, SharedTables, Snapshot};
use steer::{KernelVersion, SteerError};
use tokio::sync::mpsc::{self, Receiver};
use tracing::warn;

use super::devices::Device;
use super::groups::SolicitedGroups;
use super::hooks::Hooks;
use super::kept_overrides::KeptOverrides;
use super::machine::Machine;
use super::neighbour_tables::NeighbourTables;
use super::neighbours::Stale;
use super::reload::Configurations;
use super::tags::TagsLost;
use super::{Inputs, Node, Schedule, permission};
use crate::clock;
use crate::configuration::{Loaded, host_name};
use crate::netlink::{self, Netlink, Picture};
use crate::serve::Query;
use crate::signals::StopSignals;
use crate::systemd::Systemd;
use crate::worker::pool::{Pool, seed};
use crate::worker::thread::WorkerEvent;

/// How long start waits for the queues: longer than binding is tried for.
const BIND_WAIT: Duration = Duration::from_secs(8);

impl Node {
    /// Checks the machine, attaches to the interfaces, binds every queue.
    ///
    /// # Errors
    /// Rendered [`Diagnostics`] for what the configuration asks and the machine does not have, and
    /// whatever the kernel refuses. Nothing stays attached then.
    pub async fn start(loaded: Loaded, queries: Receiver<Query>) -> Result<(Self, Inputs)> {
        let Parsed { desired, ref spans, .. } = loaded.parsed.clone();
        let stop = StopSignals::install()?;
        KernelVersion::check()?;
        if let Some(missing) = permission::missing() {
            bail!(missing);
        }
        let mut netlink = Netlink::open()?;
        let notices = netlink::subscribe()?;
        let picture = netlink.picture().await?;
        let backends = desired.services.iter().flat_map(control::Service::hosts);
        let routes = netlink.on_link(backends.map(|backend| backend.address)).await?;
        let machine = Machine { picture: &picture, routes: &routes };
        let mistakes = machine.check(&desired, spans);
        if !mistakes.is_empty() {
            bail!("{}", mistakes.render(false).trim_end());
        }
        warn_of_forwarding();
        let settings = &desired.dataplane;
        let steer = super::fast_path::load(settings.fast_path, settings.flow_capacity)?;
        let publisher = super::fast_path::publisher(&steer)?;
        let losses = super::fast_path::watch_losses(&steer);
        let (reports, news) = mpsc::unbounded_channel();
        let snapshots = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let tables = Arc::new(tables_of(settings));
        let pool = Pool::new(
            settings.clone(),
            Arc::clone(&snapshots),
            Arc::clone(&tables),
            steer.leases(),
            reports,
        );
        let devices = devices_of(&desired.interfaces);
        let kept_overrides = KeptOverrides::new(&desired.control_socket);
        let mut overrides = kept_overrides.load(clock::now());
        overrides.retain(&desired);
        let mut node = Self {
            name: desired.node_name.clone().unwrap_or_else(host_name),
            started: clock::now(),
            controller: Controller::new(overrides.apply(&desired), clock::now()),
            configurations: Configurations::new(loaded, clock::now()),
            overrides,
            kept_overrides,
            devices,
            pool,
            tables,
            snapshots,
            retired: VecDeque::new(),
            netlink,
            stale: Stale { links: true, ..Stale::default() },
            forgotten: BTreeSet::new(),
            ask_failing: false,
            deaf: false,
            overruns: 0,
            overrun_lines: Repeats::default(),
            meters: super::rates::Meters::default(),
            neighbour_tables: NeighbourTables::default(),
            hooks: Hooks::default(),
            health: None,
            groups: SolicitedGroups::default(),
            owned_vips: BTreeSet::new(),
            announced_ready: false,
            status: Reuse::new(),
            systemd: Systemd::from_environment(),
            next: Schedule::default(),
            vrrp: None,
            publisher,
            losses,
            steer,
        };
        let mut inputs = Inputs { notices, news, queries, stop };
        node.take_devices(&picture, spans).await?;
        node.wait_for_queues(&mut inputs, spans).await?;
        node.start_vrrp(&picture)?;
        node.start_health();
        Ok((node, inputs))
    }

    /// Takes the devices that are there up; the others are waited for.
    async fn take_devices(&mut self, picture: &Picture, spans: &SpanIndex) -> Result<()> {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            device.link = picture.links.get(&device.wanted.name).copied();
            device.see_layers(&picture.layers);
            device.see(picture);
            let (id, link) = (device.id, device.link);
            self.take_device(index).map_err(|error| self.locate(index, spans, error))?;
            let networks = self.devices[index].networks(picture);
            let now = clock::now();
            self.controller.handle(Event::Networks(id, networks), now);
            self.controller.handle(Event::Link(id, link), now);
        }
        let routes = self.routes().await?;
        self.controller.handle(Event::Routes(routes), clock::now());
        // Before anything is asked for: what an administrator entered must not be.
        self.look_at_neighbours(false).await;
        Ok(())
    }

    /// Every queue must be bound once: a queue that cannot be is a mistake to be told, not to be
    /// hidden behind later attempts.
    async fn wait_for_queues(&mut self, inputs: &mut Inputs, spans: &SpanIndex) -> Result<()> {
        let Inputs { news, stop, .. } = inputs;
        let bound = async {
            let unbound = |device: &Device| {
                device.admin_up && device.bound.len() < device.queues_wanted().len()
            };
            while self.devices.iter().any(unbound) {
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
            None if error.is::<TagsLost>() => "name",
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
                | SteerError::Ingress { .. }
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

/// Those of the configuration, in its order.
fn devices_of(interfaces: &[control::Interface]) -> Vec<Device> {
    let ids = (0u16..).map(PortId);
    ids.zip(interfaces).map(|(id, wanted)| Device::new(id, wanted.clone())).collect()
}

/// With seeds of this start.
fn tables_of(settings: &control::Dataplane) -> SharedTables {
    let half_open = settings.timeouts.half_open;
    SharedTables {
        pending: PendingTable::new(settings.pending_capacity, seed(), half_open),
        persistence: PersistenceTable::new(settings.persistence_capacity, seed()),
        fragments: FragmentTable::new(FRAGMENT_CAPACITY, seed()),
    }
}

/// One mistake that only the machine could find, rendered.
fn located(place: &Span, message: String) -> anyhow::Error {
    let mistake = Diagnostics::from_iter([Diagnostic::error(place, message)]);
    anyhow!("{}", mistake.render(false).trim_end())
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

/// Datagrams whose first fragment is remembered for a second: 147 KB. Beyond, the oldest are forgotten;
/// a datagram needs some milliseconds.
const FRAGMENT_CAPACITY: usize = 1 << 14;
