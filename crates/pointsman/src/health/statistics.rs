//! What is counted of probes.

use std::time::Duration;

/// Durations by size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    /// Upper bounds, growing.
    pub bounds: &'static [Duration; N],
    /// Values up to each bound and above the one before.
    pub counts: [u64; N],
    /// Values above the last bound.
    pub above: u64,
    /// Sum of the values.
    pub sum: Duration,
}

impl<const N: usize> Histogram<N> {
    const fn new(bounds: &'static [Duration; N]) -> Self {
        Self { bounds, counts: [0; N], above: 0, sum: Duration::ZERO }
    }

    /// Adds a value.
    pub(super) fn note(&mut self, value: Duration) {
        let place = self.bounds.iter().position(|bound| value <= *bound);
        match place.and_then(|place| self.counts.get_mut(place)) {
            Some(count) => *count += 1,
            None => self.above += 1,
        }
        self.sum += value;
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.above
    }

    /// The bound below which at least this part (0–1) of the values is. `None`: above all bounds.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let mut below = 0;
        self.counts.iter().zip(self.bounds).find_map(|(count, bound)| {
            below += count;
            #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
            let reached = below as f64 >= part * self.count() as f64;
            reached.then_some(*bound)
        })
    }
}

/// How long probes took, by whatever end.
pub type Durations = Histogram<11>;

impl Default for Durations {
    fn default() -> Self {
        Self::new(&DURATIONS)
    }
}

/// How late probes were started.
pub type Lateness = Histogram<8>;

impl Default for Lateness {
    fn default() -> Self {
        Self::new(&LATENESS)
    }
}

const DURATIONS: [Duration; 11] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

const LATENESS: [Duration; 8] = [
    Duration::from_micros(200),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bound_that_holds_it() {
        let mut late = Lateness::default();
        for micros in [0, 200, 201, 199_000, 900_000] {
            late.note(Duration::from_micros(micros));
        }
        assert_eq!((late.counts, late.above), ([2, 1, 0, 0, 0, 0, 0, 1], 1));
        assert_eq!((late.count(), late.sum), (5, Duration::from_micros(1_099_401)));
        assert_eq!(late.quantile(0.6), Some(Duration::from_millis(1)));
        assert_eq!(late.quantile(0.99), None);
    }
}
