//! The command line: one file per sub-command.

mod check;
mod explain;
mod flows;
mod ipvs;
mod listing;
mod operator;
mod persistence;
mod reload;
mod run;
mod status;
mod vrrp;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::configuration::{self, Loaded};
use crate::serve::control_socket::AskError;

/// Direct-routing layer-4 load balancer on AF_XDP.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Drain(operator::Drain),
    Enable(operator::Enable),
    Weight(operator::Weight),
    Reload(reload::Reload),
    Undo(reload::Undo),
    Confirm(reload::Confirm),
    Status(status::Status),
    Explain(explain::Explain),
    Ipvs(ipvs::Ipvs),
    Flows(flows::Flows),
    Persistence(persistence::Persistence),
    Flush(persistence::Flush),
    Vrrp(vrrp::Vrrp),
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, or rejected.
    Failed = 1,
    /// The daemon is not running.
    NotRunning = 3,
    /// Running, but not all is well.
    Degraded = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<AskError> for Exit {
    /// Prints why.
    fn from(error: AskError) -> Self {
        print_error(&format!("error: {error}"));
        match error {
            AskError::NotRunning(..) => Self::NotRunning,
            AskError::Refused(_) => Self::Failed,
        }
    }
}

impl Cli {
    /// Runs the sub-command.
    pub fn run(self) -> Exit {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Check(check) => check.run(),
            Command::Drain(drain) => drain.run(),
            Command::Enable(enable) => enable.run(),
            Command::Weight(weight) => weight.run(),
            Command::Reload(reload) => reload.run(),
            Command::Undo(undo) => undo.run(),
            Command::Confirm(confirm) => confirm.run(),
            Command::Status(status) => status.run(),
            Command::Explain(explain) => explain.run(),
            Command::Ipvs(ipvs) => ipvs.run(),
            Command::Flows(flows) => flows.run(),
            Command::Persistence(persistence) => persistence.run(),
            Command::Flush(flush) => flush.run(),
            Command::Vrrp(vrrp) => vrrp.run(),
        }
    }
}

/// Reads and checks a configuration file for the node of this name; prints what is wrong with it.
fn load(path: &Path, node: &str) -> Result<Loaded, Exit> {
    match configuration::read(path, node, color()) {
        Ok(loaded) => {
            let warnings = &loaded.parsed.warnings;
            if !warnings.is_empty() {
                print_error(warnings.render(color()).trim_end());
            }
            Ok(loaded)
        }
        Err(mistakes) => {
            print_error(&mistakes);
            Err(Exit::Failed)
        }
    }
}

/// Whether standard error takes colours (<https://no-color.org>).
fn color() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal()
}

fn print_error(text: &str) {
    // `eprintln!` panics where standard error is closed or full.
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn say(text: &str) {
    // A reader that went away (`| head`) is no reason to panic.
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/pointsman/pointsman.sock")
}
