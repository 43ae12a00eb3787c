//! A node's clock: starts anywhere and drifts. Real time is nanoseconds since the run began.

use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    start: u64,
    ppm: i64,
}

impl Clock {
    pub(crate) const fn new(origin: Instant, start: u64, ppm: i64) -> Self {
        Self { origin, start, ppm }
    }

    /// What the clock shows at a real time.
    pub(crate) fn local(&self, real: u64) -> Instant {
        let shown = real / MILLION * MILLION.saturating_add_signed(self.ppm)
            + real % MILLION * MILLION.saturating_add_signed(self.ppm) / MILLION;
        self.origin + Duration::from_nanos(self.start + shown)
    }

    /// The first real time at which the clock shows `local` or later.
    pub(crate) fn real(&self, local: Instant) -> u64 {
        let shown = local.saturating_duration_since(self.origin);
        let shown = shown.as_secs() * 1_000_000_000 + u64::from(shown.subsec_nanos());
        let since = u128::from(shown.saturating_sub(self.start));
        let speed = u128::from(MILLION.saturating_add_signed(self.ppm));
        u64::try_from(since * u128::from(MILLION) / speed).unwrap_or(u64::MAX - 1) + 1
    }
}

const MILLION: u64 = 1_000_000;
