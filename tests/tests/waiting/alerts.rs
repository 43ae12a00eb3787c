//! The alert rules: sound, and about metrics that exist. Needs root.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use lab::Result;

use crate::vrrp::{Pair, Settings};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/alerts.yml");

#[test]
fn the_alert_rules_are_sound() {
    let checked = Command::new("promtool").args(["check", "rules", RULES]).output();
    let checked = checked.expect("promtool is part of the Debian package prometheus");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// With two nodes, VRRP, checks and traffic every metric has a series.
#[test]
fn every_metric_that_a_rule_names_exists() -> Result<()> {
    let pair = Pair::start(&Settings { web: true, ..Settings::fast() })?;
    // A Backup has heard the other one.
    let scrape = |at: usize| pair.balancers[at].as_ref().expect("it runs").metrics();
    let pages = [scrape(0)?, scrape(1)?];
    let exposed: BTreeSet<&str> = pages.iter().flat_map(lab::Metrics::names).collect();
    let rules = std::fs::read_to_string(Path::new(RULES)).expect("the rules");
    let named = names(&rules);
    assert!(named.len() > 15, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !exposed.contains(**name)).collect();
    assert!(missing.is_empty(), "no such metrics: {missing:?}");
    Ok(())
}

/// What begins with `pointsman_` in the expressions.
fn names(rules: &str) -> BTreeSet<&str> {
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let words = expressions
        .flat_map(|expression| expression.split(|c: char| !(c.is_alphanumeric() || c == '_')));
    words.filter(|word| word.starts_with("pointsman_")).collect()
}
