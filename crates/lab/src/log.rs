//! The product's log, read for what it says and when.
//!
//! A line begins with the time at which it was written, to the microsecond (RFC 3339, UTC), on the
//! clock of this machine: so a state that lasted too short to be polled is not missed, and its time
//! does not depend on when it is read.

use std::time::{Instant, SystemTime};

/// A line about a backend that changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When it was written.
    pub at: SystemTime,
    /// What it says after the backend's name, for example
    /// `UP -> DOWN after 2.1 ms: sentinel closed, connect refused`.
    pub text: String,
}

impl Transition {
    /// Finds in `log` the first line, written at `from` or later, about a `change` of a backend of
    /// any service: `UP -> DOWN`, or `-> DOWN` from whatever state.
    #[must_use]
    pub fn find(log: &str, backend: &str, change: &str, from: SystemTime) -> Option<Self> {
        let name = format!("/{backend}: ");
        log.lines().find_map(|line| {
            let text = line.split_once(&name)?.1;
            let at = time_of(line).filter(|at| *at >= from)?;
            let states = text.split([':', '=']).next()?;
            states.contains(change).then(|| Self { at, text: without_fields(text).to_owned() })
        })
    }

    /// When it was written, on the clock that intervals are measured with. The two clocks are
    /// compared now: not right after a correction of the time of day.
    #[must_use]
    pub fn instant(&self) -> Instant {
        let (now, age) = (Instant::now(), self.at.elapsed().unwrap_or_default());
        now.checked_sub(age).unwrap_or(now)
    }
}

/// When a line was written.
fn time_of(line: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(line.split_whitespace().next()?).ok()
}

/// A message without the `name=value` pairs that follow it.
fn without_fields(text: &str) -> &str {
    let field = text.match_indices(' ').find(|(at, _)| {
        let word = text[at + 1..].split(' ').next().unwrap_or_default();
        word.split_once('=').is_some_and(|(name, _)| is_name(name))
    });
    field.map_or(text, |(at, _)| &text[..at]).trim_end()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|char| char.is_ascii_lowercase() || char == '_')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LOG: &str = "\
2026-11-25T23:59:59.500000Z  WARN pointsman::node: backend web/rs1: UP -> SUSPECTED: \
timed out service=web backend=rs1
2026-11-26T00:00:00.250001Z  WARN pointsman::node: backend web/rs1: UP -> DOWN after 750.0 ms: \
timed out, 2 failures service=web backend=rs1 from=\"up\"
no time here: backend web/rs1: UP -> DOWN
2026-11-26T00:00:01.000000Z  INFO pointsman::node: backend web/rs10: DOWN -> UP after 1.0 s: 2 \
successes
2026-11-26T00:00:02.000000Z  WARN pointsman::node: backend web/rs1: UP -> DOWN: no MAC address
";

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    fn find(backend: &str, change: &str, from: &str) -> Option<String> {
        Transition::find(LOG, backend, change, at(from)).map(|found| found.text)
    }

    #[test]
    fn a_change_is_found_with_its_time_and_without_fields() {
        let from = at("2026-11-25T23:59:59Z");
        let found = Transition::find(LOG, "rs1", "UP -> DOWN", from).unwrap();
        let after = found.at.duration_since(from).unwrap();
        assert_eq!(after, Duration::from_micros(1_250_001), "across midnight");
        assert_eq!(found.text, "UP -> DOWN after 750.0 ms: timed out, 2 failures");
    }

    #[test]
    fn what_was_before_and_other_backends_do_not_count() {
        let down = find("rs1", "-> DOWN", "2026-11-26T00:00:00.250002Z");
        assert_eq!(down.as_deref(), Some("UP -> DOWN: no MAC address"));
        assert_eq!(find("rs1", "DOWN -> UP", "2026-11-25T23:59:59Z"), None);
        assert_eq!(find("rs1", "-> SUSPECTED", "2026-11-26T00:00:00Z"), None);
        let up = find("rs10", "-> UP", "2026-11-25T23:59:59Z");
        assert_eq!(up.as_deref(), Some("DOWN -> UP after 1.0 s: 2 successes"));
    }

    #[test]
    fn the_two_clocks_agree() {
        let before = Instant::now();
        let found = Transition { at: SystemTime::now(), text: String::new() };
        let instant = found.instant();
        let off = instant.saturating_duration_since(before).max(before.duration_since(instant));
        assert!(off < Duration::from_secs(1), "{off:?}");
    }
}
