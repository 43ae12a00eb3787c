//! How often a check asks and how long it waits.

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::duration::{PERIOD, duration};
use crate::section::Section;
use crate::source::Written;

/// The durations as far as they could be read.
#[derive(Debug)]
pub(super) struct RawTimes {
    interval: Written<Duration>,
    timeout: Written<Duration>,
    fast_interval: Written<Duration>,
    down_interval: Written<Duration>,
}

/// The durations with their defaults.
pub(super) struct Times {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) fast_interval: Duration,
    pub(super) down_interval: Duration,
}

impl RawTimes {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            interval: section.optional("interval", duration(PERIOD)),
            timeout: section.optional("timeout", duration(PERIOD)),
            fast_interval: section.optional("fast_interval", duration(PERIOD)),
            down_interval: section.optional("down_interval", duration(PERIOD)),
        }
    }

    pub(super) fn build(&self) -> Option<Times> {
        let interval = self.interval()?;
        Some(Times {
            interval,
            timeout: self.timeout.or(TIMEOUT)?,
            fast_interval: self.fast_interval.or(FAST_INTERVAL.min(interval))?,
            down_interval: self.down_interval.or(interval)?,
        })
    }

    pub(super) fn check(&self) -> Vec<Diagnostic> {
        [self.slow_when_suspected(), self.late()].into_iter().flatten().collect()
    }

    fn interval(&self) -> Option<Duration> {
        self.interval.or(INTERVAL)
    }

    fn slow_when_suspected(&self) -> Option<Diagnostic> {
        let (fast, interval) = (self.fast_interval.at()?, self.interval()?);
        if fast.value <= interval {
            return None;
        }
        let interval = humantime::format_duration(interval);
        let message = format!("`fast_interval` is longer than `interval`, {interval}");
        let error = Diagnostic::error(&fast.span, message);
        let error = self.mark_interval(error.with_label("a suspect must be asked sooner"));
        Some(error.with_help(format!("write a duration from 10ms to {interval}")))
    }

    /// A probe never overlaps the one before.
    fn late(&self) -> Option<Diagnostic> {
        let (timeout, interval) = (self.timeout.at()?, self.interval()?);
        if timeout.value <= interval {
            return None;
        }
        let interval = humantime::format_duration(interval);
        let message = format!("`timeout` is longer than `interval`, {interval}");
        let warning = Diagnostic::warning(&timeout.span, message);
        let label = "the next probe waits for the end of this one";
        let warning = self.mark_interval(warning.with_label(label));
        Some(warning.with_help("shorten `timeout`, or ask less often"))
    }

    fn mark_interval(&self, diagnostic: Diagnostic) -> Diagnostic {
        match self.interval.at() {
            Some(interval) => diagnostic.with_place(&interval.span, "`interval`"),
            None => diagnostic,
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(500);

/// Unless `interval` is shorter.
const FAST_INTERVAL: Duration = Duration::from_millis(200);
