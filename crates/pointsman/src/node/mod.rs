//! The control thread: one loop over netlink, workers, timers, signals and questions.
//!
//! It owns every control-plane object, so nothing here is locked or shared. Decisions are made by
//! [`Controller`]; this module carries them out.

mod devices;
mod fast_path;
mod groups;
mod health;
mod health_view;
mod hooks;
mod kept_overrides;
mod listing;
mod local_senders;
mod machine;
mod neighbour_tables;
mod neighbours;
mod nics;
mod offloads;
mod operator;
mod owned;
mod permission;
mod quirks;
mod rates;
mod readiness;
mod reload;
mod report;
mod service_manager;
mod severed;
mod standalone;
mod start;
mod tags;
mod track;
mod view;
mod vrrp;
mod vrrp_check;
mod vrrp_reload;
mod vrrp_view;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use arc_swap::ArcSwap;
use control::{Command, Controller, Event, Repeats, Reuse};
use dataplane::{PortId, SharedTables, Snapshot, Tick};
use futures_util::StreamExt;
use steer::Steer;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::clock;
use crate::fast_path::publisher::Publisher;
use crate::health::Health;
use crate::netlink::{Ask, Netlink, Notices};
use crate::panics::{self, Site, site};
use crate::priority;
use crate::serve::Query;
use crate::signals::StopSignals;
use crate::systemd::Systemd;
use crate::worker::pool::Pool;
use crate::worker::thread::WorkerEvent;
use api::status::Status;
use devices::Device;
use neighbours::Stale;

/// A running node.
#[derive(Debug)]
pub struct Node {
    // The order matters where a panic drops it: the leases end before anything else goes.
    vrrp: Option<vrrp::Vrrp>,
    name: String,
    started: Tick,
    controller: Controller,
    configurations: reload::Configurations,
    /// What operators changed by command.
    overrides: control::operator::Overrides,
    kept_overrides: kept_overrides::KeptOverrides,
    devices: Vec<Device>,
    pool: Pool,
    tables: Arc<SharedTables>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// Published before the current one and perhaps still read by a worker: freed here, so that no
    /// worker ever frees memory on the packet path.
    retired: VecDeque<Arc<Snapshot>>,
    netlink: Netlink,
    stale: Stale,
    /// Backends whose neighbour entry the kernel does not keep resolved by itself.
    forgotten: BTreeSet<(PortId, IpAddr)>,
    /// The last request to resolve a neighbour failed.
    ask_failing: bool,
    /// Changes of the network are not notified.
    deaf: bool,
    /// How often notifications were lost.
    overruns: u64,
    overrun_lines: Repeats,
    meters: rates::Meters,
    neighbour_tables: neighbour_tables::NeighbourTables,
    hooks: hooks::Hooks,
    /// `None` until everything else runs.
    health: Option<Health>,
    groups: groups::SolicitedGroups,
    /// VIPs that the kernel owns, as the log says.
    owned_vips: BTreeSet<IpAddr>,
    announced_ready: bool,
    /// What was answered last; gathering it takes long with thousands of backends.
    status: Reuse<Arc<Status>>,
    systemd: Systemd,
    next: Schedule,
    /// `None` if the XDP programs forward no flows.
    publisher: Option<Publisher>,
    /// `None` if they do not, or this kernel does not count what drivers drop.
    losses: Option<steer::Losses>,
    steer: Steer,
}

/// What the loop listens to.
pub struct Inputs {
    notices: Notices,
    news: UnboundedReceiver<WorkerEvent>,
    queries: Receiver<Query>,
    stop: StopSignals,
}

/// When recurring work is due.
#[derive(Clone, Copy, Debug, Default)]
struct Schedule {
    queues: Tick,
    nics: Tick,
    rates: Tick,
    network: Tick,
    routes: Tick,
    neighbours: Tick,
    reopen: Tick,
    systemd: Tick,
}

const TICK: Duration = Duration::from_millis(50);
/// Ticks in which the pending table is swept once: a minute's, far below the quarter of an hour in
/// which its coarse clock wraps.
const PENDING_TICKS: usize = 1200;
/// Ticks in which the persistence table is swept once: ten seconds' worth.
const PERSISTENCE_TICKS: usize = 200;
const QUEUES_EVERY: Duration = Duration::from_millis(100);
const NICS_EVERY: Duration = Duration::from_millis(500);
/// How often links, routes and neighbours are read without a reason. Before Linux 5.16 the kernel
/// does not keep neighbours resolved by itself: then they are asked for as often.
const NETWORK_EVERY: Duration = Duration::from_secs(5);
/// A router's table may change thousands of times a second.
const ROUTES_EVERY: Duration = Duration::from_millis(500);
/// Reading a large table must not be what makes the next notifications overrun.
const NEIGHBOURS_EVERY: Duration = Duration::from_millis(200);
const RATES_EVERY: Duration = Duration::from_secs(1);
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// How long the end waits for hooks. No VIP is held meanwhile.
const HOOKS_WAIT: Duration = Duration::from_secs(5);

impl Node {
    /// Runs until a signal asks it to stop, or a thread panics; then withdraws and stops.
    ///
    /// # Errors
    /// A thread panicked.
    pub async fn run(mut self, mut inputs: Inputs) -> Result<()> {
        priority::raise();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let wakeup = self.vrrp.as_ref().map(vrrp::Vrrp::wakeup).transpose()?;
        let result = loop {
            tokio::select! {
                () = inputs.stop.requested() => break Ok(()),
                () = panics::noticed() => break Err(anyhow!("a thread panicked; see the log above")),
                verdict = health::verdict(self.health.as_mut()) => self.on_verdict(verdict).await,
                () = vrrp::wait_for_events(wakeup.as_ref()) => self.on_vrrp_events(),
                Some(news) = inputs.news.recv() => self.on_worker_event(news).await,
                notice = inputs.notices.next() => {
                    self.on_notices(notice, &mut inputs.notices).await;
                }
                Some(query) = inputs.queries.recv() => self.answer(query).await,
                () = until(self.controller.next_deadline()) => {
                    self.controller.handle_timeout(clock::now());
                    self.carry_out_all().await;
                }
                _ = ticks.tick() => {
                    self.listen_again(&mut inputs.notices);
                    if let Err(error) = self.on_tick().await {
                        break Err(error);
                    }
                }
            }
        };
        self.stop().await;
        result
    }

    async fn on_tick(&mut self) -> Result<()> {
        let now = clock::now();
        if let Some(queue) = self.pool.failed_queue() {
            bail!("the worker of queue {queue} died; see the log above");
        }
        if self.vrrp.as_ref().is_some_and(|vrrp| vrrp.thread.failed()) {
            bail!("the VRRP thread died; see the log above");
        }
        site(Site::Control);
        self.look_at_network(now).await;
        if due(&mut self.next.queues, now, QUEUES_EVERY) {
            self.look_at_attachments().await;
            self.look_at_queues().await;
        }
        let doubtful = self.devices.iter().any(|device| device.receive.is_doubtful());
        if due(&mut self.next.nics, now, if doubtful { TICK } else { NICS_EVERY }) {
            self.look_at_nics(now);
            self.look_at_fast_path(now);
        }
        if due(&mut self.next.reopen, now, REOPEN_EVERY) {
            self.reopen_failed();
            if let Some(vrrp) = &mut self.vrrp {
                vrrp.look_at_owners();
            }
            self.follow_groups();
            self.look_at_offloads();
            self.look_at_local_senders();
            self.look_at_neighbour_tables(now);
            // An interface that could not be used is only taken up when it is looked at.
            self.stale.links |= self.devices.iter().any(|device| device.refused.is_some());
        }
        let tables = &self.tables;
        tables.persistence.sweep(now, tables.persistence.maps().div_ceil(PERSISTENCE_TICKS));
        tables.pending.sweep(now, tables.pending.sets().div_ceil(PENDING_TICKS));
        tables.fragments.sweep(now);
        self.count_fast_path();
        if due(&mut self.next.rates, now, RATES_EVERY) {
            self.look_at_rates(now);
        }
        self.collect_acknowledgements().await;
        self.look_at_handshakes(now);
        self.release_held(now);
        self.follow_vrrp(now);
        self.follow_standalone();
        self.roll_back_if_due(now).await;
        self.end_drains(now).await;
        self.hooks.turn(now);
        self.announce();
        self.tell_systemd(now);
        Ok(())
    }

    /// Reads anew what changed, and now and then everything: a message may get lost.
    async fn look_at_network(&mut self, now: Tick) {
        let everything = due(&mut self.next.network, now, NETWORK_EVERY);
        if everything || self.stale.links {
            self.stale.links = false;
            // Links that come and go take their routes along.
            self.stale.routes = false;
            self.look_at_links().await;
        }
        if self.stale.routes && due(&mut self.next.routes, now, ROUTES_EVERY) {
            self.stale.routes = false;
            self.look_at_routes().await;
        }
        if everything
            || (self.stale.neighbours && due(&mut self.next.neighbours, now, NEIGHBOURS_EVERY))
        {
            let lost = std::mem::take(&mut self.stale.neighbours);
            self.look_at_neighbours(lost).await;
        }
        self.ask_forgotten().await;
    }

    /// Feeds one event to the controller and carries out what it says.
    async fn tell(&mut self, event: Event) {
        self.controller.handle(event, clock::now());
        self.carry_out_all().await;
    }

    async fn carry_out_all(&mut self) {
        while let Some(command) = self.controller.poll_command() {
            self.carry_out(command).await;
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Publish(snapshot) => {
                self.retired.push_back(self.snapshots.swap(snapshot));
                self.publish_picture();
                self.pool.rouse();
            }
            Command::InsertVip(address, owner) => {
                let vip = steer::abi::Vip {
                    instance: u32::from(owner.instance.0),
                    ifindex: owner.port.map_or(0, |(_, ifindex)| ifindex),
                };
                match self.steer.insert_vip(address.octets(), vip) {
                    Ok(()) if owner.instance == control::STANDALONE => {
                        info!(vip = %address, "setting protocol VIPs");
                    }
                    Ok(()) => debug!(vip = %address, "VIP steered while it is active"),
                    Err(error) => error!(vip = %address, %error, "cannot steer the VIP"),
                }
            }
            Command::RemoveVip(address) => match self.steer.remove_vip(address.octets()) {
                Ok(()) => info!(vip = %address, "removing protocol VIPs"),
                Err(error) => error!(vip = %address, %error, "cannot stop steering the VIP"),
            },
            Command::Watch(port, address) => self.watch(port, address, Ask::On).await,
            Command::Unwatch(port, address) => {
                if let Some(ifindex) = self.ifindex(port) {
                    self.netlink.release(ifindex, address).await;
                }
            }
            Command::Report(report) => self.report(&report),
        }
    }

    async fn collect_acknowledgements(&mut self) {
        let (published, known) = self.controller.generations();
        let workers = self.pool.acknowledged().unwrap_or(published);
        let programs = self.publisher.as_ref().map(Publisher::acknowledged);
        let acknowledged = programs.unwrap_or(published).min(workers);
        if acknowledged > known {
            self.tell(Event::Acknowledged(acknowledged)).await;
            self.retired.retain(|snapshot| snapshot.generation >= acknowledged);
        }
        let persistence = &self.tables.persistence;
        self.controller.reclaim_slots(|slot| persistence.templates_of(slot) > 0);
        self.carry_out_all().await;
    }

    async fn answer(&mut self, query: Query) {
        // The askers may have gone away.
        if !matches!(query, Query::Status(_)) {
            // What an operator changed is seen changed.
            self.status.forget();
        }
        match query {
            Query::Status(sender) => drop(sender.send(self.recent_status())),
            Query::Resign(instance, time, sender) => {
                drop(sender.send(self.resign(instance.as_deref(), time)));
            }
            Query::Reload(loaded, reload, sender) => {
                drop(sender.send(self.reload(*loaded, reload).await));
            }
            Query::Unreadable(error) => self.refuse(&error),
            Query::Undo(sender) => drop(sender.send(self.undo().await)),
            Query::Operate(target, change, sender) => {
                drop(sender.send(self.operate(&target, change).await));
            }
            Query::Setting(sender) => drop(sender.send(self.setting())),
            Query::Tables(sender) => drop(sender.send(self.listed())),
            Query::Confirm(sender) => drop(sender.send(self.confirm())),
        }
    }

    fn recent_status(&mut self) -> Arc<Status> {
        let began = clock::now();
        self.status.get(began).unwrap_or_else(|| {
            self.count_fast_path();
            let status = Arc::new(self.status());
            self.status.keep(Arc::clone(&status), began, clock::now());
            status
        })
    }

    fn announce(&mut self) {
        if self.announced_ready || !self.unready().is_empty() {
            return;
        }
        self.announced_ready = true;
        info!("ready: a client would be served now");
    }

    /// VIPs inactive first, then out of the map, then the rest.
    async fn stop(&mut self) {
        info!("stopping");
        self.systemd.stopping();
        if let Some(vrrp) = &mut self.vrrp {
            vrrp.thread.stop();
        }
        // The last changes of state: for the log and the hooks.
        self.on_vrrp_events();
        self.vrrp = None;
        if let Some(health) = self.health.take() {
            health.close().await;
        }
        for vip in self.controller.steered() {
            if let Err(error) = self.steer.remove_vip(vip.octets()) {
                warn!(%vip, %error, "cannot stop steering the VIP");
            }
        }
        self.pool.stop();
        self.devices.clear();
        self.hooks.finish(HOOKS_WAIT).await;
    }
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inputs")
    }
}

/// Sleeps until then; for ever if there is nothing to wait for.
async fn until(deadline: Option<Tick>) {
    match deadline {
        Some(at) => tokio::time::sleep(at.saturating_since(clock::now())).await,
        None => std::future::pending().await,
    }
}

fn due(next: &mut Tick, now: Tick, every: Duration) -> bool {
    let is_due = now >= *next;
    if is_due {
        *next = now + every;
    }
    is_due
}
