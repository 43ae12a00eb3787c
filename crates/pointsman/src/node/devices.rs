//! Interfaces that come, go and change: the XDP program follows the device, workers follow its
//! queues.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use api::status;
use control::nic::{ReceiveMode, ReceiveWatch, UnboundWatch};
use control::{Event, Interface, Link, Network, XdpMode, ZeroCopy};
use dataplane::{Mac, PortId};
use steer::{AttachMode, Attached, AttachedMode, Outcome, TagPlace};
use tracing::{error, info, warn};

use super::Node;
use super::fast_path::DeviceFastPath;
use super::local_senders::Said;
use super::offloads::Offloads;
use super::quirks::{SPOILED, log_spoiled, spoil_native};
use super::tags::Tags;
use crate::clock;
use crate::layers::{Kind, Layers};
use crate::netlink::Picture;
use crate::worker::WorkerId;
use crate::worker::bind::Binding;
use crate::worker::thread::WorkerEvent;

/// A configured interface and what is attached to it.
#[derive(Debug)]
pub(super) struct Device {
    /// Its slot.
    pub(super) id: PortId,
    /// As configured.
    pub(super) wanted: Interface,
    /// What the kernel says; `None` while it does not exist.
    pub(super) link: Option<Link>,
    /// What it is.
    pub(super) kind: Kind,
    /// Devices that its frames come through.
    pub(super) below: Vec<String>,
    /// Whether it is set up (`ip link set … up`): a device that is not takes no socket.
    pub(super) admin_up: bool,
    /// Its addresses that are being checked for duplicates.
    pub(super) tentative: Vec<IpAddr>,
    /// The XDP program on this very device.
    pub(super) attached: Option<Attached>,
    /// The bond, team or bridge that it is a port of.
    pub(super) master: Option<String>,
    /// What is done about VLAN tags.
    pub(super) tags: Tags,
    /// What is switched off meanwhile; restored after the program is detached.
    pub(super) offloads: Offloads,
    /// RX queues that the device uses.
    pub(super) queues: u32,
    /// Queues whose worker reported a bound socket.
    pub(super) bound: BTreeSet<u32>,
    /// Queues whose worker could not bind, and why.
    pub(super) failed: BTreeMap<u32, String>,
    /// Why queues could not be bound, as the log says it.
    said_of_queues: BTreeMap<u32, String>,
    /// Why the device, though there, has no XDP program.
    pub(super) refused: Option<String>,
    /// Why frames are not seen as they were on the wire.
    pub(super) trouble: Option<String>,
    /// Whether the program sees what the card receives.
    pub(super) receive: ReceiveWatch,
    /// Frames that the card had received when the program was attached.
    pub(super) received_before: u64,
    /// Whether frames for active VIPs come in on queues without a socket.
    pub(super) unbound: UnboundWatch,
    /// The mode that is left of the modes that the configuration allows, after faster ones failed on
    /// this very device.
    pub(super) slowest: Option<ReceiveMode>,
    /// How often a faster mode failed.
    pub(super) fallbacks: u64,
    /// What the program forwards itself.
    pub(super) fast_path: DeviceFastPath,
    /// What was said once about senders on this host.
    pub(super) said: Said,
    /// What programs counted that were attached before, by outcome.
    past: [u64; Outcome::COUNT],
}

/// What a device can do since the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gained {
    /// It was set up (`ip link set … up`).
    set_up: bool,
    /// An address is usable that was being checked for duplicates.
    address: bool,
}

/// How long a queue that another socket holds is tried for: at start, when nothing else asks again,
/// and later, when the next attempt is a second away and a worker must not be silent for long.
const PATIENCE_AT_START: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_millis(200);

impl Device {
    /// A device that has not been seen yet.
    pub(super) fn new(id: PortId, wanted: Interface) -> Self {
        Self {
            id,
            wanted,
            link: None,
            kind: Kind::default(),
            below: Vec::new(),
            admin_up: false,
            tentative: Vec::new(),
            attached: None,
            master: None,
            tags: Tags::default(),
            offloads: Offloads::default(),
            queues: 0,
            bound: BTreeSet::new(),
            failed: BTreeMap::new(),
            said_of_queues: BTreeMap::new(),
            refused: None,
            trouble: None,
            receive: ReceiveWatch::default(),
            received_before: 0,
            unbound: UnboundWatch::default(),
            slowest: None,
            fallbacks: 0,
            fast_path: DeviceFastPath::default(),
            said: Said::default(),
            past: [0; Outcome::COUNT],
        }
    }

    /// What the kernel says of it besides its link; returns what it can do now that it could not.
    pub(super) fn see(&mut self, picture: &Picture) -> Gained {
        let ifindex = picture.links.get(&self.wanted.name).map(|link| link.ifindex);
        let admin_up = ifindex.is_some() && !picture.down.contains(&self.wanted.name);
        let tentative = ifindex.and_then(|ifindex| picture.tentative.get(&ifindex));
        let before = std::mem::take(&mut self.tentative);
        self.tentative = tentative.cloned().unwrap_or_default();
        let was_up = std::mem::replace(&mut self.admin_up, admin_up);
        Gained {
            set_up: admin_up && !was_up,
            address: before.iter().any(|address| !self.tentative.contains(address)),
        }
    }

    /// Its addresses that can be used.
    pub(super) fn networks(&self, picture: &Picture) -> Vec<Network> {
        let networks = self.link.and_then(|link| picture.networks.get(&link.ifindex));
        let usable = |network: &&Network| !self.tentative.contains(&network.address);
        networks.into_iter().flatten().filter(usable).copied().collect()
    }

    /// What became of frames on all devices that had this name, by outcome.
    pub(super) fn outcomes(&self) -> [u64; Outcome::COUNT] {
        let mut sums = self.past;
        if let Some(Ok(counters)) = self.attached.as_ref().map(Attached::counters) {
            for (sum, now) in sums.iter_mut().zip(counters.as_array()) {
                *sum += now;
            }
        }
        sums
    }

    /// How frames of a queue are passed, and if they are copied, why.
    fn obtained(&self, how: &xsk::Bound) -> String {
        let generic = self.attached.as_ref().map(Attached::mode) == Some(AttachedMode::Generic);
        match how.fallback {
            _ if how.zero_copy => "zero-copy".to_owned(),
            _ if generic => "copy (generic mode has no zero-copy)".to_owned(),
            Some(errno) => {
                format!("copy (no zero-copy: {errno}; {})", xsk::zero_copy_remedy(errno))
            }
            None => "copy".to_owned(),
        }
    }

    /// The queues that should be served.
    pub(super) fn queues_wanted(&self) -> Vec<u32> {
        match &self.wanted.queues {
            None => (0..self.queues).collect(),
            Some(queues) => queues.iter().copied().filter(|queue| *queue < self.queues).collect(),
        }
    }

    /// Has the XDP program take frames to this MAC for ours.
    fn follow_mac(&self, mac: Mac) {
        info!(interface = %self.wanted.name, %mac, "MAC address changed");
        if let Some(Err(error)) = self.attached.as_ref().map(|attached| attached.set_mac(mac.0)) {
            error!(interface = %self.wanted.name, %error, "frames to the new MAC address are not served");
        }
    }

    /// Whether the program is attached, in generic mode.
    pub(super) fn is_generic(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.mode() == AttachedMode::Generic)
    }

    /// What it is and what it stands on, as far as its index is known.
    pub(super) fn see_layers(&mut self, layers: &Layers) {
        let Some(link) = self.link else { return };
        self.kind = layers.kind(link.ifindex);
        self.below = layers.below(link.ifindex);
        self.tags.see(link.ifindex, layers);
        let master = layers.master(link.ifindex).map(str::to_owned);
        if self.master == master {
            return;
        }
        match (&master, &self.master) {
            (Some(new), _) => {
                error!(interface = %self.wanted.name, master = %new, "{}", port_of(new))
            }
            (None, Some(old)) => {
                info!(interface = %self.wanted.name, master = %old, "no port of it any more");
            }
            (None, None) => {}
        }
        self.master = master;
    }

    /// The mode to attach in. A bond takes a program in native mode and hands it to its ports,
    /// whose frames no socket of the bond may receive.
    fn attach_mode(&self) -> Result<AttachMode> {
        match (self.wanted.mode, self.kind) {
            (XdpMode::Native, kind) if kind.is_stacked() => bail!(
                "interface {} stands on other devices: AF_XDP works there in generic mode only; \
                 say mode = \"generic\" or leave it to mode = \"auto\"",
                self.wanted.name
            ),
            (XdpMode::Auto, _) if self.slowest == Some(ReceiveMode::Generic) => {
                Ok(AttachMode::Generic)
            }
            (XdpMode::Auto, kind) if kind.is_stacked() => Ok(AttachMode::Generic),
            (XdpMode::Auto, _) if spoil_native(&self.wanted.name) => {
                log_spoiled(&self.wanted.name);
                Ok(AttachMode::Generic)
            }
            (XdpMode::Native, _) if spoil_native(&self.wanted.name) => bail!(
                "interface {}: the driver's XDP cannot be relied on: {SPOILED}; say mode = \
                 \"generic\" or leave it to mode = \"auto\"",
                self.wanted.name
            ),
            (XdpMode::Auto, _) => Ok(AttachMode::Auto),
            (XdpMode::Native, _) => Ok(AttachMode::Native),
            (XdpMode::Generic, _) => Ok(AttachMode::Generic),
        }
    }

    fn binding(&self, mac: Mac, frames: u32, patience: Duration) -> Binding {
        let generic = self.is_generic();
        Binding {
            interface: self.wanted.name.clone(),
            mac,
            frames,
            zero_copy: match self.wanted.zero_copy {
                ZeroCopy::Auto if self.slowest.is_some() => xsk::ZeroCopy::Off,
                ZeroCopy::Auto => xsk::ZeroCopy::Auto,
                ZeroCopy::On => xsk::ZeroCopy::On,
                ZeroCopy::Off => xsk::ZeroCopy::Off,
            },
            generic,
            local_senders: self.kind.has_local_senders(generic),
            patience,
        }
    }
}

/// What a port of a bond, team or bridge cannot do, and the remedy.
pub(super) fn port_of(master: &str) -> String {
    format!(
        "it is a port of {master}, which takes what is for this node (ARP answers, checks): name \
         {master} as interface, or take the port out (`ip link set … nomaster`)"
    )
}

/// Where a native program finds the tag.
fn steer_place(kind: Kind) -> TagPlace {
    if kind == Kind::Veth { TagPlace::Beside } else { TagPlace::Frame }
}

/// The mode's name in logs and metrics.
pub(super) const fn xdp_mode(mode: AttachedMode) -> status::XdpMode {
    match mode {
        AttachedMode::Native => status::XdpMode::Native,
        AttachedMode::Generic => status::XdpMode::Generic,
    }
}

impl Node {
    /// Reads links and addresses anew and follows what changed.
    pub(super) async fn look_at_links(&mut self) {
        let picture = match self.netlink.picture().await {
            Ok(picture) => picture,
            Err(error) => {
                warn!(%error, "cannot read interfaces; trying again");
                self.stale.links = true;
                return;
            }
        };
        if let Some(vrrp) = &mut self.vrrp {
            vrrp.see_links(&picture);
        }
        self.look_at_owned_vips(&picture);
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            let (id, old) = (device.id, device.link);
            let link = picture.links.get(&device.wanted.name).copied();
            let gained = device.see(&picture);
            if link != old {
                self.follow_link(index, link, &picture.layers).await;
            }
            self.devices[index].see_layers(&picture.layers);
            if self.devices[index].tags.take_changed() {
                self.devices[index].look_at_frames();
            }
            // A device that is new was opened as it is.
            let known = old.map(|old| old.ifindex) == link.map(|link| link.ifindex);
            if gained.set_up && known {
                self.reopen_unbound(index);
            }
            let networks = self.devices[index].networks(&picture);
            let known = &self.controller.ports()[id.index()].networks;
            if *known != networks {
                self.tell(Event::Networks(id, networks)).await;
            }
            if gained.address {
                self.watch_all(id).await;
            }
        }
        self.follow_groups();
        self.tell_health_of_ways();
        self.look_at_routes().await;
    }

    async fn follow_link(&mut self, index: usize, link: Option<Link>, layers: &Layers) {
        let device = &mut self.devices[index];
        let (id, old) = (device.id, std::mem::replace(&mut device.link, link));
        device.see_layers(layers);
        let name = device.wanted.name.clone();
        match (old, link) {
            (_, Some(new)) if old.is_none_or(|old| old.ifindex != new.ifindex) => {
                let refused_before = device.refused.take();
                if refused_before.is_none() {
                    info!(interface = %name, ifindex = new.ifindex, "interface appeared");
                }
                device.receive = ReceiveWatch::default();
                device.slowest = None;
                let taken = match layers.unsuitable(new.ifindex) {
                    Some(refusal) => Err(anyhow!("{refusal}")),
                    None => self.take_device(index),
                };
                if let Err(error) = taken {
                    let error = format!("{error:#}");
                    if refused_before.as_ref() != Some(&error) {
                        error!(interface = %name, error, "cannot use the interface; trying again");
                    }
                    self.devices[index].link = None;
                    self.devices[index].refused = Some(error);
                }
            }
            (Some(old), Some(new)) => {
                if old.up != new.up {
                    info!(interface = %name, up = new.up, "link changed");
                }
                if old.mac != new.mac {
                    self.devices[index].follow_mac(new.mac);
                }
                if old.mac != new.mac || old.mtu != new.mtu {
                    self.reopen(index, None);
                }
            }
            (Some(_), None) => {
                warn!(interface = %name, "interface disappeared");
                self.release_device(index);
            }
            (None, _) => {}
        }
        let link = self.devices[index].link;
        self.tell(Event::Link(id, link)).await;
        // Neither a new device nor one that was down knows neighbours: have them resolved again.
        let was_up = old.filter(|old| old.up).map(|old| old.ifindex);
        if let Some(new) = link
            && new.up
            && was_up != Some(new.ifindex)
        {
            self.wait_for_verdicts(clock::now());
            self.watch_all(id).await;
        }
    }

    /// Attaches the program to a device that is new, and has its queues served.
    pub(super) fn take_device(&mut self, index: usize) -> Result<()> {
        self.release_device(index);
        let device = &mut self.devices[index];
        let Some(link) = device.link else { return Ok(()) };
        let name = device.wanted.name.clone();
        device.queues = xsk::rx_queues(&name)
            .with_context(|| format!("interface {name}: cannot count its queues"))?;
        let mode = device.attach_mode()?;
        device.switch_offloads(link.ifindex)?;
        let interface = steer::Interface {
            name: &name,
            ifindex: link.ifindex,
            mac: link.mac.0,
            queues: device.queues,
            tags: steer_place(device.kind),
        };
        let attached = self.steer.attach(interface, mode)?;
        if attached.mode() == AttachedMode::Generic {
            Offloads::check_generic(&name)?;
        }
        info!(interface = %name, mode = %xdp_mode(attached.mode()), queues = device.queues,
            "XDP program attached");
        device.attached = Some(attached);
        if let Err(lost) = device.begin_tags(&self.steer) {
            self.release_device(index);
            return Err(lost.into());
        }
        device.refused = None;
        self.note_received(index);
        self.publish_picture();
        self.reopen(index, None);
        Ok(())
    }

    /// Lets go of a device that is gone; the workers keep their flows.
    pub(super) fn release_device(&mut self, index: usize) {
        self.leave_fast_path(index);
        let device = &mut self.devices[index];
        device.past = device.outcomes();
        device.attached = None;
        device.tags.release();
        device.refused = None;
        device.trouble = None;
        device.failed.clear();
        for queue in std::mem::take(&mut device.bound) {
            self.pool.close(WorkerId { port: device.id, queue });
        }
    }

    /// Has queues bound anew: those of `only`, or all.
    pub(super) fn reopen(&mut self, index: usize, only: Option<&BTreeSet<u32>>) {
        let frames = self.controller.desired().dataplane.frames;
        let patience = if self.vrrp.is_some() { PATIENCE } else { PATIENCE_AT_START };
        let device = &mut self.devices[index];
        let Some(link) = device.link else { return };
        for queue in device.queues_wanted() {
            if only.is_some_and(|only| !only.contains(&queue)) {
                continue;
            }
            device.bound.remove(&queue);
            device.failed.remove(&queue);
            // Its turn comes when it is set up.
            if !device.admin_up {
                continue;
            }
            let id = WorkerId { port: device.id, queue };
            if let Err(error) = self.pool.serve(id, device.binding(link.mac, frames, patience)) {
                let error = format!("{error:#}");
                error!(queue, error, "cannot serve a queue");
                device.failed.insert(queue, error);
            }
        }
    }

    /// Has the queues bound that are not.
    fn reopen_unbound(&mut self, index: usize) {
        let device = &self.devices[index];
        let unbound: BTreeSet<u32> =
            device.queues_wanted().into_iter().filter(|q| !device.bound.contains(q)).collect();
        self.reopen(index, Some(&unbound));
    }

    /// Follows `ethtool -L`: frames of a queue without a socket bypass the balancer.
    pub(super) async fn look_at_queues(&mut self) {
        let mut grown = false;
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            if device.attached.is_none() {
                continue;
            }
            let Ok(queues) = xsk::rx_queues(&device.wanted.name) else {
                // Gone between two looks: netlink will say so.
                continue;
            };
            if queues == device.queues {
                continue;
            }
            info!(interface = %device.wanted.name, from = device.queues, to = queues,
                "number of RX queues changed");
            let before: BTreeSet<u32> = device.queues_wanted().into_iter().collect();
            device.queues = queues;
            if let Some(attached) = &device.attached
                && let Err(error) = self.steer.renew(attached)
            {
                warn!(interface = %device.wanted.name, %error, "new queues may bypass the program");
            }
            let added: BTreeSet<u32> =
                device.queues_wanted().into_iter().filter(|q| !before.contains(q)).collect();
            self.reopen(index, Some(&added));
            grown = true;
        }
        if grown {
            self.tell_vrrp_of_workers();
            let links = self.pool.links();
            self.tell(Event::Workers(links)).await;
        }
    }

    /// A worker bound its queue, or could not.
    pub(super) async fn on_worker_event(&mut self, news: WorkerEvent) {
        match news {
            WorkerEvent::Bound(id, socket) => {
                use std::os::fd::AsFd;
                let Some(device) = self.devices.get_mut(id.port.index()) else { return };
                let Some(attached) = &device.attached else { return };
                match attached.set_socket(id.queue, socket.as_fd()) {
                    Ok(()) => {
                        let got = self.pool.how(id).map(|how| device.obtained(&how));
                        info!(interface = %device.wanted.name, queue = id.queue,
                            got = got.unwrap_or_default(), "queue bound");
                        device.failed.remove(&id.queue);
                        device.said_of_queues.remove(&id.queue);
                        device.bound.insert(id.queue);
                        self.follow_fast_path(id);
                    }
                    // The worker's device is gone already, and a new order is on its way.
                    Err(error) => warn!(queue = id.queue, %error, "cannot steer to the queue"),
                }
            }
            WorkerEvent::Failed(id, refusal) => {
                let Some(device) = self.devices.get_mut(id.port.index()) else { return };
                let said_before = device.said_of_queues.insert(id.queue, refusal.text.clone());
                if said_before.as_ref() != Some(&refusal.text) {
                    error!(interface = %device.wanted.name, queue = id.queue, error = refusal.text,
                        "cannot bind the queue; trying again");
                }
                device.bound.remove(&id.queue);
                device.failed.insert(id.queue, refusal.text);
            }
            WorkerEvent::Lost(id) => return self.on_lost_socket(id).await,
        }
        self.tell_vrrp_of_workers();
        let links = self.pool.links();
        self.tell(Event::Workers(links)).await;
    }

    /// Tries queues again that could not be bound.
    pub(super) fn reopen_failed(&mut self) {
        for index in 0..self.devices.len() {
            let failed: BTreeSet<u32> =
                std::mem::take(&mut self.devices[index].failed).into_keys().collect();
            if !failed.is_empty() {
                self.reopen(index, Some(&failed));
            }
        }
    }

    pub(super) fn ifindex(&self, port: PortId) -> Option<u32> {
        Some(self.devices.get(port.index())?.link?.ifindex)
    }
}
