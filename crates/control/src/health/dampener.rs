//! How long a backend that went down stays down although its checks pass.
//!
//! A backend that flaps costs its clients more than one that is away: each time it comes back it is
//! given connections, and loses them. So each time down is held longer than the last, and only time
//! in service makes up for it. DPVS doubles 5 s up to an hour; this reaches its end in three steps.

use std::time::Duration;

use dataplane::Tick;

use crate::desired::Damping;

/// Hold-down of one backend.
///
/// The first DOWN is held for [`Damping::hold`], each further one [`GROWTH`](Self::GROWTH) times as
/// long, up to [`Damping::max`]. One step is forgotten for each `max` in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dampener {
    damping: Damping,
    /// Steps of growth that the next hold has.
    step: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up { since: Tick },
    Down { held_until: Tick },
}

impl Dampener {
    /// How much longer each hold is than the one before.
    pub const GROWTH: u32 = 8;

    /// Up, or down without a hold: what was never up did not flap.
    pub const fn new(damping: Damping, now: Tick) -> Self {
        Self { damping, step: 0, state: State::Up { since: now } }
    }

    /// It went down. Repeated calls change nothing.
    pub fn down(&mut self, now: Tick) {
        let State::Up { since } = self.state else { return };
        self.forget(now.saturating_since(since));
        let hold = self.hold(self.step);
        if !hold.is_zero() && hold < self.damping.max {
            self.step += 1;
        }
        self.state = State::Down { held_until: now + hold };
    }

    /// It came up.
    pub const fn up(&mut self, now: Tick) {
        if let State::Down { .. } = self.state {
            self.state = State::Up { since: now };
        }
    }

    /// The end of the hold of a backend that is down. It may lie in the past.
    pub const fn held_until(&self) -> Option<Tick> {
        match self.state {
            State::Up { .. } => None,
            State::Down { held_until } => Some(held_until),
        }
    }

    /// Whether it must stay down.
    pub fn holds(&self, now: Tick) -> bool {
        self.held_until().is_some_and(|until| now < until)
    }

    /// Ends the hold: no other backend is up.
    pub fn release(&mut self, now: Tick) {
        if let State::Down { held_until } = &mut self.state {
            *held_until = (*held_until).min(now);
        }
    }

    /// Other times, for this hold too if they make it shorter.
    pub fn reconfigure(&mut self, damping: Damping, now: Tick) {
        self.damping = damping;
        let longest = now + self.hold(u32::MAX);
        if let State::Down { held_until } = &mut self.state {
            *held_until = (*held_until).min(longest);
        }
    }

    fn hold(&self, step: u32) -> Duration {
        let factor = Self::GROWTH.saturating_pow(step);
        self.damping.hold.saturating_mul(factor).min(self.damping.max)
    }

    fn forget(&mut self, in_service: Duration) {
        let max = self.damping.max.as_nanos().max(1);
        let steps = u32::try_from(in_service.as_nanos() / max).unwrap_or(u32::MAX);
        self.step = self.step.saturating_sub(steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * 1_000_000_000)
    }

    const fn damping(hold: u64, max: u64) -> Damping {
        Damping { hold: Duration::from_secs(hold), max: Duration::from_secs(max) }
    }

    /// (hold, max), times in service before each DOWN, and how long each is held; all in seconds.
    /// After each hold it comes up at once.
    type Vector = ((u64, u64), &'static [u64], &'static [u64]);

    const VECTORS: [Vector; 10] = [
        ((1, 60), &[0, 0, 0, 0, 0], &[1, 8, 60, 60, 60]),
        ((1, 60), &[1000, 59, 59, 59], &[1, 8, 60, 60]),
        // One step is forgotten for each whole minute in service.
        ((1, 60), &[0, 0, 0, 60], &[1, 8, 60, 8]),
        ((1, 60), &[0, 0, 0, 119, 0], &[1, 8, 60, 8, 60]),
        ((1, 60), &[0, 0, 0, 120, 0], &[1, 8, 60, 1, 8]),
        ((1, 60), &[0, 60, 60, 60], &[1, 1, 1, 1]),
        ((5, 3600), &[0, 0, 0, 0, 0], &[5, 40, 320, 2560, 3600]),
        // A first hold that is the longest, or longer.
        ((60, 60), &[0, 0, 60], &[60, 60, 60]),
        ((90, 60), &[0, 0], &[60, 60]),
        ((0, 60), &[0, 0, 0], &[0, 0, 0]),
    ];

    #[test]
    fn holds_grow_and_are_forgotten() {
        for ((hold, max), in_service, expected) in VECTORS {
            let mut now = 100;
            let mut dampener = Dampener::new(damping(hold, max), seconds(now));
            let mut holds = Vec::new();
            for up in in_service {
                now += up;
                dampener.down(seconds(now));
                let until = dampener.held_until().expect("down");
                assert!(!dampener.holds(until));
                let held = until.saturating_since(seconds(now)).as_secs();
                assert_eq!(dampener.holds(seconds(now)), held > 0);
                holds.push(held);
                now += held;
                dampener.up(seconds(now));
                assert_eq!(dampener.held_until(), None);
            }
            assert_eq!(holds, expected, "hold {hold}, max {max}, in service {in_service:?}");
        }
    }

    #[test]
    fn no_longest_hold_is_no_hold() {
        let mut dampener = Dampener::new(damping(1, 0), seconds(0));
        dampener.down(seconds(1));
        assert!(!dampener.holds(seconds(1)));
    }

    #[test]
    fn being_told_twice_changes_nothing() {
        let mut dampener = Dampener::new(damping(1, 60), seconds(0));
        dampener.up(seconds(1));
        dampener.down(seconds(2));
        let once = dampener;
        dampener.down(seconds(3));
        assert_eq!(dampener, once);
    }

    #[test]
    fn a_shorter_hold_is_taken_at_once() {
        let mut dampener = Dampener::new(damping(30, 60), seconds(0));
        dampener.down(seconds(0));
        dampener.reconfigure(damping(60, 60), seconds(1));
        assert_eq!(dampener.held_until(), Some(seconds(30)));
        dampener.reconfigure(damping(2, 5), seconds(1));
        assert_eq!(dampener.held_until(), Some(seconds(6)));
        dampener.reconfigure(damping(0, 5), seconds(2));
        assert!(!dampener.holds(seconds(2)));
    }
}
