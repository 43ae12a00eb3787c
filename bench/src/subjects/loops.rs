//! The rings with something else between them than the product: nothing, or a hash table that a user
//! would take first. What they are given, what they parse with and what they do to a packet is the same.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;
use dataplane::{FlowKey, Packet, Tick, parse_into, rewrite_macs};
use pointsman::clock;
use xsk::{Batch, MemoryConfig, MemoryKernel, MemoryRings, Port, memory_port};

use super::{Lines, PACKETS, measure};
use crate::harness::Subject;
use crate::traffic::{FRAME, Flags, Order, Tuple};

/// What is between the rings.
pub trait Table {
    /// The MAC addresses that a packet leaves with.
    fn macs(&mut self, frame: &[u8], now: Tick) -> [u8; 12];
}

/// No look at the packet: what forwarding costs at the least.
#[derive(Debug)]
pub struct Nothing;

impl Table for Nothing {
    #[inline]
    fn macs(&mut self, _frame: &[u8], _now: Tick) -> [u8; 12] {
        *black_box(&[2; 12])
    }
}

/// `hashbrown`, which is also the standard library's, with its own hash function.
#[derive(Debug)]
pub struct HashMap(hashbrown::HashMap<FlowKey, Entry>);

/// `DashMap`, which several threads can share, with the same hash function.
#[derive(Debug)]
pub struct ConcurrentMap(DashMap<FlowKey, Entry, hashbrown::DefaultHashBuilder>);

/// What is remembered of a flow, as little as there must be.
#[derive(Debug)]
struct Entry {
    macs: [u8; 12],
    last_seen: AtomicU64,
}

impl Entry {
    fn new() -> Self {
        Self { macs: [2; 12], last_seen: AtomicU64::new(0) }
    }

    #[inline]
    fn use_at(&self, now: Tick) -> [u8; 12] {
        self.last_seen.store(now.as_nanos(), Relaxed);
        self.macs
    }
}

impl HashMap {
    /// With so many flows.
    pub fn new(flows: u32) -> Self {
        Self((0..flows).map(|flow| (Tuple::new(flow, 1).key(), Entry::new())).collect())
    }
}

impl Table for HashMap {
    #[inline]
    fn macs(&mut self, frame: &[u8], now: Tick) -> [u8; 12] {
        self.0[&key_of(frame)].use_at(now)
    }
}

impl ConcurrentMap {
    /// With so many flows.
    pub fn new(flows: u32) -> Self {
        Self((0..flows).map(|flow| (Tuple::new(flow, 1).key(), Entry::new())).collect())
    }
}

impl Table for ConcurrentMap {
    #[inline]
    fn macs(&mut self, frame: &[u8], now: Tick) -> [u8; 12] {
        self.0.get(&key_of(frame)).expect("all flows are there").use_at(now)
    }
}

#[inline]
fn key_of(frame: &[u8]) -> FlowKey {
    let mut packet = Packet::Malformed;
    parse_into(frame, &mut packet);
    let Packet::Tcp(key, _) = packet else { panic!("not TCP") };
    key
}

/// The rings, with a table between them.
#[derive(Debug)]
pub struct Loop<T> {
    table: T,
    flows: u32,
    lines: Lines,
    port: Port<MemoryRings>,
    kernel: MemoryKernel,
    batch: Batch,
    order: Order,
}

impl<T: Table> Loop<T> {
    /// Over rings like those of a [`crate::rig::Rig`], with packets of so many flows.
    pub fn new(table: T, flows: u32, lines: Lines) -> Self {
        let (port, kernel) = memory_port(MemoryConfig { capture: false, ..Default::default() });
        Self { table, flows, lines, port, kernel, batch: Batch::new(), order: Order::new() }
    }

    fn turn(&mut self) {
        let now = black_box(clock::now());
        self.port.reap();
        self.port.receive(&mut self.batch);
        self.port.prefetch(&mut self.batch);
        for mut frame in self.batch.drain() {
            let bytes = self.port.bytes(&mut frame);
            let macs = self.table.macs(bytes, now);
            rewrite_macs(bytes, &macs);
            self.port.send(frame);
        }
        let flushed = self.port.flush();
        assert_eq!(flushed.refused, 0, "the TX ring is full");
    }
}

impl<T: Table> Subject for Loop<T> {
    fn block(&mut self) -> (Duration, usize) {
        for _ in 0..PACKETS {
            let tuple = Tuple::new(self.order.below(self.flows), 1);
            self.kernel.inject_with(FRAME, |frame| tuple.write(Flags::Ack, frame));
        }
        if self.lines == Lines::Cold {
            self.kernel.cool();
        }
        measure(|| self.turn())
    }
}
