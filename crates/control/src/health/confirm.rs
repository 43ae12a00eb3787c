//! What follows the loss of a sentinel: up to three checks within 20 ms.
//!
//! A server that died and one that only closed an idle connection, or reloads, look alike on the
//! sentinel. They differ in what the next connection meets, and one try can be wrong both ways: a
//! listener may outlive its last connection by a moment, and a reload may refuse one. So two tries
//! 5 ms apart must agree, else a third decides.

use std::time::Duration;

use dataplane::Tick;

/// The tries after a loss; which of them is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// At the moment of the loss.
    First { lost_at: Tick },
    /// 5 ms later.
    Second { lost_at: Tick, first_refused: bool },
    /// 20 ms after the loss, if the first two disagree.
    Third { lost_at: Tick },
}

/// What is to be done after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again; [`Confirmation::next_try`] says when.
    Again,
    /// The server is gone.
    Dead,
    /// It is not: nothing follows from the loss.
    Refuted,
}

impl Confirmation {
    pub(super) const fn new(lost_at: Tick) -> Self {
        Self::First { lost_at }
    }

    /// When the next try is due; at once if the one before it took longer.
    pub(super) fn next_try(self) -> Tick {
        match self {
            Self::First { lost_at } => lost_at,
            Self::Second { lost_at, .. } => lost_at + SECOND,
            Self::Third { lost_at } => lost_at + THIRD,
        }
    }

    /// How a try ended; `refused`: refused or reset.
    pub(super) const fn tried(&mut self, refused: bool) -> Next {
        match *self {
            Self::First { lost_at } => {
                *self = Self::Second { lost_at, first_refused: refused };
                Next::Again
            }
            Self::Second { first_refused: true, .. } if refused => Next::Dead,
            Self::Second { first_refused: false, .. } if !refused => Next::Refuted,
            Self::Second { lost_at, .. } => {
                *self = Self::Third { lost_at };
                Next::Again
            }
            Self::Third { .. } if refused => Next::Dead,
            Self::Third { .. } => Next::Refuted,
        }
    }
}

const SECOND: Duration = Duration::from_millis(5);
const THIRD: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tries met (`R`efused or anything `-` else), and what follows at last.
    const CELLS: [(&str, Next); 6] = [
        ("RR", Next::Dead),
        ("--", Next::Refuted),
        ("R-R", Next::Dead),
        ("R--", Next::Refuted),
        ("-RR", Next::Dead),
        ("-R-", Next::Refuted),
    ];

    #[test]
    fn two_that_agree_or_a_third() {
        for (tries, expected) in CELLS {
            let mut confirmation = Confirmation::new(Tick::from_nanos(7));
            let steps: Vec<Next> =
                tries.chars().map(|met| confirmation.tried(met == 'R')).collect();
            let (last, before) = steps.split_last().expect("not empty");
            assert!(before.iter().all(|&step| step == Next::Again), "{tries}: {steps:?}");
            assert_eq!(*last, expected, "{tries}");
        }
    }

    #[test]
    fn tries_are_5_and_20_ms_after_the_loss() {
        let lost_at = Tick::from_nanos(1_000_000);
        let mut confirmation = Confirmation::new(lost_at);
        let mut offsets = vec![confirmation.next_try().saturating_since(lost_at).as_millis()];
        for refused in [true, false] {
            confirmation.tried(refused);
            offsets.push(confirmation.next_try().saturating_since(lost_at).as_millis());
        }
        assert_eq!(offsets, [0, 5, 20]);
    }
}
