//! What the checks of a backend amount to, as a part of its status.

use std::net::IpAddr;
use std::time::Duration;

use api::status::{Backend, BackendState, Check, Count, Histogram};
use control::health::{CheckReport, CheckState, FailureKind, Report};
use dataplane::Tick;

use super::Node;
use crate::health::{Durations, Histogram as Measured};

impl Node {
    /// Adds what the checks say, if it has any.
    pub(super) fn add_health(&self, to: &mut Backend, service: &str, address: IpAddr, now: Tick) {
        let Some(health) = &self.health else { return };
        let Some(report) = health.report(service, address, now) else { return };
        if let Some(left) = held(&report, now).filter(|_| to.state == BackendState::Down) {
            to.state = BackendState::Held;
            to.reason = Some(format!("its checks pass, it is held down for {left:.1?} more"));
            to.held_seconds = Some(left.as_secs_f64());
        }
        to.suspicions = report.suspicions;
        to.triggers_ignored = report.triggers_ignored;
        let durations = |check: &CheckReport| health.durations(address, check.place);
        let shown = report.checks.iter().map(|check| show(check, durations(check), now));
        to.checks = shown.collect();
    }

    /// How late probes were started.
    pub(super) fn health_late(&self) -> Histogram {
        self.health.as_ref().map(|health| histogram(health.lateness())).unwrap_or_default()
    }
}

/// For how long a backend stays down although nothing else is wrong with it.
fn held(report: &Report, now: Tick) -> Option<Duration> {
    let passes = |check: &CheckReport| check.state == CheckState::Passing;
    let until = report.held_down_until.filter(|_| report.checks.iter().all(passes))?;
    Some(until.saturating_since(now))
}

fn show(check: &CheckReport, took: Option<&Durations>, now: Tick) -> Check {
    let tally = &check.tally;
    let last = tally.last_failure.as_ref();
    Check {
        kind: check.kind.to_owned(),
        label: check.label.clone(),
        number: check.place as u64,
        state: check.state,
        successes: tally.successes,
        failures: Count::list(FailureKind::ALL, |kind| {
            tally.failures.get(&kind).copied().unwrap_or(0)
        }),
        failed_in_a_row: tally.failed,
        last_failure: last.map(|(failure, _)| failure.to_string()),
        last_failure_age_seconds: last.map(|(_, at)| now.saturating_since(*at).as_secs_f64()),
        last_duration_seconds: tally.last_duration.map(|took| took.as_secs_f64()),
        seconds: took.map(histogram).unwrap_or_default(),
        sentinel_losses: tally.sentinel_losses,
    }
}

fn histogram<const N: usize>(measured: &Measured<N>) -> Histogram {
    Histogram {
        bounds: measured.bounds.iter().map(Duration::as_secs_f64).collect(),
        counts: measured.counts.iter().copied().chain([measured.above]).collect(),
        sum: measured.sum.as_secs_f64(),
    }
}
