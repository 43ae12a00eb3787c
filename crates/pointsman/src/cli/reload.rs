//! `pointsman reload`, `undo`, `confirm`: another configuration while it runs.

use std::path::PathBuf;
use std::time::Duration;

use api::request::{self, Reloaded};
use clap::Args;

use super::{Exit, default_socket, print_error, say};
use crate::serve::control_socket::{AskError, ask};

/// Take over the changed configuration file
///
/// What did not change is not touched: connections, templates, health, VRRP. With a mistake in the
/// file nothing changes; exit code 1.
///
/// Example: pointsman reload --dry-run
#[derive(Debug, Args)]
pub(super) struct Reload {
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Go back by itself unless `pointsman confirm` comes within this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "dry_run")]
    confirm_within: Option<Duration>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

/// Go back to the configuration before the last one
///
/// Undone a second time, it is the last one again. The file stays as it is.
///
/// Example: pointsman undo
#[derive(Debug, Args)]
pub(super) struct Undo {
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

/// Keep a configuration that was taken over with --confirm-within
///
/// Example: pointsman confirm
#[derive(Debug, Args)]
pub(super) struct Confirm {
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

impl Reload {
    pub(super) fn run(&self) -> Exit {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let confirm_within_ms = self.confirm_within.map(millis);
        let call = request::Reload { dry_run: self.dry_run, confirm_within_ms };
        let exit = show(ask(&self.socket, call), self.json);
        if let Some(time) = self.confirm_within.filter(|_| exit == Exit::Done && !self.json) {
            let time = humantime::format_duration(time);
            say(&format!("rolled back in {time} unless you run `pointsman confirm`"));
        }
        exit
    }
}

impl Undo {
    pub(super) fn run(&self) -> Exit {
        show(ask(&self.socket, request::Undo), self.json)
    }
}

impl Confirm {
    pub(super) fn run(&self) -> Exit {
        match ask(&self.socket, request::Confirm) {
            Ok(answer) if answer.confirmed => {
                say("confirmed");
                Exit::Done
            }
            Ok(_) => {
                print_error("error: no configuration waits to be confirmed");
                Exit::Failed
            }
            Err(error) => error.into(),
        }
    }
}

fn show(answer: Result<Reloaded, AskError>, json: bool) -> Exit {
    let reloaded = match answer {
        Ok(reloaded) => reloaded,
        // Diagnostics speak for themselves.
        Err(AskError::Refused(text)) if text.starts_with("error") => {
            print_error(&text);
            return Exit::Failed;
        }
        Err(error) => return error.into(),
    };
    if json {
        say(&format!("{:#}", serde_json::json!(reloaded)));
        return Exit::Done;
    }
    if !reloaded.warnings.is_empty() {
        print_error(&reloaded.warnings);
    }
    for change in &reloaded.changes {
        say(change);
    }
    say(match (reloaded.applied, reloaded.changes.is_empty()) {
        (_, true) => "nothing changes",
        (true, false) => "taken over",
        (false, false) => "dry run: nothing was changed",
    });
    Exit::Done
}
