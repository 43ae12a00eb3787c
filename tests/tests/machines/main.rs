//! Requirement: on every supported kernel and network card the product forwards, or refuses to start
//! with a message that names cause and remedy; none says that it is ready and loses traffic.
//!
//! Each test is a table whose rows are machines ([`rows`]); all rows run, as many at once as there are
//! CPUs (`POINTSMAN_AT_ONCE`), and a summary is printed at the end. Boots dozens of QEMU guests: `make
//! test-kernels`, `make test-nic`. `POINTSMAN_ROWS=igb` runs only the rows whose description has that
//! text.

mod above;
mod life;
mod rate;
mod report;
mod rows;
mod run;
mod service;
mod takeover;

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread::available_parallelism,
};

use anyhow::{Result, ensure};

use self::{
    report::{Line, print},
    rows::Row,
};

#[test]
fn kernels() -> Result<()> {
    all(rows::KERNELS, "kernels", run::run)
}

#[test]
fn cards() -> Result<()> {
    let cards = all_lines(&[rows::CARDS, rows::STACKS].concat(), run::run);
    let lives = all_lines(rows::LIVES, life::run);
    report::write_docs(&cards, &lives)?;
    let lines: Vec<Line> = cards.into_iter().chain(lives).collect();
    verdict(&lines, "cards")
}

#[test]
fn takeover_between_guests() -> Result<()> {
    all(rows::PAIRS, "take-over", takeover::run)
}

#[test]
fn overload_of_kernels() -> Result<()> {
    all(rows::OVERLOADED, "overload", rate::run)
}

#[test]
fn service_of_kernels() -> Result<()> {
    all(rows::SERVICES, "systemd", service::run)
}

fn all(rows: &[Row], title: &str, run: impl Fn(&Row) -> Line + Sync) -> Result<()> {
    verdict(&all_lines(rows, run), title)
}

/// Runs the rows, some at once: a guest mostly waits, or has one CPU busy.
fn all_lines(rows: &[Row], run: impl Fn(&Row) -> Line + Sync) -> Vec<Line> {
    let only = std::env::var("POINTSMAN_ROWS").unwrap_or_default();
    let rows: Vec<&Row> = rows.iter().filter(|row| row.to_string().contains(&only)).collect();
    let at_once = std::env::var("POINTSMAN_AT_ONCE").ok().and_then(|text| text.parse().ok());
    let at_once = at_once.unwrap_or_else(|| available_parallelism().map_or(1, NonZero::get));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut lines = Vec::new();
        while let Some((at, row)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            rows.get(at).map(|row| (at, *row))
        } {
            let line = run(row);
            print(std::slice::from_ref(&line));
            lines.push((at, line));
        }
        lines
    };
    let mut lines: Vec<(usize, Line)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    lines.sort_unstable_by_key(|(at, _)| *at);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn verdict(lines: &[Line], title: &str) -> Result<()> {
    tests::measured(title, lines.len(), "machines", "");
    print(lines);
    ensure!(!lines.is_empty(), "no row has that text");
    let failed: Vec<String> = lines.iter().filter_map(Line::failure).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} rows failed\n{}",
        failed.len(),
        lines.len(),
        failed.join("\n")
    );
    Ok(())
}
