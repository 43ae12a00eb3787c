//! `bench-lvs`: Linux' ip_vs with keepalived and Pointsman, one after the other in the same boot of a
//! guest: what clients notice when something fails, and packets per second.
//!
//! | module | runs | does |
//! |---|---|---|
//! | [`host`] | on this machine | builds and boots the guest, collects its rows |
//! | [`report`] | on this machine | makes a table of the rows |
//! | [`inside`] | in the guest | measures |
//! | [`generator`] | in the guest | makes and counts packets, in processes of their own |
//! | [`rows`] | | what a measurement finds |
//!
//! The guest is emulated (QEMU's TCG, never KVM): every rate is some 20 times lower than on a real
//! machine, and the emulation has no caches. Only ratios within one run mean something.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command-line program talks on its standard output")]
#![expect(clippy::print_stderr, reason = "and says on its standard error what went wrong")]

mod generator;
mod host;
mod inside;
mod report;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "LVS with keepalived and Pointsman, one after the other in one guest")]
struct Cli {
    /// Where `lvs.md` and `lvs.json` are written to.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    /// Only tests whose names contain one of these words.
    #[arg(long)]
    only: Vec<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// For the guest.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure here, and print rows.
    #[command(hide = true)]
    Inside,
    /// Make packets on a device, and count those that come back.
    #[command(hide = true)]
    Generate(generator::Options),
    /// Keep an XDP program on a device until this process ends.
    #[command(hide = true)]
    Attach { program: String, device: String },
}

fn main() -> ExitCode {
    let Cli { results, only, verb } = Cli::parse();
    let result = match verb {
        None => host::run(&results, &only),
        Some(Verb::Inside) => inside::run(&only),
        Some(Verb::Generate(options)) => generator::run(options),
        Some(Verb::Attach { program, device }) => generator::attach(&program, &device),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-lvs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
