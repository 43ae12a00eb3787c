//! `pointsman_health_*`, and what a service makes of it.

use api::status::Status;

use super::family::{Page, flag};
use super::histogram::Histograms;
use super::labels::{OfBackend, OfCheck, OfFailure, OfService};

/// Adds the checks of all backends to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    services(page, status)?;
    failures(page, status)?;
    let mut durations = Histograms::new(
        "health_check_duration_seconds",
        "How long health checks took, whatever their end.",
    )?;
    let suspicions = page.counter("backend_suspicions_total", "How often it was suspected.")?;
    let ignored = page.counter(
        "health_triggers_ignored_total",
        "Looks at unanswered connections that started no check: the last such hint was wrong, not long ago.")?;
    for service in &status.services {
        for backend in &service.backends {
            let at = OfBackend { service: &service.name, backend: &backend.name };
            suspicions.add(&at, backend.suspicions);
            ignored.add(&at, backend.triggers_ignored);
            if !backend.checks.is_empty() {
                durations.add(&at, &backend.check_seconds);
            }
        }
    }
    page.register(durations)?;
    let mut late =
        Histograms::new("health_check_late_seconds", "How late health checks were started.")?;
    late.add(&(), &status.health_late);
    page.register(late)
}

fn services(page: &Page, status: &Status) -> prometheus::Result<()> {
    let up = page.gauge("service_up", "1 while enough of it is up (min_healthy).")?;
    let healthy = page.gauge(
        "service_healthy_weight",
        "Sum of the weights of backends that are up or suspected.",
    )?;
    let total = page.gauge("service_total_weight", "Sum of the weights of all backends.")?;
    let fallback =
        page.gauge("service_fallback_active", "1 while the fallback takes new sources.")?;
    let rejected =
        page.counter("service_rejected_total", "New connections refused with an answer.")?;
    for service in &status.services {
        let at = OfService { service: &service.name };
        up.set(&at, flag(service.quorum));
        healthy.set(&at, f64::from(service.healthy_weight));
        total.set(&at, f64::from(service.total_weight));
        fallback.set(&at, flag(service.fallback_active));
        rejected.add(&at, service.rejected);
    }
    Ok(())
}

fn failures(page: &Page, status: &Status) -> prometheus::Result<()> {
    let passed = page.counter("health_check_successes_total", "Health checks that passed.")?;
    let failed =
        page.counter("health_check_failures_total", "Health checks that failed, by why.")?;
    let lost = page.counter(
        "health_sentinel_losses_total",
        "Kept connections that a backend ended while it was up.",
    )?;
    for service in &status.services {
        for backend in &service.backends {
            for check in &backend.checks {
                let at =
                    OfCheck { service: &service.name, backend: &backend.name, check: &check.label };
                passed.add(&at, check.successes);
                lost.add(&at, check.sentinel_losses);
                let OfCheck { service, backend, check: name } = at;
                for count in &check.failures {
                    let reason = count.name;
                    failed.add(&OfFailure { service, backend, check: name, reason }, count.value);
                }
            }
        }
    }
    Ok(())
}
