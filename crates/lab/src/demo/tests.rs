use lab::{LoadReport, Outcome, Record, Timeline};

use super::{
    loads::{Route, Run, SOURCES, shares, statements},
    story::{Change, Phase, Setting},
    *,
};

/// A run with the given numbers of successes per backend; each source asks once.
fn run_with(route: Route, counts: &[usize]) -> Run {
    let backends = (1..=counts.len()).map(|n| format!("rs{n}")).collect();
    let numbers = counts.iter().enumerate().flat_map(|(n, count)| std::iter::repeat_n(n, *count));
    let records: Vec<Record> = numbers
        .enumerate()
        .map(|(index, backend)| record(index, u16::try_from(backend).ok()))
        .collect();
    let sources = (0..=u8::MAX).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let timeline = Timeline::new(records, backends, sources, Duration::from_secs(2));
    Run { file: "50 KB", route, report: LoadReport::new(timeline) }
}

fn record(index: usize, backend: Option<u16>) -> Record {
    let start = Duration::from_millis(index as u64);
    let end = start + Duration::from_millis(1);
    let outcome = if backend.is_some() { Outcome::Ok } else { Outcome::Reset };
    let source = u32::try_from(index).ok();
    Record { start, first_byte: None, end, outcome, backend, source, bytes: 1 }
}

/// A load of one second with a request every 10 ms, which takes 10 ms; request `failed` fails.
pub(super) fn report(count: usize, failed: Option<usize>) -> LoadReport {
    let at = |index: usize| Duration::from_millis(10 * index as u64);
    let records = (0..count).map(|index| {
        let fails = failed == Some(index);
        let end = at(index + 1);
        Record { start: at(index), end, ..record(index, if fails { None } else { Some(0) }) }
    });
    let backends = vec!["rs1".into()];
    LoadReport::new(Timeline::new(records.collect(), backends, Vec::new(), at(100)))
}

/// A phase of a story, from and to in ms.
pub(super) fn phase(what: &str, begin: u64, end: u64) -> Phase {
    let [begin, end] = [begin, end].map(Duration::from_millis);
    Phase { what: what.into(), begin, end, changes: Vec::new() }
}

/// Ten requests, then a change, and ten more, of which one fails; then nothing.
pub(super) fn story() -> Story {
    let why = "Nothing <was> heard.".into();
    let after = Duration::from_millis(340);
    let changes = vec![Change { what: "lb2 Active".into(), after, why }];
    let killed = Phase { changes, ..phase("kill -9 lb1", 100, 1000) };
    let phases = vec![phase("lb1 is Active", 0, 100), killed];
    let beside = Some("Others are slower.");
    let setting = Setting { title: "Test II", about: "Two & two.".into(), beside };
    Story { setting, phases, report: report(20, Some(15)) }
}

/// Results with one good run, one with a failure, and a verdict that is not met.
pub(super) fn results() -> Results {
    let good = run_with(Route::Vip(SOURCES), &[67, 60, 73]);
    let mut records = run_with(Route::Vip(1), &[20]).report.timeline().records().to_vec();
    records.push(record(20, None));
    let timeline = Timeline::new(records, vec!["rs1".into()], Vec::new(), Duration::from_secs(1));
    let bad = Run { file: "50 KB", route: Route::Vip(1), report: LoadReport::new(timeline) };
    Results {
        packets: packets::tests::evidence_of_one_frame(),
        runs: vec![good, bad],
        stories: vec![story()],
        statements: vec![Statement { met: false, text: "a <claim>".into() }],
        nodes: vec![("client1".into(), "10.77.1.1".into(), "02:00:0a:4d:01:01".into())],
        vip: IpAddr::from([10, 77, 0, 100]),
    }
}

#[test]
fn a_failed_request_fails_the_demo() {
    let Results { runs, .. } = results();
    let all = statements(&runs);
    let missed: Vec<&str> = all.iter().filter(|v| !v.met).map(|v| v.text.as_str()).collect();
    assert_eq!(missed, ["220 requests, 1 failed"]);
    assert!(statements(&runs[..1]).iter().all(|verdict| verdict.met));
}

#[test]
fn shares_must_be_fair_and_every_backend_must_take_part() {
    for (counts, met) in [
        (&[67, 60, 73][..], true),
        (&[100, 50, 50], false),
        (&[30, 85, 85], false),
        (&[100, 100], false),
        (&[], false),
    ] {
        assert_eq!(shares(&run_with(Route::Vip(SOURCES), counts)).met, met, "{counts:?}");
    }
}

#[test]
fn a_source_on_two_backends_fails_the_demo() {
    // The same sources, shifted by one backend.
    let runs = [&[67, 60, 73][..], &[60, 67, 73]].map(|c| run_with(Route::Vip(SOURCES), c));
    let stuck = |runs: &[Run]| statements(runs)[1].met;
    assert!(stuck(&runs[..1]));
    assert!(!stuck(&runs));
}
