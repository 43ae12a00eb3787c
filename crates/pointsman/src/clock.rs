//! The one clock: `CLOCK_MONOTONIC`, which the XDP program reads too.

use dataplane::Tick;
use rustix::time::{ClockId, clock_gettime};

/// Reads the clock.
pub fn now() -> Tick {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Tick::from_nanos(seconds * 1_000_000_000 + nanos)
}
