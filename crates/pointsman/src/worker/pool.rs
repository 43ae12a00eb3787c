//! All workers of the node: starts them, tells them which queue to bind, stops them. Those of one queue
//! number share a thread, whatever their interface.

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

use super::bind::Binding;
use super::seat::SocketSeat;
use super::shared::WorkerShared;
use super::thread::{WorkerCommand, WorkerEvent, WorkerThread};
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
    /// By queue number.
    threads: BTreeMap<u32, Thread>,
}

/// A thread and the workers on it.
#[derive(Debug)]
struct Thread {
    cpu: Option<u32>,
    wake: Arc<OwnedFd>,
    commands: Sender<WorkerCommand>,
    handle: JoinHandle<()>,
}

/// One running worker.
#[derive(Debug)]
pub struct Handle {
    /// What it shows of itself.
    pub shared: Arc<WorkerShared>,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
    /// The CPU that its thread is pinned to.
    pub cpu: Option<u32>,
    mac: Mac,
    mailbox: Arc<Mailbox>,
    /// Its flows, once the XDP program is to see them.
    flows: Option<FlowMap>,
}

/// Messages and frame buffers of a mailbox: as many as a ring takes that has the fewest frames.
const MAILBOX: usize = 1024;
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
        let (workers, threads) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, cpus, snapshots, tables, leases, reports, workers, threads }
    }

    /// Has a queue served, by its worker or a new one.
    ///
    /// # Errors
    /// What thread creation returns.
    pub fn serve(&mut self, id: WorkerId, binding: Binding) -> Result<()> {
        if !self.workers.contains_key(&id) {
            self.add(id, binding.mac)
                .with_context(|| format!("cannot start the worker of queue {}", id.queue))?;
        }
        if let Some(handle) = self.workers.get_mut(&id) {
            handle.mac = binding.mac;
        }
        self.tell(id.queue, WorkerCommand::Open(id, binding));
        Ok(())
    }

    /// Has a worker give its socket up; it keeps its flows for when the device comes back.
    pub fn close(&self, id: WorkerId) {
        self.tell(id.queue, WorkerCommand::Close(id));
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
        let Self { workers, threads, .. } = self;
        let Some(handle) = workers.get_mut(&id) else { return Ok(None) };
        if handle.flows.is_none() {
            let flows = fast_path.flow_map()?;
            let shared = Arc::new(SharedFlows(flows.memory.clone()));
            if let Some(thread) = threads.get(&id.queue) {
                thread.tell(WorkerCommand::ShareFlows(id, shared));
            }
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

    /// The queue number of workers whose thread ended without a command to.
    pub fn failed_queue(&self) -> Option<u32> {
        let failed =
            |(queue, thread): (&u32, &Thread)| thread.handle.is_finished().then_some(*queue);
        self.threads.iter().find_map(failed)
    }

    /// Stops all workers and waits for them.
    pub fn stop(&mut self) {
        for thread in self.threads.values() {
            thread.tell(WorkerCommand::Stop);
        }
        for (queue, thread) in std::mem::take(&mut self.threads) {
            if thread.handle.join().is_err() {
                warn!(queue, "a worker had panicked");
            }
        }
        self.workers.clear();
    }

    fn tell(&self, queue: u32, order: WorkerCommand) {
        if let Some(thread) = self.threads.get(&queue) {
            thread.tell(order);
        }
    }

    /// Adds a worker to the thread of its queue number, or to a new one.
    fn add(&mut self, id: WorkerId, mac: Mac) -> io::Result<()> {
        if !self.threads.contains_key(&id.queue) {
            let thread = self.start(id.queue)?;
            self.threads.insert(id.queue, thread);
        }
        let Some(thread) = self.threads.get(&id.queue) else { return Ok(()) };
        let mailbox = Arc::new(Mailbox::new(MAILBOX, PARCEL_BYTES, waker(&thread.wake)));
        let counters = Arc::new(WorkerCounters::default());
        let shared = Arc::new(WorkerShared::default());
        // Or it would seem to have been silent since the machine was booted.
        shared.beat(clock::now());
        let settings = &self.settings;
        let flows = FlowTable::new(settings.flow_capacity, seed(), &settings.timeouts);
        sys::prefer_huge_pages(&flows.memory());
        shared.set_flow_reader(flows.reader());
        let forwarder = Forwarder::new(
            id.port,
            mac,
            flows,
            &settings.timeouts,
            Arc::clone(&self.tables),
            Arc::clone(&counters),
        );
        let worker = Worker::new(id, forwarder, Arc::clone(&counters), Arc::clone(&mailbox));
        let seat = SocketSeat::new(id, worker, Arc::clone(&shared), Arc::clone(&mailbox));
        thread.tell(WorkerCommand::Add(Box::new(seat)));
        let cpu = thread.cpu;
        self.workers.insert(id, Handle { shared, counters, cpu, mac, mailbox, flows: None });
        Ok(())
    }

    fn start(&self, queue: u32) -> io::Result<Thread> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, received) = unbounded();
        let cpu = self.cpus.get(self.threads.len() % self.cpus.len().max(1)).copied();
        let thread = WorkerThread {
            cpu,
            poll: self.settings.poll,
            seats: Vec::new(),
            snapshots: Arc::clone(&self.snapshots),
            leases: self.leases.clone(),
            wake: Arc::clone(&wake),
            commands: received,
            reports: self.reports.clone(),
        };
        let handle = Builder::new().name(format!("worker-{queue}")).spawn(move || thread.run())?;
        Ok(Thread { cpu, wake, commands, handle })
    }
}

impl Thread {
    fn tell(&self, order: WorkerCommand) {
        if self.commands.send(order).is_err() {
            warn!("a worker thread is gone");
        }
        wake_by(&self.wake);
    }
}

fn waker(wake: &Arc<OwnedFd>) -> impl Fn() + Send + Sync + 'static {
    let fd = Arc::clone(wake);
    move || wake_by(&fd)
}

/// Has the owner of an event counter wake up.
pub(super) fn wake_by(counter: &OwnedFd) {
    // One that is full is readable already.
    let _ = rustix::io::write(counter.as_fd(), &1u64.to_ne_bytes());
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
