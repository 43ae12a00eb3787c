//! What a [`Host`](super::Host) asks of its driver, and how a change reads in a log.

use std::fmt;
use std::time::Duration;

use super::{Condition, Failure};

/// One probe of one check. Serials of a monitor never repeat (but for 2³² probes later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Index of the check.
    pub check: usize,
    /// Distinguishes it from earlier probes of the same check.
    pub serial: u32,
}

/// What the driver must do. `C` says what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<C = Transition> {
    /// Make a probe, and report its outcome once, at the latest when `timeout` is over.
    Start {
        /// Which.
        probe: Probe,
        /// For the whole probe, from now.
        timeout: Duration,
    },
    /// Give a probe up; its outcome is of no interest any more.
    Cancel(Probe),
    /// The backend is now something else: to be published at once, and logged.
    Changed(C),
}

/// What is known of a backend, as operators see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    /// Nothing yet: some check has not had its first result. Takes no clients.
    Checking,
    /// In service.
    Up,
    /// In service for its clients; new connections go elsewhere if they can, until it is decided.
    Suspected,
    /// Out of service.
    Down,
}

impl State {
    /// As metrics and JSON have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Up => "up",
            Self::Suspected => "suspected",
            Self::Down => "down",
        }
    }

    /// As logs print it.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Checking => "CHECKING",
            Self::Up => "UP",
            Self::Suspected => "SUSPECTED",
            Self::Down => "DOWN",
        }
    }

    /// As the packet path has to take it.
    pub const fn condition(self) -> Condition {
        match self {
            Self::Up => Condition::Up,
            Self::Suspected => Condition::Suspected,
            Self::Checking | Self::Down => Condition::Down,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.shown())
    }
}

/// A change of state. Displayed as `UP -> DOWN after 2.1 ms: sentinel closed, connect refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before; [`State::Up`] if it was suspected and is now down: one line has the
    /// whole change.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// To suspected and to down: since the first sign of trouble. Else: since the last transition.
    pub after: Duration,
    /// Failures since the first sign of trouble, a trigger being one; 0 when it comes up.
    pub failures: u32,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, reason, after, .. } = self;
        write!(f, "{from} -> {to}")?;
        // What took no time at all is not worth a word.
        if *after >= SHORTEST {
            write!(f, " after {}", Readable(*after))?;
        }
        write!(f, ": {reason}")
    }
}

/// Why a backend changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// These checks failed.
    Failing(Vec<Trouble>),
    /// All checks passed so often in a row.
    Passing {
        /// The fewest successes in a row of any check.
        successes: u32,
        /// How long it was held down, if that is what it waited for.
        held: Option<Duration>,
    },
    /// The checks are other ones now.
    Reconfigured,
    /// It was suspected, but could not be probed from here.
    Unconfirmed,
}

impl Reason {
    /// Whether nothing but unanswered SYNs speaks against the backend, which any host can forge.
    pub fn is_unanswered_only(&self) -> bool {
        let Self::Failing(troubles) = self else { return false };
        let only = |trouble: &Trouble| {
            trouble.unanswered && !trouble.sentinel && trouble.failure.is_none()
        };
        !troubles.is_empty() && troubles.iter().all(only)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing(troubles) => {
                for (index, trouble) in troubles.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{trouble}")?;
                }
                Ok(())
            }
            Self::Passing { successes, held } => {
                write!(f, "{}", Count(*successes, "success", "successes"))?;
                held.map_or(Ok(()), |held| write!(f, ", held down for {}", Readable(held)))
            }
            Self::Reconfigured => f.write_str("configuration"),
            Self::Unconfirmed => f.write_str("cannot be probed"),
        }
    }
}

/// What is wrong by one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which check, if there are several.
    pub check: Option<String>,
    /// Its sentinel was lost.
    pub sentinel: bool,
    /// New connections went unanswered.
    pub unanswered: bool,
    /// How the last probe failed. `None`: none has failed yet.
    pub failure: Option<Failure>,
    /// Failures since the first sign of trouble, `unanswered` being one.
    pub failures: u32,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(check) = &self.check {
            write!(f, "{check}: ")?;
        }
        let hints = [
            self.sentinel.then_some("sentinel closed"),
            self.unanswered.then_some("new connections unanswered"),
        ];
        let mut separator = "";
        for hint in hints.into_iter().flatten() {
            write!(f, "{separator}{hint}")?;
            separator = ", ";
        }
        if let Some(failure) = &self.failure {
            write!(f, "{separator}{failure}")?;
        }
        if self.failures > 1 && !self.sentinel {
            write!(f, ", {}", Count(self.failures, "failure", "failures"))?;
        }
        Ok(())
    }
}

/// A number and its noun.
struct Count(u32, &'static str, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, one, many) = *self;
        write!(f, "{number} {}", if number == 1 { one } else { many })
    }
}

/// Shorter times would read as `0.0 ms`.
const SHORTEST: Duration = Duration::from_micros(50);

/// Milliseconds below a second, else seconds; one digit after the point.
struct Readable(Duration);

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 1.0 {
            write!(f, "{:.1} ms", seconds * 1000.0)
        } else {
            write!(f, "{seconds:.1} s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(sentinel: bool, unanswered: bool, failure: Failure, failures: u32) -> Trouble {
        Trouble { check: None, sentinel, unanswered, failure: Some(failure), failures }
    }

    fn text(from: State, to: State, micros: u64, reason: Reason) -> String {
        let after = Duration::from_micros(micros);
        Transition { from, to, reason, after, failures: 0 }.to_string()
    }

    #[test]
    fn transitions_read_as_in_the_handbook() {
        let failing = |trouble| Reason::Failing(vec![trouble]);
        let sentinel = failing(trouble(true, false, Failure::Refused, 2));
        let silent = failing(trouble(false, true, Failure::Timeout, 2));
        let wrong = failing(trouble(false, false, Failure::Status(500), 3));
        let first = failing(trouble(false, false, Failure::Refused, 1));
        let named = |check: &str, trouble| Trouble { check: Some(check.into()), ..trouble };
        let two = Reason::Failing(vec![
            named("http /", trouble(false, false, Failure::Status(503), 1)),
            named("ping", trouble(false, false, Failure::Timeout, 2)),
        ]);
        let held = Some(Duration::from_secs(8));
        let (up, down) = (State::Up, State::Down);
        let expected = [
            (
                text(up, down, 2_100, sentinel),
                "UP -> DOWN after 2.1 ms: sentinel closed, connect refused",
            ),
            (
                text(up, down, 700_000, silent),
                "UP -> DOWN after 700.0 ms: new connections unanswered, timed out, 2 failures",
            ),
            (text(up, down, 2_000_000, wrong), "UP -> DOWN after 2.0 s: status 500, 3 failures"),
            (text(up, down, 0, two), "UP -> DOWN: http /: status 503; ping: timed out, 2 failures"),
            (text(up, State::Suspected, 0, first), "UP -> SUSPECTED: connect refused"),
            (
                text(down, up, 12_300_000, Reason::Passing { successes: 2, held: None }),
                "DOWN -> UP after 12.3 s: 2 successes",
            ),
            (
                text(State::Checking, up, 35_000, Reason::Passing { successes: 1, held: None }),
                "CHECKING -> UP after 35.0 ms: 1 success",
            ),
            (
                text(down, up, 8_000_000, Reason::Passing { successes: 9, held }),
                "DOWN -> UP after 8.0 s: 9 successes, held down for 8.0 s",
            ),
            (text(down, up, 0, Reason::Reconfigured), "DOWN -> UP: configuration"),
        ];
        for (text, expected) in expected {
            assert_eq!(text, expected);
        }
    }
}
