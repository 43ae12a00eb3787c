//! Whether BPF programs and this process read the same clock. In a time namespace they do not:
//! CLOCK_MONOTONIC of the process is shifted, that of the programs is the host's.

use std::time::Duration;

use libbpf_rs::{ProgramInput, ProgramMut};
use rustix::time::{ClockId, clock_gettime};

use crate::error::SteerError;

/// Runs the `clock` program between two readings of our own clock and fails with
/// [`SteerError::Clock`] if its reading is more than [`LIMIT`] outside of them.
pub(crate) fn check(program: &ProgramMut<'_>) -> Result<(), SteerError> {
    let mut context = [0; size_of::<u64>()];
    let before = monotonic();
    program
        .test_run(ProgramInput { context_in: Some(&mut context), ..ProgramInput::default() })
        .map_err(SteerError::map("run the clock program"))?;
    let after = monotonic();
    let difference = distance(Duration::from_nanos(u64::from_ne_bytes(context)), before, after);
    if difference > LIMIT {
        return Err(SteerError::Clock { difference, limit: LIMIT });
    }
    Ok(())
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // A monotonic clock is never negative, and its nanoseconds are below a second.
    Duration::try_from(now).unwrap_or_default()
}

/// How far `reading` lies outside of `before..=after`.
fn distance(reading: Duration, before: Duration, after: Duration) -> Duration {
    before.saturating_sub(reading).max(reading.saturating_sub(after))
}

/// Leases are of the order of 100 ms.
const LIMIT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_zero_inside_and_grows_on_both_sides() {
        let ms = Duration::from_millis;
        assert_eq!(distance(ms(5), ms(5), ms(7)), ms(0));
        assert_eq!(distance(ms(7), ms(5), ms(7)), ms(0));
        assert_eq!(distance(ms(3), ms(5), ms(7)), ms(2));
        assert_eq!(distance(ms(9), ms(5), ms(7)), ms(2));
    }
}
