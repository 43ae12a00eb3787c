//! The order of turns in proportion to a weight: weighted round robin.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// An endless sequence of ranks `0..weights.len()`.
///
/// After any number of turns each of `n` ranks has had its share of them but for at most
/// `1 + share × n`. Weights must not be 0; up to 2³⁰ turns may be taken.
#[derive(Debug)]
pub(super) enum Turns {
    /// One after the other: the most common case, and several times as fast.
    Equal { next: usize, count: usize },
    /// The earliest turn first.
    Weighted(BinaryHeap<Reverse<Turn>>),
}

impl Turns {
    /// Everyone has a first turn before anyone has a second: a weight is never too small.
    pub(super) fn all_first(weights: impl Iterator<Item = u32>) -> Self {
        Self::new(weights, 0)
    }

    /// Turns are spread as evenly as they can be. As many as the weights' sum are an exact cycle.
    pub(super) fn spread(weights: impl Iterator<Item = u32>) -> Self {
        Self::new(weights, 1)
    }

    fn new(weights: impl Iterator<Item = u32>, half_steps: u64) -> Self {
        let weights: Vec<u32> = weights.collect();
        if weights.windows(2).all(|pair| pair.first() == pair.last()) {
            return Self::Equal { next: 0, count: weights.len() };
        }
        Self::weighted(&weights, half_steps)
    }

    fn weighted(weights: &[u32], half_steps: u64) -> Self {
        let turns = weights
            .iter()
            .enumerate()
            .map(|(rank, &weight)| Reverse(Turn { half_steps, weight: weight.into(), rank }));
        Self::Weighted(turns.collect())
    }
}

impl Iterator for Turns {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let heap = match self {
            Self::Equal { count: 0, .. } => return None,
            Self::Equal { next, count } => {
                let rank = *next;
                *next = if rank + 1 < *count { rank + 1 } else { 0 };
                return Some(rank);
            }
            Self::Weighted(heap) => heap,
        };
        let mut first = heap.peek_mut()?;
        let Reverse(turn) = &mut *first;
        let rank = turn.rank;
        turn.half_steps += 2;
        // Dropping the guard restores the heap's order.
        drop::<PeekMut<'_, _>>(first);
        Some(rank)
    }
}

/// The next turn of one rank, due at `half_steps / weight`.
#[derive(Debug)]
pub(super) struct Turn {
    half_steps: u64,
    weight: u64,
    rank: usize,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (self.half_steps * other.weight, other.half_steps * self.weight);
        own.cmp(&others).then(self.rank.cmp(&other.rank))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(turns: Turns, count: usize) -> Vec<usize> {
        turns.take(count).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(turns(Turns::spread([7, 7, 7].into_iter()), 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(turns(Turns::all_first([7, 7, 7].into_iter()), 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn equal_weights_have_the_order_that_the_heap_gives_them() {
        for half_steps in [0, 1] {
            for weights in [vec![1], vec![3; 2], vec![65_535; 17], vec![u32::MAX; 1000]] {
                let equal = Turns::new(weights.iter().copied(), half_steps);
                assert!(matches!(equal, Turns::Equal { .. }));
                let weighted = Turns::weighted(&weights, half_steps);
                assert_eq!(turns(equal, 3500), turns(weighted, 3500));
            }
        }
    }

    #[test]
    fn turns_are_spread() {
        let five_one_one = Turns::spread([5, 1, 1].into_iter());
        assert_eq!(turns(five_one_one, 14), [0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn everyone_is_first_once() {
        let turns = turns(Turns::all_first([1, u32::MAX, 1].into_iter()), 6);
        assert_eq!(turns, [0, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn nobody_no_turn() {
        assert_eq!(Turns::spread(std::iter::empty()).next(), None);
    }

    #[test]
    fn shares_are_kept_at_any_time() {
        for weights in [[3u32, 1, 4, 1, 5, 9, 2, 6], [1, 1, 1, 1, 1000, 1, 1, 1]] {
            shares_are_kept_by(Turns::spread(weights.into_iter()), weights);
            shares_are_kept_by(Turns::all_first(weights.into_iter()), weights);
        }
    }

    fn shares_are_kept_by(turns: Turns, weights: [u32; 8]) {
        let total: u32 = weights.iter().sum();
        let mut had = [0u32; 8];
        for (at, rank) in (1u32..=2500).zip(turns) {
            if let Some(had) = had.get_mut(rank) {
                *had += 1;
            }
            for (had, weight) in had.iter().zip(weights) {
                let share = f64::from(weight) / f64::from(total);
                let error = (f64::from(*had) - f64::from(at) * share).abs();
                assert!(error <= 1.0 + 8.0 * share, "{had} of {at} for {weight}");
            }
        }
    }
}
