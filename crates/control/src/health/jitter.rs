//! Chance without a random source: a seeded sequence, so that checks of many backends spread.

use std::time::Duration;

/// splitmix64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Less than `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: Duration) -> Duration {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let product = u128::from(self.next()) * u128::from(nanos);
        Duration::from_nanos(u64::try_from(product >> 64).unwrap_or(0))
    }

    /// `interval`, longer or shorter by up to `percent` of it.
    pub(super) fn around(&mut self, interval: Duration, percent: u8) -> Duration {
        let part = interval.saturating_mul(u32::from(percent.min(100))) / 100;
        interval.saturating_sub(part).saturating_add(self.below(part.saturating_mul(2)))
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_spread_over_their_whole_range() {
        let mut jitter = Jitter::new(0);
        let second = Duration::from_secs(1);
        let drawn: Vec<u128> = (0..1000).map(|_| jitter.around(second, 10).as_millis()).collect();
        assert!(drawn.iter().all(|ms| (900..1100).contains(ms)));
        let low = drawn.iter().filter(|ms| **ms < 950).count();
        let high = drawn.iter().filter(|ms| **ms >= 1050).count();
        assert!((200..300).contains(&low) && (200..300).contains(&high), "{low} {high}");
    }

    #[test]
    fn extremes() {
        let mut jitter = Jitter::new(1);
        assert_eq!(jitter.below(Duration::ZERO), Duration::ZERO);
        assert_eq!(jitter.around(Duration::from_secs(1), 0), Duration::from_secs(1));
        // More than 100 per cent are 100.
        let longest = (0..1000).map(|_| jitter.around(Duration::from_secs(1), 255)).max();
        let twice = Duration::from_millis(1900)..Duration::from_secs(2);
        assert!(longest.is_some_and(|longest| twice.contains(&longest)), "{longest:?}");
        // Where a part of it cannot be had, a hundredth is taken, and 2^64 ns for twice of that.
        let least = Duration::MAX - Duration::MAX / 100;
        let drawn = jitter.around(Duration::MAX, 255);
        assert!((least..least + Duration::from_nanos(u64::MAX)).contains(&drawn), "{drawn:?}");
    }

    #[test]
    fn backends_start_apart() {
        let starts: Vec<u128> = (0..1000)
            .map(|seed| Jitter::new(seed).below(Duration::from_millis(200)).as_millis())
            .collect();
        for slot in 0..10 {
            let inside = starts.iter().filter(|ms| **ms / 20 == slot).count();
            assert!((60..140).contains(&inside), "slot {slot}: {inside}");
        }
    }
}
