//! `pointsman drain`, `enable`, `weight`: backends changed by command.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use api::request::{self, Call, Changed, GetStatus};
use api::status::Status;
use clap::Args;

use super::{Exit, default_socket, print_error, say};
use crate::serve::control_socket::{AskError, ask};

/// Have backends take no new sources
///
/// Their connections go on; returning clients go elsewhere unless the service has
/// `sticky_when_drained`. It holds until `pointsman enable`, over reloads and restarts.
///
/// Example: pointsman drain web/rs1 --deadline 10m --wait 15m
#[derive(Debug, Args)]
pub(super) struct Drain {
    /// SERVICE/BACKEND, BACKEND (in every service) or SERVICE (all its backends)
    target: String,
    /// Reset the connections that are left after this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
    /// Let clients that the backend has served before come back to it
    #[arg(long)]
    keep_sticky: bool,
    /// Wait until no connection is left, at most this long; exit code 4 if some are
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

/// Take `drain` and `weight` back: backends are as in the configuration
///
/// Example: pointsman enable rs1
#[derive(Debug, Args)]
pub(super) struct Enable {
    /// SERVICE/BACKEND, BACKEND (in every service) or SERVICE (all its backends)
    target: String,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

/// Give backends another weight than the configured one
///
/// It holds until `pointsman enable`, over reloads and restarts.
///
/// Example: pointsman weight web/rs1 5
#[derive(Debug, Args)]
pub(super) struct Weight {
    /// SERVICE/BACKEND, BACKEND (in every service) or SERVICE (all its backends)
    target: String,
    /// Share of new sources; 0 takes none
    #[arg(value_parser = clap::value_parser!(u32).range(0..=65_535))]
    weight: u32,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

impl Drain {
    pub(super) fn run(self) -> Exit {
        let Self { target, deadline, keep_sticky, wait, socket } = self;
        let deadline_ms = deadline.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let call = request::Drain { target, deadline_ms, keep_sticky };
        let changed = match change(&socket, call, "drained") {
            Ok(changed) => changed,
            Err(error) => return error.into(),
        };
        wait.map_or(Exit::Done, |time| wait_for(&changed, &socket, time))
    }
}

impl Enable {
    pub(super) fn run(self) -> Exit {
        let call = request::Enable { target: self.target };
        let done = change(&self.socket, call, "as in the configuration");
        done.map_or_else(Exit::from, |_| Exit::Done)
    }
}

impl Weight {
    pub(super) fn run(self) -> Exit {
        let Self { target, weight, socket } = self;
        let call = request::SetWeight { target, weight };
        let done = change(&socket, call, &format!("weight {weight}"));
        done.map_or_else(Exit::from, |_| Exit::Done)
    }
}

fn change(
    socket: &Path,
    call: impl Call<Answer = Changed>,
    what: &str,
) -> Result<Changed, AskError> {
    let changed = ask(socket, call)?;
    for backend in &changed.backends {
        say(&format!("{backend}: {what}"));
    }
    Ok(changed)
}

fn wait_for(changed: &Changed, socket: &Path, time: Duration) -> Exit {
    let begin = Instant::now();
    let mut shown = None;
    loop {
        let left = match ask(socket, GetStatus) {
            Ok(status) => connections(&status, changed),
            Err(error) => return error.into(),
        };
        if left == 0 {
            say("no connection is left");
            return Exit::Done;
        }
        if begin.elapsed() >= time {
            print_error(&format!("error: {left} connections are left after {time:?}"));
            return Exit::Degraded;
        }
        if shown.replace(left) != Some(left) {
            say(&format!("{left} connections left"));
        }
        sleep(LOOK_EVERY.min(time.saturating_sub(begin.elapsed())));
    }
}

/// Connections that live on these backends.
fn connections(status: &Status, changed: &Changed) -> u64 {
    let backends = status.services.iter().flat_map(|service| {
        let backends = service.backends.iter();
        backends.map(move |backend| (format!("{}/{}", service.name, backend.name), backend.active))
    });
    backends.filter(|(name, _)| changed.backends.contains(name)).map(|(_, active)| active).sum()
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
