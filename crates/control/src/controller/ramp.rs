//! Slow start: the weight of a backend that came up grows in steps.

use std::time::Duration;

use dataplane::Tick;

/// A backend on its way to its full weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ramp {
    from: Tick,
    over: Duration,
}

/// Steps; the share of the weight after each is a whole number of `1 / STEPS`.
pub(super) const STEPS: u32 = 10;

impl Ramp {
    /// `None` where there is nothing to grow over.
    pub(super) fn start(over: Duration, now: Tick) -> Option<Self> {
        (!over.is_zero()).then_some(Self { from: now, over })
    }

    /// `1..=STEPS`; the last one when it is over.
    pub(super) fn share(self, now: Tick) -> u32 {
        let passed = now.saturating_since(self.from).as_nanos() * u128::from(STEPS);
        let step = passed / self.over.as_nanos().max(1);
        u32::try_from(step).unwrap_or(STEPS).clamp(1, STEPS)
    }

    /// When the share changes next; `None` when it is over.
    pub(super) fn next(self, now: Tick) -> Option<Tick> {
        let share = self.share(now);
        // One nanosecond more than the rounded division, so that the step has been reached then.
        (share < STEPS).then(|| {
            let step = self.over.saturating_mul(share + 1) / STEPS;
            self.from + step.saturating_add(Duration::from_nanos(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_steps_lead_to_the_whole() {
        for over in [Duration::from_secs(10), Duration::from_nanos(12_345_678)] {
            let start = Tick::from_nanos(5_000);
            let ramp = Ramp::start(over, start).unwrap();
            let (mut now, mut shares) = (start, vec![ramp.share(start)]);
            while let Some(next) = ramp.next(now) {
                assert!(next > now);
                now = next;
                shares.push(ramp.share(now));
            }
            assert_eq!(shares, (1..=10).collect::<Vec<_>>(), "{over:?}");
            assert!(now.saturating_since(start) <= over + Duration::from_nanos(1));
        }
        assert_eq!(Ramp::start(Duration::ZERO, Tick::default()), None);
    }
}
