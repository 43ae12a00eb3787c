//! `wrr`: each new source to the next backend of a cycle in which backends come as often as their
//! weight says, spread evenly.
//!
//! Weights without their common divisor are the number of turns per cycle. Where these sum up to more
//! than [`MAX_CYCLE`], they are scaled to it and rounded, but not to zero: then with `n` backends
//! a backend's share of the sources is off by at most `(1 + share × n) / (MAX_CYCLE − n)`.

use std::sync::Arc;

use super::Member;
use super::cursor::Cursor;
use super::turns::Turns;
use crate::slots::BackendSlot;

#[derive(Clone, Debug)]
pub(super) struct WeightedRoundRobin(Arc<[BackendSlot]>);

impl WeightedRoundRobin {
    pub(super) fn new(members: &[Member]) -> Self {
        let quotas = quotas(members.iter().map(|member| member.weight));
        let cycle_len: usize = quotas.iter().map(|&quota| quota as usize).sum();
        let cycle = Turns::spread(quotas.into_iter())
            .take(cycle_len)
            .filter_map(|rank| members.get(rank))
            .map(|member| member.slot);
        Self(cycle.collect())
    }

    #[inline]
    pub(super) fn choose(&self, cursor: &Cursor) -> Option<BackendSlot> {
        cursor.next(&self.0)
    }
}

/// Turns per cycle; their sum is at most [`MAX_CYCLE`] and one per weight more.
fn quotas(weights: impl Iterator<Item = u32> + Clone) -> Vec<u32> {
    let divisor = weights.clone().fold(0, gcd).max(1);
    let total: u64 = weights.clone().map(|weight| u64::from(weight / divisor)).sum();
    let scaled = |weight: u32| {
        let weight = weight / divisor;
        if total <= MAX_CYCLE {
            return weight;
        }
        let quota = (u64::from(weight) * MAX_CYCLE + total / 2) / total;
        u32::try_from(quota).unwrap_or(u32::MAX).max(1)
    };
    weights.map(scaled).collect()
}

const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Turns: 128 KiB.
const MAX_CYCLE: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_weights_are_exact() {
        assert_eq!(quotas([100, 200, 300].into_iter()), [1, 2, 3]);
        assert_eq!(quotas([65_535, 1].into_iter()), [65_535, 1]);
        assert_eq!(quotas([u32::MAX; 3].into_iter()), [1, 1, 1]);
        assert!(quotas([].into_iter()).is_empty());
    }

    #[test]
    fn the_cycle_is_bounded_and_the_error_is_as_documented() {
        let cases: [Vec<u32>; 4] = [
            (0..1000).map(|at| 65_535 - at).collect(),
            (0..1000).map(|at| if at == 0 { 65_535 } else { 1 }).collect(),
            (0..1000).map(|at| if at < 500 { 65_535 } else { 1 + at % 7 }).collect(),
            vec![u32::MAX, 1, 2, 3],
        ];
        for weights in cases {
            let quotas = quotas(weights.iter().copied());
            let count = weights.len() as f64;
            let cycle: f64 = quotas.iter().copied().map(f64::from).sum();
            assert!(cycle <= MAX_CYCLE as f64 + count);
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (quota, weight) in quotas.into_iter().zip(weights) {
                let share = f64::from(weight) / total;
                let bound = (1.0 + share * count) / (MAX_CYCLE as f64 - count);
                assert!(quota > 0);
                assert!((f64::from(quota) / cycle - share).abs() <= bound, "{quota} for {weight}");
            }
        }
    }
}
