//! What takes long to make is used again for a while: asked for however often, it costs a bounded part
//! of the thread that makes it.

use std::time::Duration;

use dataplane::Tick;

/// A value and until when it is used again: for nine times as long as making it took, so that making it
/// takes a tenth of a thread's time at most.
#[derive(Clone, Debug)]
pub struct Reuse<T> {
    kept: Option<(T, Tick)>,
}

/// How many times as long as it took to make it.
const TIMES: u32 = 9;
/// Nothing is older than this, whatever it took to make it.
const OLDEST: Duration = Duration::from_secs(1);

impl<T: Clone> Reuse<T> {
    /// With nothing to use again.
    pub const fn new() -> Self {
        Self { kept: None }
    }

    /// What is still to be used.
    pub fn get(&self, now: Tick) -> Option<T> {
        self.kept.as_ref().filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    /// Keeps a value that was begun at `began` and is ready `now`.
    pub fn keep(&mut self, value: T, began: Tick, now: Tick) {
        let took = now.saturating_since(began);
        self.kept = Some((value, now + (took * TIMES).min(OLDEST)));
    }

    /// What is asked for next is made anew.
    pub fn forget(&mut self) {
        self.kept = None;
    }
}

impl<T: Clone> Default for Reuse<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::default() + Duration::from_millis(millis)
    }

    #[test]
    fn making_it_takes_a_tenth_of_the_time_at_most() {
        for took in [0, 1, 7, 50, 111] {
            let (mut reuse, mut busy, mut now) = (Reuse::new(), 0, 0);
            // Asked for without a pause: 1 ms passes between questions.
            while now < 100_000 {
                if reuse.get(at(now)).is_none() {
                    reuse.keep((), at(now), at(now + took));
                    (busy, now) = (busy + took, now + took);
                } else {
                    now += 1;
                }
                now += u64::from(took == 0);
            }
            assert!(busy <= now / 10 + took, "{took} ms each: busy for {busy} of {now} ms");
        }
    }

    #[test]
    fn what_is_made_at_once_is_never_used_again_and_nothing_after_a_second() {
        let mut reuse = Reuse::new();
        reuse.keep(1, at(5), at(5));
        assert_eq!(reuse.get(at(5)), None);
        reuse.keep(2, at(0), at(10_000));
        assert_eq!((reuse.get(at(10_999)), reuse.get(at(11_000))), (Some(2), None));
        reuse.keep(3, at(12_000), at(12_050));
        reuse.forget();
        assert_eq!(reuse.get(at(12_051)), None, "it has changed");
    }
}
