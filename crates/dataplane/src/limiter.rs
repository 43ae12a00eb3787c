//! Bounds on what the packet path sends of its own accord.

use std::time::Duration;

use crate::tick::Tick;

/// A token bucket, kept as the time when it will be full again (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    interval: Duration,
    /// How far ahead `due` may lie.
    tolerance: Duration,
    due: Tick,
}

impl Limiter {
    /// One every `interval` in the long run, and `burst` (at least one) at once.
    pub(crate) fn new(interval: Duration, burst: u32) -> Self {
        let tolerance = interval.saturating_mul(burst.saturating_sub(1));
        Self { interval, tolerance, due: Tick::default() }
    }

    /// Whether one more is allowed now.
    pub(crate) fn is_ready(&self, now: Tick) -> bool {
        self.due.saturating_since(now) <= self.tolerance
    }

    /// The same, and takes it.
    pub(crate) fn allow(&mut self, now: Tick) -> bool {
        let ready = self.is_ready(now);
        if ready {
            self.due = self.due.max(now) + self.interval;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limiter = Limiter::new(MILLI, 100);
        let start = Tick::from_nanos(5_000_000_000);
        let taken = |limiter: &mut Limiter, now| (0..1000).filter(|_| limiter.allow(now)).count();
        assert_eq!(taken(&mut limiter, start), 100);
        assert!(!limiter.is_ready(start));
        assert_eq!(taken(&mut limiter, start + 10 * MILLI), 10);
        assert_eq!(taken(&mut limiter, start + 10 * MILLI + Duration::from_micros(999)), 0);
        assert_eq!(taken(&mut limiter, start + Duration::from_secs(9)), 100, "it does not hoard");
    }

    #[test]
    fn over_a_second_the_rate_holds() {
        let mut limiter = Limiter::new(MILLI, 10);
        let ticks = (0..100_000).map(|at| Tick::from_nanos(at * 10_000));
        assert_eq!(ticks.filter(|&now| limiter.allow(now)).count(), 1000 + 9);
    }
}
