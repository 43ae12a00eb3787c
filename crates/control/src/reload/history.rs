//! The configuration in force, the one to go back to, and when that happens by itself.

use std::time::Duration;

use dataplane::Tick;

/// What configurations follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<C> {
    current: C,
    previous: Option<C>,
    rollback: Option<Tick>,
}

impl<C> History<C> {
    /// With the first one.
    pub const fn new(current: C) -> Self {
        Self { current, previous: None, rollback: None }
    }

    /// The one in force.
    pub const fn current(&self) -> &C {
        &self.current
    }

    /// The one that is gone back to.
    pub const fn previous(&self) -> Option<&C> {
        self.previous.as_ref()
    }

    /// When it is gone back to unless [`confirm`](Self::confirm) is called before.
    pub const fn rollback(&self) -> Option<Tick> {
        self.rollback
    }

    /// Another one is in force. With `confirm_within` it is rolled back then; to the last one that did not
    /// itself wait to be confirmed.
    pub fn replace(&mut self, next: C, confirm_within: Option<Duration>, now: Tick) {
        let waited = self.rollback.take().is_some();
        let old = std::mem::replace(&mut self.current, next);
        let confirmed = self.previous.take().filter(|_| waited && confirm_within.is_some());
        self.previous = confirmed.or(Some(old));
        self.rollback = confirm_within.map(|time| now + time.min(LONGEST_WAIT));
    }

    /// The one in force stays. Whether it waited for that.
    pub const fn confirm(&mut self) -> bool {
        self.rollback.take().is_some()
    }

    /// Whether it must be gone back now; once.
    pub fn roll_back_if_due(&mut self, now: Tick) -> bool {
        self.rollback.take_if(|at| *at <= now).is_some()
    }
}

/// The longest time for a confirmation.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Tick = Tick::from_nanos(1_000_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn without_a_limit_nothing_is_rolled_back() {
        let mut history = History::new(1);
        assert_eq!(history.previous(), None);
        history.replace(2, None, T0);
        assert!(!history.roll_back_if_due(T0 + 1000 * MINUTE) && !history.confirm());
        assert_eq!((history.current(), history.previous()), (&2, Some(&1)));
    }

    #[test]
    fn what_is_not_confirmed_in_time_is_rolled_back_once() {
        let mut history = History::new(1);
        history.replace(2, Some(MINUTE), T0);
        assert!(!history.roll_back_if_due(T0 + MINUTE / 2));
        assert!(history.roll_back_if_due(T0 + MINUTE) && !history.roll_back_if_due(T0 + MINUTE));
        history.replace(1, None, T0 + MINUTE);
        assert_eq!((history.current(), history.previous()), (&1, Some(&2)));
    }

    #[test]
    fn what_is_confirmed_stays() {
        let mut history = History::new(1);
        history.replace(2, Some(MINUTE), T0);
        assert!(history.confirm() && !history.confirm());
        assert!(!history.roll_back_if_due(T0 + MINUTE));
    }

    #[test]
    fn an_unconfirmed_one_is_not_gone_back_to_by_itself() {
        let mut history = History::new(1);
        history.replace(2, Some(MINUTE), T0);
        history.replace(3, Some(MINUTE), T0);
        assert_eq!(history.previous(), Some(&1));
        history.replace(4, None, T0);
        assert_eq!((history.previous(), history.rollback()), (Some(&3), None));
    }

    #[test]
    fn no_wait_is_so_long_that_time_overflows() {
        let mut history = History::new(1);
        history.replace(2, Some(Duration::MAX), T0);
        assert_eq!(history.rollback(), Some(T0 + LONGEST_WAIT));
    }
}
