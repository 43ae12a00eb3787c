//! The thread around the workers of one queue number: one for each interface that has such a queue.
//!
//! It goes round its seats, sleeps when none has anything to do, shows that it lives, and follows
//! orders. What comes in by one of its ports and leaves by another never leaves the thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use arc_swap::ArcSwap;
use control::Poll;
use crossbeam::channel::{Receiver, TryRecvError};
use dataplane::{Snapshot, Tick};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::WorkerId;
use super::bind::{Binding, Home, Refusal};
use super::relay;
use super::seat::{Order, SocketSeat};
use crate::fast_path::SharedFlows;
use crate::panics::{Site, site};
use crate::{clock, priority};

/// A worker thread's whole world.
#[derive(Debug)]
pub struct WorkerThread {
    /// The CPU that it runs on.
    pub cpu: Option<u32>,
    /// How it waits.
    pub poll: Poll,
    /// The ports that it serves.
    pub seats: Vec<SocketSeat>,
    /// What it reads.
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    /// Until when instances are active.
    pub leases: steer::Leases,
    /// Readable when it should wake up.
    pub wake: Arc<OwnedFd>,
    /// Commands to it.
    pub commands: Receiver<WorkerCommand>,
    /// What it tells.
    pub reports: UnboundedSender<WorkerEvent>,
}

/// What the control thread tells a worker thread.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Serve one more port.
    Add(Box<SocketSeat>),
    /// Bind a worker's queue like this, after giving up whatever is bound.
    Open(WorkerId, Binding),
    /// Give a worker's socket up.
    Close(WorkerId),
    /// Have a worker's flows where the XDP program sees them.
    ShareFlows(WorkerId, Arc<SharedFlows>),
    /// End.
    Stop,
}

/// What a worker tells the control thread.
#[derive(Debug)]
pub enum WorkerEvent {
    /// The queue is bound; a duplicate of the socket, for the XSKMAP.
    Bound(WorkerId, OwnedFd),
    /// The queue cannot be bound.
    Failed(WorkerId, Refusal),
    /// The kernel took the socket off the queue, as it does when the device goes.
    Lost(WorkerId),
}

/// The heartbeat's interval; a tenth of what would count as stalled.
const BEAT: Duration = Duration::from_millis(50);
/// How long a worker spins without frames before it sleeps: about what waking up costs.
const SPIN: Duration = Duration::from_micros(50);

impl WorkerThread {
    /// Runs until the command to stop.
    pub fn run(mut self) {
        priority::lower();
        let cpus = rustix::thread::sched_getaffinity(None).ok();
        let busy_poll = self.poll == Poll::Busy;
        let home = Home { wake: Arc::clone(&self.wake), cpus, busy_poll };
        if let Some(cpu) = self.cpu {
            pin(cpu);
        }
        let mut snapshots = arc_swap::Cache::new(Arc::clone(&self.snapshots));
        while self.follow_commands(&home) {
            for seat in &mut self.seats {
                seat.look(&home, &self.reports);
            }
            self.serve(&mut snapshots);
        }
        for seat in &mut self.seats {
            seat.end();
        }
    }

    /// False when the thread is to end.
    fn follow_commands(&mut self, home: &Home) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(WorkerCommand::Add(seat)) => self.seats.push(*seat),
                Ok(WorkerCommand::Open(id, binding)) => self.order(id, Order::Open(binding), home),
                Ok(WorkerCommand::Close(id)) => self.order(id, Order::Close, home),
                Ok(WorkerCommand::ShareFlows(id, owner)) => self.share_flows(id, owner),
                Err(TryRecvError::Empty) => return true,
                Ok(WorkerCommand::Stop) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn seat(&mut self, id: WorkerId) -> Option<&mut SocketSeat> {
        self.seats.iter_mut().find(|seat| seat.id == id)
    }

    fn order(&mut self, id: WorkerId, order: Order, home: &Home) {
        if let Some(seat) = self.seat(id) {
            seat.obey(order, home);
        }
    }

    fn share_flows(&mut self, id: WorkerId, owner: Arc<SharedFlows>) {
        let Some(seat) = self.seat(id) else { return };
        if let Err(error) = seat.worker.forwarder_mut().share_flows(owner) {
            warn!(%error, "the XDP program does not see the flows");
        }
        seat.shared.set_flow_reader(seat.worker.forwarder().flows().reader());
    }

    /// Serves the ports for one heartbeat interval, or until there is a command.
    fn serve(&mut self, snapshots: &mut Snapshots) {
        let begin = clock::now();
        let mut now = begin;
        let mut idle_since = None;
        while now.saturating_since(begin) < BEAT {
            let snapshot = snapshots.load();
            self.acknowledge(snapshot.generation);
            let (taken, after) = self.go_round(now, snapshot);
            now = after;
            if taken > 0 {
                idle_since = None;
            } else if self.rest(after, *idle_since.get_or_insert(after)) {
                break;
            } else {
                now = clock::now();
            }
        }
        let interval = clock::now().saturating_since(begin);
        let snapshot = snapshots.load();
        for seat in &mut self.seats {
            seat.report(now, interval, snapshot);
        }
        site(Site::Worker);
    }

    /// One burst of each port. How much was done, and what time it is.
    fn go_round(&mut self, mut now: Tick, snapshot: &Snapshot) -> (usize, Tick) {
        let mut all = 0;
        for at in 0..self.seats.len() {
            let taken = relay::turn(&mut self.seats, at, now, snapshot, &self.leases);
            let Some(seat) = self.seats.get_mut(at) else { continue };
            if !seat.is_bound() {
                seat.refuse_messages(now);
                continue;
            }
            // Not in `rest`: another port may never let this thread come to it.
            if taken == 0 {
                seat.wake_rx();
            }
            let after = clock::now();
            if taken > 0 {
                seat.note_busy(after.saturating_since(now));
            }
            (all, now) = (all + taken, after);
        }
        (all, now)
    }

    /// Nothing came: spin a while, then sleep until a frame, a message, a command or the next heartbeat.
    /// True when there is something else to do than to serve.
    fn rest(&mut self, now: Tick, idle_since: Tick) -> bool {
        let bound = self.seats.iter().any(SocketSeat::is_bound);
        let spin = self.poll == Poll::Busy || now.saturating_since(idle_since) < SPIN;
        if bound && spin {
            std::hint::spin_loop();
            return self.is_called();
        }
        if self.seats.iter().all(|seat| seat.mailbox.try_sleep()) {
            let unfinished = self.seats.iter().any(SocketSeat::is_unfinished);
            let limit = if unfinished { Duration::from_millis(1) } else { BEAT };
            if let Err(error) = self.sleep(limit) {
                warn!(%error, "poll failed");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.seats.iter().for_each(|seat| seat.mailbox.awake());
        self.is_called()
    }

    /// Whether there is something else to do than to serve.
    fn is_called(&self) -> bool {
        !self.commands.is_empty() || self.seats.iter().any(SocketSeat::has_changed)
    }

    fn sleep(&mut self, limit: Duration) -> io::Result<()> {
        let wake = Arc::clone(&self.wake);
        let sockets = self.seats.iter().enumerate();
        let (at, sockets): (Vec<usize>, Vec<_>) =
            sockets.filter_map(|(at, seat)| Some((at, seat.fd()?))).unzip();
        let all = sockets.into_iter().chain([wake.as_fd()]);
        let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let limit = Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.last().is_some_and(|fd| fd.revents().contains(PollFlags::IN)) {
            let mut count = [0; 8];
            // The count does not matter; it was non-zero, so this does not block.
            let _ = rustix::io::read(&*wake, &mut count);
        }
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        for (at, events) in at.into_iter().zip(events) {
            if let Some(seat) = self.seats.get_mut(at).filter(|_| events.intersects(gone)) {
                seat.note_gone();
            }
        }
        Ok(())
    }

    fn acknowledge(&self, generation: u64) {
        for seat in &self.seats {
            if seat.shared.acknowledged.load(Relaxed) != generation {
                seat.shared.acknowledged.store(generation, Release);
            }
        }
    }
}

type Snapshots = arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

fn pin(cpu: u32) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu as usize);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        warn!(cpu, %error, "cannot pin a worker to its CPU");
    }
}
