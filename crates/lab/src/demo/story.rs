//! A load while things happen to the lab.
//!
//! A [`Telling`] runs the load and notes what happens when; the [`Story`] that it leaves is what
//! terminal and report show. What happens, and what must hold, is the business of each test.

use std::{
    fmt, thread,
    time::{Duration, Instant, SystemTime},
};

use lab::{Lab, LoadClient, LoadReport, Record, RunningLoad, Stretch, Timeline};

use super::{progress::Progress, svg::Mark};

/// A load, and what happened meanwhile.
pub(crate) struct Story {
    pub(super) setting: Setting,
    /// One after the other, without gaps.
    pub(super) phases: Vec<Phase>,
    pub(super) report: LoadReport,
}

/// What is said before anything happens.
pub(super) struct Setting {
    /// For example `Test II: …`.
    pub(super) title: &'static str,
    /// The set-up in a sentence or two.
    pub(super) about: String,
    /// What others reach, in a sentence or two.
    pub(super) beside: Option<&'static str>,
}

/// What was done, and what the lab did about it.
pub(super) struct Phase {
    pub(super) what: String,
    pub(super) begin: Duration,
    pub(super) end: Duration,
    /// In order of time.
    pub(super) changes: Vec<Change>,
}

/// What the lab did, for example that the other balancer took the VIP.
pub(super) struct Change {
    pub(super) what: String,
    /// From the beginning of the phase.
    pub(super) after: Duration,
    pub(super) why: String,
}

/// A change that was found out about, perhaps a little later.
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) why: String,
}

impl Phase {
    /// What the load saw of it.
    pub(super) fn stretch(&self, report: &LoadReport) -> Stretch {
        report.timeline().between(self.begin, self.end)
    }

    /// Its figures, in the order of [`COLUMNS`].
    pub(super) fn cells(&self, report: &LoadReport) -> [String; COLUMNS.len()] {
        let Stretch { length, done, failed, gap } = self.stretch(report);
        [
            self.what.clone(),
            format!("{:.1}", length.as_secs_f64()),
            done.to_string(),
            format!("{:.0}", self.stretch(report).rate()),
            failed.to_string(),
            format!("{} ms", gap.length.as_millis()),
            self.changes.last().map_or_else(String::new, |c| format!("{} ms", c.after.as_millis())),
        ]
    }

    /// What came of it: each change, and how requests failed, if any did.
    pub(super) fn notes(&self, report: &LoadReport) -> Vec<String> {
        let note = |change: &Change| format!("{}: {}", change.what, change.why);
        let mut notes: Vec<String> = self.changes.iter().map(note).collect();
        let inside = LoadReport::new(report.timeline().only(|record| self.has(record)));
        if inside.failed() > 0 {
            notes.push(format!("failed: {}", kinds(&inside)));
        }
        notes
    }

    /// Whether a request ended in it.
    fn has(&self, record: &Record) -> bool {
        self.begin < record.end && record.end <= self.end
    }
}

/// How many failed and how, for example `33 failed (31 refused, 2 reset)`.
pub(super) fn failed(timeline: &Timeline) -> String {
    let report = LoadReport::new(timeline.clone());
    match report.failed() {
        0 => "0 failed".into(),
        failed => format!("{failed} failed ({})", kinds(&report)),
    }
}

fn kinds(report: &LoadReport) -> String {
    let failures = report.failures();
    let list = failures.iter().map(|(kind, count)| format!("{count} {}", kind.label()));
    list.collect::<Vec<_>>().join(", ")
}

/// How long something took, if it happened at all.
pub(super) fn after(taken: Option<Duration>) -> String {
    taken.map_or_else(|| "never".into(), |taken| format!("after {} ms", taken.as_millis()))
}

/// Heads of a table of phases.
pub(super) const COLUMNS: [&str; 7] =
    ["phase", "seconds", "done", "requests/s", "failed", "longest gap", "change after"];

impl Story {
    /// What was done and what came of it, for a plot.
    pub(super) fn marks(&self) -> Vec<Mark> {
        let mut marks = Vec::new();
        for (index, phase) in self.phases.iter().enumerate() {
            // Nothing was done when the first one began.
            if index > 0 {
                marks.push(Mark { at: phase.begin.as_secs_f64(), label: phase.what.clone() });
            }
            for change in &phase.changes {
                let at = (phase.begin + change.after).as_secs_f64();
                marks.push(Mark { at, label: change.what.clone() });
            }
        }
        marks
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |cells: [&str; COLUMNS.len()]| {
            let [what, rest @ ..] = cells;
            write!(f, "  {what:WHAT$}")?;
            rest.iter().try_for_each(|cell| write!(f, " {cell:>12}"))?;
            writeln!(f)
        };
        row(COLUMNS)?;
        for phase in &self.phases {
            row(phase.cells(&self.report).each_ref().map(String::as_str))?;
        }
        writeln!(f)?;
        for phase in &self.phases {
            for note in phase.notes(&self.report) {
                writeln!(f, "  {:WHAT$} {note}", phase.what)?;
            }
        }
        self.setting.beside.map_or(Ok(()), |beside| writeln!(f, "  {beside}"))
    }
}

/// Width of a phase's name.
const WHAT: usize = 18;

/// A story that goes on.
pub(super) struct Telling {
    setting: Setting,
    load: RunningLoad,
    progress: Progress,
    phases: Vec<Phase>,
    /// When the last one began, on the clock of logs.
    since: SystemTime,
}

impl Telling {
    /// Starts the load; it goes on until [`Telling::end`]. The first phase is `what`.
    pub(super) fn begin(
        setting: Setting,
        load: LoadClient,
        lab: &Lab,
        what: &str,
    ) -> anyhow::Result<Self> {
        let load = load.duration(FOR_EVER).start(lab.client(0).netns())?;
        let (progress, since) = (Progress::new(), SystemTime::now());
        let mut telling = Self { setting, load, progress, phases: Vec::new(), since };
        telling.phase(what);
        Ok(telling)
    }

    /// Since the load began.
    pub(super) fn now(&self) -> Duration {
        self.load.began().elapsed()
    }

    /// When the present phase began, on the clock of logs.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// A new phase begins, and the one before it ends: to be called right before something is done.
    pub(super) fn phase(&mut self, what: &str) {
        self.since = SystemTime::now();
        let now = self.now();
        let begin = self.close(now).unwrap_or_default();
        self.phases.push(Phase { what: what.to_owned(), begin, end: begin, changes: Vec::new() });
    }

    /// Lets time pass.
    pub(super) fn watch(&mut self, time: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            thread::sleep((time - begin.elapsed()).min(Duration::from_millis(100)));
            self.show()?;
        }
        Ok(())
    }

    /// Lets time pass until `look` sees a change that this phase is about: `what` in a few words.
    /// Returns how long it took; `None` when it did not happen within 10 s.
    pub(super) fn watch_for(
        &mut self,
        what: &str,
        mut look: impl FnMut() -> Option<Seen>,
    ) -> anyhow::Result<Option<Duration>> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if let (Some(seen), Some(phase)) = (look(), self.phases.last_mut()) {
                let at = seen.at.saturating_duration_since(self.load.began());
                let after = at.saturating_sub(phase.begin);
                phase.changes.push(Change { what: what.to_owned(), after, why: seen.why });
                return Ok(Some(after));
            }
            thread::sleep(Duration::from_millis(5));
            self.show()?;
        }
        Ok(None)
    }

    /// Ends the load.
    pub(super) fn end(mut self) -> anyhow::Result<Story> {
        let now = self.now();
        self.close(now);
        self.load.stop();
        self.progress.clear()?;
        let Self { setting, load, phases, .. } = self;
        Ok(Story { setting, phases, report: load.finish() })
    }

    fn close(&mut self, now: Duration) -> Option<Duration> {
        let last = self.phases.last_mut()?;
        last.end = now;
        Some(now)
    }

    fn show(&mut self) -> std::io::Result<()> {
        let what = self.phases.last().map_or("", |phase| &phase.what);
        self.progress.show(what, &self.load)
    }
}

/// No story is as long.
const FOR_EVER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::{super::tests::story, *};

    #[test]
    fn a_row_has_what_ended_in_its_phase() {
        let story = story();
        let cells: Vec<_> = story.phases.iter().map(|phase| phase.cells(&story.report)).collect();
        assert_eq!(cells[0], ["lb1 is Active", "0.1", "10", "100", "0", "10 ms", ""]);
        assert_eq!(cells[1], ["kill -9 lb1", "0.9", "9", "10", "1", "800 ms", "340 ms"]);
    }

    #[test]
    fn a_story_is_told_in_rows_and_sentences() {
        let text = story().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        let columns = COLUMNS.map(|head| lines[0].find(head).map(|at| at + head.len()));
        assert!(columns.iter().all(Option::is_some), "{text}");
        let ends = lines[2].find("340 ms").map(|at| at + "340 ms".len());
        assert_eq!(columns[6], ends, "figures stand below their heads");
        assert_eq!(lines[4].trim(), "kill -9 lb1        lb2 Active: Nothing <was> heard.");
        assert_eq!(lines[5].trim(), "kill -9 lb1        failed: 1 reset");
        assert_eq!(lines[6].trim(), "Others are slower.");
    }

    #[test]
    fn marks_are_in_order_and_none_is_at_the_beginning() {
        let marks = story().marks();
        let labels: Vec<&str> = marks.iter().map(|mark| mark.label.as_str()).collect();
        assert_eq!(labels, ["kill -9 lb1", "lb2 Active"]);
        assert_eq!((marks[0].at, marks[1].at), (0.1, 0.44));
    }
}
