//! What happened when: every request of a load, and the questions that need the order of them.

use std::{net::IpAddr, time::Duration};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Status 200, whole body, right hash where one was asked for.
    Ok,
    /// The port is closed.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No route to the target, or its MAC is unknown.
    Unreachable,
    /// The connection stayed, the data did not come.
    ReadTimeout,
    /// The connection was reset, or closed before any answer.
    Reset,
    /// The connection was closed in the middle of the answer.
    ShortBody,
    /// The answer has another length than the file.
    WrongLength,
    /// The answer has the right length and the wrong content.
    HashMismatch,
    /// A status other than 200.
    BadStatus(u16),
    /// The answer is not HTTP/1.1 with a content length.
    Malformed,
    /// The source address has no port left.
    NoLocalPort,
    /// Any other error of the system.
    Other,
}

impl Outcome {
    /// Whether the request succeeded.
    #[must_use]
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }

    /// A few words for reports.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect timed out",
            Self::Unreachable => "unreachable",
            Self::ReadTimeout => "read stalled",
            Self::Reset => "reset",
            Self::ShortBody => "short body",
            Self::WrongLength => "wrong length",
            Self::HashMismatch => "wrong content",
            Self::BadStatus(_) => "bad status",
            Self::Malformed => "not HTTP",
            Self::NoLocalPort => "no local port",
            Self::Other => "other error",
        }
    }
}

/// One request. Times count from the beginning of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it began (with the connection, if that is fresh).
    pub start: Duration,
    /// When the first byte of the answer came.
    pub first_byte: Option<Duration>,
    /// When it was over, well or badly.
    pub end: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// Number of the backend that answered; see [`Timeline::backend_of`].
    pub backend: Option<u16>,
    /// Number of the source address; see [`Timeline::source_of`].
    pub source: Option<u32>,
    /// Bytes of the body that were received.
    pub bytes: u64,
}

/// All requests of a load, in the order in which they began.
#[derive(Clone, Debug)]
pub struct Timeline {
    records: Vec<Record>,
    backends: Vec<String>,
    sources: Vec<IpAddr>,
    length: Duration,
}

/// What ended within one slice of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Requests that succeeded.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Successes per backend, in the order of [`Timeline::backends`].
    pub per_backend: Vec<u64>,
}

impl Timeline {
    /// Sorts the records. `length` is the time from the beginning to the end of the load; it is
    /// made longer where a record ends later.
    #[must_use]
    pub fn new(
        mut records: Vec<Record>,
        backends: Vec<String>,
        sources: Vec<IpAddr>,
        length: Duration,
    ) -> Self {
        records.sort_by_key(|record| record.start);
        let last = records.iter().map(|record| record.end).max().unwrap_or_default();
        Self { records, backends, sources, length: length.max(last) }
    }

    /// All requests.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Names of the backends that answered.
    #[must_use]
    pub fn backends(&self) -> &[String] {
        &self.backends
    }

    /// Name of the backend that answered a request.
    #[must_use]
    pub fn backend_of(&self, record: &Record) -> Option<&str> {
        self.backends.get(usize::from(record.backend?)).map(String::as_str)
    }

    /// Source address of a request.
    #[must_use]
    pub fn source_of(&self, record: &Record) -> Option<IpAddr> {
        self.sources.get(usize::try_from(record.source?).ok()?).copied()
    }

    /// From the beginning to the end of the load.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// The longest time without the end of a successful request, and when it began. Counts the
    /// time before the first success and the time after the last.
    #[must_use]
    pub fn longest_gap(&self) -> Gap {
        self.between(Duration::ZERO, self.length).gap
    }

    /// The same load, as if there had been these requests only.
    #[must_use]
    pub fn only(&self, mut wanted: impl FnMut(&Record) -> bool) -> Self {
        let mut part = self.clone();
        part.records.retain(|record| wanted(record));
        part
    }

    /// What ended after `from` and not after `to`. The gap counts the time before the first
    /// success and the time after the last.
    #[must_use]
    pub fn between(&self, from: Duration, to: Duration) -> Stretch {
        let inside = self.records.iter().filter(|record| from < record.end && record.end <= to);
        let (done, failed): (Vec<&Record>, Vec<&Record>) =
            inside.partition(|record| record.outcome.is_ok());
        let mut ends: Vec<Duration> = done.iter().map(|record| record.end).collect();
        ends.sort_unstable();
        ends.push(to);
        let mut gap = Gap::default();
        let mut last = from;
        for end in ends {
            let length = end.saturating_sub(last);
            if length > gap.length {
                gap = Gap { begin: last, length };
            }
            last = end;
        }
        let length = to.saturating_sub(from);
        Stretch { length, done: done.len(), failed: failed.len(), gap }
    }

    /// Requests by the time at which they ended, in slices of `width` that cover the whole load.
    ///
    /// # Panics
    /// When `width` is less than a microsecond.
    #[must_use]
    pub fn buckets(&self, width: Duration) -> Vec<Bucket> {
        let width = width.as_micros();
        let slice = |at: Duration| usize::try_from(at.as_micros() / width).unwrap_or(usize::MAX);
        let empty = Bucket { per_backend: vec![0; self.backends.len()], ..Bucket::default() };
        let count = usize::try_from(self.length.as_micros().div_ceil(width)).unwrap_or(0).max(1);
        let mut buckets = vec![empty; count];
        for record in &self.records {
            // What ends exactly with the load belongs to the last slice.
            let bucket = &mut buckets[slice(record.end).min(count - 1)];
            if !record.outcome.is_ok() {
                bucket.failed += 1;
                continue;
            }
            bucket.ok += 1;
            if let Some(number) = record.backend {
                bucket.per_backend[usize::from(number)] += 1;
            }
        }
        buckets
    }
}

/// What ended within a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// How long it is.
    pub length: Duration,
    /// Requests that succeeded.
    pub done: usize,
    /// Requests that failed.
    pub failed: usize,
    /// The longest time without a success.
    pub gap: Gap,
}

impl Stretch {
    /// Successful requests a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.length.as_secs_f64().max(1e-6)
    }
}

/// A stretch of time in which nothing succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// When it began, counted from the beginning of the load.
    pub begin: Duration,
    /// How long it was.
    pub length: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn record(start: u32, end: u32, outcome: Outcome, backend: Option<u16>) -> Record {
        let (start, end) = (start * MS, end * MS);
        Record { start, first_byte: None, end, outcome, backend, source: None, bytes: 0 }
    }

    fn timeline(records: Vec<Record>, length: u32) -> Timeline {
        Timeline::new(records, vec!["a".into(), "b".into()], Vec::new(), length * MS)
    }

    #[test]
    fn gap_counts_beginning_and_end() {
        let ok = |end| record(0, end, Outcome::Ok, None);
        let gap = |records, length| {
            let gap = timeline(records, length).longest_gap();
            (gap.begin.as_millis(), gap.length.as_millis())
        };
        assert_eq!(gap(vec![], 100), (0, 100));
        assert_eq!(gap(vec![ok(60), ok(70)], 100), (0, 60));
        assert_eq!(gap(vec![ok(70), ok(10), ok(30)], 90), (30, 40));
        assert_eq!(gap(vec![ok(10), ok(20)], 100), (20, 80));
        let failed = record(0, 50, Outcome::Reset, None);
        assert_eq!(gap(vec![ok(10), failed, ok(95)], 100), (10, 85));
    }

    #[test]
    fn a_part_keeps_names_and_length() {
        let ok = |end, backend| record(0, end, Outcome::Ok, Some(backend));
        let whole = timeline(vec![ok(10, 0), ok(20, 1), ok(60, 0)], 100);
        let part = whole.only(|record| whole.backend_of(record) == Some("a"));
        assert_eq!(part.between(Duration::ZERO, 100 * MS).done, 2);
        assert_eq!(part.longest_gap(), Gap { begin: 10 * MS, length: 50 * MS });
        assert_eq!((part.backends(), part.length()), (whole.backends(), whole.length()));
    }

    #[test]
    fn stretches_have_every_request_once() {
        let ok = |end| record(0, end, Outcome::Ok, None);
        let line = timeline(vec![ok(100), record(0, 150, Outcome::Reset, None), ok(200)], 1000);
        let first = line.between(Duration::ZERO, 150 * MS);
        let second = line.between(150 * MS, 1000 * MS);
        assert_eq!((first.done, first.failed, second.done, second.failed), (1, 1, 1, 0));
        assert_eq!(first.gap, Gap { begin: Duration::ZERO, length: 100 * MS });
        assert_eq!(second.gap, Gap { begin: 200 * MS, length: 800 * MS });
        assert!((second.rate() - 1.0 / 0.85).abs() < 1e-9, "{}", second.rate());
        let nothing = line.between(300 * MS, 300 * MS);
        assert_eq!((nothing.done, nothing.gap, nothing.rate()), (0, Gap::default(), 0.0));
    }

    #[test]
    fn buckets_go_by_the_end_of_a_request() {
        let line = timeline(
            vec![
                record(0, 99, Outcome::Ok, Some(0)),
                record(5, 100, Outcome::Ok, Some(1)),
                record(6, 150, Outcome::Refused, None),
                record(7, 300, Outcome::Ok, None),
            ],
            300,
        );
        let bucket = |ok, failed, a, b| Bucket { ok, failed, per_backend: vec![a, b] };
        let expected = [bucket(1, 0, 1, 0), bucket(1, 1, 0, 1), bucket(1, 0, 0, 0)];
        assert_eq!(line.buckets(100 * MS), expected);
        assert_eq!(line.buckets(1000 * MS), [bucket(3, 1, 1, 1)]);
        assert_eq!(timeline(Vec::new(), 0).buckets(MS).len(), 1);
    }

    #[test]
    fn records_are_in_order_and_the_length_covers_them() {
        let line = timeline(
            vec![record(9, 10, Outcome::Ok, Some(7)), record(1, 40, Outcome::Ok, Some(1))],
            20,
        );
        assert_eq!(line.length(), 40 * MS);
        assert_eq!(line.records()[0].start, MS);
        assert_eq!(line.backend_of(&line.records()[0]), Some("b"));
        assert_eq!(line.backend_of(&line.records()[1]), None);
    }
}
