//! `pointsman_health_*`, and what a service makes of it.

use super::histogram::Histograms;
use super::{Page, flag};
use crate::status::Status;

/// Adds the checks of all backends to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    services(page, status)?;
    failures(page, status)?;
    let labels = &["service", "backend"];
    let mut durations = Histograms::new(
        "health_check_duration_seconds",
        "How long health checks took, whatever their end.",
        labels,
    )?;
    let suspicions =
        page.counter("backend_suspicions_total", "How often it was suspected.", labels)?;
    let ignored = page.counter(
        "health_triggers_ignored_total",
        "Looks at unanswered connections that started no check: the last such hint was wrong, not long ago.",
        labels,
    )?;
    for service in &status.services {
        for backend in &service.backends {
            let at = &[service.name.as_str(), backend.name.as_str()];
            suspicions.with_label_values(at).inc_by(backend.suspicions);
            ignored.with_label_values(at).inc_by(backend.triggers_ignored);
            if !backend.checks.is_empty() {
                durations.add(at, &backend.check_seconds);
            }
        }
    }
    page.registry.register(Box::new(durations))?;
    let mut late =
        Histograms::new("health_check_late_seconds", "How late health checks were started.", &[])?;
    late.add(&[], &status.health_late);
    page.registry.register(Box::new(late))
}

fn services(page: &Page, status: &Status) -> prometheus::Result<()> {
    let labels = &["service"];
    let up = page.gauge("service_up", "1 while enough of it is up (min_healthy).", labels)?;
    let healthy = page.gauge(
        "service_healthy_weight",
        "Sum of the weights of backends that are up or suspected.",
        labels,
    )?;
    let total =
        page.gauge("service_total_weight", "Sum of the weights of all backends.", labels)?;
    let fallback =
        page.gauge("service_fallback_active", "1 while the fallback takes new sources.", labels)?;
    let rejected =
        page.counter("service_rejected_total", "New connections refused with an answer.", labels)?;
    for service in &status.services {
        let at = &[service.name.as_str()];
        up.with_label_values(at).set(flag(service.quorum));
        healthy.with_label_values(at).set(f64::from(service.healthy_weight));
        total.with_label_values(at).set(f64::from(service.total_weight));
        fallback.with_label_values(at).set(flag(service.fallback_active));
        rejected.with_label_values(at).inc_by(service.rejected);
    }
    Ok(())
}

fn failures(page: &Page, status: &Status) -> prometheus::Result<()> {
    let labels = &["service", "backend", "check"];
    let passed =
        page.counter("health_check_successes_total", "Health checks that passed.", labels)?;
    let failed = page.counter(
        "health_check_failures_total",
        "Health checks that failed, by why.",
        &["service", "backend", "check", "reason"],
    )?;
    let lost = page.counter(
        "health_sentinel_losses_total",
        "Kept connections that a backend ended while it was up.",
        labels,
    )?;
    for service in &status.services {
        for backend in &service.backends {
            for check in &backend.checks {
                let at = &[service.name.as_str(), backend.name.as_str(), check.label.as_str()];
                passed.with_label_values(at).inc_by(check.successes);
                lost.with_label_values(at).inc_by(check.sentinel_losses);
                for count in &check.failures {
                    let at = &[at[0], at[1], at[2], count.name.as_str()];
                    failed.with_label_values(at).inc_by(count.value);
                }
            }
        }
    }
    Ok(())
}
