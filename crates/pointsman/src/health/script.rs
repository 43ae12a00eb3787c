//! The `script` check: a program that says by its exit status whether a backend is well.

use std::os::unix::process::ExitStatusExt;

use control::health::Failure;
use tokio::process::{Child, Command};

use super::text::printable;
use crate::process;

/// Runs the program; when this is dropped before it ended, it is killed with all it started.
pub(super) async fn probe(
    argv: &[String],
    environment: &[(&'static str, String)],
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Local(printable(error));
    let mut command = process::command(argv).map_err(failed)?;
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut command = Command::from(command);
    let mut running = Running(process::starting(|| command.spawn()).map_err(failed)?);
    let status = running.0.wait().await.map_err(failed)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Exit(code)),
        (None, signal) => Err(Failure::Signal(signal.unwrap_or(0))),
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // `None` once it was reaped. The runtime reaps what is killed here.
        if let Some(id) = self.0.id() {
            process::kill_group(id);
        }
    }
}
