//! How fast counters grow: per second, smoothed over the last few seconds.

use std::time::Duration;

use dataplane::Tick;

/// The rates of `N` counters that are looked at now and then.
///
/// What is older than a second counts half as much, older than two a quarter, and so on: ip_vs smooths
/// its estimates in the same way, over a longer time.
#[derive(Clone, Copy, Debug)]
pub struct Meter<const N: usize> {
    last: Option<(Tick, [u64; N])>,
    rates: [f64; N],
}

impl<const N: usize> Default for Meter<N> {
    fn default() -> Self {
        Self { last: None, rates: [0.0; N] }
    }
}

impl<const N: usize> Meter<N> {
    /// Takes note of the counters now. One that went back began anew.
    pub fn look(&mut self, counters: [u64; N], now: Tick) {
        let Some((then, before)) = self.last.replace((now, counters)) else { return };
        let passed = now.saturating_since(then);
        if passed.is_zero() {
            return;
        }
        let kept = 0.5_f64.powf(passed.as_secs_f64() / HALF.as_secs_f64());
        for ((rate, counter), before) in self.rates.iter_mut().zip(counters).zip(before) {
            let new = per_second(counter.saturating_sub(before), passed);
            *rate = *rate * kept + new * (1.0 - kept);
        }
    }

    /// Per second.
    pub const fn rates(&self) -> [f64; N] {
        self.rates
    }
}

#[expect(clippy::cast_precision_loss, reason = "15 digits are enough")]
fn per_second(count: u64, passed: Duration) -> f64 {
    count as f64 / passed.as_secs_f64()
}

/// After this a rate counts half.
const HALF: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_nanos(millis * 1_000_000)
    }

    /// After so many looks at a counter that grows by 100 a second, every `step` milliseconds.
    fn steady(step: u64, looks: u64) -> f64 {
        let mut meter = Meter::default();
        for look in 0..=looks {
            meter.look([look * step / 10], at(look * step));
        }
        meter.rates()[0]
    }

    #[test]
    fn a_steady_rate_is_reached_however_often_it_is_looked_at() {
        assert!((steady(1000, 1) - 50.0).abs() < 0.1, "half after a second");
        for (step, looks) in [(1000, 10), (500, 20), (2000, 5)] {
            let rate = steady(step, looks);
            assert!((rate - 99.9).abs() < 0.1, "every {step} ms: {rate}");
        }
    }

    #[test]
    fn a_rate_fades_and_a_counter_may_begin_anew() {
        let mut meter = Meter::default();
        meter.look([1_000_000], at(0));
        assert_eq!(meter.rates(), [0.0], "what came before is no rate");
        meter.look([1_000_200], at(1000));
        meter.look([1_000_200], at(2000));
        assert!((meter.rates()[0] - 50.0).abs() < 0.1);
        meter.look([0], at(3000));
        meter.look([0], at(3000));
        assert!((meter.rates()[0] - 25.0).abs() < 0.1, "never negative, nor infinite");
    }
}
