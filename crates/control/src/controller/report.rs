//! What the controller wants written to the log and given to hooks.

use std::fmt;
use std::time::Duration;

/// A change that an operator wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A backend changed its state.
    Backend(BackendChange),
    /// A service gained or lost its quorum.
    Service(ServiceChange),
    /// The last flow of a backend that was removed from the configuration ended.
    Drained {
        /// The service.
        service: String,
        /// The backend.
        backend: String,
        /// Since it was removed.
        after: Duration,
    },
}

/// A backend changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendChange {
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: String,
    /// Its state before; up if it was suspected and is now down, so that one line has the whole
    /// change.
    pub from: BackendState,
    /// Its state now.
    pub to: BackendState,
    /// Where checks found it: to suspected and to down, since the first sign of trouble, else since
    /// their last verdict.
    pub took: Option<Duration>,
    /// Why; empty where there is nothing to say.
    pub why: String,
}

/// A service gained or lost its quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceChange {
    /// The service.
    pub service: String,
    /// Whether enough is up.
    pub up: bool,
    /// Whether it was known before.
    pub first: bool,
    /// Weight that is up.
    pub healthy: u32,
    /// All weight.
    pub total: u32,
    /// Which backends take new sources.
    pub takers: Takers,
}

/// Which backends take new sources of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takers {
    /// The backends that are up.
    Up,
    /// The fallback.
    Fallback(String),
    /// The backends that were up last (`on_all_down = "keep-last"`).
    Last,
    /// None: clients are refused.
    Refused,
    /// None: clients are not answered.
    None,
}

label::labels! {
    /// The state of a backend.
    pub enum BackendState {
        Up => "up", "It can be reached and its checks pass.";
        Suspected => "suspected", "It may be down: new sources go elsewhere.";
        Down => "down", "It cannot be reached, or its checks fail.";
        Resolving => "resolving", "Its MAC address is being asked for.";
        Checking => "checking", "It has not been checked yet.";
        Draining => "draining", "It takes no new sources: weight 0, or removed from the configuration.";
    }
}

impl BackendState {
    /// Whether it carries flows.
    pub const fn serves(self) -> bool {
        match self {
            Self::Up | Self::Suspected | Self::Draining => true,
            Self::Down | Self::Resolving | Self::Checking => false,
        }
    }
}

impl fmt::Display for BackendChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, backend, from, to, took, why } = self;
        let (from, to) = (from.name().to_uppercase(), to.name().to_uppercase());
        write!(f, "backend {}/{}: {from} -> {to}", Plain(service), Plain(backend))?;
        // What took no time at all is not worth a word.
        if let Some(took) = took.filter(|took| *took >= SHORTEST) {
            write!(f, " after {}", Span(took))?;
        }
        if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
    }
}

impl fmt::Display for ServiceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, up, first, healthy, total, takers } = self;
        let what = match (up, first) {
            (true, true) => "quorum reached",
            (true, false) => "quorum regained",
            (false, true) => "no quorum",
            (false, false) => "quorum lost",
        };
        write!(f, "service {}: {what}: {healthy} of {total} weight up", Plain(service))?;
        match takers {
            Takers::Up => Ok(()),
            Takers::Fallback(name) => {
                write!(f, ", fallback {} takes new sources", Plain(name))
            }
            Takers::Last => f.write_str(", those that were up last go on"),
            Takers::Refused => f.write_str(", new connections are refused"),
            Takers::None => f.write_str(", no backend takes new sources"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(change) => change.fmt(f),
            Self::Service(change) => change.fmt(f),
            Self::Drained { service, backend, after } => {
                let (service, backend) = (Plain(service), Plain(backend));
                write!(f, "backend {service}/{backend}: drained after {}, gone", Span(*after))
            }
        }
    }
}

/// A name without control characters.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            control if control.is_control() => write!(f, "{}", control.escape_default()),
            char => write!(f, "{char}"),
        })
    }
}

/// Shorter times would read as `0.0 ms`.
const SHORTEST: Duration = Duration::from_micros(50);

/// `2.1 ms`, `1.5 s`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            seconds if seconds < 1.0 => write!(f, "{:.1} ms", seconds * 1000.0),
            seconds => write!(f, "{seconds:.1} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_plain() {
        let change = BackendChange {
            service: "web".into(),
            backend: "rs2".into(),
            from: BackendState::Up,
            to: BackendState::Down,
            took: Some(Duration::from_micros(2_140)),
            why: "sentinel closed, connect refused".into(),
        };
        let line = "backend web/rs2: UP -> DOWN after 2.1 ms: sentinel closed, connect refused";
        assert_eq!(change.to_string(), line);
        let hostile = BackendChange {
            backend: "rs\u{1b}[2J\n2".into(),
            took: Some(Duration::from_millis(1_460)),
            why: String::new(),
            ..change
        };
        assert_eq!(
            Report::Backend(hostile).to_string(),
            "backend web/rs\\u{1b}[2J\\n2: UP -> DOWN after 1.5 s"
        );
    }

    #[test]
    fn a_service_says_who_takes_new_sources() {
        let change = |up, first, takers| {
            ServiceChange { service: "web".into(), up, first, healthy: 1, total: 3, takers }
                .to_string()
        };
        let cases = [
            (true, true, Takers::Up, "quorum reached: 1 of 3 weight up"),
            (true, false, Takers::Up, "quorum regained: 1 of 3 weight up"),
            (false, false, Takers::Up, "quorum lost: 1 of 3 weight up"),
            (
                false,
                false,
                Takers::Fallback("sorry".into()),
                "quorum lost: 1 of 3 weight up, fallback sorry takes new sources",
            ),
            (
                false,
                false,
                Takers::Last,
                "quorum lost: 1 of 3 weight up, those that were up last go on",
            ),
            (
                false,
                true,
                Takers::Refused,
                "no quorum: 1 of 3 weight up, new connections are refused",
            ),
            (
                false,
                true,
                Takers::None,
                "no quorum: 1 of 3 weight up, no backend takes new sources",
            ),
        ];
        for (up, first, takers, expected) in cases {
            assert_eq!(change(up, first, takers), format!("service web: {expected}"));
        }
    }
}
