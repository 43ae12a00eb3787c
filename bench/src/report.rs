//! The results as a table and as files.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::harness::{Outcome, Ratio};

/// What a run found, and on what.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The processor's name.
    pub processor: String,
    /// Rounds of each contestant.
    pub rounds: usize,
    /// `/proc/loadavg` before and after: above the 1 of the bench itself, others were at work.
    pub load: [String; 2],
    /// In the order in which they ran.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// As a Markdown table.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { processor, rounds, load: [before, after], outcomes } = self;
        writeln!(text, "# The packet path in memory\n")?;
        writeln!(text, "Written by `make bench`; the raw figures are in `memory.json`.\n")?;
        writeln!(text, "Nanoseconds per packet, over {rounds} interleaved rounds: {processor};")?;
        writeln!(text, "load {before} before, {after} after (the bench makes 1).\n")?;
        writeln!(
            text,
            "| {:<46} | {:>6} | {:>6} | {:>6} | {:>6} | {:>19} | {:<34} | {:>12} |",
            "contestant", "q1", "median", "q3", "mean", "ratio (quartiles)", "to", "goal"
        )?;
        let dashes = "-------:|".repeat(4);
        writeln!(text, "|:{0:-<46}-|{dashes}--------------------:|:{0:-<34}-|-------------:|", "")?;
        for Outcome { name, ns, mean_ns, ratio } in outcomes {
            let [times, to, goal] = ratio.as_ref().map_or_else(Default::default, cells);
            writeln!(
                text,
                "| {name:<46} | {:>6.1} | {:>6.1} | {:>6.1} | {mean_ns:>6.1} | {times:>19} | {to:<34} | {goal:>12} |",
                ns.q1, ns.median, ns.q3
            )?;
        }
        Ok(())
    }

    /// Writes `name.md` and `name.json` to a directory.
    ///
    /// # Errors
    /// What writing a file reports.
    pub fn save(&self, directory: &Path, name: &str) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join(name).with_extension("md"), self.table())?;
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(directory.join(name).with_extension("json"), json + "\n")
    }
}

fn cells(ratio: &Ratio) -> [String; 3] {
    let Ratio { to, times, goal } = ratio;
    let met = if ratio.is_met() == Some(true) { "met" } else { "missed" };
    [
        format!("{:.2} ({:.2}–{:.2})", times.median, times.q1, times.q3),
        (*to).to_owned(),
        goal.map_or_else(String::new, |goal| format!("{goal} {met}")),
    ]
}

/// The processor's name, as Linux has it.
pub fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor").to_owned()
}

/// The load averages over one, five and fifteen minutes.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Quartiles;

    #[test]
    fn a_goal_that_is_missed_is_reported_as_missed() {
        let quartiles = |all| Quartiles { min: all, q1: all, median: all, q3: all };
        let row = |name, ratio| Outcome { name, ns: quartiles(26.0), mean_ns: 26.0, ratio };
        let ratio = Ratio { to: "null", times: quartiles(2.6), goal: Some(2.5) };
        let report = Report {
            processor: "a processor".into(),
            rounds: 7,
            load: ["1".into(), "2".into()],
            outcomes: vec![row("null", None), row("other", Some(ratio))],
        };
        let table = report.table();
        let last = table.lines().last().expect("a row");
        assert!(last.contains("2.60 (2.60–2.60)") && last.contains("2.5 missed"), "{last}");
    }
}
