//! What a service does about backends that are down: keys of `[[service]]`, `[service.fallback]`
//! and `[service.notify]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use control::{Damping, FailurePolicy, Notify, OnAllDown, OnDown};

use crate::backend::RawBackend;
use crate::diagnostic::Diagnostic;
use crate::duration::duration;
use crate::min_healthy::RawMinHealthy;
use crate::notify;
use crate::section::Section;
use crate::source::Written;
use crate::value;

/// The policy as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawFailure {
    on_down: Written<OnDown>,
    on_all_down: Option<OnAllDown>,
    pub(crate) min_healthy: RawMinHealthy,
    pub(crate) fallback: Option<RawBackend>,
    inhibit: Option<bool>,
    slow_start: Option<Duration>,
    hold_down: Written<Duration>,
    hold_down_max: Written<Duration>,
    /// `None` also when it is wrong, which was reported.
    notify: Option<Notify>,
}

impl RawFailure {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let failure = Self {
            on_down: section.optional("on_down", value::choice(ON_DOWN)),
            on_all_down: section.or(
                "on_all_down",
                OnAllDown::default(),
                value::choice(ON_ALL_DOWN),
            ),
            min_healthy: RawMinHealthy::read(section),
            fallback: section.table("fallback", RawBackend::read_fallback),
            inhibit: section.or("inhibit", false, value::boolean),
            slow_start: section.or("slow_start", Duration::ZERO, duration(DELAY)),
            hold_down: section.optional("hold_down", duration(DELAY)),
            hold_down_max: section.optional("hold_down_max", duration(DELAY)),
            notify: section.table("notify", notify::read).flatten(),
        };
        for mistake in [failure.held_too_long(), failure.inhibited()].into_iter().flatten() {
            section.report(mistake);
        }
        failure
    }

    /// `None`: reported.
    pub(crate) fn build(self) -> Option<FailurePolicy> {
        let damping = self.damping()?;
        let fallback = match self.fallback {
            Some(fallback) => Some(fallback.build()?),
            None => None,
        };
        Some(FailurePolicy {
            on_down: self.on_down.or(OnDown::default())?,
            on_all_down: self.on_all_down?,
            min_healthy: self.min_healthy.build()?,
            fallback,
            inhibit: self.inhibit?,
            slow_start: self.slow_start?,
            damping,
            notify: self.notify,
        })
    }

    fn damping(&self) -> Option<Damping> {
        let default = Damping::default();
        let hold = self.hold_down.or(default.hold)?;
        Some(Damping { hold, max: self.hold_down_max.or(default.max.max(hold))? })
    }

    fn held_too_long(&self) -> Option<Diagnostic> {
        let Damping { hold, max } = self.damping()?;
        let span = &self.hold_down_max.at()?.span;
        if hold <= max {
            return None;
        }
        let hold = humantime::format_duration(hold);
        let message = format!("`hold_down_max` is shorter than `hold_down`, {hold}");
        let mut error = Diagnostic::error(span, message).with_label("the longest, not the first");
        if let Some(hold) = self.hold_down.at() {
            error = error.with_place(&hold.span, "`hold_down`");
        }
        Some(error.with_help(format!("write a duration from {hold} to 1h")))
    }

    fn inhibited(&self) -> Option<Diagnostic> {
        let on_down = self.on_down.at().filter(|on_down| on_down.value != OnDown::Keep)?;
        if self.inhibit != Some(true) {
            return None;
        }
        let warning = Diagnostic::warning(&on_down.span, "`on_down` has no effect");
        let warning = warning.with_label("with `inhibit`, flows of a backend that is down stay");
        Some(warning.with_help("remove it, or write `inhibit = false`"))
    }
}

const ON_DOWN: &[(&str, OnDown)] =
    &[("reset", OnDown::Reset), ("keep", OnDown::Keep), ("drop", OnDown::Drop)];

const ON_ALL_DOWN: &[(&str, OnAllDown)] =
    &[("reject", OnAllDown::Reject), ("keep-last", OnAllDown::KeepLast)];

const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
