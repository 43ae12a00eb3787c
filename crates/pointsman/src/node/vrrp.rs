//! The control thread's half of VRRP: opens sockets when interface and address are there, tells the
//! VRRP thread of links and priorities, writes the log, runs the hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use control::Repeats;
use control::vrrp::{Announce, Claim, Config, DiscardedPeer, Event, StateName};
use dataplane::{PortId, Tick};
use tokio::net::UnixStream;
use tracing::{error, info, warn};

use super::Node;
use super::hooks::{Hooks, Rank};
use super::track::Tracking;
use super::vrrp_check::primary;
use crate::clock;
use crate::netlink::Picture;
use crate::vrrp::{
    AdvertSocket, Command, EventKind, Instance, InstanceEvent, LocalEndpoint, SyncGroup, VrrpLoop,
};

/// The VRRP thread and the state that commands to it are made from.
#[derive(Debug)]
pub(super) struct Vrrp {
    pub(super) thread: VrrpLoop,
    /// By position, which is free for another one when an instance is removed.
    pub(super) members: BTreeMap<usize, Member>,
    pub(super) groups: Vec<GroupState>,
    /// Where VIPs without an instance were announced last.
    pub(super) announced: BTreeMap<PortId, super::standalone::Announced>,
    /// Whether each link of this machine is up.
    links: BTreeMap<String, bool>,
    /// Until then first verdicts are waited for.
    decide_by: Tick,
    /// Whether the VIPs without an instance are active.
    pub(super) standalone: bool,
}

/// Members of one sync group (or one instance alone) and when to open their sockets again.
#[derive(Debug)]
pub(super) struct GroupState {
    /// Positions; the group is numbered by the first one.
    pub(super) members: Vec<usize>,
    /// The sockets could not be opened: to be tried again then.
    pub(super) retry: Option<Tick>,
}

/// An instance.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) wanted: control::Vrrp,
    pub(super) vips: Vec<IpAddr>,
    pub(super) tracking: Tracking,
    /// Lines of the log, by what they are about.
    repeats: BTreeMap<&'static str, Repeats>,
    pub(super) port: PortId,
    pub(super) endpoint: Option<LocalEndpoint>,
    link: bool,
    /// Whether the VIPs are active here, as far as is known.
    active: bool,
    /// VIPs were added: to be announced when they are steered.
    pub(super) announce: bool,
}

const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long start waits for the MACs of the backends and for their first checks: two questions may
/// get lost.
const DECIDE_WAIT: Duration = Duration::from_millis(2500);

impl Vrrp {
    /// Readable when the thread has news; to be waited for in the control runtime.
    pub(super) fn wakeup(&self) -> Result<UnixStream> {
        let wakeup = self.thread.wakeup().and_then(UnixStream::from_std);
        wakeup.context("cannot wait for the VRRP thread")
    }

    /// Whether the VIPs of an instance are active here, or (`None`) those without one.
    pub(super) fn owns(&self, instance: Option<&str>) -> bool {
        let Some(name) = instance else { return self.standalone };
        self.members.values().any(|member| member.wanted.name == name && member.active)
    }

    fn note_owner(&mut self, event: &InstanceEvent) {
        let active = match event.kind {
            EventKind::Taken => true,
            EventKind::Released => false,
            EventKind::Transition { .. }
            | EventKind::Announced(..)
            | EventKind::Claimed(_)
            | EventKind::Rejected(_)
            | EventKind::TwoOwnersPossible(_)
            | EventKind::SendFailed(_) => return,
        };
        if let Some(member) = self.members.get_mut(&event.instance) {
            member.active = active;
        }
    }

    /// Corrects what was learnt from events: one may have found no room in the queue.
    pub(super) fn look_at_owners(&mut self) {
        let reports = self.thread.reports();
        for (at, member) in &mut self.members {
            let Some(report) = reports.get(*at) else { continue };
            member.active = report.status.is_some_and(|status| status.lease_until.is_some());
        }
    }

    /// Remembers which links are up.
    pub(super) fn see_links(&mut self, picture: &Picture) {
        self.links = picture.links.iter().map(|(name, link)| (name.clone(), link.up)).collect();
    }

    /// Opens the sockets of a group anew, all or none.
    fn replace(&mut self, group: usize, now: Tick) {
        let Some(group_state) = self.groups.get_mut(group) else { return };
        let number = group_state.members.first().copied().unwrap_or(0);
        let tried_before = group_state.retry.take().is_some();
        let mut parts = Vec::new();
        for at in &group_state.members {
            let Some(member) = self.members.get(at) else { break };
            let Some(endpoint) = &member.endpoint else { break };
            let config = config(&member.wanted, &member.vips, endpoint.primary);
            match AdvertSocket::open(&config, endpoint) {
                Ok(socket) => parts.push((*at, config, socket)),
                Err(error) => {
                    let (name, interface) = (&member.wanted.name, &endpoint.interface);
                    if !tried_before {
                        warn!("({name}) cannot open its sockets on {interface}: {error}");
                    }
                    group_state.retry = Some(now + RETRY_EVERY);
                    break;
                }
            }
        }
        let built =
            (parts.len() == group_state.members.len()).then(|| SyncGroup::new(parts)).transpose();
        let command = match built {
            Ok(Some(group)) => group.command(number),
            Ok(None) => Command::SyncGroup(number, None),
            Err(error) => {
                let name = self.members.get(&number).map(|member| member.wanted.name.as_str());
                warn!("({}) cannot run: {error}", name.unwrap_or_default());
                Command::SyncGroup(number, None)
            }
        };
        self.thread.send(command);
    }

    /// Writes the log line of what happened, and runs the hook. `backend` is the one that claims a
    /// VIP, if it is one.
    fn report(&mut self, event: InstanceEvent, backend: Option<&str>, hooks: &mut Hooks) {
        let Some(member) = self.members.get_mut(&event.instance) else { return };
        let Some(more) = member.admit(&event.kind) else { return };
        let wanted = &member.wanted;
        let (name, interface) = (&wanted.name, &wanted.interface);
        let vips = member.vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match event.kind {
            EventKind::Transition { from, to, reason, after } => {
                let after = after.filter(|after| *after >= Duration::from_micros(50));
                let after = after.map(|after| format!(" after {after:.1?}")).unwrap_or_default();
                let (from, why) = (from.shown(), reason.help());
                info!("({name}) Entering {} STATE from {from}{after}: {why}", to.shown());
                if let Some(notify) = &wanted.notify {
                    let environment = vec![
                        ("POINTSMAN_EVENT", "vrrp".to_owned()),
                        ("POINTSMAN_INSTANCE", name.clone()),
                        ("POINTSMAN_INTERFACE", interface.clone()),
                        ("POINTSMAN_VIPS", vips.replace(", ", " ")),
                        ("POINTSMAN_STATE", to.name().to_owned()),
                        ("POINTSMAN_REASON", reason.name().to_owned()),
                    ];
                    hooks.run(Rank::First, notify, &[name, to.name(), reason.name()], environment);
                }
            }
            EventKind::Taken => info!("({name}) setting protocol VIPs: {vips}"),
            EventKind::Released => info!("({name}) removing protocol VIPs: {vips}"),
            EventKind::Announced(count, why) => {
                let what = match member.vips.first() {
                    Some(IpAddr::V6(_)) => "unsolicited neighbour advertisements",
                    Some(IpAddr::V4(_)) | None => "gratuitous ARPs",
                };
                info!(
                    "({name}) Sending {what} on {interface} for {vips}, {count} each: {}{more}",
                    why.help()
                );
            }
            EventKind::Claimed(claim) => {
                let Claim { vip, mac } = claim;
                let who = backend.map(|backend| mistake(backend, vip)).unwrap_or_default();
                warn!(
                    "({name}) {mac} claims the VIP {vip}, which is active here{who}; announcing it again"
                );
            }
            EventKind::Rejected(advert) => {
                warn!("({name}) advert discarded from {advert}{more}");
            }
            EventKind::TwoOwnersPossible(DiscardedPeer { source, reject, .. }) => error!(
                "({name}) peer {source} is heard, but its adverts are discarded ({reject}): two \
                 owners of {vips} are possible. {}",
                reject.help()
            ),
            EventKind::SendFailed(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                warn!("({name}) cannot send adverts on {interface}: {error}");
            }
        }
    }

    /// VIPs that were added while the instance is Active are answered for from now on.
    fn announce_added(&mut self) {
        for (&at, member) in &mut self.members {
            if std::mem::take(&mut member.announce) {
                self.thread.send(Command::Event(at, Event::Announce));
            }
        }
    }

    /// Reads what is tracked, and tells of effective priorities that changed.
    fn track(&mut self, services: &BTreeMap<String, bool>, now: Tick) {
        for (&at, member) in &mut self.members {
            if let Some(priority) = member.tracking.look(&self.links, services, now) {
                let why = member.tracking.tracker();
                info!("({}) Changing effective priority: {why}", member.wanted.name);
                self.thread.send(Command::Priority(at, priority));
            }
        }
    }
}

impl Node {
    /// What each configured instance is made from, where its interface is configured.
    pub(super) fn instances(&self, now: Tick) -> Vec<(Instance, Member)> {
        let desired = self.controller.desired();
        let made = desired.vrrp.iter().filter_map(|wanted| {
            let mut ports = self.controller.ports().iter();
            let port = ports.find(|port| port.name == wanted.interface)?.id;
            let slot = self.controller.instance_slot(&wanted.name)?;
            let instance = Instance { slot, port, control_timeout: wanted.control_timeout };
            let member = Member {
                wanted: wanted.clone(),
                vips: desired.vips_of(&wanted.name),
                tracking: Tracking::new(wanted, now),
                repeats: BTreeMap::new(),
                port,
                endpoint: None,
                link: false,
                active: false,
                announce: false,
            };
            Some((instance, member))
        });
        made.collect()
    }

    /// Starts the thread; instances follow when every VIP is steered.
    pub(super) fn start_vrrp(&mut self, picture: &Picture) -> Result<()> {
        let (mut members, mut fixed) = (BTreeMap::new(), Vec::new());
        for (at, (instance, member)) in self.instances(clock::now()).into_iter().enumerate() {
            fixed.push(instance);
            members.insert(at, member);
        }
        let groups = groups(&members);
        let thread =
            VrrpLoop::start(self.steer.leases(), fixed).context("cannot start the VRRP thread")?;
        let decide_by = clock::now() + DECIDE_WAIT;
        let (links, announced) = (BTreeMap::new(), BTreeMap::new());
        let standalone = false;
        let mut vrrp = Vrrp { thread, members, groups, announced, links, decide_by, standalone };
        vrrp.see_links(picture);
        self.vrrp = Some(vrrp);
        self.tell_vrrp_of_workers();
        Ok(())
    }

    /// Called at each tick: the sign of life, and everything that changed since the last one.
    pub(super) fn follow_vrrp(&mut self, now: Tick) {
        let endpoints = self.endpoints();
        let quorums = self.controller.quorums();
        let services = quorums.map(|(name, held)| (name.to_owned(), held)).collect();
        let (steered, undecided) = (self.controller.all_steered(), self.controller.undecided());
        let Some(vrrp) = &mut self.vrrp else { return };
        vrrp.thread.beat();
        // A VIP must be known to the XDP program before it becomes active. And a node that comes back
        // must not take it from one that has its backends, or place the connections that were
        // established before, to drop or misplace what comes for those it does not know yet.
        let early = !steered || (undecided && now < vrrp.decide_by);
        if !early && !vrrp.standalone {
            vrrp.standalone = true;
            vrrp.thread.send(Command::Standalone(true));
        }
        if vrrp.members.is_empty() {
            return;
        }
        vrrp.track(&services, now);
        if steered {
            vrrp.announce_added();
        }
        for ((&at, member), (_, link)) in vrrp.members.iter_mut().zip(&endpoints) {
            if member.link != *link {
                member.link = *link;
                vrrp.thread.send(Command::Link(at, *link));
            }
        }
        if early && vrrp.members.values().all(|member| member.endpoint.is_none()) {
            return;
        }
        let moved: BTreeSet<usize> = vrrp
            .members
            .iter()
            .zip(&endpoints)
            .filter(|((_, member), (new, _))| {
                let old = member.endpoint.as_ref().map(LocalEndpoint::place);
                old != new.as_ref().map(LocalEndpoint::place)
            })
            .map(|((at, _), _)| *at)
            .collect();
        let stale: Vec<usize> = vrrp
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group_state)| {
                group_state.members.iter().any(|at| moved.contains(at))
                    || group_state.retry.is_some_and(|at| at <= now)
            })
            .map(|(group, _)| group)
            .collect();
        for ((&at, member), (endpoint, _)) in vrrp.members.iter_mut().zip(endpoints) {
            let mac = endpoint.as_ref().map(|endpoint| endpoint.mac);
            let old = std::mem::replace(&mut member.endpoint, endpoint).map(|old| old.mac);
            if let Some(mac) = mac.filter(|mac| old.is_some_and(|old| old != *mac)) {
                vrrp.thread.send(Command::Mac(at, mac));
            }
        }
        for group in stale {
            vrrp.replace(group, now);
        }
    }

    /// Where each instance lives now, and whether there is a link.
    fn endpoints(&self) -> Vec<(Option<LocalEndpoint>, bool)> {
        let Some(vrrp) = &self.vrrp else { return Vec::new() };
        let endpoint = |member: &Member| {
            let port = self.controller.ports().get(member.port.index());
            let Some((port, link)) = port.and_then(|port| Some((port, port.link?))) else {
                return (None, false);
            };
            let endpoint =
                primary(&port.networks, &member.vips, member.wanted.source).map(|primary| {
                    LocalEndpoint {
                        interface: port.name.clone(),
                        ifindex: link.ifindex,
                        mac: link.mac,
                        primary,
                    }
                });
            (endpoint, link.up)
        };
        vrrp.members.values().map(endpoint).collect()
    }

    /// A link came up: what it leads to was not asked before.
    pub(super) fn wait_for_verdicts(&mut self, now: Tick) {
        if let Some(vrrp) = &mut self.vrrp {
            vrrp.decide_by = now + DECIDE_WAIT;
        }
    }

    /// The workers whose life decides whether this node forwards.
    pub(super) fn tell_vrrp_of_workers(&self) {
        let Some(vrrp) = &self.vrrp else { return };
        let workers = self.pool.iter().filter(|(id, _)| {
            let device = self.devices.get(id.port.index());
            device.is_some_and(|device| device.queues_wanted().contains(&id.queue))
        });
        let workers = workers.map(|(id, handle)| (id.port, Arc::clone(&handle.shared)));
        vrrp.thread.send(Command::Workers(workers.collect()));
    }

    /// What the VRRP thread did.
    pub(super) fn on_vrrp_events(&mut self) {
        let events: Vec<InstanceEvent> =
            self.vrrp.iter().flat_map(|vrrp| vrrp.thread.events()).collect();
        for event in events {
            let backend = if let EventKind::Claimed(claim) = event.kind {
                self.backend_at(claim.mac)
            } else {
                None
            };
            if let Some(vrrp) = &mut self.vrrp {
                vrrp.note_owner(&event);
                vrrp.report(event, backend.as_deref(), &mut self.hooks);
            }
        }
        self.follow_groups();
    }

    /// Has instances resign; returns their names.
    pub(super) fn resign(
        &self,
        instance: Option<&str>,
        time: Duration,
    ) -> Result<Vec<String>, String> {
        let members = self.vrrp.iter().flat_map(|vrrp| &vrrp.members);
        let mut resigned = Vec::new();
        for (&at, member) in members {
            let name = &member.wanted.name;
            if instance.is_none_or(|wanted| wanted == name) {
                info!("({name}) resigning for {time:?}: an operator asked for it");
                resigned.push(name.clone());
                if let Some(vrrp) = &self.vrrp {
                    vrrp.thread.send(Command::Event(at, Event::Resign(time)));
                }
            }
        }
        match (resigned.is_empty(), instance) {
            (false, _) => Ok(resigned),
            (true, Some(name)) => Err(format!("there is no VRRP instance `{name}`")),
            (true, None) => Err("there is no VRRP instance".to_owned()),
        }
    }
}

/// Waits for events of the VRRP thread; for ever without a VRRP thread.
pub(super) async fn wait_for_events(wakeup: Option<&UnixStream>) {
    let Some(wakeup) = wakeup else { return std::future::pending().await };
    if wakeup.readable().await.is_ok() {
        // Emptied before the events are read: a later event wakes again.
        while wakeup.try_read(&mut [0; 256]).is_ok_and(|count| count > 0) {}
    }
}

impl Member {
    /// Whether an event is worth a line, and what that says of those that were not. What a peer or a
    /// stranger sends once a second would fill the log; the metrics count each.
    fn admit(&mut self, kind: &EventKind) -> Option<String> {
        let about = match kind {
            EventKind::Announced(_, why @ (Announce::LowerPriority | Announce::Requested)) => {
                why.name()
            }
            EventKind::Announced(_, Announce::Refresh) => return None,
            EventKind::Rejected(advert) => advert.reject.name(),
            EventKind::Announced(_, Announce::Taken | Announce::Repeated)
            | EventKind::Transition { .. }
            | EventKind::Taken
            | EventKind::Released
            | EventKind::Claimed(_)
            | EventKind::TwoOwnersPossible(_)
            | EventKind::SendFailed(_) => return Some(String::new()),
        };
        let held_back = self.repeats.entry(about).or_default().admit(clock::now())?;
        let more =
            if held_back > 0 { format!(" ({held_back} more before)") } else { String::new() };
        Some(more)
    }
}

/// The classic mistake of direct routing, and its remedy.
fn mistake(backend: &str, vip: IpAddr) -> String {
    let remedy = if vip.is_ipv4() {
        "there, set net.ipv4.conf.all.arp_ignore=1 and net.ipv4.conf.all.arp_announce=2"
    } else {
        "there, the VIP must be an address of lo only"
    };
    format!(" (it is the backend {backend}: {remedy})")
}

/// Which instances are Active together or not at all, by position.
pub(super) fn groups(members: &BTreeMap<usize, Member>) -> Vec<GroupState> {
    let mut groups: Vec<GroupState> = Vec::new();
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for (&at, member) in members {
        let fresh = groups.len();
        let group = match &member.wanted.group {
            Some(group) => *by_name.entry(group.as_str()).or_insert(fresh),
            None => fresh,
        };
        match groups.get_mut(group) {
            Some(group_state) => group_state.members.push(at),
            None => groups.push(GroupState { members: vec![at], retry: None }),
        }
    }
    groups
}

/// What the state machine needs.
pub(super) fn config(wanted: &control::Vrrp, vips: &[IpAddr], primary: IpAddr) -> Config {
    Config {
        version: wanted.version,
        priority: wanted.priority,
        interval: wanted.advert_interval,
        preempt: wanted.preempt,
        preempt_delay: wanted.preempt_delay,
        down_adverts: wanted.down_adverts,
        checksum: wanted.checksum,
        handover: wanted.handover,
        peers: wanted.peers.clone(),
        auth_pass: wanted.auth_pass,
        unicast: wanted.unicast,
        announce: wanted.announce,
        ..Config::new(wanted.vrid, primary, vips.to_vec())
    }
}

/// The state's label, for an instance without sockets.
pub(super) const fn state_of(report: &crate::vrrp::Report) -> StateName {
    match report.status {
        Some(status) => status.state,
        None => StateName::Initialize,
    }
}
