//! Requirement: on every supported kernel and network card the product forwards, or refuses to start
//! with a message that names cause and remedy; none says that it is ready and loses traffic.
//!
//! Each test is a table whose rows are machines ([`rows`]); all rows run, one after the other, and a
//! summary is printed at the end. Boots dozens of QEMU guests: `make test-kernels`, `make test-nic`.
//! `POINTSMAN_ROWS=igb` runs only the rows whose description has that text.

mod above;
mod life;
mod report;
mod rows;
mod run;
mod takeover;
mod vlan;

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

fn all(rows: &[Row], title: &str, run: impl Fn(&Row) -> Line) -> Result<()> {
    verdict(&all_lines(rows, run), title)
}

fn all_lines(rows: &[Row], run: impl Fn(&Row) -> Line) -> Vec<Line> {
    let only = std::env::var("POINTSMAN_ROWS").unwrap_or_default();
    let chosen = rows.iter().filter(|row| row.to_string().contains(&only));
    let line = |row: &Row| {
        let line = run(row);
        print(std::slice::from_ref(&line));
        line
    };
    chosen.map(line).collect()
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
