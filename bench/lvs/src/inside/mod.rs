//! The measurements, in the guest. Rows go to standard output, and what goes wrong to standard error:
//! a test that cannot be run leaves out its row and no other.

mod balancers;
mod failures;
mod packets;

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;

use crate::rows::Row;

/// Runs all tests whose names contain one of the words; all, if there are none.
///
/// # Errors
/// When a row cannot be written.
pub(crate) fn run(only: &[String]) -> Result<()> {
    print(&Row::Versions(versions()))?;
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word));
    packets::run(&wanted)?;
    failures::run(&wanted)
}

fn print(row: &Row) -> Result<()> {
    println!("{}", serde_json::to_string(row)?);
    Ok(())
}

fn complain(what: &str, error: &dyn std::fmt::Display) {
    eprintln!("{what}: {error:#}");
}

fn versions() -> BTreeMap<String, String> {
    let first = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
    };
    let all = [
        ("pointsman", first("pointsman", &["--version"])),
        ("keepalived", first("keepalived", &["--version"])),
        ("ipvsadm", first("ipvsadm", &["--version"])),
        ("nginx", first("nginx", &["-v"])),
        ("kernel of the guest", first("uname", &["-r"])),
    ];
    all.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect()
}
