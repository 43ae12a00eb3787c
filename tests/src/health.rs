//! What the tests of health checks share: a balancer with its backends up, and its verdicts.

use std::time::{Duration, Instant, SystemTime};

use api::status::{BackendState, Service};
use lab::{Lab, LoadReport, Pointsman, Record, ServiceText};

/// An HTTP check of `/health` with the defaults of the product.
pub const HTTP: &str = "http = { path = \"/health\" }";

/// Runs follow each other faster than real failures do: without this the later ones would be held
/// down for flapping.
pub const STEADY: &str = "hold_down = \"0s\"";

/// The lab's web service, persistent for 50 s, with the HTTP check and these further lines of it.
#[must_use]
pub fn web(lab: &Lab, lines: &str) -> ServiceText {
    let service = ServiceText::web(lab).persistence("50s").with(STEADY);
    service.health(&format!("{HTTP}\n{lines}"))
}

/// Starts the balancer, and waits until every backend passes its checks.
///
/// # Panics
/// When that takes longer than 5 s.
#[must_use]
pub fn start(lab: &Lab, service: &ServiceText) -> Pointsman {
    let lb = lab.start_pointsman(0, &service.to_toml()).expect("the balancer");
    let begin = Instant::now();
    let up = |service: &Service| {
        service.backends.iter().all(|backend| backend.state == BackendState::Up)
    };
    while !crate::status(&lb).services.iter().all(up) {
        assert!(begin.elapsed() < Duration::from_secs(5), "not all are up:\n{}", lb.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    lb
}

/// Waits until the log says that this backend went `change`, as in `UP -> DOWN`; how long after
/// `from` that was, and the text.
///
/// # Panics
/// When it does not come within `limit`.
pub fn await_verdict(
    lb: &Pointsman,
    backend: &str,
    change: &str,
    from: SystemTime,
    limit: Duration,
) -> (Duration, String) {
    let begin = Instant::now();
    loop {
        if let Some(found) = lb.transition(backend, change, from) {
            return (found.at.duration_since(from).unwrap_or_default(), found.text);
        }
        let late = begin.elapsed() > limit;
        assert!(!late, "no `{backend}: {change}` within {limit:?}:\n{}", lb.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many lines say that a backend went down, since the log had this length.
#[must_use]
pub fn downs(lb: &Pointsman, from: usize) -> usize {
    lb.log()[from..].lines().filter(|line| line.contains("-> DOWN")).count()
}

/// The requests that began at `from` or later, counted from the beginning of the load.
pub fn begun_after(report: &LoadReport, from: Duration) -> impl Iterator<Item = &Record> {
    report.timeline().records().iter().filter(move |record| record.start >= from)
}

/// The value that `percent` % of the values do not exceed.
///
/// # Panics
/// Without values.
#[must_use]
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let values: Vec<Duration> = (1..=5).rev().map(Duration::from_secs).collect();
        assert_eq!([50, 95, 100].map(|p| percentile(&values, p).as_secs()), [3, 5, 5]);
    }
}
