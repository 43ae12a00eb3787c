//! Lines of a log that repeat.

use std::time::Duration;

use dataplane::Tick;

/// Lets a line through when it is new, and once a minute while it repeats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeats {
    last: Option<Tick>,
    held_back: u32,
}

const EVERY: Duration = Duration::from_secs(60);

impl Repeats {
    /// Whether to write it now: with how many were held back since the last one that was written.
    pub fn admit(&mut self, now: Tick) -> Option<u32> {
        if self.last.is_some_and(|last| now.saturating_since(last) < EVERY) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_second_becomes_once_a_minute_and_none_is_forgotten() {
        let mut repeats = Repeats::default();
        let written: Vec<(u64, u32)> = (1000..1200)
            .filter_map(|second| {
                let now = Tick::from_nanos(second * 1_000_000_000);
                Some((second, repeats.admit(now)?))
            })
            .collect();
        assert_eq!(written, [(1000, 0), (1060, 59), (1120, 59), (1180, 59)]);
    }

    #[test]
    fn what_is_rare_is_always_written() {
        let mut repeats = Repeats::default();
        for minutes in (5..50).step_by(5) {
            assert_eq!(repeats.admit(Tick::from_nanos(minutes * 60_000_000_000)), Some(0));
        }
    }
}
