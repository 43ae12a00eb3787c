//! Figures about a load: totals, rates, percentiles, shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use super::timeline::{Bucket, Gap, Outcome, Record, Timeline};

/// The outcome of a load.
#[derive(Clone, Debug)]
pub struct LoadReport {
    timeline: Timeline,
}

/// How long successful requests took, connection included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of them were at least that fast.
    pub p50: Duration,
    /// 90 % of them.
    pub p90: Duration,
    /// 99 % of them.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

impl LoadReport {
    /// A report about a timeline.
    #[must_use]
    pub fn new(timeline: Timeline) -> Self {
        Self { timeline }
    }

    /// Every request.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Requests that were made.
    #[must_use]
    pub fn total(&self) -> usize {
        self.timeline.records().len()
    }

    /// Requests that succeeded.
    #[must_use]
    pub fn done(&self) -> usize {
        self.successes().count()
    }

    /// Requests that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.total() - self.done()
    }

    /// Failures by kind.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Outcome, usize> {
        let mut kinds = BTreeMap::new();
        for record in self.timeline.records().iter().filter(|r| !r.outcome.is_ok()) {
            *kinds.entry(record.outcome).or_default() += 1;
        }
        kinds
    }

    /// Successful requests a second, over the whole load.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let seconds = self.timeline.length().as_secs_f64();
        if seconds > 0.0 { self.done() as f64 / seconds } else { 0.0 }
    }

    /// Bytes of bodies received, failed requests included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.timeline.records().iter().map(|record| record.bytes).sum()
    }

    /// The longest time without a success.
    #[must_use]
    pub fn longest_gap(&self) -> Gap {
        self.timeline.longest_gap()
    }

    /// Latency of the successful requests; all zero without any.
    #[must_use]
    pub fn latency(&self) -> Latency {
        let mut all: Vec<Duration> =
            self.successes().map(|r| r.end.saturating_sub(r.start)).collect();
        all.sort_unstable();
        Latency {
            p50: percentile(&all, 50),
            p90: percentile(&all, 90),
            p99: percentile(&all, 99),
            max: percentile(&all, 100),
        }
    }

    /// Successful requests per backend.
    #[must_use]
    pub fn per_backend(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for name in self.successes().filter_map(|record| self.timeline.backend_of(record)) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Which backends answered each source address.
    #[must_use]
    pub fn backends_by_source(&self) -> BTreeMap<IpAddr, BTreeSet<String>> {
        let mut sets: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        for record in self.successes() {
            let pair = self.timeline.source_of(record).zip(self.timeline.backend_of(record));
            if let Some((source, backend)) = pair {
                sets.entry(source).or_default().insert(backend.to_owned());
            }
        }
        sets
    }

    /// Requests per slice of time, see [`Timeline::buckets`].
    #[must_use]
    pub fn buckets(&self, width: Duration) -> Vec<Bucket> {
        self.timeline.buckets(width)
    }

    fn successes(&self) -> impl Iterator<Item = &Record> {
        self.timeline.records().iter().filter(|record| record.outcome.is_ok())
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gap, latency) = (self.longest_gap(), self.latency());
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        writeln!(
            f,
            "{} requests done, {} failed in {:.1} s: {:.0} requests/s, {:.1} MB/s",
            self.done(),
            self.failed(),
            self.timeline.length().as_secs_f64(),
            self.rate(),
            self.bytes() as f64 / 1e6 / self.timeline.length().as_secs_f64().max(1e-6),
        )?;
        writeln!(
            f,
            "latency ms: p50 {:.1}, p90 {:.1}, p99 {:.1}, max {:.1}",
            ms(latency.p50),
            ms(latency.p90),
            ms(latency.p99),
            ms(latency.max)
        )?;
        writeln!(
            f,
            "longest time without a success: {:.0} ms, from {:.3} s on",
            ms(gap.length),
            gap.begin.as_secs_f64()
        )?;
        for (outcome, count) in self.failures() {
            writeln!(f, "failed: {count} {}", outcome.label())?;
        }
        for (backend, count) in self.per_backend() {
            let share = 100.0 * count as f64 / self.done().max(1) as f64;
            writeln!(f, "answered by {backend}: {count} ({share:.1} %)")?;
        }
        Ok(())
    }
}

/// The smallest value that at least `percent` % of the sorted values do not exceed (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn percentiles_by_nearest_rank() {
        let values: Vec<Duration> = (1..=10).map(|n| n * MS).collect();
        let at = |percent| percentile(&values, percent).as_millis();
        assert_eq!([at(0), at(50), at(51), at(90), at(99), at(100)], [1, 5, 6, 9, 10, 10]);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
        assert_eq!(percentile(&[MS], 1), MS);
    }

    #[test]
    fn figures() {
        let source = |n| IpAddr::from([10, 0, 0, n]);
        let record = |ms: u32, outcome, backend, source| Record {
            start: 100 * MS,
            first_byte: None,
            end: (100 + ms) * MS,
            outcome,
            backend,
            source: Some(source),
            bytes: 10,
        };
        let records = vec![
            record(10, Outcome::Ok, Some(0), 0),
            record(20, Outcome::Ok, Some(1), 1),
            record(30, Outcome::Ok, Some(0), 1),
            record(5000, Outcome::ReadTimeout, Some(1), 0),
            record(1, Outcome::Refused, None, 0),
            record(2, Outcome::Refused, None, 0),
        ];
        let names = vec!["a".to_owned(), "b".to_owned()];
        let sources = vec![source(1), source(2)];
        let timeline = Timeline::new(records, names, sources, Duration::from_secs(6));
        let report = LoadReport::new(timeline);
        assert_eq!((report.total(), report.done(), report.failed()), (6, 3, 3));
        assert_eq!(report.failures()[&Outcome::Refused], 2);
        assert_eq!(report.failures()[&Outcome::ReadTimeout], 1);
        assert_eq!((report.rate(), report.bytes()), (0.5, 60));
        assert_eq!(report.latency().p50, 20 * MS);
        assert_eq!(report.latency().max, 30 * MS);
        assert_eq!(report.per_backend()["a"], 2);
        assert_eq!(report.backends_by_source()[&source(1)].len(), 1);
        assert_eq!(report.backends_by_source()[&source(2)].len(), 2);
        let text = report.to_string();
        assert!(text.contains("3 requests done, 3 failed in 6.0 s"), "{text}");
        assert!(text.contains("failed: 2 refused"), "{text}");
        assert!(text.contains("answered by a: 2 (66.7 %)"), "{text}");
    }
}
