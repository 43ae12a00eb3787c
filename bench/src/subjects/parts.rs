//! Parts of a turn alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use dataplane::{Burst, Packet, Verdict, parse_into};
use pointsman::clock;
use xsk::BURST;

use super::{BURSTS, measure};
use crate::harness::Subject;
use crate::rig::{Rig, Shape};
use crate::traffic::{FRAME, Flags, Order, Tuple};

/// [`dataplane::Forwarder::burst`] alone, over established flows in plain, warm buffers.
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

/// The parser alone, over warm buffers: bytes to [`Packet`]s, 64 at a time.
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

/// The sweep that ends flows whose time is over, counted per flow that ended. Their templates stay.
#[derive(Debug)]
pub struct Expiry {
    rig: Rig,
}

impl Expiry {
    /// Of `FLOWS` flows a block.
    pub fn new() -> Self {
        Self { rig: Rig::new(Shape { flows: 0, vips: 1, backends: 10 }) }
    }
}

impl Default for Expiry {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for Expiry {
    fn block(&mut self) -> (Duration, usize) {
        for first in (0..FLOWS).step_by(BURST) {
            for flags in [Flags::Syn, Flags::Ack, Flags::Data] {
                (first..first + 64).for_each(|flow| self.rig.inject(flow, flags));
                self.rig.turn();
            }
        }
        let Rig { worker, snapshot, .. } = &mut self.rig;
        let forwarder = worker.forwarder_mut();
        let count = forwarder.flow_count();
        let mut now = clock::now() + AGE;
        let begin = Instant::now();
        while forwarder.flow_count() > 0 {
            now = now + STEP;
            forwarder.housekeep(now, snapshot);
        }
        (begin.elapsed(), count)
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

/// Most of what the table holds: the sweep looks at all of it.
const FLOWS: u32 = 1 << 19;
/// More than any time-out.
const AGE: Duration = Duration::from_secs(7 * 86_400);
/// From one piece of the sweep to the next.
const STEP: Duration = Duration::from_millis(1);
