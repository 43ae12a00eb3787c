//! The balancer on a veth, beside an XDP program that reflects every frame and a bare AF_XDP loop.
//!
//! `cargo bench -p bench --bench veth`, as root, on two CPUs that do nothing else. `POINTSMAN_BIN`: the
//! balancer, a release build (`make build`) unless told otherwise; `POINTSMAN_BEFORE`: an older one, to be
//! compared. `-- PART-OF-A-NAME …`: the reflector, the loop, and those with such a name.
#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

use std::env;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bench::report;
use bench::veth::child::Child;
use bench::veth::contestant::{Contestant, Subject};
use bench::veth::rounds;
use bench::veth::traffic::Traffic;
use clap::Parser as _;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "send" || arg == "forward") {
        return Child::parse().run();
    }
    lab::clean::clean_up_on_signals()?;
    let before = report::load();
    let contestants = contestants(&args)?;
    let outcomes = rounds::run(&contestants, ROUNDS)?;
    println!("{ROUNDS} interleaved rounds; {}", report::processor());
    println!("load average before {before}, after {}\n", report::load());
    println!("{}", rounds::table(&outcomes));
    Ok(())
}

fn contestants(wanted: &[String]) -> Result<Vec<Contestant>> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let binary = binary("POINTSMAN_BIN").unwrap_or_else(|| RELEASE.to_owned());
    ensure!(Path::new(&binary).is_file(), "no {binary}: `make build`, or set POINTSMAN_BIN");
    let before = self::binary("POINTSMAN_BEFORE");
    let few = Traffic::of(1_000);
    let mut all = vec![
        ("XDP_TX reflector", Subject::Reflector, few),
        ("bare AF_XDP loop", Subject::Bare, few),
    ];
    let ours = |fast_path| Subject::Balancer(binary.clone(), fast_path);
    let mut balancers = vec![
        ("fast path, 1 k flows", ours("auto"), few),
        ("fast path, 1 k flows, IPv6", ours("auto"), Traffic { v6: true, ..few }),
        ("fast path, 1 k flows, UDP", ours("auto"), Traffic { udp: true, ..few }),
        ("fast path, 1 M flows", ours("auto"), Traffic::of(MILLION)),
        ("off, 1 k flows", ours("off"), few),
        ("off, 1 M flows", ours("off"), Traffic::of(MILLION)),
    ];
    if let Some(before) = before {
        balancers.push(("before, 1 k flows", Subject::Balancer(before, ""), few));
    }
    all.extend(balancers.into_iter().filter(|(name, ..)| is_wanted(name)));
    let make = |(name, subject, traffic): (&str, Subject, Traffic)| {
        Contestant::new(name, &subject, traffic).with_context(|| name.to_owned())
    };
    all.into_iter().map(make).collect()
}

fn binary(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|path| !path.is_empty())
}

const RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/pointsman");
const MILLION: u32 = 990_000;
const ROUNDS: usize = 7;
