//! Time as the packet path sees it: one reading of the monotonic clock per burst.

use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock that `bpf_ktime_get_ns` and user space share.
///
/// The packet path never reads a clock: the worker reads it once per burst and passes it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// A tick from nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds, truncated to 32 bits: wraps after 49.7 days, compare by wrapping difference.
    #[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
    pub const fn wrapping_millis(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Tick {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let late = Tick::from_nanos(u64::MAX - 1);
        assert_eq!(late + Duration::MAX, Tick::from_nanos(u64::MAX));
        assert_eq!(Tick::default().saturating_since(late), Duration::ZERO);
    }

    #[test]
    fn milliseconds_wrap_at_32_bits() {
        let tick = Tick::from_nanos((u64::from(u32::MAX) + 3) * 1_000_000);
        assert_eq!(tick.wrapping_millis(), 2);
    }
}
