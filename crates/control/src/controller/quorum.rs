//! Whether enough of a service is up (`min_healthy`).

use crate::desired::MinHealthy;

/// What of a service is up, as sums of configured weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weights {
    /// Of backends that are up or suspected.
    pub(super) healthy: u32,
    /// Of backends of which nothing is known yet.
    pub(super) undecided: u32,
    /// Of all backends.
    pub(super) total: u32,
}

/// `None` until it is known for the first time: until enough is up, or until too much is down for
/// that to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quorum(Option<bool>);

impl Quorum {
    /// Whether it is held.
    pub(super) fn is_held(self) -> bool {
        self.0 == Some(true)
    }

    /// Whether it is lost, and not only unknown yet.
    pub(super) fn is_lost(self) -> bool {
        self.0 == Some(false)
    }

    /// Takes the weights in; returns what changed, if anything did.
    pub(super) fn judge(&mut self, rule: MinHealthy, weights: Weights) -> Option<bool> {
        let Weights { healthy, undecided, total } = weights;
        // A backend that was just added says nothing about the ones that carry the service.
        let lost = !reaches(rule, healthy.saturating_add(undecided), total, false);
        let held = match self.0 {
            Some(true) => !lost,
            // With everything up there is nothing left to wait for, whatever the hysteresis is.
            Some(false) => {
                reaches(rule, healthy, total, true)
                    || (healthy == total && reaches(rule, healthy, total, false))
            }
            None if reaches(rule, healthy, total, false) => true,
            None if lost => false,
            None => return None,
        };
        (self.0 != Some(held)).then(|| {
            self.0 = Some(held);
            held
        })
    }
}

fn reaches(rule: MinHealthy, healthy: u32, total: u32, again: bool) -> bool {
    let more = |hysteresis: u32| if again { hysteresis } else { 0 };
    match rule {
        MinHealthy::Weight { min, hysteresis } => {
            healthy > 0 && healthy >= min.saturating_add(more(hysteresis))
        }
        MinHealthy::Percent { min, hysteresis } => {
            let percent = u64::from(min) + u64::from(more(u32::from(hysteresis)));
            healthy > 0 && u64::from(healthy) * 100 >= percent * u64::from(total)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn weights(healthy: u32, undecided: u32, total: u32) -> Weights {
        Weights { healthy, undecided, total }
    }

    /// The weights in turn, and whether the quorum is held after each; `None`: not known.
    type Course<'a> = &'a [((u32, u32, u32), Option<bool>)];

    #[test]
    fn courses() {
        let one = MinHealthy::default();
        let two_and_one = MinHealthy::Weight { min: 2, hysteresis: 1 };
        let half = MinHealthy::Percent { min: 50, hysteresis: 20 };
        let never = MinHealthy::Weight { min: 3, hysteresis: 5 };
        let (held, lost, unknown) = (Some(true), Some(false), None);
        let cases: [(&str, MinHealthy, Course<'_>); 7] = [
            ("one is enough by default", one, &[((1, 2, 3), held), ((0, 0, 3), lost)]),
            ("nothing is known at first", one, &[((0, 3, 3), unknown), ((0, 0, 3), lost)]),
            (
                "lost below 2, back at 3",
                two_and_one,
                &[((2, 0, 4), held), ((1, 0, 4), lost), ((2, 0, 4), lost), ((3, 0, 4), held)],
            ),
            (
                "lost below 50 %, back at 70 %",
                half,
                &[((5, 0, 10), held), ((4, 0, 10), lost), ((6, 0, 10), lost), ((7, 0, 10), held)],
            ),
            (
                "backends that were just added do not count against it",
                half,
                &[((2, 0, 4), held), ((2, 4, 8), held), ((2, 0, 8), lost)],
            ),
            (
                "everything up is enough, if the minimum is",
                never,
                &[((3, 0, 3), held), ((2, 0, 3), lost), ((3, 0, 3), held)],
            ),
            ("without weight there is none", half, &[((0, 0, 0), lost)]),
        ];
        for (name, rule, course) in cases {
            let mut quorum = Quorum::default();
            for (at, ((healthy, undecided, total), expected)) in course.iter().enumerate() {
                let before = quorum.0;
                let changed = quorum.judge(rule, weights(*healthy, *undecided, *total));
                assert_eq!(quorum.0, *expected, "{name}, step {at}");
                assert_eq!(changed, (before != *expected).then_some(*expected).flatten(), "{name}");
            }
        }
    }
}
