//! `pointsman_health_*`, and what a service makes of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::status::{Check, Histogram, Status};

use super::family::{Page, flag};
use super::histogram::Histograms;
use super::labels::{OfBackend, OfCheck, OfCheckUse, OfFailure, OfService};

/// Adds the checks of all backends to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    services(page, status)?;
    checks(page, status)?;
    let suspicions = page.counter("backend_suspicions_total", "How often it was suspected.")?;
    let ignored = page.counter(
        "health_triggers_ignored_total",
        "Looks at unanswered connections that started no check: the last such hint was wrong, not long ago.")?;
    for service in &status.services {
        for backend in &service.backends {
            let at = OfBackend { service: &service.name, backend: &backend.name };
            suspicions.add(&at, backend.suspicions);
            ignored.add(&at, backend.triggers_ignored);
        }
    }
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

/// Each check once, however many services share it: under the address that it asks and the label that
/// the first of them has for it.
fn checks(page: &Page, status: &Status) -> prometheus::Result<()> {
    let used = page.gauge(
        "health_check_info",
        "1 for each check of a backend: which service uses which check of which address.",
    )?;
    let mut asked: BTreeMap<(IpAddr, u64), (&str, &Check)> = BTreeMap::new();
    for service in &status.services {
        for backend in &service.backends {
            let address = backend.address;
            for check in &backend.checks {
                let first = asked.entry((address, check.number)).or_insert((&check.label, check));
                let (service, backend, check) = (&*service.name, &*backend.name, first.0);
                used.set(&OfCheckUse { service, backend, address, check }, 1.0);
            }
        }
    }
    let asked: Vec<_> =
        asked.iter().map(|((address, _), (label, check))| (*address, *label, *check)).collect();
    results(page, &asked)?;
    durations(page, &asked)
}

/// Of two checks of one address with one label, the sum is shown.
fn results(page: &Page, asked: &[(IpAddr, &str, &Check)]) -> prometheus::Result<()> {
    let passed = page.counter("health_check_successes_total", "Health checks that passed.")?;
    let failed =
        page.counter("health_check_failures_total", "Health checks that failed, by why.")?;
    let lost = page.counter(
        "health_sentinel_losses_total",
        "Kept connections that a backend ended while it was up.",
    )?;
    for (address, label, results) in asked {
        let (address, check) = (*address, *label);
        let at = OfCheck { address, check };
        passed.add(&at, results.successes);
        lost.add(&at, results.sentinel_losses);
        for count in &results.failures {
            failed.add(&OfFailure { address, check, reason: count.name }, count.value);
        }
    }
    Ok(())
}

fn durations(page: &Page, asked: &[(IpAddr, &str, &Check)]) -> prometheus::Result<()> {
    let mut sums: BTreeMap<(IpAddr, &str), Histogram> = BTreeMap::new();
    for (address, label, check) in asked {
        sums.entry((*address, *label))
            .and_modify(|sum| sum.add(&check.seconds))
            .or_insert_with(|| check.seconds.clone());
    }
    let mut durations = Histograms::new(
        "health_check_duration_seconds",
        "How long health checks took, whatever their end.",
    )?;
    for ((address, check), sum) in sums {
        durations.add(&OfCheck { address, check }, &sum);
    }
    page.register(durations)
}
