//! The VRRP thread: adverts in and out, leases, gratuitous ARP, the VIP guard, and the standalone
//! lease.
//!
//! It decides nothing: [`control::vrrp`] does. It shares no lock that can be held for long,
//! writes no log (the control thread does, from [`InstanceEvent`]), and takes what it needs by commands: the
//! sockets, which the control thread opens, and what that knows of links and priorities.
//! Whether this node forwards it finds out by itself, from the workers' heartbeats.

mod advert_filter;
mod advert_socket;
mod neighbour_socket;
mod report;
mod standalone;
mod sync_group;
mod thread;
mod watch;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use control::vrrp::{
    Announce, Claim, Config, DiscardedAdvert, DiscardedPeer, Event, Reason, StateName,
};
use crossbeam::channel::{Receiver, Sender, bounded};
use dataplane::{InstanceSlot, Mac, PortId, Tick};
use rustix::event::{EventfdFlags, eventfd};
use tracing::{error, warn};

use crate::clock;
use crate::worker::shared::WorkerShared;

pub use advert_socket::{AdvertSocket, LocalEndpoint};
pub use report::{Counters, LATE_BOUNDS, Report};
pub use standalone::Standalone;
pub use sync_group::SyncGroup;

/// The running thread; dropping it makes every VIP inactive, then says goodbye.
#[derive(Debug)]
pub struct VrrpLoop {
    commands: Sender<Command>,
    events: Receiver<InstanceEvent>,
    shared: Arc<Shared>,
    /// A byte comes with each event in `events`.
    wakeup: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// What the thread knows of an instance whether or not it has sockets.
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    /// Its word of the lease array.
    pub slot: InstanceSlot,
    /// Its interface.
    pub port: PortId,
    /// It is released when the control thread is silent for this long.
    pub control_timeout: Duration,
}

/// What the control thread wants. Instances are named by their position.
#[derive(Debug)]
pub enum Command {
    /// There is an instance at this position; one that was there before has no sockets any more.
    Instance(usize, Instance),
    /// There is none any more. Its group was taken back before.
    Forget(usize),
    /// Run these instances, with these sockets, in the place of this group; `None`: none.
    SyncGroup(usize, Option<Box<SyncGroup>>),
    /// An instance goes on with another configuration, and with the sockets that this needs.
    Reconfigure(usize, Box<Reconfigured>),
    /// Release an instance when the control thread is silent for this long.
    ControlTimeout(usize, Duration),
    /// The effective priority of an instance.
    Priority(usize, u8),
    /// Whether the interface of an instance has a link.
    Link(usize, bool),
    /// The interface of an instance has this MAC now.
    Mac(usize, Mac),
    /// The workers whose life decides whether this node forwards.
    Workers(Vec<(PortId, Arc<WorkerShared>)>),
    /// Whether the VIPs without a VRRP instance are to be active; they are not at first.
    Standalone(bool),
    /// Announce the VIPs without an instance on this interface, at once and once more; `None`: no more.
    Announce(PortId, Option<Box<Standalone>>),
    /// An event for one instance: a resignation, an announcement.
    Event(usize, Event),
}

/// What an instance goes on with.
#[derive(Debug)]
pub struct Reconfigured {
    /// Its configuration.
    pub config: Config,
    /// Sockets for it, in the place of those that it has.
    pub socket: AdvertSocket,
}

/// What happened, for log, metrics and hooks.
#[derive(Clone, Copy, Debug)]
pub struct InstanceEvent {
    /// Position of the instance.
    pub instance: usize,
    /// What.
    pub kind: EventKind,
}

/// What happened to an instance.
#[derive(Clone, Copy, Debug)]
pub enum EventKind {
    /// The state changed.
    Transition {
        /// Before.
        from: StateName,
        /// After.
        to: StateName,
        /// Why.
        reason: Reason,
        /// How long the former state had lasted, if it was known.
        after: Option<Duration>,
    },
    /// The VIPs became active.
    Taken,
    /// They became inactive.
    Released,
    /// They were announced.
    Announced(u8, Announce),
    /// Another station claims a VIP that is active here; each claim at most once a minute.
    Claimed(Claim),
    /// A message was discarded; at most once a second per reason.
    Rejected(DiscardedAdvert),
    /// A peer is heard while this node is Active, and its adverts are discarded.
    TwoOwnersPossible(DiscardedPeer),
    /// An advert could not be sent; once until one can.
    SendFailed(i32),
}

/// What both threads look at. The thread never waits for the lock.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// When the control thread was last seen alive, nanoseconds of the one clock.
    control_beat: AtomicU64,
    /// When this thread was last seen alive, likewise.
    beat: AtomicU64,
    /// Wakes the thread.
    call: OwnedFd,
    reports: std::sync::Mutex<Vec<Report>>,
}

const COMMANDS: usize = 1024;
const EVENTS: usize = 4096;

impl VrrpLoop {
    /// Starts the thread. The standalone lease waits for [`Command::Standalone`], instances for their
    /// group.
    ///
    /// # Errors
    /// What the kernel says to eventfd, epoll, timerfd and thread creation.
    pub fn start(leases: steer::Leases, instances: Vec<Instance>) -> io::Result<Self> {
        let (commands, inbox) = bounded(COMMANDS);
        let (outbox, events) = bounded(EVENTS);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let (wakeup, waker) = UnixStream::pair()?;
        for end in [&wakeup, &waker] {
            end.set_nonblocking(true)?;
        }
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            control_beat: AtomicU64::new(clock::now().as_nanos()),
            beat: AtomicU64::new(clock::now().as_nanos()),
            call: eventfd(0, flags)?,
            reports: std::sync::Mutex::new(vec![Report::default(); instances.len()]),
        });
        let outbox = thread::Outbox { queue: outbox, waker };
        let thread = thread::Thread::new(leases, instances, inbox, outbox, Arc::clone(&shared))?;
        let thread = Builder::new().name("vrrp".into()).spawn(move || thread.run())?;
        Ok(Self { commands, events, shared, wakeup, thread: Some(thread) })
    }

    /// Queues a command; never waits.
    pub fn send(&self, command: Command) {
        if let Err(refused) = self.commands.try_send(command) {
            error!(command = ?refused.into_inner(), "VRRP command queue full");
        }
        self.wake();
    }

    /// The control thread is alive.
    pub fn beat(&self) {
        self.shared.control_beat.store(clock::now().as_nanos(), Relaxed);
    }

    /// When the thread was last seen alive; every 100 ms when it runs.
    pub fn last_beat(&self) -> Tick {
        Tick::from_nanos(self.shared.beat.load(Relaxed))
    }

    /// Whether the thread ended without having been stopped.
    pub fn failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Makes every VIP inactive, says goodbye and waits for the end of the thread, whose last
    /// [events](Self::events) can be read then.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the VRRP thread panicked while it stopped");
        }
    }

    /// What happened, oldest first.
    pub fn events(&self) -> impl Iterator<Item = InstanceEvent> + '_ {
        self.events.try_iter()
    }

    /// Readable when there is an [event](Self::events); non-blocking.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn wakeup(&self) -> io::Result<UnixStream> {
        self.wakeup.try_clone()
    }

    /// The state of all instances by position, some milliseconds old.
    pub fn reports(&self) -> Vec<Report> {
        self.shared.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn wake(&self) {
        // A full counter means that it is awake.
        let _ = rustix::io::write(&self.shared.call, &1_u64.to_ne_bytes());
    }
}

impl Drop for VrrpLoop {
    fn drop(&mut self) {
        self.stop();
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }
}

/// The one clock for leases, from the clock that the election uses. Both are CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    tick: Tick,
    instant: Instant,
}

impl Anchor {
    fn new() -> Self {
        // In this order: an error makes leases shorter, never longer.
        let tick = clock::now();
        Self { tick, instant: Instant::now() }
    }

    fn nanos(&self, at: Instant) -> u64 {
        (self.tick + at.saturating_duration_since(self.instant)).as_nanos()
    }
}
