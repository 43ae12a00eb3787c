//! Losses that tell nobody: a host falls silent, and a server is frozen.

use std::time::Duration;

use lab::{LoadClient, Outcome, Timeline};

use super::{
    Verdict,
    checks::{FALL, INTERVAL, Site, TIMEOUT},
    story::{Phase, Setting, Story, Telling, after, failed},
};

/// Builds a lab, takes the cable of one backend out and back, and stops the nginx of another one.
pub(super) fn run(quick: bool) -> anyhow::Result<(Story, Vec<Verdict>)> {
    let mut site = Site::build()?;
    let page = site.lab.files().ensure("50k")?;
    let load = LoadClient::new(site.lab.vip_port(80), &page).timeouts(PATIENCE, PATIENCE);
    let load = load.threads(USERS).rate(RATE).sources(site.sources(FRESH));
    let setting = Setting { title: TITLE, about: about(), beside: None };
    let pause = Duration::from_millis(if quick { 1000 } else { 1800 });
    let mut story = Telling::begin(setting, load, &site.lab, "all are up")?;
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
    let mut verdicts = host_verdicts(&story, cut, silent);
    verdicts.extend(server_verdicts(&story, frozen));
    verdicts.push(return_verdict([plugged, resumed]));
    Ok((story, verdicts))
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
fn host_verdicts(story: &Story, cut: Duration, noticed: Noticed) -> Vec<Verdict> {
    let line = story.report.timeline();
    let [_, pulled, back, ..] = &story.phases[..] else { return Vec::new() };
    let Noticed { suspected, down } = noticed;
    let begun = line.only(|record| (cut..back.begin).contains(&record.start));
    let verdict = pulled.begin + down.unwrap_or_default();
    vec![
        Verdict {
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
        under_way(line, pulled.begin, cut, verdict),
    ]
}

/// What began when the host was silent already.
fn new_requests(begun: &Timeline) -> Verdict {
    let slowest = begun.records().iter().map(|record| record.end - record.start).max();
    let slowest = slowest.unwrap_or_default();
    let all_done = begun.records().iter().all(|record| record.outcome.is_ok());
    let count = begun.records().len();
    Verdict {
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

/// What was under way when the host fell silent. It cannot be saved; but its client is told.
fn under_way(line: &Timeline, pulled: Duration, cut: Duration, verdict: Duration) -> Verdict {
    let all = line.only(|record| record.start < cut && record.end > pulled);
    let mut records = all.records().iter();
    let told = records.all(|record| {
        let reset = record.outcome == Outcome::Reset && record.end <= verdict + TOLD;
        reset || record.outcome.is_ok()
    });
    Verdict {
        met: told,
        text: format!(
            "Silent host: of {} requests under way when the cable went {} (allowed: reset, at most {} \
             ms after the verdict)",
            all.records().len(),
            failed(&all),
            TOLD.as_millis()
        ),
    }
}

/// The phases: three of the silent host, SIGSTOP, SIGCONT.
fn server_verdicts(story: &Story, noticed: Noticed) -> Vec<Verdict> {
    let line = story.report.timeline();
    let [_, _, _, stopped, resumed] = &story.phases[..] else { return Vec::new() };
    let Noticed { down, .. } = noticed;
    let limit = FALL * (INTERVAL + TIMEOUT);
    vec![
        Verdict {
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
fn stuck(line: &Timeline, [stopped, resumed]: [&Phase; 2], down: Option<Duration>) -> Verdict {
    let meanwhile = line.only(|record| record.end > stopped.begin && record.start < resumed.end);
    let verdict = stopped.begin + down.unwrap_or_default();
    let late = meanwhile.only(|record| record.start >= verdict && !record.outcome.is_ok());
    let late = late.records().len();
    Verdict {
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

fn return_verdict(up: [Option<Duration>; 2]) -> Verdict {
    Verdict {
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
         interval {} s, timeout {} ms, fall {FALL}. A silent host answers nothing; a frozen \
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
const PATIENCE: Duration = Duration::from_secs(5);
const SUSPECTED: Duration = Duration::from_millis(500);
const SILENT_DOWN: Duration = Duration::from_millis(1700);
/// A client sends its SYN again after a second.
const SLOWEST: Duration = Duration::from_millis(1300);
/// From the verdict to the reset.
const TOLD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use lab::{LoadReport, Record};

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

    fn met(verdicts: &[Verdict]) -> Vec<bool> {
        verdicts.iter().map(|verdict| verdict.met).collect()
    }

    #[test]
    fn new_requests_must_all_be_done_in_time_and_old_ones_be_told() {
        let holds = |more, noticed| met(&host_verdicts(&story(more), 1010 * MS, noticed));
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
