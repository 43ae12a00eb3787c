//! Whole turns of the worker over established flows.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use dataplane::{PortId, Snapshot};
use pointsman::clock;
use pointsman::worker::relay;

use super::{Lines, Mix, PACKETS, measure, take_turns};
use crate::harness::Subject;
use crate::rig::{self, Rig, Shape};
use crate::traffic::{Flags, Order};

/// Whole turns of the worker over established flows.
#[derive(Debug)]
pub struct Turns {
    rig: Rig,
    flows: u32,
    mix: Mix,
    lines: Lines,
}

impl Turns {
    /// Over a rig of this shape.
    pub fn new(shape: Shape, mix: Mix, lines: Lines) -> Self {
        Self { rig: Rig::new(shape), flows: shape.flows, mix, lines }
    }
}

impl Subject for Turns {
    fn block(&mut self) -> (Duration, usize) {
        for _ in 0..PACKETS {
            self.rig.inject(self.mix.next(self.flows), Flags::Ack);
        }
        if self.lines == Lines::Cold {
            self.rig.kernel.cool();
        }
        take_turns(&mut self.rig)
    }

    fn rest(&mut self) {
        self.rig.audit();
    }
}

/// The same, cold, while another snapshot is published so many times a second.
#[derive(Debug)]
pub struct Reloads {
    turns: Turns,
    shape: Shape,
    pause: Duration,
    generation: u64,
    due: Instant,
}

impl Reloads {
    /// Over a rig of this shape.
    pub fn new(shape: Shape, per_second: u32) -> Self {
        let turns = Turns::new(shape, Mix::uniform(), Lines::Cold);
        let pause = Duration::from_secs(1) / per_second;
        Self { turns, shape, pause, generation: 1, due: Instant::now() }
    }
}

impl Subject for Reloads {
    fn block(&mut self) -> (Duration, usize) {
        if Instant::now() >= self.due {
            self.generation += 1;
            self.turns.rig.snapshot = rig::snapshot(rig::PORT, self.shape, self.generation);
            self.due = Instant::now() + self.pause;
        }
        self.turns.block()
    }

    fn rest(&mut self) {
        self.turns.rest();
    }
}

/// Whole turns over established flows whose backends are reached by another port of the same thread.
#[derive(Debug)]
pub struct TwoPorts {
    near: Rig,
    far: Rig,
    snapshot: Snapshot,
    leases: Vec<AtomicU64>,
    flows: u32,
    frame: usize,
    order: Order,
}

impl TwoPorts {
    /// Over a rig of this shape, with frames of so many bytes.
    pub fn new(shape: Shape, frame: usize) -> Self {
        let far = PortId(1);
        Self {
            near: Rig::new(shape),
            far: Rig::at(far, Shape { flows: 0, ..shape }),
            snapshot: rig::snapshot(far, shape, 1),
            leases: rig::leases(),
            flows: shape.flows,
            frame,
            order: Order::new(),
        }
    }

    fn turn(&mut self) {
        let Self { near, far, snapshot, leases, .. } = self;
        let mut seats = [near, far];
        for at in 0..seats.len() {
            relay::turn(&mut seats, at, clock::now(), snapshot, leases);
        }
    }
}

impl Subject for TwoPorts {
    fn block(&mut self) -> (Duration, usize) {
        for _ in 0..PACKETS {
            self.near.inject_long(self.order.below(self.flows), Flags::Ack, self.frame);
        }
        self.near.kernel.cool();
        measure(|| self.turn())
    }

    fn rest(&mut self) {
        let [near, far] = [&self.near, &self.far].map(|rig| &rig.counters.totals);
        assert_eq!(near.handed_over.value(), far.forwarded.value(), "not everything left");
        assert!(self.far.port.accounting().is_balanced(), "frames were lost");
    }
}
