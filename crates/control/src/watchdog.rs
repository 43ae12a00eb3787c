//! When a watchdog outside of the process (systemd's) is fed: only while every thread is alive.

use std::time::Duration;

use dataplane::Tick;

/// The rhythm of one watchdog.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    every: Duration,
    next: Tick,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed<T> {
    /// Nothing: it is not due.
    NotDue,
    /// Feed it.
    Now,
    /// It is due, and this thread has been silent for so long that the process had better be started
    /// again. Of several, the one that is silent for longest.
    Withhold(T, Duration),
}

/// A thread that gave no sign of life for this long is dead. Workers that bind a queue which another
/// socket still holds are silent for up to 5 s; a node gives VIPs up much sooner by itself.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);

impl Watchdog {
    /// One that ends the process when it was not fed for `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { every: timeout / 3, next: Tick::default() }
    }

    /// Decides, given when each thread was last seen alive.
    pub fn decide<T>(
        &mut self,
        threads: impl IntoIterator<Item = (T, Tick)>,
        now: Tick,
    ) -> Feed<T> {
        if now < self.next {
            return Feed::NotDue;
        }
        let silent = threads
            .into_iter()
            .map(|(thread, beat)| (thread, now.saturating_since(beat)))
            .filter(|(_, silence)| *silence > DEAD_AFTER)
            .max_by_key(|(_, silence)| *silence);
        match silent {
            Some((thread, silence)) => Feed::Withhold(thread, silence),
            None => {
                self.next = now + self.every;
                Feed::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn it_is_fed_three_times_in_its_time() {
        let mut watchdog = Watchdog::new(Duration::from_secs(30));
        let mut fed = Vec::new();
        for ms in (1000..50_000).step_by(50) {
            if watchdog.decide([("worker", at(ms)), ("vrrp", at(ms))], at(ms)) == Feed::Now {
                fed.push(ms);
            }
        }
        assert_eq!(fed, [1000, 11_000, 21_000, 31_000, 41_000]);
    }

    #[test]
    fn one_dead_thread_among_living_ones_withholds_it() {
        for dead in 0..3 {
            let mut watchdog = Watchdog::new(Duration::from_secs(3));
            for ms in (1000..30_000).step_by(50) {
                let beat = |thread| at(if thread == dead { 5000.min(ms) } else { ms });
                let decision = watchdog.decide((0..3).map(|t| (t, beat(t))), at(ms));
                match decision {
                    Feed::Withhold(thread, silence) => {
                        assert_eq!(thread, dead);
                        assert_eq!(silence, Duration::from_millis(ms - 5000));
                        assert!(ms > 15_000, "withheld at {ms}");
                    }
                    Feed::Now => assert!(ms <= 15_000, "fed at {ms}"),
                    Feed::NotDue => {}
                }
            }
        }
    }

    #[test]
    fn it_is_fed_at_once_when_the_thread_is_back() {
        let mut watchdog = Watchdog::new(Duration::from_secs(3));
        assert_eq!(watchdog.decide([("worker", at(0))], at(20_000)), {
            Feed::Withhold("worker", Duration::from_secs(20))
        });
        assert_eq!(watchdog.decide([("worker", at(20_050))], at(20_050)), Feed::Now);
    }

    #[test]
    fn the_longest_silence_is_named() {
        let mut watchdog = Watchdog::new(Duration::from_secs(3));
        let threads = [("a", at(9000)), ("b", at(1000)), ("c", at(5000))];
        let decision = watchdog.decide(threads, at(30_000));
        assert_eq!(decision, Feed::Withhold("b", Duration::from_secs(29)));
    }
}
