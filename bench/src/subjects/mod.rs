//! What is measured. Each subject prepares a block of bursts outside of the measured time, and
//! measures nothing but the code that it is named after.

mod connections;
mod loops;
mod parts;
mod turns;

use std::time::{Duration, Instant};

use xsk::BURST;

pub use connections::{NewFlows, Opening, TemplateHits};
pub use loops::{ConcurrentMap, HashMap, Loop, Nothing, Table};
pub use parts::{BytesPart, Expiry, Parse};
pub use turns::{Reloads, Turns, TwoPorts};

use crate::rig::Rig;
use crate::traffic::{Order, Zipf};

/// Whether the packets were written by this core a moment ago, or by a device or another core: the
/// first look at each is a cache miss then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// In this core's cache.
    Warm,
    /// In none.
    Cold,
}

/// Which flows packets are of.
#[derive(Debug)]
pub enum Mix {
    /// All as often.
    Uniform(Order),
    /// The nth most frequent one a share of 1/n.
    Zipf(Zipf),
}

impl Mix {
    /// All flows as often, in random order.
    pub const fn uniform() -> Self {
        Self::Uniform(Order::new())
    }

    /// Zipf's distribution over so many flows.
    pub fn zipf(flows: u32) -> Self {
        Self::Zipf(Zipf::new(flows))
    }

    /// The next packet's flow, out of so many.
    fn next(&mut self, flows: u32) -> u32 {
        match self {
            Self::Uniform(order) => order.below(flows),
            Self::Zipf(zipf) => zipf.next_flow(),
        }
    }
}

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

/// Turns until the RX ring, which holds one block, is empty.
fn take_turns(rig: &mut Rig) -> (Duration, usize) {
    measure(|| {
        std::hint::black_box(rig.turn());
    })
}

/// Bursts of one block, the first of which is not measured: long enough that reading the stopwatch
/// twice does not count, short enough for the RX ring and for the gaps between two interruptions.
const BURSTS: usize = 9;

/// Packets of one block.
const PACKETS: usize = BURSTS * BURST;
