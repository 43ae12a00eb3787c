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

/// Writes `network-cards.md` into the directory that `POINTSMAN_DOCS` names, if it names one.
pub(crate) fn write_docs(cards: &[Line], lives: &[Line]) -> Result<()> {
    let Some(directory) = std::env::var_os("POINTSMAN_DOCS") else { return Ok(()) };
    let path = PathBuf::from(directory).join("network-cards.md");
    let text = [HEAD, &table(cards, result)?, LIVES, &table(lives, life)?].concat();
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn table(lines: &[Line], result: impl Fn(&Seen) -> String) -> Result<String> {
    let mut text = String::new();
    for Line { row, result: seen, .. } in lines {
        let (release, qemu, result) = match seen {
            Ok(seen) => (seen.release.clone(), seen.qemu.clone(), result(seen)),
            Err(error) => {
                let error = format!("{error:#}");
                let error = error.lines().next().unwrap_or_default();
                (row.kernel.to_string(), String::new(), format!("**fails**: {error}"))
            }
        };
        let asked = match row.interface {
            "" => String::new(),
            interface => format!("`{interface}`"),
        };
        let (driver, machine) = (row.card.driver(), row.machine());
        let result = result.replace('|', "\\|");
        writeln!(text, "| {driver} | {release} | {qemu} | {machine} | {asked} | {result} |")?;
    }
    Ok(text)
}

fn result(seen: &Seen) -> String {
    if seen.got.is_empty() {
        return format!("refuses to start: {}", seen.note);
    }
    format!("forwards ({})", seen.got)
}

fn life(seen: &Seen) -> String {
    format!("{}: {}", seen.got, seen.note)
}

const HEAD: &str = "\
# Network cards

Written by `make docs-nic`, which boots each machine under QEMU with a Debian kernel and checks that
downloads of 50 KB, uploads of 200 KB and datagrams of 1,400 bytes arrive as they were sent, over IPv4
and IPv6, with the client's offloads on and off, and that frames of a VLAN keep their tag (most cards keep
out VLANs that have no device on them, `ip link add link eth0 name eth0.77 type vlan id 77`). A driver is
that of its kernel. Emulated cards have the drivers of real ones, not their speed.

| driver | kernel | QEMU | machine | asked for | result |
|---|---|---|---|---|---|
";

const LIVES: &str = "
## What happens to a card

Seconds, on emulated CPUs, until it is ready and forwards again: after the cable was out for two seconds,
`ip link set down` and `up`, `ethtool -G`, `-L` and `-K`, another MTU and back, `kill -9` and a start, and
the driver let go of the card and took it again.

| driver | kernel | QEMU | machine | asked for | result |
|---|---|---|---|---|---|
";
