//! Which new connections of a backend are answered: what makes a silent backend suspected before
//! its next check.
//!
//! Only the client's half is seen: an ACK behind a SYN means that the backend answered in between.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::counters::Counter;
use crate::tick::Tick;

/// New connections of one backend, as one worker saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// The oldest SYNs of different 5-tuples (a hash tells them apart) that no ACK followed yet.
    /// Their time is up to 0.3 ms early.
    pub waiting: [Option<(u32, Tick)>; 2],
    /// When a handshake was last seen to complete.
    pub completed: Option<Tick>,
}

/// Upper bounds of [`HandshakeTimes::counts`], microseconds.
pub const HANDSHAKE_BOUNDS: [u64; BOUNDS] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
const BOUNDS: usize = 11;

/// How long handshakes took, from a client's SYN to its ACK: the way to the backend, its answer's way to
/// the client, and the client's to us. Two at a time are watched of each backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeTimes {
    /// How many took up to each of [`HANDSHAKE_BOUNDS`] and longer than the one before; the last: longer
    /// than all.
    pub counts: [u64; BOUNDS + 1],
    /// Of all of them.
    pub sum: Duration,
}

/// Where a worker notes them. Single writer (the worker), any number of readers.
#[derive(Debug, Default)]
pub(crate) struct HandshakeWatch {
    /// [`Waiting`] each; 0: no client waits here.
    waiting: [AtomicU64; 2],
    /// Since when, in nanoseconds.
    since: [AtomicU64; 2],
    /// In nanoseconds; 0: never.
    completed: AtomicU64,
    /// As [`HandshakeTimes`].
    times: [Counter; BOUNDS + 1],
    nanos: Counter,
}

impl HandshakeWatch {
    /// A SYN went to the backend; `tag` is a hash of its 5-tuple. Whether it was noted: not if it
    /// waits already (then this is a retransmission), or if two others do.
    pub(crate) fn attempt(&self, tag: u32, now: Tick) -> bool {
        let new = Waiting::new(tag, now);
        let waits = |slot: &AtomicU64| {
            Waiting::read(slot).filter(|waiting| now.saturating_since(waiting.since()) < STALE)
        };
        let [first, second] = &self.waiting;
        let [first_since, second_since] = &self.since;
        let (slot, since) = match (waits(first), waits(second)) {
            (Some(one), _) if one.tag() == new.tag() => return false,
            (_, Some(other)) if other.tag() == new.tag() => return false,
            (None, _) => (first, first_since),
            (_, None) => (second, second_since),
            (Some(_), Some(_)) => return false,
        };
        since.store(now.as_nanos(), Relaxed);
        slot.store(new.0, Relaxed);
        true
    }

    /// The handshake of the 5-tuple with this tag completed: no client has reason to wait any more.
    pub(crate) fn complete(&self, tag: u32, now: Tick) {
        let new = Waiting::new(tag, now);
        let pairs = self.waiting.iter().zip(&self.since);
        for (slot, since) in pairs {
            if Waiting::read(slot).is_some_and(|waiting| waiting.tag() == new.tag()) {
                self.took(now.saturating_since(Tick::from_nanos(since.load(Relaxed))));
            }
        }
        self.completed.store(now.as_nanos().max(1), Relaxed);
        for slot in &self.waiting {
            slot.store(0, Relaxed);
        }
    }

    fn took(&self, time: Duration) {
        let micros = time.as_micros();
        let at = HANDSHAKE_BOUNDS.iter().take_while(|bound| u128::from(**bound) < micros).count();
        if let Some(count) = self.times.get(at) {
            count.add(1);
        }
        self.nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How long handshakes took, possibly a moment old.
    pub(crate) fn times(&self) -> HandshakeTimes {
        let counts = self.times.each_ref().map(Counter::value);
        HandshakeTimes { counts, sum: Duration::from_nanos(self.nanos.value()) }
    }

    /// What is known, possibly a moment old.
    pub(crate) fn handshakes(&self) -> Handshakes {
        let completed = self.completed.load(Relaxed);
        let waiting = |slot| Waiting::read(slot).map(|waiting| (waiting.tag(), waiting.since()));
        let [first, second] = &self.waiting;
        Handshakes {
            waiting: [waiting(first), waiting(second)],
            completed: (completed != 0).then_some(Tick::from_nanos(completed)),
        }
    }
}

/// The source that waits and since when, in one word, so that no reader mixes two: a tag of 24
/// bits that is not 0, and 40 bits of 2^18 ns, which last nine years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting(u64);

impl Waiting {
    fn new(tag: u32, now: Tick) -> Self {
        let tag = u64::from(tag >> (u32::BITS - TAG_BITS)).max(1);
        Self(tag << TIME_BITS | (now.as_nanos() >> UNIT_SHIFT) & TIME_MASK)
    }

    fn read(slot: &AtomicU64) -> Option<Self> {
        match slot.load(Relaxed) {
            0 => None,
            word => Some(Self(word)),
        }
    }

    const fn tag(self) -> u32 {
        (self.0 >> TIME_BITS) as u32
    }

    const fn since(self) -> Tick {
        Tick::from_nanos((self.0 & TIME_MASK) << UNIT_SHIFT)
    }
}

/// Long after a waiting client was noticed, and longer than a client takes for its second SYN.
const STALE: Duration = Duration::from_secs(3);

const TAG_BITS: u32 = 24;
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const UNIT_SHIFT: u32 = 18;

const _: () = assert!(size_of::<HandshakeWatch>() == 144);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Tick = Tick::from_nanos(1_000_000_000_000);
    const A: u32 = 0x0100_0000;
    const B: u32 = 0x0200_0000;
    const C: u32 = 0x0300_0000;

    fn after(ms: u64) -> Tick {
        START + Duration::from_millis(ms)
    }

    fn tags(watch: &HandshakeWatch) -> [Option<u32>; 2] {
        watch.handshakes().waiting.map(|waiting| waiting.map(|(tag, _)| tag << 8))
    }

    #[test]
    fn the_two_oldest_wait() {
        let watch = HandshakeWatch::default();
        assert_eq!(watch.handshakes(), Handshakes::default());
        // When, source of the SYN, whether it is noted, sources that wait.
        let table = [
            (0, A, true, [Some(A), None]),
            (100, A, false, [Some(A), None]),
            (200, B, true, [Some(A), Some(B)]),
            (300, C, false, [Some(A), Some(B)]),
            (1000, A, false, [Some(A), Some(B)]),
            (2999, C, false, [Some(A), Some(B)]),
            (3000, C, true, [Some(C), Some(B)]),
            (3001, B, false, [Some(C), Some(B)]),
            (3200, B, true, [Some(C), Some(B)]),
        ];
        for (ms, tag, noted, waiting) in table {
            assert_eq!(watch.attempt(tag, after(ms)), noted, "{ms} ms");
            assert_eq!(tags(&watch), waiting, "{ms} ms");
        }
        let since = watch.handshakes().waiting[0].expect("C waits").1;
        let early = after(3000).saturating_since(since);
        assert!(since <= after(3000) && early < Duration::from_micros(300), "{early:?}");
    }

    #[test]
    fn one_answer_lets_nobody_wait() {
        let watch = HandshakeWatch::default();
        watch.attempt(A, after(0));
        watch.attempt(B, after(1));
        watch.complete(A, after(2));
        let expected = Handshakes { waiting: [None; 2], completed: Some(after(2)) };
        assert_eq!(watch.handshakes(), expected);
        assert!(watch.attempt(A, after(3)), "a new attempt");
        assert_eq!(watch.handshakes().completed, Some(after(2)));
    }

    #[test]
    fn the_time_of_a_handshake_is_that_of_its_own_syn() {
        let watch = HandshakeWatch::default();
        watch.attempt(A, after(0));
        watch.attempt(B, after(3));
        watch.complete(C, after(4));
        assert_eq!(watch.times(), HandshakeTimes::default(), "its SYN was not noted");
        watch.attempt(A, after(10));
        watch.attempt(B, after(11));
        watch.complete(B, after(13));
        watch.attempt(A, after(20));
        watch.complete(A, after(4020));
        let HandshakeTimes { counts, sum } = watch.times();
        assert_eq!(counts, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum, Duration::from_millis(4002));
    }

    #[test]
    fn no_tag_looks_like_a_free_place() {
        let watch = HandshakeWatch::default();
        assert!(watch.attempt(0, Tick::default()));
        assert_eq!(watch.handshakes().waiting[0], Some((1, Tick::default())));
        assert!(!watch.attempt(0, Tick::default()), "it is one 5-tuple");
    }
}
