//! What came of the rows: a summary on the terminal, and the table in the documentation.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use super::rows::Row;

/// A row that ran.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) row: Row,
    pub(crate) result: Result<Seen>,
    pub(crate) took: Duration,
}

/// What a machine did that is as it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The kernel's release.
    pub(crate) release: String,
    pub(crate) qemu: String,
    /// Attach mode and way of moving frames; empty if it refused.
    pub(crate) got: String,
    /// The verifier's instruction count, and the message of a refusal.
    pub(crate) note: String,
}

impl Line {
    /// What was not as it should be.
    pub(crate) fn failure(&self) -> Option<String> {
        let error = self.result.as_ref().err()?;
        Some(format!("{}\n{error:#}\n", self.row))
    }
}

/// Prints lines without the harness keeping them back.
pub(crate) fn print(lines: &[Line]) {
    for Line { row, result, took } in lines {
        let text = match result {
            Ok(seen) if seen.got.is_empty() => format!("refuses: {}", seen.note),
            Ok(seen) => format!("forwards ({}) {}", seen.got, seen.note),
            Err(error) => {
                let text = format!("{error:#}");
                format!("FAILED: {}", text.lines().next().unwrap_or_default())
            }
        };
        let row = row.to_string();
        tests::measured(&format!("{row:72}"), format!("{:5.1}", took.as_secs_f32()), "s", &text);
    }
}

/// Writes the table into `docs/network-cards.md` if `POINTSMAN_DOCS` names the directory.
pub(crate) fn write_docs(lines: &[Line]) -> Result<()> {
    let Some(directory) = std::env::var_os("POINTSMAN_DOCS") else { return Ok(()) };
    let path = PathBuf::from(directory).join("network-cards.md");
    std::fs::write(&path, docs(lines)?).with_context(|| format!("write {}", path.display()))
}

fn docs(lines: &[Line]) -> Result<String> {
    let mut text = HEAD.to_owned();
    for line in lines {
        let (row, result) = (&line.row, &line.result);
        let (release, qemu, result) = match result {
            Ok(seen) if seen.got.is_empty() => {
                (&*seen.release, &*seen.qemu, format!("refuses to start: {}", seen.note))
            }
            Ok(seen) => (&*seen.release, &*seen.qemu, format!("forwards ({})", seen.got)),
            Err(error) => {
                let text = format!("{error:#}");
                ("", "", format!("**fails**: {}", text.lines().next().unwrap_or_default()))
            }
        };
        let release = if release.is_empty() { row.kernel.to_string() } else { release.to_owned() };
        let asked = match row.interface {
            "" => "".to_owned(),
            interface => format!("`{interface}`"),
        };
        let (driver, machine) = (row.card.driver(), row.machine());
        let result = result.replace('|', "\\|");
        writeln!(text, "| {driver} | {release} | {qemu} | {machine} | {asked} | {result} |")?;
    }
    Ok(text)
}

const HEAD: &str = "\
# Network cards

Written by `make docs-nic`, which boots each machine under QEMU with a Debian kernel and checks that
downloads of 50 KB, uploads of 200 KB and datagrams of 1,400 bytes arrive as they were sent, over IPv4
and IPv6, with the client's offloads on and off. The drivers are those of the kernel. Emulated cards have
the drivers of real ones, not their speed.

| driver | kernel | QEMU | machine | asked for | result |
|---|---|---|---|---|---|
";
