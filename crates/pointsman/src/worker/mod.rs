//! The hot path, frames part: rings in, [`Forwarder`], rings out.
//!
//! One worker serves one RX queue of one interface with its own UMEM. [`Worker::turn`] is one burst; it
//! runs over the kernel's rings and over their twin in plain memory alike. The workers of one queue
//! number share a thread, with its clock and its sleep ([`thread`]): what comes in by one interface and
//! leaves by another stays on that thread ([`relay`]).

pub mod bind;
mod fragments;
mod local_senders;
pub mod pool;
pub mod relay;
mod seat;
pub mod shared;
pub mod thread;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrayvec::ArrayVec;
use dataplane::{
    ANSWER_GROWTH, BURST, Burst, DropReason, Forwarder, Mailbox, Message, PortId, Snapshot, Tick,
    Verdict, WaitingRoom, WorkerCounters, WorkerLink,
};
use xsk::{Batch, Flushed, Frame, Port, Rings};

/// What a worker works with, apart from its port.
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    forwarder: Forwarder,
    counters: Arc<WorkerCounters>,
    mailbox: Arc<Mailbox>,
    /// Where senders may be on this very host: the longest frame, bytes.
    local_senders: Option<usize>,
    /// Fragments that came before the first one of their datagram.
    waiting: WaitingRoom<Frame>,
    /// Rewritten in this turn, to leave by another port.
    outbox: Outbox,
    /// Sent in this turn, by kind, until the flush tells how many were refused.
    sent: Sent,
}

/// In the order in which they were sent: the ring refuses the last ones.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    count: u32,
    /// Which of them are answers, as bits: a turn sends at most a burst, what it took from the mailbox
    /// and fragments that have waited.
    answers: u128,
}

/// What a turn sends at most, by whatever port.
const SENT_PER_TURN: usize = u128::BITS as usize;

/// Frames of this worker's port and the ports that they leave by, in order.
type Outbox = ArrayVec<(PortId, Frame), SENT_PER_TURN>;

/// Which queue a worker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// The interface.
    pub port: PortId,
    /// Its RX queue.
    pub queue: u32,
}

/// Messages taken from the mailbox in a turn in which nothing was received: a flood of them must not
/// starve the ring. What was received counts.
const MESSAGES_PER_TURN: usize = SENT_PER_TURN - fragments::RELEASED_PER_TURN;
const _: () = assert!(MESSAGES_PER_TURN > BURST);

impl Worker {
    /// A worker that starts with no flows.
    pub fn new(
        id: WorkerId,
        forwarder: Forwarder,
        counters: Arc<WorkerCounters>,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        let (waiting, sent) = (WaitingRoom::default(), Sent::default());
        let (outbox, local_senders) = (Outbox::new(), None);
        Self { id, forwarder, counters, mailbox, local_senders, waiting, outbox, sent }
    }

    /// One burst: takes what came, decides, sends. Returns how much it did: frames and messages, and
    /// what it looked at for resets to clients whose backend is lost.
    ///
    /// What leaves by other ports is kept for [`relay`](Self::relay), which must follow.
    pub fn turn<R: Rings>(
        &mut self,
        port: &mut Port<R>,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[AtomicU64],
    ) -> usize {
        port.reap();
        let mut batch = Batch::new();
        let received = port.receive(&mut batch);
        port.prefetch(&mut batch);
        if let Some(longest) = self.local_senders {
            self.mend(port, &mut batch, longest);
        }
        if !batch.is_empty() {
            let mut verdicts = ArrayVec::new();
            let mut frames = Frames { port, batch: &mut batch };
            let onwards = self.forwarder.burst(now, snapshot, leases, &mut frames, &mut verdicts);
            if onwards {
                self.sent.count += short(batch.len());
                port.send_all(&mut batch);
            } else {
                self.dispatch(port, now, snapshot, &mut batch, &verdicts);
            }
        }
        let most = MESSAGES_PER_TURN - received;
        let messages = self.read_mailbox(port, now, snapshot, leases, most);
        if !self.waiting.is_empty() {
            self.release_fragments(port, now, snapshot, leases);
        }
        self.flush(port);
        let reset = self.reset_flows(port, now, snapshot, leases);
        self.forwarder.housekeep(now, snapshot);
        received + messages + reset
    }

    /// Puts every frame of the burst where its verdict says.
    fn dispatch<R: Rings>(
        &mut self,
        port: &mut Port<R>,
        now: Tick,
        snapshot: &Snapshot,
        batch: &mut Batch,
        verdicts: &[Verdict],
    ) {
        for (frame, verdict) in batch.drain().zip(verdicts) {
            if *verdict == Verdict::Wait {
                self.wait(port, frame, now);
            } else {
                self.carry_out(port, snapshot, frame, *verdict);
            }
        }
        while let Some(key) = self.forwarder.next_moved() {
            for other in snapshot.workers.iter().filter(|worker| !self.id.is(worker)) {
                other.mailbox.post_forget(key);
            }
        }
    }

    /// The frame stays in registers: on its way to [`carry_elsewhere`](Self::carry_elsewhere) it is
    /// moved, never borrowed.
    #[inline(always)]
    fn carry_out<R: Rings>(
        &mut self,
        port: &mut Port<R>,
        snapshot: &Snapshot,
        frame: Frame,
        verdict: Verdict,
    ) {
        match verdict {
            Verdict::Forward(egress) if egress == self.id.port => {
                self.sent.count += 1;
                port.send(frame);
            }
            Verdict::Forward(_)
            | Verdict::Answer
            | Verdict::HandOver
            | Verdict::Wait
            | Verdict::Drop(_) => self.carry_elsewhere(port, snapshot, frame, verdict),
        }
    }

    /// All verdicts but the common one.
    #[cold]
    #[inline(never)]
    fn carry_elsewhere<R: Rings>(
        &mut self,
        port: &mut Port<R>,
        snapshot: &Snapshot,
        mut frame: Frame,
        verdict: Verdict,
    ) {
        match verdict {
            Verdict::Answer => {
                self.sent.answers |= 1 << self.sent.count;
                self.sent.count += 1;
                port.send(frame);
                return;
            }
            Verdict::Forward(egress) => match self.outbox.try_push((egress, frame)) {
                Ok(()) => return,
                // There is room for all that a turn sends: nothing was relayed after the last turns.
                Err(full) => {
                    self.counters.dropped(DropReason::NoPort).add(1);
                    frame = full.element().1;
                }
            },
            Verdict::HandOver => self.hand_over(snapshot, port.bytes(&mut frame)),
            // Only a burst's frames wait, and those do not come here.
            Verdict::Wait | Verdict::Drop(_) => {}
        }
        port.recycle(frame);
    }

    /// Copies a frame to all other workers: the one that knows its flow forwards it. The first does
    /// in any case: perhaps none knows it, and one copy too many of an ICMP error does no harm.
    fn hand_over(&self, snapshot: &Snapshot, bytes: &[u8]) {
        let others = snapshot.workers.iter().filter(|worker| !self.id.is(worker));
        let kinds = std::iter::once(Message::Place as fn(_) -> _)
            .chain(std::iter::repeat(Message::Adopt as fn(_) -> _));
        let posted =
            others.zip(kinds).filter(|(to, kind)| to.mailbox.post_frame(bytes, *kind)).count();
        if posted > 0 {
            self.counters.totals.handed_over.add(1);
        } else {
            self.counters.dropped(DropReason::MailboxFull).add(1);
        }
    }

    fn read_mailbox<R: Rings>(
        &mut self,
        port: &mut Port<R>,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[AtomicU64],
        most: usize,
    ) -> usize {
        for taken in 0..most {
            let Some(message) = self.mailbox.take() else { return taken };
            let last = matches!(message, Message::Place(_));
            let (parcel, adopt) = match message {
                Message::Forget(key) => {
                    self.forwarder.forget(&key, now);
                    continue;
                }
                Message::Adopt(parcel) | Message::Place(parcel) => (parcel, true),
                Message::Transmit(parcel) => (parcel, false),
            };
            self.counters.totals.adopted.add(1);
            let copy = port.copy_in(parcel.frame());
            self.mailbox.recycle(parcel);
            let Some(mut frame) = copy else {
                self.counters.dropped(DropReason::TxFull).add(1);
                continue;
            };
            let verdict = if adopt {
                self.forwarder.adopt(now, snapshot, leases, port.bytes(&mut frame), last)
            } else {
                Verdict::Forward(self.id.port)
            };
            self.carry_out(port, snapshot, frame, verdict);
        }
        most
    }

    /// A message that cannot be served for want of a socket.
    pub fn refuse(&mut self, message: Message, now: Tick) {
        match message {
            Message::Adopt(parcel) | Message::Place(parcel) | Message::Transmit(parcel) => {
                self.counters.totals.adopted.add(1);
                self.counters.dropped(DropReason::NoPort).add(1);
                self.mailbox.recycle(parcel);
            }
            Message::Forget(key) => self.forwarder.forget(&key, now),
        }
    }

    /// One kick for all that was sent in this turn; books what the ring refused.
    fn flush<R: Rings>(&mut self, port: &mut Port<R>) {
        let Flushed { sent, refused } = port.flush();
        let Sent { answers, .. } = std::mem::take(&mut self.sent);
        let end = u32::try_from(sent).ok().and_then(|sent| 1_u128.checked_shl(sent));
        let answered = u64::from(end.map_or(answers, |end| answers & (end - 1)).count_ones());
        let totals = &self.counters.totals;
        totals.forwarded.add(sent as u64 - answered);
        totals.answered.add(answered);
        if refused > 0 {
            self.counters.dropped(DropReason::TxFull).add(refused as u64);
        }
    }

    /// Sends unsolicited resets. They are no part of what was received, so they are
    /// flushed and booked by themselves, after all that was.
    fn reset_flows<R: Rings>(
        &mut self,
        port: &mut Port<R>,
        now: Tick,
        snapshot: &Snapshot,
        leases: &[AtomicU64],
    ) -> usize {
        // What waits on the ring goes first: with the link down, no reset is made in vain.
        if port.kick_pending() {
            return 0;
        }
        let mut send = |frame: &[u8]| match port.copy_in(frame) {
            Some(frame) => {
                port.send(frame);
                true
            }
            None => false,
        };
        let done = self.forwarder.reset_flows(now, snapshot, leases, &mut send);
        if done > 0 {
            let Flushed { sent, refused } = port.flush();
            self.counters.totals.originated.add(sent as u64);
            self.counters.totals.originated_lost.add(refused as u64);
        }
        done
    }

    /// Ends every flow: the worker stops for good.
    pub fn end_all_flows(&mut self, now: Tick) {
        self.forwarder.end_all_flows(now);
    }

    /// The packet path.
    pub fn forwarder_mut(&mut self) -> &mut Forwarder {
        &mut self.forwarder
    }

    /// The packet path.
    pub fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }
}

impl WorkerId {
    fn is(self, link: &WorkerLink) -> bool {
        self.port == link.port && self.queue == link.queue
    }
}

/// A received batch as the packet path sees it.
struct Frames<'a, R: Rings> {
    port: &'a mut Port<R>,
    batch: &'a mut Batch,
}

impl<R: Rings> Burst for Frames<'_, R> {
    #[inline]
    fn len(&self) -> usize {
        self.batch.len()
    }

    #[inline]
    fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let port = &*self.port;
        self.batch.iter_mut().map(|frame| port.bytes(frame))
    }

    #[inline]
    fn frame(&mut self, index: usize) -> &mut [u8] {
        self.port.bytes(&mut self.batch[index])
    }

    fn transform(
        &mut self,
        index: usize,
        answer: &mut dyn FnMut(&mut [u8], usize) -> Option<usize>,
    ) -> bool {
        let frame = &mut self.batch[index];
        let len = frame.len();
        // A frame that fills its buffer stays as long as it is: not every answer needs more.
        self.port.resize(frame, len + ANSWER_GROWTH);
        let answered = answer(self.port.bytes(frame), len);
        self.port.resize(frame, answered.unwrap_or(len)) && answered.is_some()
    }
}

/// A number of frames, at most a burst.
#[expect(clippy::cast_possible_truncation, reason = "at most a burst")]
const fn short(count: usize) -> u32 {
    count as u32
}

#[cfg(test)]
mod tests;
