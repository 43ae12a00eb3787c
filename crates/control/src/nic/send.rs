//! A queue whose transmissions never complete.

use std::time::Duration;

use dataplane::Tick;

/// Finds out that frames are given to a queue and none comes back, though the kernel reports success:
/// none of them leaves.
///
/// A driver may keep the last frames until it is given more, so frames that are merely under way are
/// no sign: either they still lie on the TX ring, or more are given and none comes back.
#[derive(Debug, Default)]
pub struct SendWatch {
    completed: u64,
    stalled_since: Option<(Tick, u64)>,
}

/// Counters of one queue at one moment; the first two only grow until [`SendWatch`] begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReading {
    /// Whether the kernel says that the device can send.
    pub link: bool,
    /// Frames given to the kernel.
    pub transmitted: u64,
    /// Frames that it gave back.
    pub completed: u64,
    /// Frames that it has not taken from the TX ring.
    pub on_ring: u64,
}

impl SendWatch {
    /// A reading; returns whether transmissions have not completed for a second.
    pub fn look(&mut self, now: Tick, reading: SendReading) -> bool {
        let SendReading { link, transmitted, completed, on_ring } = reading;
        let progress = std::mem::replace(&mut self.completed, completed) != completed;
        if progress || !link || transmitted == completed {
            self.stalled_since = None;
            return false;
        }
        let (since, before) = *self.stalled_since.get_or_insert((now, transmitted));
        let stuck = on_ring > 0 || transmitted.saturating_sub(before) >= MANY;
        stuck && now.saturating_since(since) >= PATIENCE
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
/// More than any driver holds back.
const MANY: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: SendReading = SendReading { link: true, transmitted: 0, completed: 0, on_ring: 0 };

    /// What is said at each 50 ms of two seconds.
    fn stalls(mut reading: impl FnMut(u64) -> SendReading) -> Vec<u64> {
        let mut watch = SendWatch::default();
        let looks = (1_000..3_000).step_by(50);
        looks
            .filter(|ms| watch.look(Tick::from_nanos(ms * 1_000_000), reading(ms - 1_000)))
            .map(|ms| ms - 1_000)
            .collect()
    }

    #[test]
    fn frames_that_stay_on_the_ring_are_noticed_after_a_second() {
        let stalls = stalls(|_| SendReading { transmitted: 5, completed: 4, on_ring: 1, ..IDLE });
        assert_eq!((stalls.first(), stalls.last()), (Some(&1_050), Some(&1_950)));
    }

    #[test]
    fn frames_that_the_driver_takes_and_never_gives_back_are_noticed() {
        let stalls = stalls(|ms| SendReading { transmitted: 9 + ms, completed: 9, ..IDLE });
        assert_eq!(stalls.first(), Some(&1_050));
    }

    #[test]
    fn a_driver_may_keep_the_last_frames() {
        assert!(stalls(|_| SendReading { transmitted: 40, completed: 10, ..IDLE }).is_empty());
        // And give some back now and then.
        let slow =
            |ms| SendReading { transmitted: 100 + ms, completed: ms / 900, on_ring: 9, ..IDLE };
        assert!(stalls(slow).is_empty());
    }

    #[test]
    fn an_idle_queue_and_one_without_a_link_do_not_stall() {
        assert!(stalls(|_| IDLE).is_empty());
        let down = SendReading { link: false, transmitted: 90, completed: 0, on_ring: 90 };
        assert!(stalls(|_| down).is_empty());
        // The second begins when the link is back.
        let flap = |ms| SendReading { link: ms > 900, ..down };
        assert_eq!(stalls(flap).first(), Some(&1_950));
    }
}
