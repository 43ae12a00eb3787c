//! Random lives of a port over the memory-backed rings: whatever happens, every frame is in exactly
//! one place, the books agree with a count of all frames, and packets leave in the order they were
//! sent.

use std::collections::VecDeque;

use proptest::prelude::*;
use xsk::{Batch, Errno, Flushed, Frame, MemoryConfig, MemoryKernel, MemoryRings, Port};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn every_frame_is_in_one_place(
        frames in 1_u32..200,
        ring in 1_u32..64,
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut life = Life::new(frames, ring);
        for op in &ops {
            life.apply(op);
            life.check();
        }
        life.settle();
        life.check();
    }
}

/// What can happen to a port.
#[derive(Clone, Debug)]
enum Op {
    Inject(u8),
    Receive,
    Send(u8),
    Recycle(u8),
    CopyIn,
    Flush,
    Reap,
    Wake,
    Run,
    Complete(u8),
    CompleteLater(bool),
    Refuse(bool),
    FailNext(Vec<Errno>),
    Fail(Option<Errno>),
    Budget(Option<u32>),
    NeedsWakeup(bool, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1..80_u8).prop_map(Op::Inject),
        8 => Just(Op::Receive),
        8 => (1..100_u8).prop_map(Op::Send),
        3 => (1..20_u8).prop_map(Op::Recycle),
        2 => Just(Op::CopyIn),
        8 => Just(Op::Flush),
        8 => Just(Op::Reap),
        1 => Just(Op::Wake),
        2 => Just(Op::Run),
        2 => (0..80_u8).prop_map(Op::Complete),
        2 => any::<bool>().prop_map(Op::CompleteLater),
        2 => any::<bool>().prop_map(Op::Refuse),
        2 => prop::collection::vec(errno(), 0..4).prop_map(Op::FailNext),
        2 => prop::option::of(errno()).prop_map(Op::Fail),
        2 => prop::option::of(0..40_u32).prop_map(Op::Budget),
        2 => any::<(bool, bool)>().prop_map(|(tx, rx)| Op::NeedsWakeup(tx, rx)),
    ]
}

fn errno() -> impl Strategy<Value = Errno> {
    prop::sample::select(vec![
        Errno::AGAIN,
        Errno::BUSY,
        Errno::NOBUFS,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::NXIO,
        Errno::OPNOTSUPP,
        Errno::PIPE,
    ])
}

/// A port, its kernel and a model of what the worker does.
struct Life {
    port: Port<MemoryRings>,
    kernel: MemoryKernel,
    held: VecDeque<Frame>,
    /// The packets that the worker sent, in order, that did not leave yet.
    sent: VecDeque<u64>,
    injected: u64,
    received: u64,
    next: u64,
    flushed: Flushed,
    handed_to_send: u64,
    refused_or_left: u64,
}

impl Life {
    fn new(frames: u32, ring: u32) -> Self {
        let (port, kernel) = xsk::memory_port(MemoryConfig { frames, ring, capture: true });
        Self {
            port,
            kernel,
            held: VecDeque::new(),
            sent: VecDeque::new(),
            injected: 0,
            received: 0,
            next: 0,
            flushed: Flushed::default(),
            handed_to_send: 0,
            refused_or_left: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Inject(count) => (0..*count).for_each(|_| self.inject()),
            Op::Receive => self.receive(),
            Op::Send(count) => (0..*count).for_each(|_| self.send()),
            Op::Recycle(count) => {
                for frame in self.held.drain(..self.held.len().min(usize::from(*count))) {
                    self.port.recycle(frame);
                }
            }
            Op::CopyIn => {
                if let Some(frame) = self.port.copy_in(&self.next.to_be_bytes()) {
                    self.next += 1;
                    self.held.push_back(frame);
                }
            }
            Op::Flush => self.flush(),
            Op::Reap => {
                self.port.reap();
            }
            Op::Wake => self.port.wake_rx().expect("the twin always wakes"),
            Op::Run => self.kernel.run(),
            Op::Complete(count) => {
                self.kernel.complete(u32::from(*count));
            }
            Op::CompleteLater(later) => self.kernel.complete_later(*later),
            Op::Refuse(refuse) => self.kernel.refuse_transmit(*refuse),
            Op::FailNext(errors) => self.kernel.fail_next_kicks(errors.iter().copied()),
            Op::Fail(errno) => self.kernel.fail_kicks(*errno),
            Op::Budget(packets) => self.kernel.budget(*packets),
            Op::NeedsWakeup(tx, rx) => self.kernel.needs_wakeup(*tx, *rx),
        }
    }

    fn inject(&mut self) {
        if self.kernel.inject(&self.next.to_be_bytes()) {
            self.next += 1;
            self.injected += 1;
        }
    }

    fn receive(&mut self) {
        let mut batch = Batch::new();
        self.received += self.port.receive(&mut batch) as u64;
        self.held.extend(batch.drain());
    }

    fn send(&mut self) {
        if let Some(mut frame) = self.held.pop_front() {
            let number = u64::from_be_bytes((*self.port.bytes(&mut frame)).try_into().unwrap());
            self.sent.push_back(number);
            self.handed_to_send += 1;
            self.port.send(frame);
        }
    }

    fn flush(&mut self) {
        let flushed = self.port.flush();
        self.flushed.sent += flushed.sent;
        self.flushed.refused += flushed.refused;
        let done = (self.flushed.sent + self.flushed.refused) as u64;
        assert_eq!(done, self.handed_to_send, "each frame sent is handed over or refused");
    }

    fn check(&mut self) {
        let books = self.port.accounting();
        let count = self.kernel.census();
        assert!(books.is_balanced(), "{books:?}");
        assert_eq!(books.held, self.held.len() as u64);
        assert_eq!(books.fill, count.fill, "{books:?} {count:?}");
        assert_eq!(books.rx, count.rx, "{books:?} {count:?}");
        assert_eq!(books.tx, count.tx + count.wire, "{books:?} {count:?}");
        assert_eq!(books.completion, count.completion, "{books:?} {count:?}");
        assert_eq!(books.queued + books.free + books.held, count.user, "{books:?} {count:?}");
        assert_eq!(self.injected, self.received + books.rx);
        while let Some(packet) = self.kernel.take_transmitted() {
            let number = u64::from_be_bytes(packet.try_into().expect("eight bytes"));
            let at = self.sent.iter().position(|sent| *sent == number);
            let skipped = at.expect("left once, after all that was sent before it");
            self.refused_or_left += self.sent.drain(..=skipped).count() as u64;
        }
    }

    /// The kernel becomes well again: everything in flight must come back, and a burst must pass.
    fn settle(&mut self) {
        self.kernel.complete_later(false);
        self.kernel.refuse_transmit(false);
        self.kernel.fail_kicks(None);
        self.kernel.budget(None);
        self.kernel.needs_wakeup(true, false);
        self.kernel.fail_next_kicks([]);
        for _ in 0..100 {
            self.receive();
            while !self.held.is_empty() {
                self.send();
            }
            self.flush();
            self.kernel.complete(u32::MAX);
            self.port.reap();
            self.check();
            let books = self.port.accounting();
            if books.fill + books.free == books.total && !self.port.kick_pending() {
                break;
            }
        }
        let books = self.port.accounting();
        assert_eq!(books.fill + books.free, books.total, "{books:?}");
        assert_eq!(self.kernel.transmitted(), self.flushed.sent as u64);
        let (injected, transmitted) = (self.injected, self.kernel.transmitted());
        self.inject();
        self.receive();
        self.send();
        self.flush();
        assert_eq!(self.injected, injected + 1, "the fill ring has frames again");
        assert_eq!(self.kernel.transmitted(), transmitted + 1);
        self.port.reap();
    }
}
