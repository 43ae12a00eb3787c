//! The network between the nodes.

use super::rng::Rng;
use super::{MAX_NODES, MS};

/// What a link does to packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    pub(crate) loss_per_mille: u64,
    pub(crate) duplicate_per_mille: u64,
    /// Longest one-way delay in ns.
    pub(crate) delay: u64,
    /// Later packets may arrive earlier.
    pub(crate) reorders: bool,
    /// `cut[from][to]`: nothing gets through.
    pub(crate) cut: [[bool; MAX_NODES]; MAX_NODES],
}

impl Weather {
    /// Nothing lost, nothing reordered.
    pub(crate) const FAIR: Self = Self {
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        delay: 10 * MS,
        reorders: false,
        cut: [[false; MAX_NODES]; MAX_NODES],
    };

    /// Anything: a partition in a third of all cases, in one or in both directions.
    pub(crate) fn foul(rng: &mut Rng) -> Self {
        let mut cut = Self::FAIR.cut;
        if rng.chance(300) {
            let alone = rng.index(MAX_NODES);
            let direction = rng.range(0, 3);
            for (from, row) in cut.iter_mut().enumerate() {
                for (to, cut) in row.iter_mut().enumerate() {
                    *cut = (from == alone && direction != 1) || (to == alone && direction != 0);
                }
            }
        }
        Self {
            loss_per_mille: rng.pick(&[0, 10, 100, 300, 600]),
            duplicate_per_mille: rng.pick(&[0, 50, 300]),
            delay: rng.pick(&[1, 10, 100, 500]) * MS,
            reorders: rng.chance(500),
            cut,
        }
    }
}

/// The links' state: when the last packet of each direction arrives.
#[derive(Default)]
pub(crate) struct Links {
    last: [[u64; MAX_NODES]; MAX_NODES],
}

impl Links {
    /// When a packet arrives, once or twice or not at all.
    pub(crate) fn arrivals(
        &mut self,
        weather: &Weather,
        (from, to): (usize, usize),
        now: u64,
        rng: &mut Rng,
    ) -> [Option<u64>; 2] {
        if weather.cut[from][to] || rng.chance(weather.loss_per_mille) {
            return [None; 2];
        }
        let mut one = || {
            let at = now + rng.range(MS / 20, weather.delay);
            if weather.reorders {
                return Some(at);
            }
            let last = &mut self.last[from][to];
            *last = at.max(*last + 1);
            Some(*last)
        };
        let first = one();
        let second = one();
        [first, second.filter(|_| rng.chance(weather.duplicate_per_mille))]
    }
}
