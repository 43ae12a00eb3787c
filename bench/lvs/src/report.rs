//! The rows as tables, with ratios.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::rows::{Failure, Packets, Row};

/// What a run found, and on what.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) processor: String,
    pub(crate) qemu: String,
    /// `/proc/loadavg` of the host before and after: the guest itself makes 2.
    pub(crate) load: [String; 2],
    pub(crate) seconds: u64,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    /// Writes `lvs.md` and `lvs.json` to a directory.
    ///
    /// # Errors
    /// What writing a file reports.
    pub(crate) fn save(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("lvs.md"), self.table())?;
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(directory.join("lvs.json"), json + "\n")
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "# LVS with keepalived and Pointsman in one guest\n")?;
        writeln!(text, "Written by `make bench-lvs`; the raw figures are in `lvs.json`.\n")?;
        writeln!(
            text,
            "- host: {}, load {} before, {} after",
            self.processor, self.load[0], self.load[1]
        )?;
        writeln!(text, "- guest: QEMU {} (TCG), 2 CPUs; {} s in all", self.qemu, self.seconds)?;
        let versions = self.rows.iter().filter_map(|row| match row {
            Row::Versions(versions) => Some(versions),
            Row::Failure(_) | Row::Packets(_) => None,
        });
        for (name, version) in versions.flat_map(BTreeMap::iter) {
            writeln!(text, "- {name}: {version}")?;
        }
        self.write_failures(text)?;
        self.write_packets(text)
    }

    fn write_failures(&self, text: &mut String) -> fmt::Result {
        let rows: Vec<&Failure> = self.rows.iter().filter_map(as_failure).collect();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\n## What clients notice\n\nTen clients, a new connection for each request, 50 KiB, a second's \
             patience; `gap`: the longest time without a success; `span`: from the first failed request to the \
             end of the last; `owners`: nodes that answered ARP requests for the VIP at the end of the load.\n\n\
             | test | balancer | done | failed | gap, s | span, s | owners | how they failed |\n\
             |---|---|--:|--:|--:|--:|--:|---|"
        )?;
        for row in rows {
            let kinds = row.failures.iter().map(|(kind, count)| format!("{count} {kind}"));
            let owners = row.owners.map_or_else(String::new, |count| count.to_string());
            writeln!(
                text,
                "| {} | {} | {} | {} | {:.2} | {:.2} | {owners} | {} |",
                row.test,
                row.balancer,
                row.done,
                row.failed,
                seconds(row.gap_ms),
                seconds(row.span_ms),
                kinds.collect::<Vec<_>>().join(", ")
            )?;
        }
        Ok(())
    }

    fn write_packets(&self, text: &mut String) -> fmt::Result {
        let rows: Vec<&Packets> = self.rows.iter().filter_map(as_packets).collect();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\n## Packets per second\n\n64-byte TCP over one veth pair, one connection for each source, \
             persistence; at most 128 packets under way. `CPUs`: what generator, balancer and sink have together. \
             `ratio`: of the packets, to ip_vs with as many sources and the default table, where there is one.\n\n\
             | sources | balancer | CPUs | k packets/s | quartiles | ratio | k SYNs/s | k connections/s | lost |\n\
             |--:|---|--:|--:|---|--:|--:|--:|--:|"
        )?;
        for row in &rows {
            let kilo = |rate: Option<f64>| {
                rate.map_or_else(String::new, |rate| format!("{:.1}", rate / 1000.0))
            };
            let base = rows
                .iter()
                .find(|other| other.sources == row.sources && other.balancer.starts_with("ip_vs"));
            let ratio = base.map_or_else(String::new, |base| {
                format!("{:.2}", row.packets.median / base.packets.median)
            });
            writeln!(
                text,
                "| {} | {} | {} | {:.1} | {:.1}–{:.1} | {ratio} | {} | {} | {} |",
                row.sources,
                row.balancer,
                row.cpus,
                row.packets.median / 1000.0,
                row.packets.q1 / 1000.0,
                row.packets.q3 / 1000.0,
                kilo(row.syns),
                kilo(row.connections),
                row.lost
            )?;
        }
        Ok(())
    }
}

fn as_failure(row: &Row) -> Option<&Failure> {
    if let Row::Failure(failure) = row { Some(failure) } else { None }
}

fn as_packets(row: &Row) -> Option<&Packets> {
    if let Row::Packets(packets) = row { Some(packets) } else { None }
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Quartiles;

    #[test]
    fn packets_are_compared_with_ip_vs_of_as_many_sources() {
        let row = |balancer: &str, sources, rate| {
            let packets = Quartiles { q1: rate, median: rate, q3: rate };
            let balancer = balancer.to_owned();
            Row::Packets(Packets {
                balancer,
                cpus: 1,
                sources,
                packets,
                syns: None,
                connections: None,
                lost: 0,
            })
        };
        let rows = vec![
            row("ip_vs", 1000, 60_000.0),
            row("Pointsman", 1000, 240_000.0),
            row("ip_vs", 100_000, 40_000.0),
            row("Pointsman", 100_000, 200_000.0),
        ];
        let load = [String::new(), String::new()];
        let report =
            Report { processor: String::new(), qemu: String::new(), load, seconds: 1, rows };
        let table = report.table();
        let ratios: Vec<&str> = table
            .lines()
            .filter(|line| line.contains("Pointsman |"))
            .filter_map(|line| line.split('|').nth(6))
            .map(str::trim)
            .collect();
        assert_eq!(ratios, ["4.00", "5.00"], "{table}");
    }
}
