//! How often a hint may be looked into: longer and longer gaps after hints that were wrong.
//!
//! Triggers by unanswered SYNs can be forged by any host, and a server may close every kept
//! connection at once. Neither may make a storm of probes.

use std::time::Duration;

use dataplane::Tick;

/// Gaps of one kind of hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HoldOff {
    shortest: Duration,
    longest: Duration,
    /// Length of the last gap; 0: none yet.
    gap: Duration,
    until: Tick,
    heard: Option<Tick>,
}

impl HoldOff {
    /// Gaps double from `shortest` to `longest` and begin anew after twice `longest` without a hint.
    pub(super) const fn new(shortest: Duration, longest: Duration) -> Self {
        let until = Tick::from_nanos(0);
        Self { shortest, longest, gap: Duration::ZERO, until, heard: None }
    }

    /// A hint. `None`: look into it now, else when it may be.
    pub(super) fn hint(&mut self, now: Tick) -> Option<Tick> {
        let quiet = self.heard.map_or(Duration::MAX, |heard| now.saturating_since(heard));
        if quiet >= self.longest.saturating_mul(2) {
            self.gap = Duration::ZERO;
        }
        self.heard = Some(now);
        (now < self.until).then_some(self.until)
    }

    /// What the hint said was wrong.
    pub(super) fn refuted(&mut self, now: Tick) {
        self.gap = self.gap.saturating_mul(2).clamp(self.shortest, self.longest.max(self.shortest));
        self.until = now + self.gap;
    }

    /// What the hint said was right: the next one is as good as the first.
    pub(super) const fn confirmed(&mut self) {
        self.gap = Duration::ZERO;
        self.until = Tick::from_nanos(0);
    }

    /// The end of the last gap.
    pub(super) const fn until(&self) -> Tick {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * 1_000_000_000)
    }

    /// When hints that come every second are looked into, all of them wrong.
    fn looked_into(until: u64) -> Vec<u64> {
        let mut hold = HoldOff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut at = Vec::new();
        for second in 0..until {
            if hold.hint(seconds(second)).is_none() {
                hold.refuted(seconds(second));
                at.push(second);
            }
        }
        at
    }

    #[test]
    fn gaps_double_up_to_30_seconds() {
        assert_eq!(looked_into(130), [0, 1, 3, 7, 15, 31, 61, 91, 121]);
    }

    #[test]
    fn a_minute_without_hints_begins_anew() {
        let mut hold = HoldOff::new(Duration::from_secs(1), Duration::from_secs(30));
        for at in [0, 1, 3] {
            assert_eq!(hold.hint(seconds(at)), None);
            hold.refuted(seconds(at));
        }
        assert_eq!(hold.hint(seconds(4)), Some(seconds(7)));
        assert_eq!(hold.hint(seconds(63)), None);
        hold.refuted(seconds(63));
        assert_eq!(hold.until(), seconds(71));
        assert_eq!(hold.hint(seconds(123)), None);
        hold.refuted(seconds(123));
        assert_eq!(hold.until(), seconds(124));
    }

    #[test]
    fn a_hint_that_was_right_ends_the_gaps() {
        let mut hold = HoldOff::new(Duration::from_secs(1), Duration::from_secs(30));
        for at in [0, 1, 3] {
            assert_eq!(hold.hint(seconds(at)), None);
            hold.refuted(seconds(at));
        }
        assert_eq!(hold.hint(seconds(7)), None);
        hold.confirmed();
        assert_eq!(hold.hint(seconds(7)), None);
        hold.refuted(seconds(7));
        assert_eq!(hold.until(), seconds(8));
    }
}
