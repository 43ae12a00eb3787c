//! Opening and closing of sockets, on a thread of its own each time: memory and queue take the kernel
//! milliseconds, and a queue that another socket holds is tried for up to seconds. The other ports of
//! the worker's thread go on meanwhile.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam::channel::{Receiver, TryRecvError, bounded};
use dataplane::Mac;
use rustix::thread::{CpuSet, sched_setaffinity};
use tracing::debug;
use xsk::{Bound, KernelRings, OpenConfig, OpenError, Port, ZeroCopy};

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
    /// How long to try a queue that another socket holds.
    pub patience: Duration,
}

/// What is opened.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) binding: Binding,
    /// The RX queue.
    pub(super) queue: u32,
    /// Whether packets leave by a packet socket even if there is a TX queue.
    pub(super) packet_socket: bool,
}

/// What the threads need of the one that they work for.
#[derive(Debug)]
pub(super) struct Home {
    /// Readable when a thread is done.
    pub(super) wake: Arc<OwnedFd>,
    /// The CPUs to run on: the worker's own one is busy with frames.
    pub(super) cpus: Option<CpuSet>,
    /// Whether sockets poll their device.
    pub(super) busy_poll: bool,
}

/// A queue that is bound.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) port: Port<KernelRings>,
    pub(super) how: Bound,
    /// A duplicate of the socket, for the XSKMAP.
    pub(super) socket: OwnedFd,
    pub(super) binding: Binding,
}

/// Why a queue cannot be bound.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What, where, why and how to fix it.
    pub text: String,
    /// The key of `[[interface]]` that asks for what cannot be had.
    pub setting: &'static str,
}

/// What came of it; `None`: there was only something to close.
type Outcome = Option<Result<Box<Opened>, Refusal>>;

/// A thread at work.
#[derive(Debug)]
pub(super) struct Binder(Receiver<Outcome>);

impl Binder {
    /// Closes `old`, whose UMEM goes with it, and only then opens what is asked for: one queue has one
    /// socket.
    pub(super) fn start(
        old: Option<Port<KernelRings>>,
        request: Option<Request>,
        home: &Home,
    ) -> Self {
        let (sender, outcome) = bounded(1);
        let Home { cpus, busy_poll, .. } = *home;
        let (wake, failed) = (Arc::clone(&home.wake), sender.clone());
        let work = move || {
            if let Some(Err(error)) = cpus.map(|cpus| sched_setaffinity(None, &cpus)) {
                debug!(%error, "a queue is bound on its worker's CPU");
            }
            drop(old);
            let opened = request.map(|request| request.open(busy_poll).map(Box::new));
            if sender.send(opened).is_ok() {
                super::pool::wake_by(&wake);
            }
        };
        if let Err(error) = Builder::new().name("bind".to_owned()).spawn(work) {
            let refusal = Refusal::new(format!("cannot start a thread to bind the queue: {error}"));
            // There is room for one, and no thread to fill it.
            let _ = failed.send(Some(Err(refusal)));
        }
        Self(outcome)
    }

    /// What came of it, when the thread is done.
    pub(super) fn done(&self) -> Option<Outcome> {
        match self.0.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            // The panic is in the log and ends the node.
            Err(TryRecvError::Disconnected) => {
                Some(Some(Err(Refusal::new("the thread that binds the queue panicked"))))
            }
        }
    }

    /// Whether the thread is done.
    pub(super) fn is_done(&self) -> bool {
        !self.0.is_empty()
    }

    /// Waits for the thread and closes what it opened.
    pub(super) fn give_up(self) {
        drop(self.0.recv());
    }
}

impl Request {
    fn open(self, busy_poll: bool) -> Result<Opened, Refusal> {
        let Self { binding, queue, packet_socket } = self;
        let config = OpenConfig {
            frames: binding.frames,
            zero_copy: binding.zero_copy,
            generic: binding.generic,
            busy_poll,
            packet_socket,
            busy_wait: binding.patience,
            ..OpenConfig::new(&binding.interface, queue)
        };
        let (port, how) = xsk::open(&config)?;
        let fd = port.fd().ok_or_else(|| Refusal::new("the rings have no socket"))?;
        let socket = fd.as_fd().try_clone_to_owned().map_err(Refusal::new)?;
        Ok(Opened { port, how, socket, binding })
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
