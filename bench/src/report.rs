//! The results as a table and as files.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::harness::Outcome;

/// What a run found, and on what.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The processor's name.
    pub processor: String,
    /// Rounds of each contestant.
    pub rounds: usize,
    /// `/proc/loadavg` before and after: above the 1 of the bench itself, others were at work.
    pub load: [String; 2],
    /// In the order in which they ran; the first is what the others are compared with.
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
        writeln!(text, "ns per packet, {rounds} interleaved rounds; {processor}")?;
        writeln!(text, "load average before {before}, after {after}\n")?;
        let base = outcomes.first().map_or(f64::NAN, |first| first.ns.median);
        writeln!(
            text,
            "| {:<44} | {:>7} | {:>7} | {:>7} | {:>7} | {:>7} | {:>6} | {:>9} |",
            "contestant", "min", "q1", "median", "q3", "mean", "ratio", "goal"
        )?;
        writeln!(text, "|:{0:-<44}-|{1}-------:|----------:|", "", "--------:|".repeat(5))?;
        for Outcome { name, goal_ns, ns, mean_ns } in outcomes {
            let ratio = ns.median / base;
            let goal = goal_ns.map_or_else(String::new, |goal| {
                let met = if ns.median <= goal { "met" } else { "missed" };
                format!("{goal:.0} {met}")
            });
            writeln!(
                text,
                "| {name:<44} | {:>7.1} | {:>7.1} | {:>7.1} | {:>7.1} | {mean_ns:>7.1} | {ratio:>6.2} | {goal:>9} |",
                ns.min, ns.q1, ns.median, ns.q3
            )?;
        }
        Ok(())
    }

    /// Writes `name.md` and `name.json` to a directory.
    ///
    /// # Errors
    /// What writing a file reports.
    pub fn save(&self, directory: &Path, name: &str) -> io::Result<()> {
        fs::write(directory.join(name).with_extension("md"), self.table())?;
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(directory.join(name).with_extension("json"), json)
    }
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
    fn ratios_are_to_the_first() {
        let outcome = |name, median| Outcome {
            name,
            goal_ns: Some(25.0),
            ns: Quartiles { min: median, q1: median, median, q3: median },
            mean_ns: median,
        };
        let report = Report {
            processor: "a processor".into(),
            rounds: 7,
            load: ["1".into(), "2".into()],
            outcomes: vec![outcome("null", 10.0), outcome("other", 26.0)],
        };
        let table = report.table();
        let row = table.lines().last().expect("a row");
        assert!(row.contains("2.60") && row.contains("25 missed"), "{row}");
    }
}
