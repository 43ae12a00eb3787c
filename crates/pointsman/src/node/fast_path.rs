//! Which interfaces' programs forward the packets of known flows themselves, and what they need for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use control::FastPath;
use control::nic::{Egress, FastPathChoice, FastPathFacts, LossReading, LossWatch, fast_path};
use dataplane::{BackendSlot, FlowMemory, PortId, Snapshot, Tick, WorkerCounters};
use steer::{Attached, Losses, Steer, SteerError, Traffic};
use tracing::{info, warn};

use super::Node;
use super::devices::Device;
use crate::fast_path::picture;
use crate::fast_path::publisher::Publisher;
use crate::layers::Kind;
use crate::worker::WorkerId;

/// What the program of one interface does of it.
#[derive(Debug, Default)]
pub(super) struct DeviceFastPath {
    /// What was decided when a queue was bound the last time.
    pub(super) choice: Option<FastPathChoice>,
    /// Queues whose flows the program sees.
    shown: BTreeSet<u32>,
    /// What it forwarded, as a worker would have counted it.
    pub(super) counters: Option<Arc<WorkerCounters>>,
    /// What was taken into account already, by backend.
    counted: Vec<[u64; 3]>,
    /// What earlier programs forwarded, by RX queue.
    past: BTreeMap<u32, u64>,
    /// The index under which programs redirect frames to the device.
    egress: Option<u32>,
    /// Frames that programs sent by it.
    sent: u64,
    /// Those of them that the driver dropped, and the part of them on the device of this index.
    lost: u64,
    lost_on: (u32, u64),
    watch: LossWatch,
    losing: bool,
}

/// Loads the programs as the configuration asks; also why they cannot forward flows themselves.
pub(super) fn load(wanted: FastPath, flow_capacity: usize) -> Result<Steer, SteerError> {
    if wanted == FastPath::Off {
        return Steer::load();
    }
    match Steer::load_with(Some(FlowMemory::words_for(flow_capacity))) {
        Err(error @ (SteerError::Verifier { .. } | SteerError::Load { .. }))
            if wanted == FastPath::Auto =>
        {
            warn!(%error, "this kernel does not take the fast path: workers forward all packets");
            Steer::load()
        }
        result => result,
    }
}

/// Has the kernel count what programs send and drivers drop, if programs send anything.
pub(super) fn watch_losses(steer: &Steer) -> Option<Losses> {
    steer.fast_path()?;
    let losses = Losses::watch();
    losses.inspect_err(|error| warn!(%error, "frames that drivers drop are not counted")).ok()
}

/// The thread that keeps programs informed, if there is a use for it.
pub(super) fn publisher(steer: &Steer) -> Result<Option<Publisher>> {
    let start = |fast_path: &Arc<steer::FastPath>| Publisher::start(Arc::clone(fast_path));
    steer.fast_path().map(start).transpose().context("cannot start a thread")
}

impl Node {
    /// To be called when a queue was bound: lets the program see the flows of its worker, or hides them.
    pub(super) fn follow_fast_path(&mut self, id: WorkerId) {
        let wanted = self.controller.desired().dataplane.fast_path;
        let Some(device) = self.devices.get(id.port.index()) else { return };
        let choice = fast_path(wanted, self.fast_path_facts(device));
        let Some(device) = self.devices.get_mut(id.port.index()) else { return };
        let Some(attached) = &device.attached else { return };
        if device.fast_path.choice.replace(choice) != Some(choice) {
            info!(interface = %device.wanted.name, on = choice.on, why = choice.why, "fast path");
            if let Some(risk) = choice.risk {
                warn!(interface = %device.wanted.name, risk,
                    "fast_path = \"on\" may lose frames here that a worker would not");
            }
        }
        let Some(fast_path) = self.steer.fast_path() else { return };
        if let Some(Err(error)) = self.losses.as_ref().map(|all| all.follow(attached.ifindex())) {
            warn!(interface = %device.wanted.name, %error, "frames that the driver drops are not counted");
        }
        let path = &mut device.fast_path;
        follow_egress(
            &self.steer,
            &mut path.egress,
            Some(attached.ifindex()).filter(|_| choice.egress),
        );
        let longest = longest_of_local_senders(device);
        let redirects = attached.set_redirects(choice.redirects);
        let result = redirects.and_then(|()| attached.set_local_senders(longest)).and_then(|()| {
            let flows = if choice.on { self.pool.share_flows(id, fast_path)? } else { None };
            match flows {
                Some(flows) => attached.show_flows(id.queue, flows),
                None => attached.hide_flows(id.queue),
            }
        });
        match result {
            Ok(()) if choice.on => {
                device.fast_path.shown.insert(id.queue);
                device.fast_path.counters.get_or_insert_with(Arc::default);
            }
            Ok(()) => {
                device.fast_path.shown.remove(&id.queue);
            }
            Err(error) => warn!(interface = %device.wanted.name, queue = id.queue, %error,
                "the XDP program does not forward known flows"),
        }
    }

    /// Whether what the choice was made from is still so: drivers begin to drop frames, and the other
    /// end of a veth comes and goes.
    pub(super) fn look_at_fast_path(&mut self, now: Tick) {
        let wanted = self.controller.desired().dataplane.fast_path;
        for index in 0..self.devices.len() {
            self.look_at_losses(index, now);
            let device = &self.devices[index];
            let Some(before) = device.fast_path.choice else { continue };
            if device.attached.is_none()
                || fast_path(wanted, self.fast_path_facts(device)) == before
            {
                continue;
            }
            let queues = device.bound.clone();
            let port = device.id;
            queues.into_iter().for_each(|queue| self.follow_fast_path(WorkerId { port, queue }));
        }
    }

    fn look_at_losses(&mut self, index: usize, now: Tick) {
        let device = &mut self.devices[index];
        let (Some(losses), Some(attached)) = (&self.losses, &device.attached) else { return };
        let ifindex = attached.ifindex();
        let Ok(lost) = losses.of(ifindex) else { return };
        let path = &mut device.fast_path;
        let forwarded = path.sent;
        let (before, counted) = std::mem::replace(&mut path.lost_on, (ifindex, lost));
        let more = if before == ifindex { lost.saturating_sub(counted) } else { lost };
        path.lost += more;
        let losing = path.watch.look(now, LossReading { forwarded, lost: path.lost });
        if losing && !std::mem::replace(&mut path.losing, losing) {
            warn!(interface = %device.wanted.name, forwarded, lost = path.lost,
                "the driver drops what the XDP program sends");
        }
        path.losing = losing;
    }

    fn fast_path_facts(&self, device: &Device) -> FastPathFacts {
        let mut bound =
            device.bound.iter().map(|queue| WorkerId { port: device.id, queue: *queue });
        let egress = device.attached.as_ref().map(|at| self.steer.egress_of(at.ifindex()));
        FastPathFacts {
            loaded: self.steer.fast_path().is_some(),
            watched: self.losses.is_some(),
            zero_copy: bound.any(|id| self.pool.how(id).is_some_and(|how| how.zero_copy)),
            generic: device.is_generic(),
            veth: device.kind == Kind::Veth,
            egress: match egress {
                Some(steer::Egress::Takes) => Egress::Takes,
                Some(steer::Egress::Refuses) => Egress::Refuses,
                Some(steer::Egress::Unknown) | None => Egress::Unknown,
            },
            losing: device.fast_path.losing,
        }
    }

    /// Tells the programs what the current snapshot says.
    pub(super) fn publish_picture(&self) {
        let Some((publisher, fast_path)) = self.publisher.as_ref().zip(self.steer.fast_path())
        else {
            return;
        };
        let snapshot = self.snapshots.load();
        let ifindex = |port| self.ifindex(port);
        publisher.publish(snapshot.generation, picture(&snapshot, fast_path, ifindex));
    }

    /// Counts what the programs forwarded since the last time.
    pub(super) fn count_fast_path(&mut self) {
        for index in 0..self.devices.len() {
            self.count_fast_path_of(index);
        }
    }

    fn count_fast_path_of(&mut self, index: usize) {
        let snapshot = self.snapshots.load();
        for (port, packets) in self.devices[index].count_fast_path(&snapshot) {
            if let Some(device) = self.devices.get_mut(port.index()) {
                device.fast_path.sent += packets;
            }
        }
    }

    /// To be called when a program goes: its successor counts from 0 and sees no flows.
    pub(super) fn leave_fast_path(&mut self, index: usize) {
        self.count_fast_path_of(index);
        let device = &mut self.devices[index];
        follow_egress(&self.steer, &mut device.fast_path.egress, None);
        device.forget_fast_path();
    }
}

/// Has programs redirect frames to the device of this index, and to the former one no more.
fn follow_egress(steer: &Steer, egress: &mut Option<u32>, wanted: Option<u32>) {
    if *egress == wanted {
        return;
    }
    let all = egress.map(|former| (former, false)).into_iter().chain(wanted.map(|new| (new, true)));
    for (ifindex, takes) in all {
        // That of a device that is gone is not there any more.
        if let Err(error) = steer.set_egress(ifindex, takes) {
            warn!(ifindex, %error, "frames to this interface are left to the workers");
        }
    }
    *egress = wanted;
}

impl Device {
    /// Counts what the program forwarded since the last time; once more before it goes. Returns how many
    /// packets that were, by the port that they left by.
    fn count_fast_path(&mut self, snapshot: &Snapshot) -> BTreeMap<PortId, u64> {
        let traffic = self.attached.as_ref().and_then(Attached::traffic);
        traffic
            .zip(self.fast_path.counters.as_ref())
            .map_or_else(BTreeMap::new, |(traffic, counters)| {
                count(snapshot, traffic, counters, &mut self.fast_path.counted)
            })
    }

    fn forget_fast_path(&mut self) {
        for queue in 0..self.attached.as_ref().map_or(0, Attached::queues) {
            let packets = self.fast_path_packets(queue);
            if packets > 0 {
                self.fast_path.past.insert(queue, packets);
            }
        }
        self.fast_path.counted.clear();
        self.fast_path.shown.clear();
    }

    /// Packets of this RX queue that the program forwarded, and programs before it.
    pub(super) fn fast_path_packets(&self, queue: u32) -> u64 {
        let traffic = self.attached.as_ref().and_then(Attached::traffic);
        let past = self.fast_path.past.get(&queue).copied().unwrap_or(0);
        past + traffic.map_or(0, |traffic| traffic.from(queue))
    }

    /// Frames that programs sent by it and the driver dropped.
    pub(super) const fn fast_path_lost(&self) -> u64 {
        self.fast_path.lost
    }

    /// Whether the program forwards known flows, and why or why not.
    pub(super) fn fast_path_state(&self) -> (bool, String) {
        let choice = self.fast_path.choice;
        let why = choice.map_or("no queue is bound", |choice| choice.why).to_owned();
        let risk = choice.and_then(|choice| choice.risk);
        let why = risk.map_or_else(|| why.clone(), |risk| format!("{why}, though {risk}"));
        (!self.fast_path.shown.is_empty(), why)
    }
}

fn count(
    snapshot: &Snapshot,
    traffic: &Traffic,
    counters: &WorkerCounters,
    counted: &mut Vec<[u64; 3]>,
) -> BTreeMap<PortId, u64> {
    let mut by_port = BTreeMap::new();
    counted.resize(counted.len().max(snapshot.next_hops().len()), [0; 3]);
    for (slot, (hop, before)) in (0_u16..).zip(snapshot.next_hops().iter().zip(counted)) {
        let now = traffic.to(slot);
        let packets = now[0].wrapping_sub(before[0]);
        let bytes = now[1].wrapping_sub(before[1]);
        let acked = now[2].wrapping_sub(before[2]);
        if packets == 0 {
            continue;
        }
        *before = now;
        *by_port.entry(hop.port).or_default() += packets;
        let backend = counters.backend(BackendSlot(slot));
        let service = counters.service(hop.service);
        for (counter, value) in [
            (&backend.packets, packets),
            (&backend.bytes, bytes),
            (&backend.acked, acked),
            (&service.packets, packets),
            (&service.bytes, bytes),
            (&counters.totals.received, packets),
            (&counters.totals.forwarded, packets),
        ] {
            counter.add(value);
        }
    }
    by_port
}

/// The longest frame of senders on this very host; 0: there are none.
fn longest_of_local_senders(device: &Device) -> u16 {
    if !device.kind.has_local_senders(device.is_generic()) {
        return 0;
    }
    let mtu = device.link.map_or(0, |link| link.mtu);
    u16::try_from(mtu + ETHERNET_WITH_TAGS).unwrap_or(u16::MAX)
}

/// Header and two tags, bytes.
const ETHERNET_WITH_TAGS: u32 = 14 + 8;
