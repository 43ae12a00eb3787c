//! The thread around a [`Worker`]: its clock, its snapshot, its sleep, its socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use arc_swap::ArcSwap;
use control::Poll;
use control::nic::{SendReading, SendWatch};
use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};
use dataplane::{Mac, Mailbox, Snapshot, Tick};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_error;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};
use xsk::{Counters, KernelRings, OpenConfig, OpenError, Port, WayOut, ZeroCopy};

use super::shared::WorkerShared;
use super::{Worker, WorkerId};
use crate::fast_path::SharedFlows;
use crate::panics::{Site, site};
use crate::{clock, priority};

/// A worker thread's whole world.
#[derive(Debug)]
pub struct WorkerThread {
    /// Which queue it serves.
    pub id: WorkerId,
    /// The CPU that it runs on.
    pub cpu: Option<u32>,
    /// How it waits.
    pub poll: Poll,
    /// The packet path.
    pub worker: Worker,
    /// What it reads.
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    /// Until when instances are active.
    pub leases: steer::Leases,
    /// What others see of it.
    pub shared: Arc<WorkerShared>,
    /// Where others leave frames.
    pub mailbox: Arc<Mailbox>,
    /// Readable when it should wake up.
    pub wake: Arc<OwnedFd>,
    /// Commands to it.
    pub commands: Receiver<WorkerCommand>,
    /// What it tells.
    pub reports: UnboundedSender<WorkerEvent>,
}

/// What the control thread tells a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Bind the queue like this, after giving up whatever is bound.
    Open(Binding),
    /// Give the socket up.
    Close,
    /// Have the flows where the XDP program sees them.
    ShareFlows(Arc<SharedFlows>),
    /// End.
    Stop,
}

/// How a queue is to be bound.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The interface's name.
    pub interface: String,
    /// Its MAC.
    pub mac: Mac,
    /// Frames of the UMEM.
    pub frames: u32,
    /// Whether the driver is to use the UMEM directly.
    pub zero_copy: ZeroCopy,
    /// Whether the XDP program runs in generic mode.
    pub generic: bool,
    /// Whether frames may come from senders on this very host.
    pub local_senders: bool,
    /// How long to try a queue that another socket holds. The worker does nothing else meanwhile.
    pub patience: Duration,
}

/// A queue that is bound.
#[derive(Debug)]
struct BoundQueue {
    port: Port<KernelRings>,
    binding: Binding,
    watch: SendWatch,
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

/// Why a queue cannot be bound.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What, where, why and how to fix it.
    pub text: String,
    /// The key of `[[interface]]` that asks for what cannot be had.
    pub setting: &'static str,
}

/// The heartbeat's interval; a tenth of what would count as stalled.
const BEAT: Duration = Duration::from_millis(50);
/// How long a worker spins without frames before it sleeps: about what waking up costs.
const SPIN: Duration = Duration::from_micros(50);

impl WorkerThread {
    /// Runs until the command to stop.
    pub fn run(mut self) {
        priority::lower();
        if let Some(cpu) = self.cpu {
            pin(cpu);
        }
        let mut snapshots = arc_swap::Cache::new(Arc::clone(&self.snapshots));
        let mut queue = None;
        loop {
            match self.next_command(queue.is_some()) {
                Some(WorkerCommand::Open(binding)) => {
                    // One queue has one socket: the old one goes first.
                    self.give_up(queue.take());
                    queue = self.open(binding, false);
                }
                Some(WorkerCommand::Close) => {
                    self.shared.bound.store(false, Relaxed);
                    self.give_up(queue.take());
                }
                Some(WorkerCommand::ShareFlows(owner)) => {
                    if let Err(error) = self.worker.forwarder_mut().share_flows(owner) {
                        warn!(%error, "the XDP program does not see the flows");
                    }
                }
                Some(WorkerCommand::Stop) => break,
                None => {}
            }
            match &mut queue {
                Some(bound) => {
                    self.serve(&mut bound.port, &mut snapshots);
                    if is_taken_off(&bound.port) {
                        self.shared.bound.store(false, Relaxed);
                        self.give_up(queue.take());
                        self.tell(WorkerEvent::Lost(self.id));
                    } else if let Some(packet_socket) = self.check_sending(bound) {
                        let binding = self.give_up(queue.take());
                        queue = binding.and_then(|binding| self.open(binding, packet_socket));
                    }
                }
                None => self.idle(&mut snapshots),
            }
        }
        self.give_up(queue);
        self.worker.end_all_flows(clock::now());
        self.shared.bound.store(false, Relaxed);
    }

    /// Closes the socket, if there is one, whose UMEM goes with it. How it was bound.
    fn give_up(&mut self, queue: Option<BoundQueue>) -> Option<Binding> {
        self.worker.forget_fragments();
        queue.map(|bound| bound.binding)
    }

    /// Whether what is sent leaves. If not, how the queue has to be bound anew: whether by all means
    /// with a packet socket to send by.
    fn check_sending(&self, queue: &mut BoundQueue) -> Option<bool> {
        let BoundQueue { port, binding, watch } = queue;
        let way_out = port.way_out();
        let Counters { transmitted, completed, .. } = *port.counters();
        let on_ring = port.on_tx_ring();
        let link = port.link() == xsk::Link::Up;
        let reading = SendReading { link, transmitted, completed, on_ring };
        let stalled = watch.look(clock::now(), reading);
        self.shared.stalled.store(stalled, Relaxed);
        let (unsent, packet_socket) = match way_out {
            WayOut::None => (on_ring, false),
            WayOut::Ring if stalled => (port.outstanding_tx(), true),
            WayOut::Ring | WayOut::PacketSocket => {
                let packet_socket = way_out == WayOut::PacketSocket;
                self.shared.update(|report| report.packet_socket = packet_socket);
                return None;
            }
        };
        warn!(
            interface = binding.interface,
            queue = self.id.queue,
            unsent,
            "what is sent does not leave, though the kernel reports success: binding the queue anew, \
             to send by a packet socket"
        );
        self.shared.update(|report| report.unsent += unsent);
        Some(packet_socket)
    }

    /// Waits for an order only while there is nothing else to do.
    fn next_command(&self, serving: bool) -> Option<WorkerCommand> {
        if serving {
            return match self.commands.try_recv() {
                Ok(order) => Some(order),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(WorkerCommand::Stop),
            };
        }
        match self.commands.recv_timeout(BEAT) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(WorkerCommand::Stop),
        }
    }

    /// With `packet_socket`, packets leave by a packet socket even if there is a TX queue.
    fn open(&mut self, binding: Binding, packet_socket: bool) -> Option<BoundQueue> {
        self.shared.bound.store(false, Relaxed);
        let config = OpenConfig {
            frames: binding.frames,
            zero_copy: binding.zero_copy,
            generic: binding.generic,
            busy_poll: self.poll == Poll::Busy,
            packet_socket,
            busy_wait: binding.patience,
            ..OpenConfig::new(&binding.interface, self.id.queue)
        };
        let opened = xsk::open(&config).map_err(Refusal::from).and_then(|opened| {
            let fd = opened.0.fd().ok_or_else(|| Refusal::new("the rings have no socket"))?;
            let fd = fd.try_clone_to_owned().map_err(Refusal::new)?;
            Ok((opened, fd))
        });
        match opened {
            Ok(((port, how), fd)) => {
                self.worker.forwarder_mut().set_mac(binding.mac);
                let longest = binding.local_senders.then(|| how.longest_frame());
                self.worker.set_local_senders(longest);
                self.shared.update(|report| {
                    report.how = Some(how);
                    report.packet_socket = how.packet_socket;
                    report.error = None;
                });
                self.shared.stalled.store(false, Relaxed);
                self.shared.bound.store(true, Relaxed);
                self.tell(WorkerEvent::Bound(self.id, fd));
                Some(BoundQueue { port, binding, watch: SendWatch::default() })
            }
            Err(refusal) => {
                self.shared.update(|report| report.error = Some(refusal.text.clone()));
                self.tell(WorkerEvent::Failed(self.id, refusal));
                None
            }
        }
    }

    fn tell(&self, news: WorkerEvent) {
        if self.reports.send(news).is_err() {
            debug!("the control thread is gone");
        }
    }

    /// Serves the port for one heartbeat interval.
    fn serve(&mut self, port: &mut Port<KernelRings>, snapshots: &mut Snapshots) {
        let begin = clock::now();
        let mut now = begin;
        let mut idle_since = None;
        let mut busy = Duration::ZERO;
        while now.saturating_since(begin) < BEAT {
            let snapshot = snapshots.load();
            self.acknowledge(snapshot.generation);
            let taken = self.worker.turn(port, now, snapshot, &self.leases);
            let after = clock::now();
            if taken > 0 {
                busy += after.saturating_since(now);
                idle_since = None;
            } else {
                self.rest(port, after, *idle_since.get_or_insert(after));
                if !self.commands.is_empty() {
                    break;
                }
            }
            now = clock::now();
        }
        self.report(port, now, (busy, now.saturating_since(begin)));
        site(Site::Worker);
    }

    /// Nothing came: spin a while, then sleep until a frame, a message or the next heartbeat.
    fn rest(&self, port: &mut Port<KernelRings>, now: Tick, idle_since: Tick) {
        let spin = self.poll == Poll::Busy || now.saturating_since(idle_since) < SPIN;
        if spin {
            if let Err(error) = port.wake_rx() {
                debug!(%error, "cannot wake the receiving side");
            }
            std::hint::spin_loop();
            return;
        }
        if !self.mailbox.try_sleep() {
            return;
        }
        let unfinished = port.kick_pending()
            || self.worker.forwarder().is_resetting()
            || self.worker.has_waiting();
        let limit = if unfinished { Duration::from_millis(1) } else { BEAT };
        if let Err(error) = self.sleep(port, limit) {
            warn!(%error, "poll failed");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.mailbox.awake();
    }

    fn sleep(&self, port: &Port<KernelRings>, limit: Duration) -> io::Result<()> {
        let Some(socket) = port.fd() else { return Ok(()) };
        let wake = self.wake.as_fd();
        let mut fds = [
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
        ];
        let limit = Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[1].revents().contains(PollFlags::IN) {
            let mut count = [0; 8];
            // The count does not matter; it was non-zero, so this does not block.
            let _ = rustix::io::read(wake, &mut count);
        }
        // A device that went away makes the socket readable for ever.
        if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Without a socket there is still the mailbox's bound, the snapshot and the heartbeat.
    fn idle(&mut self, snapshots: &mut Snapshots) {
        let now = clock::now();
        let snapshot = snapshots.load();
        self.acknowledge(snapshot.generation);
        while let Some(message) = self.mailbox.take() {
            self.worker.refuse(message, now);
        }
        self.worker.forwarder_mut().housekeep(now, snapshot);
        self.shared.beat(now);
        self.shared.flows.store(self.worker.forwarder().flow_count() as u64, Relaxed);
    }

    fn acknowledge(&self, generation: u64) {
        if self.shared.acknowledged.load(Relaxed) != generation {
            self.shared.acknowledged.store(generation, Release);
        }
    }

    fn report(&self, port: &mut Port<KernelRings>, now: Tick, (busy, whole): (Duration, Duration)) {
        self.shared.beat(now);
        self.shared.flows.store(self.worker.forwarder().flow_count() as u64, Relaxed);
        let ppm = busy.as_nanos() * 1_000_000 / whole.as_nanos().max(1);
        self.shared.busy_ppm.store(u64::try_from(ppm).unwrap_or(1_000_000), Relaxed);
        let statistics = port.statistics().unwrap_or_default();
        self.shared.update(|report| {
            report.accounting = port.accounting();
            report.counters = *port.counters();
            report.statistics = statistics;
        });
    }
}

impl Refusal {
    fn new(text: impl ToString) -> Self {
        Self { text: text.to_string(), setting: "name" }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let setting = match error {
            OpenError::NoZeroCopy { .. } | OpenError::GenericZeroCopy { .. } => "zero_copy",
            OpenError::NoQueue { .. } => "queues",
            OpenError::Frames { .. }
            | OpenError::NoInterface { .. }
            | OpenError::Mtu { .. }
            | OpenError::Permission { .. }
            | OpenError::Memlock { .. }
            | OpenError::Busy { .. }
            | OpenError::Unsupported
            | OpenError::Os { .. } => "name",
        };
        Self { setting, ..Self::new(error) }
    }
}

/// Whether the kernel took the socket off its queue. It says so once, as an error of the socket, and
/// nothing else does before something is to be sent: a device that comes back, or another one with
/// its index, looks as if nothing had been.
fn is_taken_off(port: &Port<KernelRings>) -> bool {
    port.fd().is_some_and(|socket| matches!(socket_error(socket), Ok(Err(_))))
}

type Snapshots = arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

fn pin(cpu: u32) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu as usize);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        warn!(cpu, %error, "cannot pin a worker to its CPU");
    }
}
