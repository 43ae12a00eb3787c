//! Failures without a notice: a host falls silent, and a server is frozen.

use std::time::Duration;

use lab::{LoadClient, Outcome, Record, RunningLoad, Timeline};

use super::{
    Statement,
    checks::{FALL, INTERVAL, RETURNING, Site, TIMEOUT},
    story::{Phase, Setting, Story, Telling, after, failed},
};

/// Builds a lab, takes the cable of one backend out and back, and stops the nginx of another one.
pub(super) fn run(quick: bool) -> anyhow::Result<(Story, Vec<Statement>)> {
    let mut site = Site::build()?;
    let page = site.lab.files().ensure("50k")?;
    let load = LoadClient::new(site.lab.vip_port(80), &page).timeouts(PATIENCE, PATIENCE);
    let load = load.threads(USERS).rate(RATE).sources(site.sources(FRESH));
    let setting = Setting { title: TITLE, about: about(), beside: None };
    let pause = Duration::from_millis(if quick { 1000 } else { 1800 });
    // They are over before another server is stopped.
    let downloads = Downloads::start(&site, 2 * pause + Duration::from_secs(1))?;
    let mut story = Telling::begin(setting, load, &site.lab, "all are up")?;
    let earlier = downloads.0.began().elapsed().saturating_sub(story.now());
    story.watch(pause)?;

    story.phase("cable of rs1 out");
    site.lab.unplug(site.backend(SILENT))?;
    let cut = story.now();
    let silent = Noticed::watch(&site, &mut story, SILENT)?;
    story.watch(pause)?;
    story.phase("cable back");
    site.lab.plug(site.backend(SILENT))?;
    let plugged = site.watch_for(&mut story, SILENT, "UP")?;
    story.watch(pause)?;

    story.phase("SIGSTOP on rs2");
    site.web[FROZEN].process().pause()?;
    let frozen = Noticed::watch(&site, &mut story, FROZEN)?;
    story.watch(pause)?;
    story.phase("SIGCONT on rs2");
    site.web[FROZEN].process().resume()?;
    let resumed = site.watch_for(&mut story, FROZEN, "UP")?;
    story.watch(pause)?;

    let story = story.end()?;
    let mut statements = host_verdicts(&story, downloads.finish(earlier), cut, silent);
    statements.extend(server_verdicts(&story, frozen));
    statements.push(return_verdict([plugged, resumed]));
    Ok((story, statements))
}

/// Slow ones, each from an address of its own: so there is always a connection to reset.
struct Downloads(RunningLoad);

impl Downloads {
    fn start(site: &Site, length: Duration) -> anyhow::Result<Self> {
        let file = site.lab.files().ensure("2m")?;
        let client = site.lab.client(0);
        let others = RETURNING + FRESH;
        let sources = client.sources(others + DOWNLOADS).split_off(others.into());
        let load = LoadClient::new(site.lab.vip_port(80), &file).timeouts(PATIENCE, PATIENCE);
        let load = load.threads(DOWNLOADS.into()).requests(DOWNLOADS.into()).sources(sources);
        Ok(Self(load.verify(&file).download_time(length).start(client.netns())?))
    }

    /// Waits for their end. What became of them, on the clock of a load that began so much later.
    fn finish(self, earlier: Duration) -> Vec<Record> {
        let report = self.0.finish();
        let records = report.timeline().records().iter();
        let later = |record: &Record| Record {
            start: record.start.saturating_sub(earlier),
            end: record.end.saturating_sub(earlier),
            ..*record
        };
        records.map(later).collect()
    }
}

/// How long after a loss the balancer took note of it.
#[derive(Clone, Copy)]
struct Noticed {
    suspected: Option<Duration>,
    down: Option<Duration>,
}

impl Noticed {
    fn watch(site: &Site, story: &mut Telling, index: usize) -> anyhow::Result<Self> {
        let suspected = site.watch_for(story, index, "SUSPECTED")?;
        Ok(Self { suspected, down: site.watch_for(story, index, "DOWN")? })
    }
}

/// `cut`: when the cable was out for certain. The phases: all are up, cable out, cable back, …
fn host_verdicts(
    story: &Story,
    downloads: Vec<Record>,
    cut: Duration,
    noticed: Noticed,
) -> Vec<Statement> {
    let line = story.report.timeline();
    let [_, pulled, back, ..] = &story.phases[..] else { return Vec::new() };
    let Noticed { suspected, down } = noticed;
    let begun = line.only(|record| (cut..back.begin).contains(&record.start));
    let verdict = pulled.begin + down.unwrap_or_default();
    let all = [line.records(), &downloads].concat();
    let all = Timeline::new(all, Vec::new(), Vec::new(), line.length());
    vec![
        Statement {
            met: suspected.is_some_and(|taken| taken <= SUSPECTED)
                && down.is_some_and(|taken| taken <= SILENT_DOWN),
            text: format!(
                "Silent host: cable of rs1 out: suspected {} (at most {} ms), DOWN {} (at most {} ms)",
                after(suspected),
                SUSPECTED.as_millis(),
                after(down),
                SILENT_DOWN.as_millis()
            ),
        },
        new_requests(&begun),
        under_way(&all, pulled.begin, cut, verdict),
    ]
}

/// What began when the host was silent already.
fn new_requests(begun: &Timeline) -> Statement {
    let slowest = begun.records().iter().map(|record| record.end - record.start).max();
    let slowest = slowest.unwrap_or_default();
    let all_done = begun.records().iter().all(|record| record.outcome.is_ok());
    let count = begun.records().len();
    Statement {
        met: count > 0 && all_done && slowest <= SLOWEST,
        text: format!(
            "Silent host: of {count} requests begun while it was silent {}, the slowest took {} ms \
             (at most {} ms)",
            failed(begun),
            slowest.as_millis(),
            SLOWEST.as_millis()
        ),
    }
}

/// What was under way when the host fell silent. What it served is lost; but its clients are
/// told.
fn under_way(line: &Timeline, pulled: Duration, cut: Duration, verdict: Duration) -> Statement {
    let all = line.only(|record| record.start < cut && record.end > pulled);
    let told = |record: &Record| record.outcome == Outcome::Reset && record.end <= verdict + TOLD;
    let mut records = all.records().iter();
    Statement {
        met: records.clone().all(|record| told(record) || record.outcome.is_ok())
            && records.any(told),
        text: format!(
            "Silent host: of {} requests and slow downloads under way when the cable went {} \
             (allowed: reset, at most {} ms after the verdict)",
            all.records().len(),
            failed(&all),
            TOLD.as_millis()
        ),
    }
}

/// The phases: three of the silent host, SIGSTOP, SIGCONT.
fn server_verdicts(story: &Story, noticed: Noticed) -> Vec<Statement> {
    let line = story.report.timeline();
    let [_, _, _, stopped, resumed] = &story.phases[..] else { return Vec::new() };
    let Noticed { down, .. } = noticed;
    let limit = FALL * (INTERVAL + TIMEOUT);
    vec![
        Statement {
            met: down.is_some_and(|taken| taken <= limit),
            text: format!(
                "Frozen server: nginx on rs2 stopped: DOWN {} (at most {} ms: {FALL} x (interval + \
                 timeout))",
                after(down),
                limit.as_millis()
            ),
        },
        stuck(line, [stopped, resumed], down),
    ]
}

/// A frozen server's kernel takes connections, and nothing answers on them. Clients may lose what
/// began before the verdict, and nothing else.
fn stuck(line: &Timeline, [stopped, resumed]: [&Phase; 2], down: Option<Duration>) -> Statement {
    let meanwhile = line.only(|record| record.end > stopped.begin && record.start < resumed.end);
    let verdict = stopped.begin + down.unwrap_or_default();
    let late = meanwhile.only(|record| record.start >= verdict && !record.outcome.is_ok());
    let late = late.records().len();
    Statement {
        met: late == 0 && !meanwhile.records().is_empty(),
        text: format!(
            "Frozen server: of {} requests {}, {late} of them begun after the verdict; clients wait \
             {} s for data",
            meanwhile.records().len(),
            failed(&meanwhile),
            PATIENCE.as_secs()
        ),
    }
}

fn return_verdict(up: [Option<Duration>; 2]) -> Statement {
    Statement {
        met: up.iter().all(Option::is_some),
        text: format!(
            "Cable of rs1 back: UP {}; nginx on rs2 goes on: UP {}",
            after(up[0]),
            after(up[1])
        ),
    }
}

fn about() -> String {
    format!(
        "{USERS} users ask for 50 KB {:.0} times a second each, a new connection for every \
         request, time-outs of {} s; half of the addresses come back, half are new. Checks: \
         interval {} s, timeout {} ms, fall {FALL}. {DOWNLOADS} slow downloads run while the host \
         falls silent. A silent host answers nothing; a frozen \
         server's kernel still takes connections, so that only a check can tell.",
        RATE / f64::from(USERS),
        PATIENCE.as_secs(),
        INTERVAL.as_secs(),
        TIMEOUT.as_millis()
    )
}

const TITLE: &str = "A host falls silent, and a server is frozen";
/// The backends, counted from 0: rs1 and rs2.
const SILENT: usize = 0;
const FROZEN: usize = 1;
/// So many that those who wait for a lost backend do not keep the others from asking.
const USERS: u32 = 200;
/// Requests a second, all users together.
const RATE: f64 = 400.0;
const FRESH: u16 = 20_000;
const DOWNLOADS: u16 = 15;
const PATIENCE: Duration = Duration::from_secs(5);
const SUSPECTED: Duration = Duration::from_millis(500);
const SILENT_DOWN: Duration = Duration::from_millis(1700);
/// A client sends its SYN again after a second.
const SLOWEST: Duration = Duration::from_millis(1300);
/// From the verdict to the reset.
const TOLD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use lab::LoadReport;

    use super::{super::tests::phase, *};

    const MS: Duration = Duration::from_millis(1);

    fn record(start: u32, end: u32, outcome: Outcome) -> Record {
        let (start, end) = (start * MS, end * MS);
        Record { start, first_byte: None, end, outcome, backend: None, source: None, bytes: 0 }
    }

    /// The cable is out at 1 s, for certain at 1.01 s; nginx stops at 5 s.
    fn story(more: Record) -> Story {
        let ok = |at| record(at, at + 10, Outcome::Ok);
        let records = vec![ok(100), ok(1500), ok(2500), ok(5500), ok(6500), more];
        let timeline = Timeline::new(records, Vec::new(), Vec::new(), 9000 * MS);
        let bounds = [0, 1000, 3000, 5000, 8000, 9000];
        let phases = bounds.windows(2).map(|pair| phase("some", pair[0], pair[1])).collect();
        let setting = Setting { title: TITLE, about: about(), beside: None };
        Story { setting, phases, report: LoadReport::new(timeline) }
    }

    fn noticed(suspected: u32, down: u32) -> Noticed {
        Noticed { suspected: Some(suspected * MS), down: Some(down * MS) }
    }

    fn met(statements: &[Statement]) -> Vec<bool> {
        statements.iter().map(|verdict| verdict.met).collect()
    }

    #[test]
    fn new_requests_must_all_be_done_in_time_and_old_ones_be_told() {
        let cut_off = record(0, 2710, Outcome::Reset);
        let holds =
            |more, noticed| met(&host_verdicts(&story(more), vec![cut_off], 1010 * MS, noticed));
        let in_time = noticed(500, 1700);
        let cases = [
            (record(1010, 2310, Outcome::Ok), [true, true, true]),
            (record(1010, 2311, Outcome::Ok), [true, false, true]),
            (record(1010, 1020, Outcome::Reset), [true, false, true]),
            (record(1009, 3700, Outcome::Reset), [true, true, true]),
            (record(1009, 3701, Outcome::Reset), [true, true, false]),
            (record(1009, 1100, Outcome::ReadTimeout), [true, true, false]),
            (record(3000, 3010, Outcome::Reset), [true, true, true]),
        ];
        for (more, expected) in cases {
            assert_eq!(holds(more, in_time), expected, "{more:?}");
        }
        let ok = record(1100, 1110, Outcome::Ok);
        let never = Noticed { suspected: None, down: None };
        for late in [noticed(501, 1700), noticed(500, 1701), never] {
            assert!(!holds(ok, late)[0]);
        }
        // Each interrupted connection must be reset, and there must be one.
        let late = record(0, 3701, Outcome::Reset);
        let whole = record(0, 4000, Outcome::Ok);
        let cases = [
            (vec![whole, cut_off], true),
            (vec![whole, cut_off, late], false),
            (vec![whole], false),
            (vec![], false),
        ];
        for (downloads, expected) in cases {
            let met = met(&host_verdicts(&story(ok), downloads.clone(), 1010 * MS, in_time));
            assert_eq!(met, [true, true, expected], "{downloads:?}");
        }
    }

    #[test]
    fn a_frozen_server_may_cost_what_began_before_the_verdict() {
        let holds = |more, down| met(&server_verdicts(&story(more), noticed(0, down)));
        assert_eq!(holds(record(6000, 8000, Outcome::Reset), 3000), [true, true]);
        assert_eq!(holds(record(7999, 8100, Outcome::Reset), 3000), [true, true]);
        assert_eq!(holds(record(8000, 8100, Outcome::Reset), 3000), [true, false]);
        assert_eq!(holds(record(6000, 8000, Outcome::Reset), 3001), [false, true]);
    }
}
