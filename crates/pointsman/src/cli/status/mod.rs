//! `pointsman status`: what the running daemon does.

mod table;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use api::request::GetStatus;
use api::status::{self, Backend};
use clap::Args;

use super::{Exit, default_socket, print_error, say};
use crate::serve::control_socket::{AskError, ask};

/// Show what the running balancer does, and why anything is not well
///
/// A line for each interface, VRRP instance and service; a line that begins with `!` for each thing that
/// is not well. NEW/S: new connections a second. IN: from clients, as forwarded. OUT: what clients of TCP
/// acknowledged; it does not pass the balancer.
///
/// Example: pointsman status --watch 5s
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print the whole state as JSON; with --watch one line each time
    #[arg(long)]
    json: bool,
    /// List all backends
    #[arg(long)]
    backends: bool,
    /// Again and again, until Ctrl-C
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "1s", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
    /// Exit with 4 unless every queue is bound and every backend up
    #[arg(long, conflicts_with = "watch")]
    exit_code: bool,
}

impl Status {
    pub(super) fn run(&self) -> Exit {
        let status = match ask(&self.socket, GetStatus) {
            Ok(status) => status,
            Err(error) => return error.into(),
        };
        if let Some(every) = self.watch {
            return self.watch(every.max(SHORTEST), status);
        }
        if self.json {
            say(&format!("{:#}", serde_json::json!(status)));
        } else {
            say(table::table(&status, self.backends).trim_end());
        }
        if self.exit_code && !is_well(&status) { Exit::Degraded } else { Exit::Done }
    }

    /// Shows it until a signal or the end of whatever reads it. A daemon that is gone may come back.
    fn watch(&self, every: Duration, first: status::Status) -> Exit {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            print_error("error: cannot wait for signals");
            return Exit::Failed;
        };
        let mut shown = Ok(first);
        loop {
            let text = self.page(&shown);
            if io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).is_err()
            {
                return Exit::Done;
            }
            let stopped = runtime.block_on(async {
                tokio::time::timeout(every, tokio::signal::ctrl_c()).await.is_ok()
            });
            if stopped {
                return Exit::Done;
            }
            shown = ask(&self.socket, GetStatus);
        }
    }

    /// What `--watch` prints each time.
    fn page(&self, shown: &Result<status::Status, AskError>) -> String {
        match shown {
            Ok(status) if self.json => format!("{}\n", serde_json::json!(status)),
            Err(error) if self.json => {
                format!("{}\n", serde_json::json!({ "error": error.to_string() }))
            }
            shown => {
                let text = match shown {
                    Ok(status) => table::table(status, self.backends),
                    Err(error) => format!("error: {error}\n"),
                };
                let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
                format!("{clear}{}\n\n", text.trim_end())
            }
        }
    }
}

fn is_well(status: &status::Status) -> bool {
    let one_owner = status.vrrp.iter().all(|instance| instance.two_owners().is_none());
    status.ready && one_owner && backends(status).all(|backend| backend.state.serves())
}

fn backends(status: &status::Status) -> impl Iterator<Item = &Backend> {
    status.services.iter().flat_map(|service| &service.backends)
}

/// To the upper left corner, and nothing below it (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[J";
/// The daemon looks at rates once a second.
const SHORTEST: Duration = Duration::from_millis(100);
