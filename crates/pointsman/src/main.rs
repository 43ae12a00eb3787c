//! The `pointsman` program.

use std::process::ExitCode;

use clap::Parser;
use pointsman::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run().into()
}
