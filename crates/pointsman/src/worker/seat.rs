//! One of the ports that a worker thread serves: its worker, and the socket while it is bound. The other
//! ports of the thread see nothing of its coming and going.

use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use control::nic::{SendReading, SendWatch};
use dataplane::{Mailbox, Snapshot, Tick};
use rustix::net::sockopt::socket_error;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};
use xsk::{Counters, KernelRings, Port, WayOut};

use super::bind::{Binder, Binding, Home, Opened, Refusal, Request};
use super::relay::Seat;
use super::shared::WorkerShared;
use super::thread::WorkerEvent;
use super::{Worker, WorkerId};
use crate::clock;

/// A worker with its socket.
#[derive(Debug)]
pub struct SocketSeat {
    pub(super) id: WorkerId,
    pub(super) worker: Worker,
    /// What others see of it.
    pub(super) shared: Arc<WorkerShared>,
    /// Where others leave frames.
    pub(super) mailbox: Arc<Mailbox>,
    socket: Socket,
    /// What to do when the thread is done that binds or closes now.
    next: Option<Order>,
    /// Time spent on frames since the last report.
    busy: Duration,
}

/// What a seat is to do with its queue.
#[derive(Debug)]
pub(super) enum Order {
    /// Bind it like this, after giving up whatever is bound.
    Open(Binding),
    /// Give the socket up.
    Close,
}

#[derive(Debug)]
enum Socket {
    None,
    /// On its way.
    Changing(Binder),
    Bound(Box<BoundQueue>),
}

#[derive(Debug)]
struct BoundQueue {
    port: Port<KernelRings>,
    binding: Binding,
    watch: SendWatch,
    /// Whether the device went away, which leaves the socket readable for ever.
    gone: bool,
}

impl Seat for SocketSeat {
    type Rings = KernelRings;

    #[inline]
    fn parts(&mut self) -> (&mut Worker, Option<&mut Port<KernelRings>>) {
        let port = match &mut self.socket {
            Socket::Bound(queue) => Some(&mut queue.port),
            Socket::None | Socket::Changing(_) => None,
        };
        (&mut self.worker, port)
    }
}

impl SocketSeat {
    pub(super) fn new(
        id: WorkerId,
        worker: Worker,
        shared: Arc<WorkerShared>,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        let (socket, next, busy) = (Socket::None, None, Duration::ZERO);
        Self { id, worker, shared, mailbox, socket, next, busy }
    }

    /// Takes an order; of several during a change only the last one counts.
    pub(super) fn obey(&mut self, order: Order, home: &Home) {
        self.shared.bound.store(false, Relaxed);
        let old = match mem::replace(&mut self.socket, Socket::None) {
            Socket::None => None,
            Socket::Bound(queue) => Some(queue.port),
            Socket::Changing(binder) => {
                self.socket = Socket::Changing(binder);
                self.next = Some(order);
                return;
            }
        };
        self.change(old, order, home);
    }

    /// Closes what is bound, then does as ordered.
    fn change(&mut self, old: Option<Port<KernelRings>>, order: Order, home: &Home) {
        match order {
            Order::Open(binding) => self.bind(old, binding, false, home),
            Order::Close if old.is_some() => {
                self.worker.forget_fragments();
                self.socket = Socket::Changing(Binder::start(old, None, home));
            }
            Order::Close => {}
        }
    }

    /// With `packet_socket`, packets leave by a packet socket even if there is a TX queue.
    fn bind(
        &mut self,
        old: Option<Port<KernelRings>>,
        binding: Binding,
        packet_socket: bool,
        home: &Home,
    ) {
        self.worker.forget_fragments();
        self.shared.bound.store(false, Relaxed);
        let request = Request { binding, queue: self.id.queue, packet_socket };
        self.socket = Socket::Changing(Binder::start(old, Some(request), home));
    }

    /// What became of a change, and whether what is sent leaves. To be called now and then.
    pub(super) fn look(&mut self, home: &Home, reports: &UnboundedSender<WorkerEvent>) {
        match mem::replace(&mut self.socket, Socket::None) {
            Socket::None => {}
            Socket::Changing(binder) => match (binder.done(), self.next.take()) {
                (None, next) => {
                    self.next = next;
                    self.socket = Socket::Changing(binder);
                }
                (Some(outcome), Some(order)) => {
                    let opened = outcome.and_then(Result::ok);
                    self.change(opened.map(|opened| opened.port), order, home);
                }
                (Some(outcome), None) => self.finish(outcome, reports),
            },
            Socket::Bound(queue) if is_taken_off(&queue.port) => {
                self.shared.bound.store(false, Relaxed);
                self.change(Some(queue.port), Order::Close, home);
                tell(reports, WorkerEvent::Lost(self.id));
            }
            Socket::Bound(mut queue) => match self.check_sending(&mut queue) {
                None => self.socket = Socket::Bound(queue),
                Some(packet_socket) => {
                    let BoundQueue { port, binding, .. } = *queue;
                    self.bind(Some(port), binding, packet_socket, home);
                }
            },
        }
    }

    fn finish(
        &mut self,
        outcome: Option<Result<Box<Opened>, Refusal>>,
        reports: &UnboundedSender<WorkerEvent>,
    ) {
        let event = match outcome {
            None => return,
            Some(Ok(opened)) => {
                let Opened { port, how, socket, binding } = *opened;
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
                let watch = SendWatch::default();
                let queue = BoundQueue { port, binding, watch, gone: false };
                self.socket = Socket::Bound(Box::new(queue));
                WorkerEvent::Bound(self.id, socket)
            }
            Some(Err(refusal)) => {
                self.shared.update(|report| report.error = Some(refusal.text.clone()));
                WorkerEvent::Failed(self.id, refusal)
            }
        };
        tell(reports, event);
    }

    /// Whether what is sent leaves. If not, how the queue has to be bound anew: whether by all means
    /// with a packet socket to send by.
    fn check_sending(&self, queue: &mut BoundQueue) -> Option<bool> {
        let BoundQueue { port, binding, watch, .. } = queue;
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

    pub(super) const fn is_bound(&self) -> bool {
        matches!(self.socket, Socket::Bound(_))
    }

    /// Whether a change is through that [`look`](Self::look) has not seen.
    pub(super) fn has_changed(&self) -> bool {
        matches!(&self.socket, Socket::Changing(binder) if binder.is_done())
    }

    /// Whether something is left to do though nothing comes in, so that the thread must not sleep long.
    pub(super) fn is_unfinished(&self) -> bool {
        let Socket::Bound(queue) = &self.socket else { return false };
        queue.port.kick_pending()
            || self.worker.forwarder().is_resetting()
            || self.worker.has_waiting()
    }

    pub(super) const fn note_busy(&mut self, time: Duration) {
        self.busy = self.busy.saturating_add(time);
    }

    /// Has the driver receive, where it has to be asked.
    pub(super) fn wake_rx(&mut self) {
        let Socket::Bound(queue) = &mut self.socket else { return };
        if let Err(error) = queue.port.wake_rx() {
            debug!(%error, "cannot wake the receiving side");
        }
    }

    /// The socket to sleep on; none of a device that went away.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.socket {
            Socket::Bound(queue) if !queue.gone => queue.port.fd(),
            Socket::Bound(_) | Socket::None | Socket::Changing(_) => None,
        }
    }

    /// poll(2) says that the device went away.
    pub(super) fn note_gone(&mut self) {
        if let Socket::Bound(queue) = &mut self.socket {
            queue.gone = true;
        }
    }

    /// Without a socket messages are refused.
    pub(super) fn refuse_messages(&mut self, now: Tick) {
        while let Some(message) = self.mailbox.take() {
            self.worker.refuse(message, now);
        }
    }

    /// Tells what happened in the last `interval`. Without a socket there are still the flows and the
    /// heartbeat.
    pub(super) fn report(&mut self, now: Tick, interval: Duration, snapshot: &Snapshot) {
        self.shared.beat(now);
        let busy = mem::take(&mut self.busy);
        if let Socket::Bound(queue) = &mut self.socket {
            let ppm = busy.as_nanos() * 1_000_000 / interval.as_nanos().max(1);
            self.shared.busy_ppm.store(u64::try_from(ppm).unwrap_or(1_000_000), Relaxed);
            let port = &mut queue.port;
            let statistics = port.statistics().unwrap_or_default();
            self.shared.update(|report| {
                report.accounting = port.accounting();
                report.counters = *port.counters();
                report.statistics = statistics;
            });
        } else {
            self.worker.forwarder_mut().housekeep(now, snapshot);
        }
        self.shared.flows.store(self.worker.forwarder().flow_count() as u64, Relaxed);
    }

    /// Closes the socket and ends all flows: the thread stops for good.
    pub(super) fn end(&mut self) {
        self.worker.forget_fragments();
        if let Socket::Changing(binder) = mem::replace(&mut self.socket, Socket::None) {
            binder.give_up();
        }
        self.worker.end_all_flows(clock::now());
        self.shared.bound.store(false, Relaxed);
    }
}

fn tell(reports: &UnboundedSender<WorkerEvent>, event: WorkerEvent) {
    if reports.send(event).is_err() {
        debug!("the control thread is gone");
    }
}

/// Whether the kernel took the socket off its queue. It says so once, as an error of the socket, and
/// nothing else does before something is to be sent: a device that comes back, or another one with
/// its index, looks as if nothing had been.
fn is_taken_off(port: &Port<KernelRings>) -> bool {
    port.fd().is_some_and(|socket| matches!(socket_error(socket), Ok(Err(_))))
}
