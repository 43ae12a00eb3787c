//! What the results of one check amount to: `rise` and `fall`.

/// The verdict of one check. The first result decides at once, later ones need `rise` or `fall` in
/// a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RiseFall {
    /// No result yet; `up`: what is assumed until then.
    Unknown { up: bool },
    /// It passes, but for the last `failed` results.
    Up { failed: u8 },
    /// It fails, but for the last `passed` results.
    Down { passed: u8 },
}

impl RiseFall {
    pub(super) const fn pass(&mut self, rise: u8) {
        *self = match *self {
            Self::Down { passed } if passed.saturating_add(1) < rise => {
                Self::Down { passed: passed + 1 }
            }
            Self::Unknown { .. } | Self::Up { .. } | Self::Down { .. } => Self::Up { failed: 0 },
        };
    }

    pub(super) const fn fail(&mut self, fall: u8) {
        *self = match *self {
            Self::Up { failed } if failed.saturating_add(1) < fall => {
                Self::Up { failed: failed + 1 }
            }
            Self::Unknown { .. } | Self::Up { .. } | Self::Down { .. } => Self::DOWN,
        };
    }

    /// A failure that was not seen by the check itself: the last one needed is always its own.
    pub(super) fn hint(&mut self, fall: u8) {
        if let Self::Up { failed } = self {
            *failed = failed.saturating_add(1).min(fall.saturating_sub(1));
        }
    }

    /// Whether the check does not hold the backend down: it passes, or is assumed to.
    pub(super) const fn allows(self) -> bool {
        matches!(self, Self::Up { .. } | Self::Unknown { up: true })
    }

    pub(super) const fn is_up(self) -> bool {
        matches!(self, Self::Up { .. })
    }

    pub(super) const fn is_down(self) -> bool {
        matches!(self, Self::Down { .. })
    }

    /// Decided to be down, no success since.
    pub(super) const DOWN: Self = Self::Down { passed: 0 };
}

#[cfg(test)]
mod tests {
    use super::RiseFall::{self, Down, Unknown, Up};

    /// `+` a success, `-` a failure, `?` a hint; for rise 2 and fall 3.
    const CELLS: [(RiseFall, char, RiseFall); 17] = [
        (Unknown { up: true }, '+', Up { failed: 0 }),
        (Unknown { up: true }, '-', Down { passed: 0 }),
        (Unknown { up: true }, '?', Unknown { up: true }),
        (Unknown { up: false }, '+', Up { failed: 0 }),
        (Unknown { up: false }, '-', Down { passed: 0 }),
        (Unknown { up: false }, '?', Unknown { up: false }),
        (Up { failed: 0 }, '+', Up { failed: 0 }),
        (Up { failed: 0 }, '-', Up { failed: 1 }),
        (Up { failed: 0 }, '?', Up { failed: 1 }),
        (Up { failed: 2 }, '+', Up { failed: 0 }),
        (Up { failed: 2 }, '-', Down { passed: 0 }),
        (Up { failed: 2 }, '?', Up { failed: 2 }),
        (Down { passed: 0 }, '+', Down { passed: 1 }),
        (Down { passed: 0 }, '-', Down { passed: 0 }),
        (Down { passed: 1 }, '+', Up { failed: 0 }),
        (Down { passed: 1 }, '-', Down { passed: 0 }),
        (Down { passed: 1 }, '?', Down { passed: 1 }),
    ];

    fn step(verdict: &mut RiseFall, result: char, rise: u8, fall: u8) {
        match result {
            '+' => verdict.pass(rise),
            '-' => verdict.fail(fall),
            _ => verdict.hint(fall),
        }
    }

    #[test]
    fn each_result_in_each_state() {
        for (before, result, after) in CELLS {
            let mut verdict = before;
            step(&mut verdict, result, 2, 3);
            assert_eq!(verdict, after, "{before:?} {result}");
        }
    }

    /// rise, fall, results, what it is after each: `U`p or `D`own.
    const RUNS: [(u8, u8, &str, &str); 7] = [
        (2, 3, "+--+---+-++", "UUUUUUDDDDU"),
        (2, 3, "-++", "DDU"),
        (1, 1, "+-+-", "UDUD"),
        (1, 1, "+???-", "UUUUD"),
        (3, 2, "+?-+++", "UUDDDU"),
        (2, 3, "+??+??-", "UUUUUUD"),
        (100, 100, "-+", "DD"),
    ];

    #[test]
    fn results_in_a_row() {
        for (rise, fall, results, expected) in RUNS {
            let mut verdict = Unknown { up: false };
            let seen: String = results
                .chars()
                .map(|result| {
                    step(&mut verdict, result, rise, fall);
                    if verdict.allows() { 'U' } else { 'D' }
                })
                .collect();
            assert_eq!(seen, expected, "rise {rise}, fall {fall}, {results}");
        }
    }

    #[test]
    fn no_rise_and_no_fall_are_as_one() {
        let mut verdict = Up { failed: 0 };
        verdict.hint(0);
        assert_eq!(verdict, Up { failed: 0 });
        verdict.fail(0);
        assert_eq!(verdict, RiseFall::DOWN);
        verdict.pass(0);
        assert_eq!(verdict, Up { failed: 0 });
    }
}
