//! All workers of the node: starts them, tells them which queue to bind, stops them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use control::Dataplane;
use crossbeam::channel::{Sender, unbounded};
use dataplane::{
    FlowTable, Forwarder, Mac, Mailbox, SharedTables, Snapshot, WorkerCounters, WorkerLink,
};
use rustix::event::{EventfdFlags, eventfd};
use steer::{FastPath, FlowMap};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::shared::WorkerShared;
use super::thread::{Binding, WorkerCommand, WorkerEvent, WorkerThread};
use super::{Worker, WorkerId};
use crate::fast_path::SharedFlows;
use crate::{clock, sys};

/// The node's workers.
#[derive(Debug)]
pub struct Pool {
    settings: Dataplane,
    cpus: Vec<u32>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    tables: Arc<SharedTables>,
    leases: steer::Leases,
    reports: UnboundedSender<WorkerEvent>,
    workers: BTreeMap<WorkerId, Handle>,
}

/// One running worker.
#[derive(Debug)]
pub struct Handle {
    /// What it shows of itself.
    pub shared: Arc<WorkerShared>,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
    /// The CPU that it is pinned to.
    pub cpu: Option<u32>,
    mac: Mac,
    mailbox: Arc<Mailbox>,
    commands: Sender<WorkerCommand>,
    thread: JoinHandle<()>,
    /// Its flows, once the XDP program is to see them.
    flows: Option<FlowMap>,
}

/// Messages and frame buffers of a mailbox.
const MAILBOX: usize = 256;
/// The longest frame that crosses between workers: as much as the largest UMEM frame.
const PARCEL_BYTES: usize = 4096;

impl Pool {
    /// A pool without workers.
    pub fn new(
        settings: Dataplane,
        snapshots: Arc<ArcSwap<Snapshot>>,
        tables: Arc<SharedTables>,
        leases: steer::Leases,
        reports: UnboundedSender<WorkerEvent>,
    ) -> Self {
        let cpus = settings.cpus.clone().unwrap_or_else(usable_cpus);
        Self { settings, cpus, snapshots, tables, leases, reports, workers: BTreeMap::new() }
    }

    /// Has a queue served, by its worker or a new one.
    ///
    /// # Errors
    /// What thread creation returns.
    pub fn serve(&mut self, id: WorkerId, binding: Binding) -> Result<()> {
        let mac = binding.mac;
        if !self.workers.contains_key(&id) {
            let handle = self
                .start(id, mac)
                .with_context(|| format!("cannot start the worker of queue {}", id.queue))?;
            self.workers.insert(id, handle);
        }
        if let Some(handle) = self.workers.get_mut(&id) {
            handle.mac = mac;
            handle.tell(WorkerCommand::Open(binding));
        }
        Ok(())
    }

    /// Has a worker give its socket up; it keeps its flows for when the device comes back.
    pub fn close(&self, id: WorkerId) {
        if let Some(handle) = self.workers.get(&id) {
            handle.tell(WorkerCommand::Close);
        }
    }

    /// The flows of a worker, in memory that the XDP program can read: from the first time on.
    ///
    /// # Errors
    /// [`steer::SteerError`]: the kernel has no memory.
    pub fn share_flows(
        &mut self,
        id: WorkerId,
        fast_path: &FastPath,
    ) -> Result<Option<&FlowMap>, steer::SteerError> {
        let Some(handle) = self.workers.get_mut(&id) else { return Ok(None) };
        if handle.flows.is_none() {
            let flows = fast_path.flow_map()?;
            let shared = Arc::new(SharedFlows(flows.memory.clone()));
            handle.tell(WorkerCommand::ShareFlows(shared));
            handle.flows = Some(flows);
        }
        Ok(handle.flows.as_ref())
    }

    /// How the socket of a queue was bound the last time.
    pub fn how(&self, id: WorkerId) -> Option<xsk::Bound> {
        self.workers.get(&id)?.shared.report().how
    }

    /// How the packet path reaches the workers.
    pub fn links(&self) -> Vec<WorkerLink> {
        self.workers
            .iter()
            .map(|(id, handle)| WorkerLink {
                port: id.port,
                queue: id.queue,
                mac: handle.mac,
                mailbox: Arc::clone(&handle.mailbox),
                counters: Arc::clone(&handle.counters),
            })
            .collect()
    }

    /// All workers, by interface and queue.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, &Handle)> {
        self.workers.iter().map(|(id, handle)| (*id, handle))
    }

    /// The generation that every worker works with, or a later one.
    pub fn acknowledged(&self) -> Option<u64> {
        use std::sync::atomic::Ordering::Acquire;
        self.workers.values().map(|handle| handle.shared.acknowledged.load(Acquire)).min()
    }

    /// Wakes sleeping workers so that a new snapshot is taken up at once.
    pub fn rouse(&self) {
        for handle in self.workers.values() {
            handle.mailbox.rouse();
        }
    }

    /// A worker whose thread ended without a command to.
    pub fn failed_worker(&self) -> Option<WorkerId> {
        self.workers.iter().find(|(_, handle)| handle.thread.is_finished()).map(|(id, _)| *id)
    }

    /// Stops all workers and waits for them.
    pub fn stop(&mut self) {
        for handle in self.workers.values() {
            handle.tell(WorkerCommand::Stop);
        }
        for (id, handle) in std::mem::take(&mut self.workers) {
            if handle.thread.join().is_err() {
                warn!(queue = id.queue, "a worker had panicked");
            }
        }
    }

    fn start(&self, id: WorkerId, mac: Mac) -> io::Result<Handle> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mailbox = Arc::new(Mailbox::new(MAILBOX, PARCEL_BYTES, waker(&wake)));
        let counters = Arc::new(WorkerCounters::default());
        let shared = Arc::new(WorkerShared::default());
        // Or it would seem to have been silent since the machine was booted.
        shared.beat(clock::now());
        let (commands, received) = unbounded();
        let cpu = self.cpus.get(self.workers.len() % self.cpus.len().max(1)).copied();
        let settings = &self.settings;
        let flows = FlowTable::new(settings.flow_capacity, seed(), &settings.timeouts);
        sys::prefer_huge_pages(&flows.memory());
        let forwarder = Forwarder::new(
            id.port,
            mac,
            flows,
            &settings.timeouts,
            Arc::clone(&self.tables),
            Arc::clone(&counters),
        );
        let thread = WorkerThread {
            id,
            cpu,
            poll: settings.poll,
            worker: Worker::new(id, forwarder, Arc::clone(&counters), Arc::clone(&mailbox)),
            snapshots: Arc::clone(&self.snapshots),
            leases: self.leases.clone(),
            shared: Arc::clone(&shared),
            mailbox: Arc::clone(&mailbox),
            wake,
            commands: received,
            reports: self.reports.clone(),
        };
        let name = format!("worker-{}", self.workers.len());
        let thread = Builder::new().name(name).spawn(move || thread.run())?;
        Ok(Handle { shared, counters, cpu, mac, mailbox, commands, thread, flows: None })
    }
}

impl Handle {
    fn tell(&self, order: WorkerCommand) {
        if self.commands.send(order).is_err() {
            warn!("a worker thread is gone");
        }
        self.mailbox.rouse();
    }
}

fn waker(wake: &Arc<OwnedFd>) -> impl Fn() + Send + Sync + 'static {
    let wake = Arc::clone(wake);
    move || {
        // A counter that is full is readable already.
        let _ = rustix::io::write(wake.as_fd(), &1u64.to_ne_bytes());
    }
}

/// The CPUs that this process may run on.
pub fn usable_cpus() -> Vec<u32> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

/// A seed that cannot be guessed: hash-flooding must not work.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}
