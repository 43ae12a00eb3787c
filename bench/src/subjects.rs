//! What is measured. Each subject prepares a block of bursts outside of the measured time, and
//! measures nothing but the code that it is named after.

use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use dataplane::{Burst, Packet, PortId, Snapshot, Verdict, parse_into, rewrite_macs};
use pointsman::clock;
use pointsman::worker::relay;
use xsk::{BURST, Batch, MemoryConfig, MemoryKernel, MemoryRings, Port, memory_port};

use crate::harness::Subject;
use crate::rig::{self, Rig, Shape};
use crate::traffic::{FLOWS_PER_CLIENT, FRAME, Flags, Order, Tuple};

/// Bursts of one block, the first of which is not measured: long enough that reading the stopwatch
/// twice does not count, short enough for the RX ring and for the gaps between two interruptions.
const BURSTS: usize = 9;

/// Packets of one block.
const PACKETS: usize = BURSTS * BURST;

/// Takes a block's turns. The first one only puts the caches and the branch predictors back in the
/// state that they have when turn follows turn: what wrote the packets left its own there, and on a
/// balancer that is done by the network card. How long the others took, and for how many packets.
fn measure(mut turn: impl FnMut()) -> (Duration, usize) {
    turn();
    let begin = Instant::now();
    for _ in 1..BURSTS {
        turn();
    }
    (begin.elapsed(), PACKETS - BURST)
}

/// Rings and MAC rewrite, no look at the packet: what forwarding costs at the least.
#[derive(Debug)]
pub struct NullLoop {
    port: Port<MemoryRings>,
    kernel: MemoryKernel,
    batch: Batch,
    order: Order,
}

impl NullLoop {
    /// Over rings like those of a [`Rig`].
    pub fn new() -> Self {
        let (port, kernel) = memory_port(MemoryConfig { capture: false, ..Default::default() });
        Self { port, kernel, batch: Batch::new(), order: Order::new() }
    }

    fn turn(&mut self) {
        black_box(clock::now());
        self.port.reap();
        self.port.receive(&mut self.batch);
        for mut frame in self.batch.drain() {
            rewrite_macs(self.port.bytes(&mut frame), black_box(&[2; 12]));
            self.port.send(frame);
        }
        let flushed = self.port.flush();
        assert_eq!(flushed.refused, 0, "the TX ring is full");
    }
}

impl Default for NullLoop {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for NullLoop {
    fn block(&mut self) -> (Duration, usize) {
        for _ in 0..PACKETS {
            let tuple = Tuple::new(self.order.below(1000), 1);
            self.kernel.inject_with(FRAME, |frame| tuple.write(Flags::Ack, frame));
        }
        measure(|| self.turn())
    }
}

/// Whole turns of the worker over established flows, visited in random order.
#[derive(Debug)]
pub struct Turns {
    rig: Rig,
    flows: u32,
    order: Order,
}

impl Turns {
    /// Over a rig of this shape.
    pub fn new(shape: Shape) -> Self {
        Self { rig: Rig::new(shape), flows: shape.flows, order: Order::new() }
    }
}

impl Subject for Turns {
    fn block(&mut self) -> (Duration, usize) {
        for _ in 0..PACKETS {
            self.rig.inject(self.order.below(self.flows), Flags::Ack);
        }
        take_turns(&mut self.rig)
    }

    fn rest(&mut self) {
        self.rig.audit();
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
            snapshot: rig::snapshot(far, shape),
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
        measure(|| self.turn())
    }

    fn rest(&mut self) {
        let [near, far] = [&self.near, &self.far].map(|rig| &rig.counters.totals);
        assert_eq!(near.handed_over.value(), far.forwarded.value(), "not everything left");
        assert!(self.far.port.accounting().is_balanced(), "frames were lost");
    }
}

/// Whole turns over packets that are no SYN and belong to no flow here, from clients with a
/// template: connections that changed their queue. Each enters a flow.
#[derive(Debug)]
pub struct TemplateHits {
    rig: Rig,
    /// Flows of the current block.
    flows: Vec<u32>,
    order: Order,
}

impl TemplateHits {
    /// Over `CLIENTS` clients, each with one flow.
    pub fn new() -> Self {
        let mut rig = Rig::new(Shape { flows: 0, vips: 1, backends: 10 });
        for flags in [Flags::Syn, Flags::Ack, Flags::Data] {
            for client in 0..CLIENTS {
                rig.inject(client * FLOWS_PER_CLIENT, flags);
                rig.turn();
            }
        }
        Self { rig, flows: Vec::with_capacity(PACKETS), order: Order::new() }
    }
}

impl Default for TemplateHits {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for TemplateHits {
    fn block(&mut self) -> (Duration, usize) {
        // All of them different, as an odd factor permutes the numbers below a power of two.
        let first = self.order.below(CLIENTS);
        let client = |step: u32| (first + step).wrapping_mul(SCATTER) % CLIENTS;
        self.flows.clear();
        self.flows.extend((0..).take(PACKETS).map(|step| client(step) * FLOWS_PER_CLIENT + 1));
        for flow in &self.flows {
            self.rig.inject(*flow, Flags::Ack);
        }
        let measured = take_turns(&mut self.rig);
        let forwarder = self.rig.worker.forwarder_mut();
        assert_eq!(
            forwarder.flow_count(),
            CLIENTS as usize + PACKETS,
            "not all were template hits"
        );
        for flow in &self.flows {
            forwarder.forget(&Tuple::new(*flow, 1).key(), clock::now());
        }
        measured
    }

    fn rest(&mut self) {
        self.rig.audit();
    }
}

/// Whole turns over the SYN, the first ACK and a request of new connections of new clients; counted
/// per connection, which is three packets.
#[derive(Debug)]
pub struct NewFlows {
    rig: Rig,
    next: u32,
}

impl NewFlows {
    /// From empty tables, which are emptied again after each round.
    pub fn new() -> Self {
        Self { rig: Rig::new(Shape { flows: 0, vips: 1, backends: 10 }), next: 0 }
    }
}

impl Default for NewFlows {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for NewFlows {
    fn block(&mut self) -> (Duration, usize) {
        let numbers = (0..PACKETS).map(|_| {
            self.next = self.next.wrapping_add(1);
            self.next
        });
        let clients: Vec<u32> = numbers.map(|n| n.wrapping_mul(SCATTER) % NEW_CLIENTS).collect();
        let blocks = [Flags::Syn, Flags::Ack, Flags::Data].map(|flags| {
            for client in &clients {
                self.rig.inject(client * FLOWS_PER_CLIENT, flags);
            }
            take_turns(&mut self.rig)
        });
        (blocks.iter().map(|block| block.0).sum(), blocks[0].1)
    }

    fn rest(&mut self) {
        self.rig.audit();
        self.rig.clear();
    }
}

/// [`dataplane::Forwarder::burst`] alone, over established flows in plain buffers.
#[derive(Debug)]
pub struct BytesPart {
    rig: Rig,
    flows: u32,
    bursts: Vec<Buffers>,
    verdicts: ArrayVec<Verdict, BURST>,
    order: Order,
}

impl BytesPart {
    /// Over a rig of this shape.
    pub fn new(shape: Shape) -> Self {
        Self {
            rig: Rig::new(shape),
            flows: shape.flows,
            bursts: vec![Buffers::default(); BURSTS],
            verdicts: ArrayVec::new(),
            order: Order::new(),
        }
    }
}

impl Subject for BytesPart {
    fn block(&mut self) -> (Duration, usize) {
        for frame in self.bursts.iter_mut().flat_map(|burst| &mut burst.0) {
            self.rig.tuple(self.order.below(self.flows)).write(Flags::Ack, frame);
        }
        let Rig { worker, snapshot, leases, .. } = &mut self.rig;
        let mut bursts = self.bursts.iter_mut();
        measure(|| {
            let (now, forwarder) = (clock::now(), worker.forwarder_mut());
            if let Some(burst) = bursts.next() {
                black_box(forwarder.burst(now, snapshot, leases, burst, &mut self.verdicts));
            }
            black_box(&self.verdicts);
        })
    }
}

/// The parser alone: bytes to [`Packet`]s, 64 at a time.
#[derive(Debug)]
pub struct Parse {
    bursts: Vec<Buffers>,
    packets: [Packet; BURST],
    order: Order,
}

impl Parse {
    /// Over packets of random flows.
    pub fn new() -> Self {
        Self {
            bursts: vec![Buffers::default(); BURSTS],
            packets: [Packet::Malformed; BURST],
            order: Order::new(),
        }
    }
}

impl Default for Parse {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for Parse {
    fn block(&mut self) -> (Duration, usize) {
        for frame in self.bursts.iter_mut().flat_map(|burst| &mut burst.0) {
            Tuple::new(self.order.below(1000), 1).write(Flags::Ack, frame);
        }
        let mut bursts = self.bursts.iter();
        measure(|| {
            let frames = bursts.next().into_iter().flat_map(|burst| &burst.0);
            for (frame, packet) in frames.zip(&mut self.packets) {
                parse_into(frame, packet);
            }
            black_box(&self.packets);
        })
    }
}

/// A burst in plain memory.
#[derive(Clone, Debug)]
struct Buffers([[u8; FRAME]; BURST]);

impl Default for Buffers {
    fn default() -> Self {
        Self([[0; FRAME]; BURST])
    }
}

impl Burst for Buffers {
    fn len(&self) -> usize {
        BURST
    }

    #[inline]
    fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.0.iter_mut().map(<[u8; FRAME]>::as_mut_slice)
    }

    #[inline]
    fn frame(&mut self, index: usize) -> &mut [u8] {
        &mut self.0[index]
    }

    fn transform(
        &mut self,
        _index: usize,
        _answer: &mut dyn FnMut(&mut [u8], usize) -> Option<usize>,
    ) -> bool {
        false
    }
}

/// Turns until the RX ring, which holds one block, is empty.
fn take_turns(rig: &mut Rig) -> (Duration, usize) {
    measure(|| {
        black_box(rig.turn());
    })
}

/// Clients with a template.
const CLIENTS: u32 = 1 << 16;

/// Clients that new connections come from, one after the other.
const NEW_CLIENTS: u32 = 1 << 20;

/// Odd and arbitrary.
const SCATTER: u32 = 0x9e37_79b1;
